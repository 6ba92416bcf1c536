"""The numbers of a run as frozen dataclasses, ready for JSON: seconds, tokens and shares; no NaN, None instead.

A section of one's own is a file in `sim.metrics.sections`; see `section.Extra`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Self

import numpy as np

from sim import registry
from sim.ledger import FAILED, FINISHED, IN_FLIGHT, REJECTED
from sim.ledger import Values as Array
from sim.metrics import scaling
from sim.metrics.facts import Facts, facts_of
from sim.metrics.groups import ClassRow, ReplicaRow, class_rows, replica_rows
from sim.metrics.latency import Latency, latency_of
from sim.metrics.limits import Bottleneck, find_bottleneck
from sim.metrics.load import Load
from sim.metrics.model_error import Spread
from sim.metrics.money import Economics
from sim.metrics.record import RunRecord
from sim.metrics.scaling import ScalingFigures
from sim.metrics.section import ABSENT, Extra, Section, fields_of, json_schema, plain, said
from sim.metrics.slo import SloFigures, slo_figures
from sim.metrics.spell import Spell, worst_spell
from sim.metrics.steady import Steady, steady
from sim.metrics.utilisation import Utilisation, utilisation

if TYPE_CHECKING:
    from pydantic import JsonValue

FORMAT: Final = "servesim-result/1"


@dataclass(frozen=True)
class Requests(Section):
    """How many requests came and what became of them; ``warmup``: those that came too early to count."""

    injected: int
    finished: int
    rejected: int
    failed: int
    in_flight: int
    warmup: int


@dataclass(frozen=True)
class Throughput(Section):
    """Rates of what finished, over the whole run; None where it took no time. `Steady` leaves out start and drain."""

    requests_per_s: float | None
    output_tokens_per_s: float | None
    prompt_tokens_per_s: float | None
    total_tokens_per_s: float | None
    output_tokens_per_s_per_accelerator: float | None


@dataclass(frozen=True)
class Tokens(Section):
    """Tokens of the finished requests."""

    prompt: int
    output: int
    cached: int
    cached_share: float | None


@dataclass(frozen=True, kw_only=True)
class Summary(Section):
    """All figures of a run.

    ``context``: the facts of the head of a report; ``fleet``: what happened between clients and engines; ``evidence``: what the figures
    rest on; ``extras``: sections of `sim.metrics.sections`, which are attributes and keys of the summary too.
    """

    format: str = said("version of this form")
    name: str = said("name of the scenario")
    seed: int = said("seed of all random streams")
    complete: bool = said("false: the run was stopped before its end")
    context: Mapping[str, Any] = said("model, deployment and traffic in words")
    requests: Requests
    warmup_s: float = said("requests that arrive within so much time are left out of the statistics")
    duration_s: float
    simulated_s: float = said("simulated time")
    latency: Latency
    throughput: Throughput
    steady: Steady
    slo: SloFigures
    utilisation: Utilisation
    tokens: Tokens
    preemptions: int
    steps: int = said("steps of all engines")
    fleet: Mapping[str, float] | None = field(default=None, metadata=ABSENT)
    scaling: ScalingFigures | None = field(default=None, metadata=ABSENT)
    spell: Spell | None
    bottleneck: Bottleneck
    classes: tuple[ClassRow, ...] = said("figures of each class of requests, or none")
    replicas: tuple[ReplicaRow, ...] = said("figures of each replica")
    evidence: tuple[Mapping[str, Any], ...] = said("what the figures rest on, part by part")
    evidence_shares: Mapping[str, float] = said("share of the step time by grade of evidence")
    notes: tuple[str, ...] = said("what is worth knowing")
    warnings: tuple[str, ...] = said("what limits the trust in the figures")
    economics: Economics | None = field(default=None, metadata=ABSENT)
    model_error: Mapping[str, Spread] | None = field(default=None, metadata=ABSENT)
    load: Load | None = None
    extras: Mapping[str, Any] = field(default_factory=dict, metadata={"beside": True})

    def __getattr__(self, name: str) -> Any:
        extras = self.__dict__.get("extras", {})
        if name not in extras:
            raise AttributeError(f"the summary has no {name!r}")
        return extras[name]

    def __getitem__(self, name: str) -> Any:
        return self.extras[name] if name in self.extras else super().__getitem__(name)

    def __iter__(self) -> Iterator[str]:
        yield from super().__iter__()
        yield from self.extras

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Self:
        """What `as_dict` gave; sections that are not known here stay plain. Raises KeyError."""
        others = [name for name in data if name not in fields_of(cls)]
        known = _extras() if others else {}
        extras = {name: known[name].from_dict(data[name]) if name in known else data[name] for name in others}
        return replace(super().from_dict(data), extras=extras)


def _extras() -> dict[str, type[Extra]]:
    return {name: registry.lookup("section", name) for name in registry.names("section")}


def schema() -> dict[str, JsonValue]:
    """The JSON schema of ``summary.json``."""
    return json_schema(Summary, _extras())


def summarise_run(record: RunRecord, columns: Mapping[str, Array], warmup_s: float = 0.0) -> tuple[Summary, Array]:
    """(summary, b1[n]: who met all targets). ``columns``: requests with the derived latencies.

    ``warmup_s``: requests that arrive within so many seconds of the first one count only in ``requests.injected``, ITL,
    utilisation, bottleneck and series.
    """
    facts = facts_of(record, columns, warmup_s)
    latency, use = latency_of(facts), utilisation(facts)
    inner = steady(columns, facts.finished, facts.ok, facts.counted, bool(record.slo.targets() or record.class_slo))
    slo = slo_figures(facts, inner)
    requests, tokens = _requests(facts), _tokens(facts)
    preemptions = int(record.totals.get("preemptions", columns["preemptions"].sum()))
    spell = worst_spell(columns, facts.ok, facts.counted, slo.required or 0.0) if slo.met is False else None
    scaled = scaling.section(record, columns) if record.scaling is not None else None
    limits = find_bottleneck(facts, use, latency, preemptions, slo.met, spell)
    evidence = tuple(dict(row) for row in record.evidence)
    summary = Summary(
        format=FORMAT,
        name=record.name,
        seed=record.seed,
        complete=record.complete,
        context=dict(record.context)
        | {"replicas": record.replicas or record.parts.shape[0], "accelerators": record.accelerators},
        requests=requests,
        warmup_s=warmup_s,
        duration_s=facts.duration,
        simulated_s=facts.horizon,
        latency=latency,
        throughput=_throughput(requests.finished, tokens, facts.duration, record.accelerators),
        steady=inner,
        slo=slo,
        utilisation=use,
        tokens=tokens,
        preemptions=preemptions,
        steps=int(record.totals.get("steps", 0)),
        fleet={key.removeprefix("fleet_"): v for key, v in record.totals.items() if key.startswith("fleet_")} or None,
        scaling=scaled,
        spell=spell,
        bottleneck=limits,
        classes=class_rows(facts),
        replicas=replica_rows(facts),
        evidence=evidence,
        evidence_shares=_evidence_shares(evidence, limits.parts_s),
        notes=tuple(scaling.sentences(scaled)) if scaled is not None else (),
        warnings=(*record.warnings, *_warnings(record, requests)),
    )
    found = {name: s for name, cls in _extras().items() if (s := cls.of(facts)) is not None}
    notes = (*summary.notes, *(text for s in found.values() for text in s.sentences()))
    return replace(summary, notes=notes, extras=found), facts.ok


def _requests(facts: Facts) -> Requests:
    n, cut_off = int(facts.counted.size), int(np.count_nonzero(facts.columns["status"] == IN_FLIGHT))
    finished, rejected, failed = (facts.number_of(s) for s in (FINISHED, REJECTED, FAILED))
    return Requests(n, finished, rejected, failed, cut_off, n - cut_off - finished - rejected - failed)


def _tokens(facts: Facts) -> Tokens:
    prompt, output, cached = (
        int(facts.of_finished(k).sum(dtype=np.int64)) for k in ("prompt_tokens", "output_tokens", "cached_tokens")
    )
    return Tokens(prompt, output, cached, cached / prompt if prompt else None)


def _throughput(finished: int, tokens: Tokens, duration: float, accelerators: float) -> Throughput:
    def rate(amount: float) -> float | None:
        return amount / duration if duration > 0 else None

    return Throughput(
        requests_per_s=rate(finished),
        output_tokens_per_s=rate(tokens.output),
        prompt_tokens_per_s=rate(tokens.prompt),
        total_tokens_per_s=rate(tokens.prompt + tokens.output),
        output_tokens_per_s_per_accelerator=rate(tokens.output / (accelerators or 1)),
    )


def _evidence_shares(rows: tuple[Mapping[str, Any], ...], parts_s: Mapping[str, float]) -> dict[str, float]:
    """Share of the step time that rests on each grade; rows without a ``part`` of the step do not take part."""
    weights: dict[str, float] = {}
    rows = tuple(row for row in rows if row.get("part") in parts_s)
    for row in rows:
        whole = sum(float(r.get("share", 1.0)) for r in rows if r["part"] == row["part"])
        weight = parts_s[row["part"]] * float(row.get("share", 1.0)) / whole if whole else 0.0
        weights[row["grade"]] = weights.get(row["grade"], 0.0) + weight
    total = sum(weights.values())
    return {grade: weight / total for grade, weight in weights.items()} if total else {}


def _warnings(record: RunRecord, r: Requests) -> list[str]:
    out = []
    if not record.complete:
        out.append("The run was interrupted: these are the requests simulated so far.")
    if r.rejected + r.failed and not any("counted as misses" in w for w in record.warnings):
        lost = [f"{r.rejected:,} {'request was' if r.rejected == 1 else 'requests were'} rejected"] if r.rejected else []
        lost += [f"{r.failed:,} failed"] if r.failed else []
        out.append(f"{' and '.join(lost)}; counted as misses, without latency.")
    if r.in_flight and record.complete:
        out.append(f"{r.in_flight:,} requests were still in flight when the run ended; they count nowhere.")
    if r.warmup and r.warmup == r.injected - r.in_flight:
        out.append("All requests arrived within the warm-up, so none counts: make warmup shorter, or send more requests.")
    if not r.injected and record.complete:
        out.append("No request arrived before the run ended: nothing was simulated (see until).")
    if 0 < r.finished < 1000:
        out.append(
            f"Only {r.finished:,} request{'' if r.finished == 1 else 's'} finished: p99.9 is close to the maximum; "
            "use at least 10,000 requests for tails."
        )
    return out


__all__ = ["FORMAT", "Summary", "plain", "schema", "summarise_run"]
