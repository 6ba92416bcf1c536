"""Each law holds on a sound record and is noticed when broken."""

from collections.abc import Callable

import numpy as np
import pytest

from sim.errors import LawViolation
from sim.metrics.laws import check_laws
from sim.metrics.record import RunRecord
from tests.metrics.records import four_requests, many_requests


def test_sound_records_pass() -> None:
    check_laws(four_requests())
    check_laws(many_requests(3000))


def _lose_one(r: RunRecord) -> None:
    r.requests = {k: v[:-1] for k, v in r.requests.items()}


def _twice(r: RunRecord) -> None:
    r.requests["id"][1] = 0


def _token_before_prefill(r: RunRecord) -> None:
    r.requests["first_token_s"][1] = 1.5


def _finish_before_arrival(r: RunRecord) -> None:
    r.requests["finish_s"][2] = 3.0


def _no_tokens(r: RunRecord) -> None:
    r.requests["output_tokens"][0] = 0


def _rejected_with_tokens(r: RunRecord) -> None:
    r.requests["output_tokens"][2] = 1


def _negative(r: RunRecord) -> None:
    r.series["waiting"][0, 0] = -1.0


def _too_many_blocks(r: RunRecord) -> None:
    r.series["kv_used"][1, 1] = 501.0


def _gaps(r: RunRecord) -> None:
    r.totals = dict(r.totals) | {"itl_sum_s": 9.9}


def _cached(r: RunRecord) -> None:
    r.requests["cached_tokens"] = np.array([101, 0, 0, 0])


def _unknown_status(r: RunRecord) -> None:
    r.requests["status"][0] = 7


_BREAKS = [
    _lose_one,
    _twice,
    _token_before_prefill,
    _finish_before_arrival,
    _no_tokens,
    _rejected_with_tokens,
    _negative,
    _too_many_blocks,
    _gaps,
    _cached,
    _unknown_status,
]


@pytest.mark.parametrize("damage", _BREAKS)
def test_broken_records_are_noticed(damage: Callable[[RunRecord], None]) -> None:
    record = four_requests()
    damage(record)

    with pytest.raises(LawViolation):
        check_laws(record)
