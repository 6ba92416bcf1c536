"""What limits, and which side of a disaggregated deployment does: tables whose answer is known, at the edges of the rules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.metrics import bottleneck, hand_over
from sim.metrics.bottleneck import time_shares, within
from sim.metrics.money import paid, sentences
from sim.metrics.spell import Spell

NAN = float("nan")
NAMES = ("linear_compute", "attention_prefill", "linear_memory", "attention_decode", "communication", "host", "other", "sampling")


# ---- where time went


def test_shares_of_the_time_by_kind() -> None:
    parts = np.array([[1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0], [0.0] * 7 + [1.0]])
    found = time_shares(parts, NAMES, 0.5)
    kinds = {
        "compute": 3,
        "memory_bandwidth": 12,
        "communication": 16,
        "host": 32,
        "other": 64 + 129,
    }  # what has no kind is other
    assert found == pytest.approx({k: 0.5 * v / 256 for k, v in kinds.items()} | {"idle": 0.5})
    two = time_shares(np.ones((1, 2)), NAMES[:2], 0.75)
    assert two == dict.fromkeys(kinds, 0.0) | {"compute": 0.75, "idle": 0.25}
    assert time_shares(np.zeros((2, 8)), NAMES, 0.5) == dict.fromkeys(kinds, 0.0) | {"idle": 1.0}


def test_requests_that_wait_ever_longer() -> None:
    columns = {"arrival_s": np.arange(100.0)[::-1], "ingress_s": np.zeros(100), "e2e_s": np.ones(100)}

    def grows(*quarters: float) -> bool:
        return bottleneck.queue_grows(
            columns | {"queue_s": np.repeat(quarters, 25)[::-1]}
        )  # rows lie in another order than arrivals

    assert grows(0.0, 1.0, 2.0, 3.0)
    assert not grows(3.0, 2.0, 1.0, 0.0)
    assert not grows(0.0, 1.0, 3.0, 2.5)  # less than before
    assert not grows(0.0, 1.0, 1.5, 2.0) and grows(0.0, 1.0, 1.5, 2.01)  # more than twice the second quarter
    assert grows(0.0, 1.0, 2.0, NAN)  # of whom nobody was ever scheduled
    assert not bottleneck.queue_grows(
        columns | {"queue_s": np.repeat([0.0, 0.05, 0.1, 0.2], 25)[::-1], "e2e_s": np.full(100, 1.01)}
    )
    nobody = columns | {"queue_s": np.repeat([0.0, 0.1, 0.2, 0.3], 25)[::-1], "e2e_s": np.full(100, NAN)}
    assert bottleneck.queue_grows(nobody)  # nobody finished: there is nothing to compare with


def spell(start: float, end: float) -> Spell:
    return Spell(start, end, 10, 0.1, 1, end - start, 1.0, 5, 10.0, True, None, 1.0)


def test_a_stretch_is_judged_by_what_lies_in_it() -> None:
    columns = {
        "arrival_s": np.array([2.9, 3.0, 4.0, 5.0, 5.1, 4.5]), "status": np.array([0, 0, 0, 0, 0, 1]),
        "e2e_s": np.array([9.0, 2.0, 4.0, 6.0, 9.0, NAN]), "ingress_s": np.array([0.5, 0.5, 0.75, 0.5, 0.5, NAN]),
        "queue_s": np.array([9.0, 1.0, 2.0, 3.0, 9.0, NAN]), "preemptions": np.array([9, 1, 0, 3, 9, 9]),
    }  # fmt: skip
    two = np.array([[1.0] * 8, [1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]])
    series = {
        "width_s": 1.0, "time_s": two, "kv_full": np.array([[9, 9, 9, 0.5, 0.25, 9, 9, 9.0], [0.0] * 8]),
        "steps": 10 * two, "busy_s": np.array([[9, 9, 9, 0.4, 0.8, 9, 9, 9], [0, 0, 0, 0.6, 0, 0, 0, 0.0]]),
    }  # fmt: skip

    found = within(spell(3.0, 5.0), columns, series)  # type: ignore[arg-type]

    assert (found["spell"], found["finished"], found["preemptions"], found["queue_grows"]) == (True, 3, 4, False)
    assert found["queue_share"] == pytest.approx((2.0 + 0.25 / 3) / 4.0)
    assert found["kv_blocked"] == pytest.approx(0.75 / 3)  # the bins from 3 to 5 s: two of one replica and one of the other
    assert found["step_s"] == pytest.approx(1.8 / 30)
    bare = within(spell(3.0, 5.0), columns, {})  # type: ignore[typeddict-item]
    assert "kv_blocked" not in bare and "step_s" not in bare
    assert within(spell(4.4, 4.6), columns, series) == {"spell": True}  # type: ignore[arg-type]
    idle = series | {"steps": 0 * two, "time_s": 0 * two}
    nothing = within(spell(3.0, 5.0), columns, idle)  # type: ignore[arg-type]
    assert (nothing["kv_blocked"], nothing["step_s"]) == (None, None)
    assert within(spell(3.0, 5.0), columns | {"e2e_s": np.zeros(6)}, series)["queue_share"] == 0.0  # type: ignore[arg-type]


# ---- in words

FACTS: Any = {
    "finished": 1000, "shares": {"compute": 0.3, "memory_bandwidth": 0.5, "communication": 0.0, "host": 0.0, "other": 0.9, "idle": 0.1},
    "kv_blocked": 0.0, "preemptions": 0, "queue_share": 0.0, "queue_grows": False, "met": True, "step_s": 0.045,
}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "limit"),
    [
        ({}, "memory_bandwidth"),  # neither idle nor what is other can limit
        ({"finished": 0}, "none"),
        ({"kv_blocked": 0.05}, "kv_capacity"),
        ({"kv_blocked": 0.0499}, "memory_bandwidth"),
        ({"kv_blocked": None, "preemptions": 20}, "kv_capacity"),
        ({"preemptions": 19}, "memory_bandwidth"),
        ({"queue_share": 0.1}, "queueing"),
        ({"queue_share": 0.0999}, "memory_bandwidth"),
        ({"queue_grows": True}, "queueing"),
    ],
)
def test_from_where_on_something_limits(changes: dict[str, Any], limit: str) -> None:
    assert bottleneck.judge(FACTS | changes)[0] == limit


def test_the_sentence_of_what_limits() -> None:
    def says(**changes: Any) -> str:
        return bottleneck.judge(FACTS | changes)[1]

    grows = " The queue grew through the run: the offered load is above what the deployment serves."
    assert says(kv_blocked=0.996) == "KV cache capacity breaks first: for 99% of the time the queue waited for KV blocks."
    assert says(kv_blocked=1.0, pool="the pool of windows", spell=True, preemptions=1500) == (
        "KV cache capacity breaks first: for 100% of the time the queue then waited for the pool of windows, and 1,500 preemptions threw work away."
    )
    assert says(preemptions=20, queue_grows=True) == (
        f"KV cache capacity breaks first: blocks ran out under load, and 20 preemptions threw work away.{grows}"
    )
    assert says(queue_share=0.25) == (  # a tenth of idleness is not yet worth a word
        "Queueing breaks first: requests wait for 25% of their time before they are scheduled; memory bandwidth takes 50% of the time."
    )
    assert "although the replicas idle 11%" in says(queue_share=0.25, shares=FACTS["shares"] | {"idle": 0.11})
    assert "although" not in says(queue_share=0.25, spell=True, shares=FACTS["shares"] | {"idle": 0.5})
    assert says(met=False, step_s=None, shares={"compute": 0.3, "other": 0.1, "idle": 0.6}) == (
        "Steps are too long for the SLO, not the queue: compute takes 75% of their time."
    )
    assert says(met=False, spell=True) == "Steps were too long then (45 ms on average), not the queue; over the whole run memory bandwidth takes 50% of the time."  # fmt: skip  # noqa: E501
    assert "takes 0% of their time" in says(met=False, shares={"compute": 0.0, "idle": 1.0})


# ---- sides

TIMES = {  # prefill first; decode first; decode first, but scheduled before it has memory; of one token; still computed
    "arrival_s": [0.0, 0.0, 0.0, 0.0, 0.0],
    "kv_allocated_s": [4.0, 0.5, 2.0, NAN, NAN],
    "first_scheduled_s": [1.0, 1.5, 1.0, 1.0, 1.0],
    "prefill_end_s": [3.0, 3.0, 3.0, 2.0, NAN],
    "kv_arrived_s": [4.5, 3.25, 3.5, NAN, NAN],
    "decode_start_s": [5.0, 3.5, 3.75, NAN, NAN],
    "finish_s": [9.0, 5.0, 5.75, 2.0, NAN],
    "first_token_s": [3.0, 3.0, 3.0, 2.0, NAN],
}


def columns() -> dict[str, Any]:
    return {k: np.array(v) for k, v in TIMES.items()} | {"prefill_replica": np.array([2, 0, -1, 0, 2])}


def test_stages_of_a_request_add_to_its_time() -> None:
    found = hand_over.stages(columns())

    assert tuple(found) == hand_over.STAGES
    assert found["prefill_queue"] == pytest.approx([1.0, 1.0, 0.0, 1.0, 1.0])
    assert found["prefill"] == pytest.approx([2.0, 1.5, 2.0, 1.0, NAN], nan_ok=True)
    assert found["decode_queue"] == pytest.approx([1.5, 0.75, 1.25, 0.0, NAN], nan_ok=True)
    assert found["transfer"] == pytest.approx([0.5, 0.25, 0.5, 0.0, NAN], nan_ok=True)
    assert found["decode"] == pytest.approx([4.0, 1.5, 2.0, 0.0, NAN], nan_ok=True)
    whole = sum(found.values())
    assert whole == pytest.approx(columns()["finish_s"], nan_ok=True)


def test_a_prompt_that_the_decode_side_computes_itself_ends_with_the_first_token() -> None:
    alone = {k: np.array(v[3:4]) for k, v in TIMES.items()} | {
        "prefill_replica": np.array([-1]), "prefill_end_s": np.array([NAN]), "first_token_s": np.array([1.5]),
    }  # fmt: skip
    assert {k: v.tolist() for k, v in hand_over.stages(alone).items()} == {
        "prefill_queue": [1.0], "prefill": [0.5], "decode_queue": [0.0], "transfer": [0.0], "decode": [0.5],
    }  # fmt: skip


def test_shares_of_the_stages_are_of_those_that_count() -> None:
    two = hand_over.shares(columns(), np.array([True, True, False, False, False]))
    assert two == pytest.approx(
        {"prefill_queue": 2 / 14, "prefill": 3.5 / 14, "decode_queue": 2.25 / 14, "transfer": 0.75 / 14, "decode": 5.5 / 14}
    )
    assert hand_over.shares(columns(), np.zeros(5, bool)) == dict.fromkeys(hand_over.STAGES)
    begun = hand_over.shares(columns(), np.arange(5) == 4)  # the only one is still computed
    assert begun == {"prefill_queue": 1.0, "prefill": 0.0, "decode_queue": 0.0, "transfer": 0.0, "decode": 0.0}
    assert hand_over.sides(columns(), 4).tolist() == [True, False, True, False]


@pytest.mark.parametrize(
    ("time", "preempted", "grows", "limit"),
    [
        ({"prefill_queue": 0.0999, "decode_queue": 0.05, "transfer": 0.0}, 0.0, False, "none"),
        ({"prefill_queue": 0.1, "decode_queue": 0.05, "transfer": 0.0}, 0.5, False, "prefill_queue"),
        ({"prefill_queue": None, "decode_queue": 0.1, "transfer": None}, 0.0, False, "decode_queue"),
        ({"prefill_queue": 0.3, "decode_queue": 0.1, "transfer": 0.4}, 0.0, False, "kv_transfer"),
        ({"prefill_queue": 0.0, "decode_queue": 0.01, "transfer": 0.0}, 0.0, True, "decode_queue"),
        ({}, 0.02, False, "kv_capacity"),
        ({}, 0.0199, False, "none"),
    ],
)
def test_the_side_that_breaks_first(time: dict[str, float | None], preempted: float, grows: bool, limit: str) -> None:
    load: Any = [{"busy": 0.5, "kv_mean": 0.9}, {"busy": 1.0, "kv_mean": 0.4}]
    assert hand_over.judge(time, load, np.array([True, False]), preempted, grows)[0] == limit


def test_the_sentence_of_the_sides() -> None:
    load: Any = [{"busy": 0.5}, {"busy": 0.7, "kv_mean": 0.1}, {"busy": 1.0, "kv_mean": 0.6}, {"busy": 0.9}]
    prefills = np.array([True, True, False, False])
    both = "prefill replicas are busy 60% of the time, decode replicas hold 60% of their KV memory"

    def says(time: dict[str, float | None], met: bool | None = True, grows: bool = False, of: Any = load) -> str:
        return hand_over.judge(time, of, prefills, 0.0, grows, met)[1]

    assert says({}) == f"Nothing is saturated: {both}; the decode side limits first when load grows."
    assert says({}, None).startswith("Nothing is saturated")
    assert says({}, False) == f"Steps are too long for the SLO, not a queue: {both}; the decode side limits first."
    assert (
        says({"prefill_queue": 0.25}) == f"The prefill side breaks first: requests spend 25% of their time in its queue; {both}."
    )
    assert says({"decode_queue": 0.25}, grows=True) == (
        f"The decode side breaks first: requests spend 25% of their time waiting for its KV memory or a place in its batch; {both}. "
        "The queue grew through the run: the offered load is above what the deployment serves."
    )
    calm: Any = [{"busy": 0.5}, {"busy": 0.6}, {"busy": 1.0, "kv_mean": 0.5}, {"busy": 1.0, "kv_mean": 0.5}]
    assert "The decode side has room to spare." in says({"prefill_queue": 0.25}, of=calm)
    assert "The prefill side has room to spare." in says({"decode_queue": 0.25}, of=calm)
    assert "the prefill side limits first" in says({}, of=calm)
    assert "room to spare" not in says({"transfer": 0.25}, of=calm)


# ---- money in words

BILL: dict[str, Any] = {
    "per_hour": 1234.5, "currency": "EUR", "per_million_input_tokens": 0.25, "per_million_output_tokens": 1.0, "output_to_input": 4.0,
    "per_1000_requests": 2.5, "accelerators": 8.0, "accelerators_paid": 8.0, "idle_share": 0.25, "kilowatts": 10.0, "power": {"pue": 1.2},
    "kwh_per_million_output_tokens": 3.0, "g_co2e_per_million_output_tokens": 900.0, "grid": "DE: mean of a year",
    "lines": ({"what": "cards", "source": "a list", "date": "2025-01"}, {"what": "power", "source": "an offer", "date": None}),
}  # fmt: skip


def test_what_is_said_of_money() -> None:
    assert sentences(BILL) == [
        (
            "1,234.50 EUR per hour: 0.25 per million input tokens and 1 per million output tokens (4 to 1), 2.5 per 1,000 requests; "
            "8 accelerators paid for; no step runs in 25% of what is paid"
        ),
        "10.00 kW at the meter (PUE 1.20), 3 kWh per million output tokens, 900 gCO2e (DE)",
        "cards: a list, 2025-01",
        "power: an offer",
        "grid: DE: mean of a year",
    ]
    nothing = dict.fromkeys(k for k in BILL if k.endswith(("_tokens", "_requests")))
    assert sentences(BILL | nothing | {"lines": ()}) == [
        "1,234.50 EUR per hour; 8 accelerators paid for; no step runs in 25% of what is paid",
        "10.00 kW at the meter (PUE 1.20)",
    ]


@pytest.mark.parametrize(
    ("used", "bought", "idle", "said"),
    [
        (1.0, 1.0, 0.0049, "1 accelerator paid for"),
        (1.0, 1.0, 0.005, "1 accelerator paid for; no step runs in 0% of what is paid"),
        (2.0, 8.0, 0.0, "8 accelerators paid for, 2 of them used"),
    ],
)
def test_what_is_paid_for(used: float, bought: float, idle: float, said: str) -> None:
    assert paid(BILL | {"accelerators": used, "accelerators_paid": bought, "idle_share": idle}) == said
