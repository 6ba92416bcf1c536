"""One run as one HTML file: the answer first, then the evidence for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from sim.metrics import money
from sim.metrics.bottleneck import WORDS
from sim.metrics.sections.kv_pools import KvPools
from sim.metrics.sections.kv_tiers import KvTiers
from sim.metrics.sections.sessions import Sessions
from sim.metrics.sections.tenants import Tenants
from sim.report import confidence, page, words
from sim.report.figures import BLUE, GREEN, GREY, MANY_REPLICAS, ORANGE, PURPLE, run_figures
from sim.report.templating import told
from sim.study.statistics import worth
from sim.units import show_number

if TYPE_CHECKING:
    from sim.metrics.groups import ClassRow, ReplicaRow, Row
    from sim.metrics.money import Economics
    from sim.metrics.result import Result
    from sim.metrics.sections.kv_pools import KvPool
    from sim.metrics.sections.kv_tiers import KvTier
    from sim.metrics.summary import Summary
    from sim.study.statistics.worth import Worth

KIND_COLORS: Final = {
    "compute": BLUE,
    "memory_bandwidth": "#69a7d9",
    "communication": PURPLE,
    "host": ORANGE,
    "other": GREY,
    "idle": "#e1e5ec",
}
_STAGE_TITLES: Final = {
    "ingress": "on its way to the engine",
    "queue": "queue",
    "prefill": "prefill (to the first token)",
    "decode": "decode (the other tokens)",
}
_STAGE_COLORS: Final = {
    "ingress": GREY,
    "queue": ORANGE,
    "prefill": GREEN,
    "decode": BLUE,
    "prefill_queue": ORANGE,
    "decode_queue": "#f2c14e",
    "transfer": PURPLE,
}
_SLOWEST: Final = 10


def render(result: Result) -> str:
    """The report as the text of an HTML file (below 6 MB, nearly all of it plotly.js)."""
    s = result.summary
    figures = run_figures(result)
    sure = worth.worth(result)
    body = [
        f'<h1>{page.esc(s.name or "Simulation")}</h1><p class="kicker">{page.esc(words.subtitle(s))}</p>',
        verdict(s, sure.stationary),
        f'<div class="cards">{"".join(_cards(s))}</div>',
        _list(result.notes, "notes"),
        _list(result.warnings, "warnings"),
        "<h2>Latency</h2>",
        latency_table(s, sure),
        f'<p class="caption">Model error: {page.esc(words.model_error(s))}</p>' if words.model_error(s) else "",
        "<div style='height:16px'></div>",
        page.plots(figures["latency"]),
        _sure(sure),
        "<h2>Where the time went</h2>",
        _time_went(s),
    ]
    if s.economics is not None:
        pue = f"PUE: {s.economics.pue_source}"
        body += ["<h2>Money, energy, carbon</h2>", _list([*money.sentences(s.economics), pue], "notes")]
    if figures["time"]:
        body += ["<h2>Through the run</h2>", page.plots(figures["time"])]
    if len(s.classes) > 1:
        body += ["<h2>Request classes</h2>", _groups(_classes(s.classes), "class")]
    tenants = words.extra(s, Tenants)
    if tenants is not None and tenants.count > 1:
        shown = tenants.rows[:MANY_REPLICAS]
        more = f", the {len(shown)} with most requests" if tenants.count > len(shown) else ""
        body += [f"<h2>{tenants.count:,} tenants{more}</h2>", _groups(shown, "tenant")]
    sessions = words.extra(s, Sessions)
    if sessions is not None:
        body += ["<h2>Sessions</h2>", _sessions(sessions)]
    if len(s.replicas) > 1:
        body += [
            "<h2>Replicas</h2>",
            page.plots(figures["replicas"]) if figures["replicas"] else "",
            "<br>",
            _replicas(s.replicas),
        ]
    body += ["<h2>Behind the numbers</h2>", page.definitions()]
    if s.evidence:
        body.append(page.records(f"Evidence: {words.evidence_line(s)}", s.evidence))
    if result.scenario:
        body.append(page.details("Scenario, resolved: runs again to the same result", f"<pre>{page.esc(result.scenario)}</pre>"))
    return page.page(f"{s.name or 'run'} · servesim", body, [f for group in figures.values() for f in group])


def _classes(rows: Sequence[ClassRow]) -> list[ClassRow]:
    """Names with the verdict of those that have targets of their own."""
    mark = {True: " ✔", False: " ✘", None: ""}
    return [replace(row, name=row.name + mark[row.met]) for row in rows]


def _sessions(s: Sessions) -> str:
    head = ["", "mean", "p50", "p95", "p99"]
    times = (("First request to last answer", s.duration_s), ("… of it waiting for answers", s.served_s))
    rows = [[title, *(words.seconds(x) for x in (t.mean, t.p50, t.p95, t.p99))] for title, t in times]
    facts = f"{s.count:,} sessions of {words.number(s.requests_mean)} requests, {s.whole:,} of them whole in this run"
    if s.met is not None:
        facts += f"; in {words.met_share(s.met)} every request met the SLO"
    return f'<p class="caption">{page.esc(facts)}.</p>' + page.table(head, rows)


def _sure(sure: Worth) -> str:
    """How much this one run is worth."""
    if unsure := confidence.none(sure):
        return page.details("How sure", f"<p>{page.esc(unsure)}</p>")
    found = confidence.table(sure)
    rows = [[page.esc(cell) for cell in row] for row in found.rows]
    return page.details(f"How sure: {sure.level:.0%} intervals of this one run", page.table(found.head, rows, (0,)))


def verdict(s: Summary, caution: str = "") -> str:
    """The headline: what speaks against any average, whether the SLO holds, and what limits."""
    state, sentence = words.verdict(s)
    first, colon, rest = sentence.partition(":")
    head = f"<strong>{page.esc(first)}:</strong>{page.esc(rest)}" if colon and state != "none" else page.esc(sentence)
    when = words.spell(s)
    more = f"<p>{page.esc(when)}</p>" if when else ""
    more = f"<p>{page.esc(caution)}</p>{more}" if caution else more
    return f'<div class="verdict {state}"><p>{head}</p>{more}<p>{page.esc(s.bottleneck.sentence)}</p></div>'


def _cards(s: Summary) -> list[str]:
    t, u, slo, r = words.rates(s), s.utilisation, s.slo, s.requests
    cards = []
    if slo.met is not None and slo.required is not None:
        cards.append(
            page.card(
                "SLO attainment",
                words.met_share(slo.attainment["joint"]),
                f"{words.required(slo.required)} required",
                "good" if slo.met else "bad",
            )
        )
    for key, title, stats in (
        ("ttft_s", "TTFT", s.latency.ttft),
        ("tpot_s", "TPOT", s.latency.tpot),
        ("e2e_s", "End to end", s.latency.e2e),
    ):
        note = f"median {words.seconds(stats.p50)}"
        if band := (s.model_error or {}).get(f"{key}.p99"):
            note = f"{words.between(band)} with the model's error; {note}"
        cards.append(page.card(f"{title}, p99", words.seconds(stats.p99), note))
    cards.append(page.card("Requests", f"{words.number(t.requests_per_s)} /s", f"{r.finished:,} of {r.injected:,} finished"))
    cards.append(
        page.card(
            "Output", f"{words.number(t.output_tokens_per_s)} tokens/s", f"{words.number(t.total_tokens_per_s)} with prompts"
        )
    )
    if t.goodput_requests_per_s is not None:
        note = f"{words.number(t.goodput_output_tokens_per_s)} output tokens/s"
        cards.append(page.card("Goodput", f"{words.number(t.goodput_requests_per_s)} /s", note))
    if s.load is not None:
        could = words.number(s.load.could_serve_requests_per_s)
        peak = f", {s.load.peak_share:.0%} at its peak" if words.has_peak(s.load) else ""
        cards.append(page.card("Load", f"{s.load.share:.0%}", f"of the {could} requests/s that could be served{peak}"))
    else:
        cards.append(page.card("Busy", words.percent(u.busy, 0), f"mean step {words.seconds(u.step_time_mean_s)}"))
    if s.scaling is not None:
        note = f"{s.scaling.replicas_peak} at most, {words.number(s.scaling.accelerator_hours)} accelerator hours"
        cards.append(page.card("Replicas, mean", words.number(s.scaling.replicas_mean), note))
    if s.economics is not None:
        cards.append(_cost(s.economics))
    if u.kv_mean is not None:
        note = f"peak {words.percent(u.kv_peak, 0)}, {words.counted(s.preemptions, 'preemption')}"
        cards.append(page.card("KV cache, mean", words.percent(u.kv_mean, 0), note))
    if s.tokens.cached:
        cards.append(page.card("Prefix cache", words.percent(s.tokens.cached_share), "of prompt tokens"))
    return cards


def _cost(e: Economics) -> str:
    price = e.per_million_output_tokens
    note = money.paid(e) if price is None else f"{words.number(price)} {e.currency} per million output tokens"
    return page.card("Cost", f"{e.per_hour:,.2f} {e.currency}/h", note)


def _list(sentences: Sequence[str], kind: str) -> str:
    return f'<ul class="{kind}">{"".join(f"<li>{told(w)}</li>" for w in sentences)}</ul>' if sentences else ""


def latency_table(s: Summary, sure: Worth) -> str:
    """All percentiles of all latencies; those that too few requests bound have a star."""
    with_slo = bool(s.slo.targets)
    head = ["", *words.PERCENTILE_TITLES.values(), *(["SLO", "met"] if with_slo else [])]
    rows = [
        [f'{row["title"]} <span class="unit">{row["unit"]}</span>', *(row[p] for p in words.PERCENTILE_TITLES)]
        + ([row["slo"], row["met"]] if with_slo else [])
        for row in words.latency_rows(s, sure)
    ]
    few = "".join(f'<p class="kicker">{words.STAR} {page.esc(x)}</p>' for x in confidence.few(sure, s))
    return page.table(head, rows) + few


def _time_went(s: Summary) -> str:
    b = s.bottleneck
    out = page.bar("Time of the replicas", b.shares, WORDS, KIND_COLORS)
    titles = words.STAGES if "transfer" in b.request_time else _STAGE_TITLES
    out += page.bar("Time of a request, on average", b.request_time, titles, _STAGE_COLORS)
    if b.kv_blocked is not None and b.kv_blocked >= 5e-4:
        out += f'<p class="caption">For {words.percent(b.kv_blocked)} of the time the head of the queue waited for KV memory.</p>'
    pools, tiers = words.extra(s, KvPools), words.extra(s, KvTiers)
    if pools is not None:
        out += _pools(pools.pools)
    if tiers is not None:
        out += _tiers(tiers.tiers)
    return f'<section class="panel">{out}</section>'


def _pools(rows: Sequence[KvPool]) -> str:
    cells = [[page.esc(p.name), f"{p.total:,} {p.unit}", *(words.percent(x) for x in (p.mean, p.peak, p.waited))] for p in rows]
    shared = any(p.shared for p in rows)
    head = ["kind of layer" if shared else "pool of a replica", "of" if shared else "size", "in use, mean", "peak"]
    return page.table([*head, "the queue waited, and it held most" if shared else "the queue waited for it"], cells)


def _tiers(rows: Sequence[KvTier]) -> str:
    cells = [
        [page.esc(t.name), f"{t.stores} × {show_number(t.capacity / 2**30)} GiB", words.percent(t.hit_share)]
        + [f"{show_number(amount / 1e9)} GB" for amount in (t.read, t.written, t.evicted, t.skipped)]
        for t in rows
    ]
    return page.table(
        ["KV beyond the accelerator", "size", "hits of tokens looked up", "read", "written", "evicted", "not kept"], cells
    )


def _groups(rows: Sequence[Row], title: str, more: Mapping[str, Sequence[float | None]] | None = None) -> str:
    """``more``: further columns of shares, by their heads."""
    more = more or {}
    head = [
        title,
        "requests",
        "output tokens",
        "SLO met",
        "TTFT p50",
        "TTFT p99",
        "TPOT p50",
        "TPOT p99",
        "E2E p50",
        "E2E p99",
        *more,
    ]
    cells = [
        [
            page.esc(r.name),
            f"{r.requests:,}",
            f"{r.output_tokens:,}",
            words.met_cell(r.attainment),
            *(words.seconds(x) for x in (r.ttft_p50_s, r.ttft_p99_s, r.tpot_p50_s, r.tpot_p99_s, r.e2e_p50_s, r.e2e_p99_s)),
            *(words.percent(values[i], 0) for values in more.values()),
        ]
        for i, r in enumerate(rows)
    ]
    return page.table(head, cells)


def _replicas(rows: Sequence[ReplicaRow]) -> str:
    shown, note = rows, ""
    if len(rows) > MANY_REPLICAS:
        shown = sorted(rows, key=lambda r: -(r.ttft_p99_s or 0.0))[:_SLOWEST]
        note = f'<p class="caption">The {_SLOWEST} slowest of {len(rows):,} replicas by p99 TTFT; all of them are in summary.json.</p>'
    more: dict[str, list[float | None]] = {"busy": [r.busy for r in shown]}
    if rows[0].kv_mean is not None:
        more |= {"KV": [r.kv_mean for r in shown], "KV peak": [r.kv_peak for r in shown]}
    return note + _groups(shown, "replica", more)
