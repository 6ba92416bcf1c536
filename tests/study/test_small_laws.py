"""Laws of small pieces of studies, whatever the figures: units, kinds, pools, and what is at the edge of having a meaning."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ConfigError
from sim.ledger import FINISHED, N_PARTS, REJECTED
from sim.study import economics, warm
from sim.study.accuracy.point import parse
from sim.study.accuracy.work import plain
from sim.study.plan.answer import _sized
from sim.study.plan.bound import Bound
from sim.study.plan.candidate import Candidate
from sim.study.plan.finals import Final
from sim.study.reasons import reasons
from sim.study.statistics.paired import paired_difference
from sim.study.statistics.percentile import percentile_interval
from sim.study.statistics.stationary import judge
from sim.study.statistics.throughput import throughput_interval
from sim.study.store import differences
from tests.study.test_accuracy import RAW
from tests.study.test_known_pieces import plan_of

# ---- units of time


def runs() -> dict[str, tuple[Any, Any]]:
    """Arrivals and when each left: even, bursty and rising loads, served at once, in time, and slower than they come."""
    found = {}
    t = np.arange(600.0)
    loads = {
        "even": t,
        "bursts": t // 30 * 30 + t % 30 * 0.01,
        "wave": t + 9.0 * np.sin(t / 9.0),
        "rising": 600 * np.sqrt(t / 600),
    }
    for (name, sent), (how, takes) in itertools.product(loads.items(), {"at once": 0.1, "slow": 1.2, "slower": 2.5}.items()):
        sent = np.sort(sent)
        left = np.empty_like(sent)
        free = 0.0
        for i, at in enumerate(sent):
            free = max(free, at) + takes
            left[i] = free
        found[f"{name}, {how}"] = (sent, left)
    return found


@pytest.mark.parametrize("unit", [2.0**-20, 2.0**20])
def test_no_verdict_depends_on_the_unit_of_time(unit: float) -> None:
    verdicts = set()
    for name, (sent, left) in runs().items():
        told = judge(sent, left)
        assert judge(sent * unit, left * unit) == told, name
        verdicts.add(told[:40])
        takes, many = left - sent, percentile_interval(left - sent, 0.9)
        scaled = percentile_interval(takes * unit, 0.9)
        assert many is not None and scaled is not None
        assert (scaled.low, scaled.value, scaled.high) == pytest.approx((many.low * unit, many.value * unit, many.high * unit))
        rate, slow = throughput_interval(sent, left, None), throughput_interval(sent * unit, left * unit, None)
        assert (rate is None) == (slow is None)
        if rate is not None and slow is not None:
            assert (slow.low * unit, slow.value * unit, slow.high * unit) == pytest.approx((rate.low, rate.value, rate.high))
        other = takes * 1.1 + np.cos(sent)
        one, two = paired_difference(takes, other), paired_difference(takes * unit, other * unit)
        assert (two.relative.low, two.relative.high) == pytest.approx((one.relative.low, one.relative.high))
    assert len(verdicts) >= 3


# ---- kinds


def test_what_becomes_of_another_kind_has_changed_as_a_whole() -> None:
    kinds: list[Any] = [{"a": 1}, [1], [1, 2], 1, "x", None]
    for before, now in itertools.permutations(kinds, 2):
        (told,) = differences({"k": before}, {"k": now})
        assert told.startswith("k was ") and " and is " in told


def test_a_point_is_told_from_another_by_what_was_measured_of_its_requests(tmp_path: Path) -> None:
    trace = {"kind": "trace", "file": "requests.csv"}
    bare = replace(parse(RAW, tmp_path), traffic=trace)
    one, same, other = (replace(bare, columns={"arrival_s": np.array([0.0, x])}) for x in (1.0, 1.0, 2.0))
    assert plain(bare)["columns"] is None and plain(bare)["file"] == str((tmp_path / "requests.csv").resolve())
    assert plain(one) == plain(same) != plain(other) and "file" not in plain(one) and plain(one)["columns"] is not None
    assert plain(replace(bare, columns=None, traffic={"kind": "closed"})).get("file") is None


# ---- pools


def test_each_request_that_is_turned_away_counts_against_its_own_pool() -> None:
    shapes = [(2, 3), (1, 4), (3, 1)]
    plans: Any = [
        SimpleNamespace(
            scheduler=SimpleNamespace(name=f"e{i}", reasons={"queue": f"full {i}"}), replicas=n, rank_count=ranks, max_context=99
        )
        for i, (n, ranks) in enumerate(shapes)
    ]
    pool_of = [i for i, (n, ranks) in enumerate(shapes) for _ in range(n * ranks)]
    for row, pool in enumerate(pool_of):
        requests = {"status": np.array([REJECTED, FINISHED]), "replica": np.array([row, 0]), "prompt_tokens": np.array([9, 9])}
        (told,) = reasons(plans, requests, {})
        assert told.startswith(f"e{pool}: 1 request rejected (full {pool})")


def final(scenario: Any, size: int, pools: int) -> Final:
    candidate = Candidate(0, {}, "c", scenario, bound=Bound(9.0, 4.0), rate=1.0, width=1, pools=pools)
    return Final(candidate, size, True, 1.0, 1.0, 1, 1, 1.0, 1.0, 1.0, size)


def test_a_finalist_is_written_down_at_its_own_size() -> None:
    one = sim.load("quickstart", ["deployment.replicas=2"])
    made = _sized(final(one, 7, 1))
    assert made.deployment is not None and made.deployment.replicas == 7
    dump = one.model_dump(mode="json", exclude_unset=True)
    section = dump.pop("deployment")
    pools = [section | {"name": n, "replicas": k} for n, k in (("a", 2), ("b", 3))]
    two = type(one).model_validate({**dump, "pools": pools})
    assert [p.replicas for p in _sized(final(two, 5, 2)).pools or ()] == [10, 15]
    alone = type(one).model_validate({**dump, "pools": pools[:1]})
    assert [p.replicas for p in _sized(final(alone, 5, 1)).pools or ()] == [5]


# ---- the edge


def test_a_run_of_no_duration_draws_nothing() -> None:
    e = sim.load("quickstart", ["economics={accelerator_hour: {h100: 3.0}, host_watts: 100}"]).economics
    assert e is not None
    record: Any = SimpleNamespace(totals={}, parts=np.zeros((1, N_PARTS)), alive_s=None)
    found = economics.power_of(e, [plan_of("h100-sxm", 1)], record, 1.5)
    assert (found.accelerator_watts, found.idle_accelerator_watts, found.host_watts) == (0.0, 0.0, 0.0)
    assert not math.isnan(found.pue)


def test_an_engine_is_warmed_on_the_first_accelerator_that_takes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def plan(scenario: Any) -> None:
        asked.append(scenario.deployment.accelerator)
        if refuses.get(asked[-1]):
            raise ConfigError(refuses[asked[-1]], None, "does not run there")

    monkeypatch.setattr(warm, "plan", plan)
    monkeypatch.setattr(warm, "simulate", lambda scenario: asked.append(f"runs on {scenario.deployment.accelerator}"))
    first, last = warm._PLACES
    refuses: dict[str, str] = {}
    assert warm.warm("static").compiled == 0 and asked == [first, f"runs on {first}"]
    asked.clear()
    refuses = {first: "deployment.accelerator"}
    warm.warm("static")
    assert asked == [first, last, f"runs on {last}"]
    for otherwise in ({first: "deployment.tp"}, {first: "deployment.accelerator", last: "deployment.accelerator"}):
        refuses = otherwise
        with pytest.raises(ConfigError, match="does not run there"):
            warm.warm("static")
