"""Folding, joining and tabulating time series."""

import numpy as np
import pytest

from sim.ledger import SERIES
from sim.metrics.record import collect, fold, join_series
from sim.metrics.series import COLUMNS, fleet, table
from tests.metrics.records import four_requests


def test_fold_keeps_the_sum() -> None:
    a = np.arange(10.0).reshape(2, 5)

    assert fold(a).tolist() == [[1, 5, 4], [11, 15, 9]]
    assert fold(a, 2).sum() == a.sum()


def test_pools_with_different_widths_join() -> None:
    wide = four_requests().series
    fine = {k: np.ones((1, 8)) for k in SERIES} | {"width_s": 1.25}

    joined = join_series([wide, fine])

    assert joined["width_s"] == 5.0
    assert joined["time_s"].tolist() == [[5, 0], [5, 5], [4, 4]]


class _Group:
    """What an engine group says at the end of a run."""

    def __init__(self, last: float) -> None:
        self.last = last

    def series(self) -> tuple[dict[str, object], np.ndarray, np.ndarray]:
        r = four_requests()
        return dict(r.series), r.itl_hist, r.parts

    def totals(self) -> dict[str, float]:
        return {"steps": 3, "last_s": self.last, "itl_max_s": 0.1}

    def capacity(self) -> np.ndarray:
        return np.full(2, 100.0)

    def kv_peak(self) -> np.ndarray:
        return np.full(2, 60.0)


def test_collect_joins_groups() -> None:
    found = collect([_Group(8.0), _Group(10.0)])

    assert found["totals"] == {"steps": 6, "last_s": 10.0, "itl_max_s": 0.1}
    assert found["parts"].shape == (4, 7)
    assert found["kv_total"].tolist() == [100.0] * 4
    assert found["itl_hist"].sum() == 2 * 43
    assert found["series"]["time_s"].shape == (4, 2)


def test_table_of_many_rows_is_folded() -> None:
    series = {k: np.ones((3, 64)) for k in SERIES} | {"width_s": 1.0}

    columns = table(series, np.full(3, 10.0), max_rows=50)

    assert columns["time_s"].size <= 50
    assert columns["decode_tokens_per_s"].sum() * 4 == pytest.approx(3 * 64 * 4 / 4)


def test_no_series() -> None:
    columns = table({})

    assert tuple(columns) == COLUMNS
    assert fleet(columns)["time_s"].size == 0


def test_fleet_sums_counts_and_averages_shares() -> None:
    r = four_requests()

    whole = fleet(table(r.series, r.kv_total))

    assert whole["time_s"].tolist() == [0.0, 5.0]
    assert whole["replicas"].tolist() == pytest.approx([2.0, 1.0])
    assert whole["running"].tolist() == pytest.approx([1.2, 1.0])
    assert whole["kv_use"].tolist() == pytest.approx([0.15, 0.4])
    assert whole["step_time_s"].tolist() == pytest.approx([6 / 16, 0.2])
