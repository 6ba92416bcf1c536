"""Small worlds decide as they did when they were recorded: who ran in which step with how many tokens, what memory held, when each request got what.

Where a change is meant, ``NUMBA_DISABLE_JIT=1 python -m tests.recorded --why "…"`` records again (`tests.recorded.__main__`).
"""

from __future__ import annotations

import json

import pytest

from sim.jit import JIT
from tests.engines import plain
from tests.recorded.everything import made, names
from tests.recorded.kept import FOLDER, WHY, difference, recorded, short
from tests.recorded.trace import trace
from tests.recorded.worlds import worlds
from tests.scenarios.test_digests import KNOWN, arithmetic

ONE_BY_ONE = ("as it is", "pressed", "talks")


@pytest.mark.parametrize("name", [] if JIT else names())  # run in plain Python below
def test_decides_as_recorded(name: str) -> None:
    if arithmetic() != KNOWN["arithmetic"]:
        pytest.skip("elementary functions round differently on this machine")
    if what := difference(name, short(made(name))):
        pytest.fail(f"{name}\n{what}", pytrace=False)


@pytest.mark.parametrize("name", [] if JIT else [name for name in worlds() if name.partition(": ")[2] in ONE_BY_ONE])
def test_steps_one_by_one_are_those_of_a_stroke(name: str) -> None:
    """Requests and sums of steps; what is summed in another order differs in the last digits."""
    together, single = trace(worlds()[name]), trace(worlds()[name], multi_step=False)
    assert together.get("requests") == single.get("requests")
    assert together.get("steps") == single.get("steps")


def test_nothing_is_recorded_that_no_world_asks_for() -> None:
    groups = sorted(file.name.partition(".")[0] for file in FOLDER.glob("*.json.xz"))
    assert sorted(name for group in groups for name in recorded(group)) == sorted(names())


def test_each_recording_has_its_reason() -> None:
    assert all(len(row["why"]) > 20 for row in json.loads(WHY.read_text()))


@pytest.mark.skipif(not JIT, reason="is what is run here")
def test_the_same_in_plain_python() -> None:
    plain.passes(__file__)
