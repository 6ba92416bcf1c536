"""Small worlds of everything that a fleet can be made of: each decision, row and figure is the recorded one, and obeys the laws."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from sim.errors import ConfigError
from tests.answers import same, worlds
from tests.fleet.catalogue import LEAST, LOADS, SIDES, THREE, TWO, catalogue, world
from tests.fleet.mixed import MIXED, MOMENTS
from tests.whole import in_order, load, seen

WORLDS = catalogue()


def room_of(name: str) -> str:
    """The file in which an answer is: by the first word of its name."""
    first = name.partition(" ")[0].rstrip(",")
    return f"fleet-{first if first in ('router', 'sides', 'client', 'fault', 'door', 'scaler') else 'rest'}"


def obeys(found: dict[str, Any]) -> None:
    """What holds in any world: nothing is lost, or comes before its cause."""
    r, count = found["requests"], found["summary"]["requests"]
    assert sorted(r["id"]) == list(range(count["injected"]))
    assert count["injected"] == count["finished"] + count["rejected"] + count["failed"] + count["in_flight"]
    in_order(r)
    done = r["status"] == 0
    assert (r["output_tokens"][done] > 0).all() and (r["cached_tokens"] <= np.maximum(r["prompt_tokens"], 0)).all()
    sent = [line[2] for line in found["road"] if line[1].endswith("Engines.submit")]
    assert len(sent) == len(set(sent)) or any(
        word in line[1] for line in found["road"] for word in ("Faults", "HandOvers", "Migrator", "Elastic", "Hosts")
    )


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_is_as_recorded(name: str) -> None:
    found = seen(load(WORLDS[name]))
    obeys(found)
    if "until: " not in WORLDS[name]:
        assert found["summary"]["requests"]["in_flight"] == 0
    same(room_of(name), name, found)


@pytest.mark.parametrize("name", LOADS)
@pytest.mark.parametrize("where", ["one", "sides"])
def test_another_load_of_a_world_is_as_recorded(where: str, name: str) -> None:
    scenario = load(world("plain", {"one": THREE, "sides": SIDES["vllm"]}[where], LEAST))
    if (where, name) == ("sides", "replicas"):
        pytest.skip("of several pools the number of replicas is not one")
    same("fleet-loads", f"{where} {name}", seen(scenario, **LOADS[name]))


def test_the_rates_of_classes_are_as_recorded() -> None:
    same("fleet-loads", "classes", seen(load(world("classes", TWO, LEAST)), classes={"chat": 2.0, "rest": 0.5}))


@pytest.mark.parametrize("name", [*MIXED, *MOMENTS])
def test_a_world_of_several_things_at_once_is_as_recorded(name: str) -> None:
    try:
        found = seen(load((MIXED | MOMENTS)[name]))
    except ConfigError as refused:
        same("fleet-mixed", name, f"{type(refused).__name__}: {refused.field}")
        return
    obeys(found)
    same("fleet-mixed", name, found)


def test_nothing_is_recorded_of_worlds_that_are_gone() -> None:
    assert worlds("fleet-mixed") == {*MIXED, *MOMENTS}
    for room in {room_of(name) for name in WORLDS}:
        assert worlds(room) == {name for name in WORLDS if room_of(name) == room}
