"""A fleet that comes and goes: replicas, accelerator hours and cold starts of lives that are written down here."""

from __future__ import annotations

from math import nan

import numpy as np
import pytest

from sim.metrics.record import RunRecord
from sim.metrics.scaling import MAX_EVENTS, Life, Pool, Scaling, counts, existed, narrowed, section, sentences
from tests.metrics.records import record_of

HOUR = 3600.0
LIVES = [
    Life(0, 0.0, 0.0, 0.0),
    Life(1, 100.0, 120.0, 220.0, 1000.0, 1020.0),
    Life(2, 3000.0, 3100.0),  # still loading when the run ends
]


def scaling(**changes: object) -> Scaling:
    given = {"most": 4, "accelerators": 2, "lives": LIVES, "wishes": [(0.0, 1), (100.0, 2), (990.0, 1)], "outs": 2, "ins": 1}
    phases = [("machine", 20.0, "measured", "here"), ("load", 100.0, "measured", "here")]
    return Scaling(scaler="keda", least=1, phases=phases, **(given | changes))  # type: ignore[arg-type]


def record(made: Scaling) -> RunRecord:
    """Requests at 50, 150 (waits for the second replica), 230 and 3200 s; an hour long."""
    arrival = np.array([50.0, 150.0, 230.0, 3200.0])
    found = record_of([1.0, 71.0, 1.0, 3.0], arrival, scaling=made, replica_names=["a", "b", "c", "d"])
    found.requests["first_scheduled_s"] = arrival + np.array([0.5, 70.0, 0.5, 2.0])
    found.totals["last_s"] = HOUR
    return found


def test_what_the_autoscaler_did() -> None:
    made = record(scaling())
    found = section(made, made.requests | {"ttft_s": made.requests["first_token_s"] - made.requests["arrival_s"]})

    alive = HOUR + 900.0 + 500.0
    assert found.replicas_mean == pytest.approx(alive / HOUR)
    assert found.serving_mean == pytest.approx((HOUR + 780.0) / HOUR)
    assert (found.replicas_peak, found.serving_end, found.scale_outs, found.scale_ins, found.started) == (2, 1, 2, 1, 2)
    assert (found.least, found.most, found.cold_start_s) == (1, 4, 120.0)
    assert found.accelerator_hours == pytest.approx(2 * alive / HOUR)
    assert found.accelerator_hours_at_max == 8.0
    assert found.accelerator_hours_public is None
    # the second and the last came while a replica was starting; the first and the third neither came nor waited then
    assert (found.while_starting.requests, found.while_starting.ttft_p50_s) == (2, pytest.approx(37.0))
    assert (found.otherwise.requests, found.otherwise.ttft_p99_s) == (2, pytest.approx(1.0))
    assert [e[1:] for e in found.events] == [
        *(("scale out", 1), ("loading", 1), ("ready", 1), ("draining", 1), ("gone", 1)),
        *(("scale out", 2), ("loading", 2)),
    ]


def test_who_waits_when_a_start_begins_and_who_comes_when_it_ends() -> None:
    made = record(scaling())
    columns = made.requests | {"ttft_s": np.ones(4)}
    columns["first_scheduled_s"] = np.array([100.0, 151.0, 231.0, nan])  # scheduled just when the start begins, never
    columns["arrival_s"] = np.array([50.0, 150.0, 220.0, 3200.0])  # the third comes just when it ends
    assert section(made, columns).while_starting.requests == 3


def test_steps_of_replicas() -> None:
    found = counts(scaling(), HOUR)

    assert found["time_s"] == [0.0, 100.0, 120.0, 220.0, 990.0, 1000.0, 1020.0, 3100.0]
    assert found["exist"] == [1, 1, 2, 2, 2, 2, 1, 2]
    assert found["serving"] == [1, 1, 1, 2, 2, 1, 1, 1]
    assert found["wanted"] == [1, 2, 2, 2, 1, 1, 1, 1]
    assert counts(scaling(wishes=[]), 110.0) == {"time_s": [0.0], "exist": [1.0], "serving": [1.0], "wanted": [0.0]}


def test_seconds_in_which_each_existed() -> None:
    assert existed(scaling(), 4, HOUR).tolist() == [HOUR, 900.0, 500.0, 0.0]
    assert existed(scaling(), 4, 500.0).tolist() == [500.0, 380.0, 0.0, 0.0]
    assert scaling().spans("asked", "ready", 150.0).tolist() == [[0, 0, 0], [1, 100, 150]]


def test_pools_and_their_ranks() -> None:
    made = scaling(
        pools=[Pool("a", 2, 2), Pool("b", 2)],
        accelerators=[1, 1, 4, 4],
        most=4,
        public=[1, 3],
        lives=[LIVES[0], Life(2, 0, 0, 0)],
    )

    replicas, rows = made.known()
    assert (replicas.tolist(), rows.tolist()) == ([0, 2], [0, 1, 4])
    assert made.ranks(np.array([0, 1, 2, 3])).tolist() == [2, 2, 1, 1]
    assert (made.cards(np.array([1, 2])).tolist(), made.cards_at_most) == ([1, 4], 10)
    assert made.on_public(np.array([0, 1, 2, 3])).tolist() == [False, True, False, True]
    last = scaling(pools=[Pool("a", 2, 2), Pool("b", 2)], lives=[Life(3, 0, 0, 0)])
    assert [x.tolist() for x in last.known()] == [[0, 2, 3], [0, 1, 4, 5]]


def test_dedicated_and_public_machines() -> None:
    made = scaling(dedicated=1)

    assert made.on_public(np.array([0, 1, 2])).tolist() == [False, True, True]
    assert scaling().on_public(np.array([0])) is None
    taken = record(made)
    found = section(taken, taken.requests | {"ttft_s": np.ones(4)})
    assert found.accelerator_hours_public == pytest.approx(2 * 1400 / HOUR)


def test_a_record_keeps_what_existed() -> None:
    made = record(scaling())
    made.requests["replica"][:] = [0, 1, 2, -1]
    made.parts = np.arange(28.0).reshape(4, 7)
    made.kv_total = np.full(4, 10.0)
    made.kv_peak = np.array([1.0, 2.0, 3.0, 4.0])
    full = np.full((4, 4), 900.0)
    made.series = {"width_s": 900.0} | {
        k: full.copy()
        for k in ("time_s", "running", "waiting", "kv_full", "busy_s", "steps", "tokens", "decode_tokens", "prefill_tokens")
    }
    made.series["kv_used"] = full * 10

    found = narrowed(made)

    assert found.parts.shape == (3, 7) and found.replicas == 3
    assert found.replica_names == ["a", "b", "c"]
    assert found.requests["replica"].tolist() == [0, 1, 2, -1]
    assert found.alive_s is not None and found.alive_s.tolist() == [HOUR, 900.0, 500.0]
    assert found.accelerators == pytest.approx(2 * (HOUR + 1400) / HOUR)
    assert found.series["time_s"].tolist() == [[900] * 4, [780, 120, 0, 0], [0, 0, 0, 500]]
    assert found.series["kv_full"].tolist() == found.series["time_s"].tolist()
    assert found.series["kv_used"].tolist() == (found.series["time_s"] * 10).tolist()
    assert found.kv_peak is not None and found.kv_peak.tolist() == [1, 2, 3]


def test_no_more_events_than_a_summary_holds() -> None:
    made = record(scaling(lives=[Life(0, 0, 0, 0), *(Life(1, 1.0 + k, 1.5 + k, 1.6 + k, 1.7 + k, 1.8 + k) for k in range(500))]))
    assert len(section(made, made.requests | {"ttft_s": np.ones(4)}).events) == MAX_EVENTS


def test_in_words() -> None:
    taken = record(scaling(dedicated=1))
    found = section(taken, taken.requests | {"ttft_s": taken.requests["first_token_s"] - taken.requests["arrival_s"]})
    assert sentences(found) == [
        "keda scaled out 2 times and in 1 times: 1.39 replicas on average, 2 at most; 2.78 accelerator hours, 4 replicas all the time would be 8.00",
        "0.78 accelerator hours were on public resources",
        "a cold start takes 120 s (machine 20 s, load 100 s)",
        "TTFT p99 of the 2 requests that came or waited while a replica was starting: 70.32 s; of the others: 1.00 s",
    ]
    taken = record(scaling(lives=LIVES[:1], cold_start_s=90.0))
    quiet = section(taken, taken.requests | {"ttft_s": np.ones(4)})
    assert (quiet.cold_start_s, quiet.started, len(sentences(quiet))) == (90.0, 0, 1)
