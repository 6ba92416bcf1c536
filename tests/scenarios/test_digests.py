"""The requests of the built-in scenarios, to the byte: whoever changes one digest in `digests.json` says why there.

``python -m tests.scenarios.test_digests`` prints the digests of now.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.config import built_in
from sim.metrics.result import Result
from tests.scenarios.runs import result

FILE = Path(__file__).with_name("digests.json")


def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object in which no key stands twice."""
    assert len(dict(pairs)) == len(pairs), sorted(key for key, n in Counter(key for key, _ in pairs).items() if n > 1)
    return dict(pairs)


KNOWN = json.loads(FILE.read_text(), object_pairs_hook=once)
LATER = ("taken_s", "ingress_s", "session", "tenant")
"""Columns that came after the digests were taken."""
NAMES = [name for name, _ in built_in()]


def digest(r: Result) -> str:
    """Of names and bytes of all columns but `LATER`; the time before a request is scheduled is taken whole, as it was then."""
    h = hashlib.sha256()
    for name in (c for c in r.requests.columns if c not in LATER):
        column = r.requests[name]
        if name == "queue_s":
            column = r.requests["first_scheduled_s"] - r.requests["arrival_s"]
        h.update(name.encode())
        h.update(repr(column.tolist()).encode() if column.dtype == object else column.to_numpy().tobytes())
    return h.hexdigest()[:16]


def arithmetic() -> str:
    """How this machine rounds elementary functions: where it is another way than where the digests were taken, bytes differ."""
    x = np.linspace(0.1, 7.0, 4097)
    return hashlib.sha256(np.concatenate([np.exp(x), np.log(x), x**1.7, np.sin(x)]).tobytes()).hexdigest()[:16]


@pytest.mark.parametrize("name", NAMES)
def test_requests_are_the_same_to_the_byte(name: str) -> None:
    if arithmetic() != KNOWN["arithmetic"]:
        pytest.skip("elementary functions round differently on this machine")
    assert digest(result(name)) == KNOWN["digests"][name]


def test_each_change_has_its_reason() -> None:
    assert set(KNOWN["digests"]) == set(NAMES)
    assert set(KNOWN["changed"]) <= set(NAMES)
    assert all(len(why) > 20 for why in KNOWN["changed"].values())


if __name__ == "__main__":
    print(json.dumps({"arithmetic": arithmetic(), "digests": {name: digest(result(name)) for name in NAMES}}, indent=1))
