"""Shares of the pool by kind of layer."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from sim.metrics.sections.kv_groups import KvGroups


def section(*pools: dict[str, Any]) -> KvGroups | None:
    facts: Any = SimpleNamespace(record=SimpleNamespace(stations={"kv_groups": list(pools)} if pools else {}))
    return KvGroups.of(facts)


def test_shares_of_two_engines_of_a_pool():
    """Each has 100 blocks for 10 s; in 4 of these 20 s a request waited, and windows held 60 blocks."""
    pool = {"parts": {"full": [800.0, 40.0, 120.0], "windows": [400.0, 240.0, 140.0]}, "times": [20.0, 4.0, 2000.0], "engines": 2}
    found = section(pool)

    assert found is not None
    assert found.groups["full"] == {"mean": 0.4, "waiting": pytest.approx(0.1), "most": 0.6}
    assert found.groups["windows"].waiting == pytest.approx(0.6)
    assert (found.waiting_share, found.bound_by) == (0.2, "windows")
    assert "windows held 60%" in found.sentences()[0]


def test_nobody_waited_and_no_groups():
    pool = {"parts": {"full": [5.0, 0.0, 10.0]}, "times": [10.0, 0.0, 100.0], "engines": 1}
    found = section(pool)

    assert found is not None and found.bound_by is None and found.groups["full"].waiting is None
    assert "waited" not in found.sentences()[0]
    assert section() is None
