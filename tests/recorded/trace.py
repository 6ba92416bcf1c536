"""Everything that a small world decides, as lines of text by section."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from itertools import groupby
from typing import Any

import numpy as np
import pytest

from sim.config.scenario import Scenario
from sim.errors import ServesimError
from sim.fleet.build import plan
from sim.study import single
from tests.recorded.fixed import fixed

Trace = dict[str, list[str]]
"""Lines by section."""
POINTS = 60
"""Of time series."""


def number(value: Any) -> str:
    """Nine digits: less than what another machine rounds."""
    return f"{float(value):.9g}"


def flat(name: str, value: Any) -> Iterator[str]:
    """``a.b: value`` of whatever it is made of."""
    if isinstance(value, np.ndarray):
        value = value.tolist()
    if is_dataclass(value) and not isinstance(value, type):
        value = {f.name: getattr(value, f.name) for f in fields(value)}
    elif hasattr(type(value), "model_fields"):
        value = {k: getattr(value, k) for k in type(value).model_fields}
    if isinstance(value, Mapping):
        for k, v in value.items():
            yield from flat(f"{name}.{k}" if name else str(k), v)
    elif isinstance(value, list | tuple) and any(isinstance(x, list | tuple | dict) or is_dataclass(x) for x in value):
        for i, x in enumerate(value):
            yield from flat(f"{name}[{i}]", x)
    elif isinstance(value, list | tuple):
        yield f"{name}: {' '.join(map(plain, value))}"
    elif isinstance(value, str | bool | int | float | np.number | None):
        yield f"{name}: {plain(value)}"


def plain(value: Any) -> str:
    """A number in nine digits, everything else as it is."""
    return number(value) if isinstance(value, float | np.floating) else str(value)


def table(columns: Mapping[str, Any]) -> list[str]:
    """A line a row, under the names."""
    values = [np.asarray(c).tolist() for c in columns.values()]
    return [" ".join(columns), *(" ".join(map(plain, row)) for row in zip(*values, strict=True))]


def step_lines(seen: list[tuple[int, float, tuple[float, ...]]]) -> list[str]:
    """Runs of steps with equal sums of requests and tokens in one line: sums of the first, sum of contexts, seconds."""
    out = []
    for _, run in groupby(seen, lambda s: (s[0], *s[2][:3], *s[2][4:])):
        steps = list(run)
        sums = " ".join(f"{i}:{number(v)}" for i, v in enumerate(steps[0][2]) if v)
        last = f" to {number(steps[-1][2][3])}" if len(steps) > 1 else ""
        out.append(f"{steps[0][0]} {len(steps)}x {sums}{last} {number(sum(s[1] for s in steps))}s")
    return out


class Watched:
    """Notes the batch of every step while it lasts, also of those in one stroke. Only in plain Python can one look."""

    def __init__(self) -> None:
        self.seen: list[tuple[int, float, tuple[float, ...]]] = []
        self._engines: dict[int, int] = {}

    def into(self, patch: pytest.MonkeyPatch) -> None:
        """Look at the functions that all loops call."""
        from sim.engine import loop, together

        step_time, together_time = loop.step_time, together.together_time

        def one(cost: Any, feat: Any, parts: Any) -> float:
            took = float(step_time(cost, feat, parts))
            self._note(cost, feat, took)
            return took

        def all_(cost: Any, shared: Any, feats: Any, *more: Any) -> float:
            took = float(together_time(cost, shared, feats, *more))
            for feat in feats:
                self._note(cost, feat, took)
            return took

        patch.setattr(loop, "step_time", one)
        patch.setattr(together, "together_time", all_)

    def _note(self, cost: Any, feat: Any, took: float) -> None:
        self.seen.append((self._engines.setdefault(id(cost), len(self._engines)), took, tuple(np.asarray(feat).tolist())))


def trace(scenario: dict[str, Any], summary: bool = False, multi_step: bool = True) -> Trace:
    """What becomes of a scenario; of one that is refused, which key is at fault. ``summary``: every figure of the summary too;
    ``multi_step``: unchanged steps in one stroke."""
    costs: list[str] = []
    watched, raw = Watched(), {}
    with pytest.MonkeyPatch.context() as patch, fixed(costs):
        watched.into(patch)
        execute = single.execute

        def kept(*args: Any, **more: Any) -> Any:
            raw["raw"] = execute(*args, **more)
            return raw["raw"]

        patch.setattr(single, "execute", kept)
        patch.setattr("sim.config.to_yaml", lambda _: "")  # half of the time, and nobody reads it
        try:
            made = single.Prepared(Scenario.model_validate(copy.deepcopy(scenario) | {"record": {"max_points": POINTS}}))
            noted = [note.partition(" ")[0] for note in made.notes]  # what it is about; the words are others' business
            planned = {"settings": settings_of(made.plans), "notes": noted, "memory": memory_of(made.plans), "cost": costs}
            result = made.run(multi_step=multi_step)
        except ServesimError as error:
            return {"refused": [f"{type(error).__name__} {getattr(error, 'field', '')}"]}
    ran = raw["raw"]
    rest = {k: getattr(ran, k) for k in ("kv_total", "kv_peak", "totals", "sent", "complete")}
    histogram = np.flatnonzero(ran.itl_hist), ran.itl_hist[ran.itl_hist > 0]
    counted = flat("", rest | {"parts": ran.parts.sum(axis=0), "gaps": list(histogram)})
    out = planned | {"requests": table(ran.requests), "steps": step_lines(watched.seen), "totals": list(counted)}
    out |= {"series": list(flat("", ran.series)), "stations": list(flat("", ran.stations))}
    if summary:
        out["summary"] = list(flat("", told(result.summary)))
    return out


def plans(scenario: dict[str, Any]) -> Trace:
    """What is settled before anything runs: settings, memory, what is asked of step costs."""
    costs: list[str] = []
    with fixed(costs):
        try:
            found = plan(Scenario.model_validate(copy.deepcopy(scenario)))
        except ServesimError as error:
            return {"refused": [f"{type(error).__name__} {getattr(error, 'field', '')}"]}
    return {"settings": settings_of(found), "memory": memory_of(found), "cost": costs}


def told(summary: Any) -> dict[str, Any]:
    """All figures of a summary, but what evidence and warnings say in words."""
    left_out = ("evidence", "warnings", "notes", "scenario", "context", "version")
    return {k: without_words(v) for k, v in summary.as_dict().items() if k not in left_out}


def without_words(value: Any) -> Any:
    """Of sentences only their numbers: how they are worded is others' business."""
    if isinstance(value, dict):
        return {k: without_words(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [without_words(v) for v in value]
    return " ".join(re.findall(r"[\d.,]*\d", value)) if isinstance(value, str) and " " in value else value


def settings_of(plans: Any) -> list[str]:
    """Settings as they hold, of every pool."""
    return [line for p in plans for line in flat(p.name, p.params)]


def memory_of(plans: Any) -> list[str]:
    """Blocks, and pools beside them."""
    out = []
    for p in plans:
        b = p.budget
        out += flat(p.name, {"blocks": p.kv_blocks, "size": b and b.block_size, "pools": b and b.pools, "facts": p.facts})
        out += flat(p.name, {"context": p.max_context, "tiers": p.tiers, "adapters": p.scheduler.adapters(p.params)})
        out += [] if b is None else [f"{p.name} {line.name}: {number(line.bytes)}" for line in b.lines]
    return out
