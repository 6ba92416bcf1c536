"""Small worlds whose steps cost what a formula says, so that no new measurement changes their answers; and all that happens in them."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import wraps
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import sim
from sim import fleet
from sim.cost.evidence import Evidence, Operator
from sim.fleet import build
from sim.fleet.station import Station
from sim.metrics import model_error
from sim.study import single
from sim.study.accuracy import deploy
from sim.study.single import Prepared
from tests.recorded.fixed import cost, profile, shared

for _module in pkgutil.iter_modules(fleet.__path__, "sim.fleet."):
    importlib.import_module(_module.name)  # all stations are known from the start

EVIDENCE = Evidence((Operator("a step", "linear_compute", "estimated", "a formula"),), {"tokens": 1e6})
DOWN = ("arrive", "in_turn", "send", "submit", "arrive_block", "submit_block", "arrive_ahead", "submit_ahead", "withdraw")
UP = ("ended", "first_token", "refused")


def _error(kind: Any, metric: str, own: object = None) -> model_error.Interval:
    """How far predictions are off, whatever was measured since."""
    wide = 1.25 + 0.05 * len(metric.partition(".")[0])
    return model_error.Interval(1.0 / wide, wide, 12, f"{kind.engine} somewhere")


@contextmanager
def formula() -> Iterator[None]:
    """Within it steps cost what `tests.recorded.fixed` says, and predictions are off by what `_error` says."""

    def alone(_model: object, _on: object, layout: Any, host: Any, *_: object) -> tuple[Any, Evidence]:
        return cost(layout.pp, host.overlap), EVIDENCE

    def ranks(_model: object, _on: object, layout: Any, host: Any, *_: object) -> tuple[Any, ...]:
        return cost(layout.pp, host.overlap), shared(), EVIDENCE

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "build_step_cost", alone)
        patch.setattr(build, "build_rank_cost", ranks)
        for module in (build, deploy):
            patch.setattr(module, "load_engine_profile", profile)
        patch.setattr(model_error, "known", _error)
        yield


def _known(value: Any) -> Any:
    """Of an argument, what can be written down."""
    if isinstance(value, bool | int | float | np.generic):
        return value
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value.number if hasattr(value, "number") else None


@contextmanager
def road() -> Iterator[list[list[Any]]]:
    """What stations say to each other within it: when, who, what, about which request and with what, and the answer."""
    said: list[list[Any]] = []

    def heard(kind: type, name: str) -> Any:
        inner = kind.__dict__[name]

        @wraps(inner)
        def call(self: Any, *given: Any, **more: Any) -> Any:
            clock = getattr(self, "clock", None)
            line = [clock.now if clock is not None else None, f"{kind.__name__}.{name}", *map(_known, (*given, *more.values()))]
            said.append(line)
            answer = inner(self, *given, **more)
            if isinstance(answer, bool):
                line.append(answer)
            return answer

        return call

    with pytest.MonkeyPatch.context() as patch:
        kinds, todo = [], [Station]
        while todo:
            todo += (below := todo.pop().__subclasses__())
            kinds += below
        for kind in dict.fromkeys(kinds):
            if kind.__module__.startswith("sim."):
                for name in {*DOWN, *UP} & kind.__dict__.keys():
                    patch.setattr(kind, name, heard(kind, name))
        yield said


def seen(scenario: Any, **how: Any) -> dict[str, Any]:
    """All of a run: what stations said, a row per request, everything that was counted, the summary, the words."""
    records: list[Any] = []

    def keep(*facts: Any, make: Any = single._record) -> Any:
        records.append(make(*facts))
        return records[-1]

    with formula(), pytest.MonkeyPatch.context() as patch, road() as said:
        patch.setattr(single, "_record", keep)
        result = Prepared(scenario).run(**how)
    record = records[0]
    summary = result.summary.as_dict()
    summary = {
        k: v
        for k, v in summary.items()
        if k not in ("format", "evidence", "evidence_shares", "model_error", "context", "warnings", "notes")
    }
    summary["bottleneck"].pop("sentence")  # words have tests of their own
    series = {k: np.asarray(v).sum(axis=-1) for k, v in record.series.items()}
    return {
        "road": said,
        "requests": {k: np.asarray(v) for k, v in result.columns.items()},
        "totals": dict(record.totals),
        "series": series,
        "kv_peak": record.kv_peak,
        "summary": summary,
    }


def load(text: str, *overrides: str) -> Any:
    """A scenario."""
    return sim.loads(text, list(overrides))


def in_order(columns: Mapping[str, NDArray[Any]]) -> None:
    """Assert that what clients of answered requests see comes in the order of time; ``columns`` as in `RunResult.columns`, s."""
    done = columns["status"] == 0
    for before, after in (
        ("arrival_s", "first_scheduled_s"),
        ("first_scheduled_s", "first_token_s"),
        ("first_token_s", "finish_s"),
    ):
        assert (columns[after][done] >= columns[before][done] - 1e-9).all(), (before, after)
