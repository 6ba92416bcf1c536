"""Stations by themselves: what each passes on, keeps and counts, with others that write down what they are told."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.fleet.coordinator import Queue
from sim.fleet.engines import Engines
from sim.fleet.hand_over_rows import HandOverRows
from sim.fleet.journey import SideColumns, continued
from sim.fleet.members import Members
from sim.workload.table import RequestBlock


def block(**more: Any) -> RequestBlock:
    spans = (np.array([0, 2, 2]), np.array([7, 8]), np.array([0, 4]), np.array([30, 20]))
    return RequestBlock.of(
        [1.0, 2.0], [50, 60], [10, 20], max_tokens=[12, 30], priority=[3, 4], session=[5, 6], lora=[1, 2], klass=[0, 1], tenant=[1, 2],
        out_content=[100, 200], spans=spans, **more,
    )  # fmt: skip


def test_what_a_decode_side_gave_back_is_asked_again_with_what_was_delivered() -> None:
    again = continued(block(), 0, 9.0, 4)

    assert (again.arrival_s.tolist(), again.prompt_tokens.tolist(), again.output_tokens.tolist(), again.max_tokens.tolist()) == (
        [9.0], [54], [6], [8],
    )  # fmt: skip
    assert (again.priority[0], again.session[0], again.lora[0], again.klass[0], again.tenant[0]) == (3, 5, 1, 0, 1)
    assert again.out_content[0] not in (100, 200)  # what comes now is other content than what was delivered
    assert again.span_off.tolist() == [0, 3]
    assert (again.span_id.tolist(), again.span_start.tolist(), again.span_len.tolist()) == ([7, 8, 100], [0, 4, 0], [30, 20, 4])
    nothing = continued(block(), 0, 9.0, 0)
    assert (nothing.span_id.tolist(), nothing.prompt_tokens.tolist()) == ([7, 8], [50])
    unique = continued(block(), 1, 9.0, 3)
    assert (unique.span_off.tolist(), unique.span_id.tolist(), unique.prompt_tokens.tolist()) == ([0, 0], [], [63])


def test_the_prefill_side_is_asked_for_one_token() -> None:
    made = SideColumns()
    whole = block()
    prefill, decode = made.of(whole)

    assert prefill[2].tolist() == [1, 1] and decode[2].tolist() == [10, 20]
    assert prefill[1].tolist() == decode[1].tolist() == [50, 60]
    assert made.of(whole)[0][0] is prefill[0]
    decode[0][0] = 5.0
    assert (prefill[0][0], whole.arrival_s[0]) == (1.0, 1.0)  # each side has its own times


class Told:
    """Writes down what it is told, and answers what it was made with."""

    def __init__(self, **answers: Any) -> None:
        self.said: list[tuple[Any, ...]] = []
        self.answers = answers

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        answer = self.answers.get(name)
        if not callable(answer) and name in ("capacity", "patience", "period", "interval"):
            return answer

        def told(*given: Any) -> Any:
            self.said.append((name, *given))
            return answer

        return told


def queue(capacity: int = 2, **answers: Any) -> tuple[Queue, Told, Told]:
    router = Told(capacity=capacity, patience=float("inf"), period=1.0, **({"dispatch": []} | answers))
    clock = SimpleNamespace(now=0.0, process=lambda _: None)
    station = Queue(clock, router, None)  # type: ignore[arg-type]
    then, before = Told(withdraw=True), Told()
    station.then, station.before = then, before  # type: ignore[assignment]
    return station, router, then


def request(number: int) -> Any:
    return SimpleNamespace(number=number, block=None, row=0)


def test_the_queue_refuses_above_its_capacity_and_a_place_is_free_when_one_leaves() -> None:
    station, router, then = queue()

    assert [station.arrive(request(k)) for k in range(3)] == [True, True, False]
    assert (station.waited, station.totals()) == (2, {"fleet_gateway_waited": 2.0, "fleet_gateway_failed": 0.0})
    assert station.withdraw(request(1)) is True
    assert ("withdraw", 1) in router.said and not then.said
    assert station.arrive(request(4)) is True  # in its place
    assert station.arrive(request(5)) is False
    assert station.withdraw(request(9)) is True and then.said[0][0] == "withdraw"  # it is further on


def test_what_the_router_sends_does_not_wait() -> None:
    station, _, then = queue(dispatch=[(0, 3, -1)])
    first = request(0)
    station.arrive(first)
    assert then.said == [("send", first, 3, -1)]
    assert (station.waited, station.held) == (0, {})


@pytest.mark.parametrize(("numbers", "choice", "found"), [([], 0, -1), ([4, 7], 1, 7), ([4, 7], 0, 4), ([4, 7], -1, -1)])
def test_a_router_chooses_among_those_that_serve(numbers: list[int], choice: int, found: int) -> None:
    members = SimpleNamespace(numbers=numbers, _router=Told(choose=choice), _seen=None)
    assert Members.choose(members, None, None, 0) == found  # type: ignore[arg-type]
    assert bool(members._router.said) == bool(numbers)


def test_requests_that_found_no_decode_replica_are_told() -> None:
    rows = SimpleNamespace(returned=0, failed_on_p=[], alone=0)
    assert HandOverRows.notes(rows) == []  # type: ignore[arg-type]
    rows.failed_on_p = [3, 4]
    assert HandOverRows.notes(rows) == ["2 requests found no decode replica after their prefill and failed"]  # type: ignore[arg-type]
    rows.returned = 1000
    assert HandOverRows.notes(rows)[0] == "1,000 requests lost their memory on a decode replica and were prefilled again"  # type: ignore[arg-type]
    assert HandOverRows.totals(rows) == {"fleet_returned": 1000.0, "fleet_no_decode": 2.0}  # type: ignore[arg-type]


@pytest.mark.parametrize(("known", "said"), [([True, True], 0), ([True, False], 1), ([False], 1), ([], 0)])
def test_engines_that_are_told_of_nothing_are_named(known: list[bool], said: int) -> None:
    engines = SimpleNamespace(_exits={k: SimpleNamespace(known=value) for k, value in enumerate(known)})
    assert len(Engines.notes(engines)) == said  # type: ignore[arg-type]


@pytest.mark.parametrize(("now", "heard"), [(1.0, 1.3), (1.3, 2.3), (2.29, 2.3), (0.3, 1.3)])
def test_an_engine_that_looks_at_its_connections_once_a_second_hears_of_it_then(now: float, heard: float) -> None:
    """llama.cpp's HTTP thread, counted from when the request came."""
    calls: list[float] = []
    clock = SimpleNamespace(now=now, call=lambda t, what: calls.append(float(t)))
    left: list[int] = []
    engines = SimpleNamespace(
        clock=clock, notices_after=[1.0, 0.0], pool_of=[0, 1], _let_go=lambda request: left.append(request.number)
    )
    assert Engines.withdraw(engines, SimpleNamespace(number=7, replica=0, came=0.3)) is False  # type: ignore[arg-type]
    assert calls == [pytest.approx(heard)] and not left
    Engines.withdraw(engines, SimpleNamespace(number=8, replica=1, came=0.3))  # type: ignore[arg-type]
    assert left == [8]
