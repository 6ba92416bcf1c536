"""Adapters and priorities of requests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.config.traffic import Traffic as Section
from sim.errors import ConfigError
from sim.workload import build_traffic
from sim.workload.labels import carried
from sim.workload.table import RequestBlock


def section(requests: int = 20_000, sessions: int = 0, **labels: Any) -> dict[str, Any]:
    synthetic: dict[str, Any] = {
        "arrival": {"process": "poisson", "rate": "50/s"},
        "lengths": {"kind": "fixed", "prompt_tokens": 50, "output_tokens": 5},
        "requests": requests,
    }
    if sessions:
        synthetic["sessions"] = {"turns": sessions, "think_time": 1.0}
    return Section.model_validate({"synthetic": synthetic, **labels}).model_dump(exclude_none=True)


def rows(made: Any, size: int = 1000) -> RequestBlock:
    return RequestBlock.concat(list(made.blocks(size)))


def shares(column: Any) -> dict[int, float]:
    values, counts = np.unique(column, return_counts=True)
    return dict(zip(values.tolist(), (counts / len(column)).tolist(), strict=True))


def test_shares_of_adapters_and_of_priorities() -> None:
    block = rows(build_traffic(section(adapters={"shares": [0.5, 0.2]}, priorities={3: 1, 7: 3}), 1))
    assert shares(block.lora) == pytest.approx({0: 0.3, 1: 0.5, 2: 0.2}, abs=0.02)
    assert shares(block.priority) == pytest.approx({3: 0.25, 7: 0.75}, abs=0.02)
    assert abs(np.corrcoef(block.lora, block.priority)[0, 1]) < 0.03


def test_popularity_of_adapters() -> None:
    even = shares(rows(build_traffic(section(adapters={"count": 4, "share": 0.8}), 1)).lora)
    assert even == pytest.approx({0: 0.2, 1: 0.2, 2: 0.2, 3: 0.2, 4: 0.2}, abs=0.02)
    zipf = shares(rows(build_traffic(section(adapters={"count": 4, "zipf": 1}), 1)).lora)
    assert zipf == pytest.approx({1: 0.48, 2: 0.24, 3: 0.16, 4: 0.12}, abs=0.02)


def test_labels_belong_to_requests_whatever_the_rate_the_blocks_and_the_limit() -> None:
    made = build_traffic(section(adapters={"count": 5}, priorities={0: 1, 1: 1}), 3)
    plain = rows(made)
    for other in (rows(made, 777), rows(made.with_rate(7.0)), rows(made.up_to(60))):
        assert (other.lora == plain.lora).all()
        assert (other.priority == plain.priority).all()
    unlabelled = rows(build_traffic(section(), 3))
    assert (unlabelled.arrival_s == plain.arrival_s).all()
    assert not unlabelled.lora.any()
    assert (rows(build_traffic(section(adapters={"count": 5}, priorities={0: 1, 1: 1}), 4)).lora != plain.lora).any()


def test_turns_of_a_session_have_one_adapter_also_for_waiting_clients() -> None:
    made = build_traffic(section(600, sessions=3, adapters={"count": 5}, closed_loop={"concurrency": 4}), 3)
    block = rows(made)
    own = {s: set(block.lora[block.session == s].tolist()) for s in np.unique(block.session)}
    assert {len(x) for x in own.values()} == {1}
    assert made.closed_loop is not None
    asked, row = made.closed_loop.next(0) or pytest.fail("no request")
    assert {int(asked.lora[row])} == own[int(asked.session[row])]


@pytest.mark.parametrize(
    "wrong",
    [
        {"adapters": {}},
        {"adapters": {"count": 2, "shares": [0.5]}},
        {"adapters": {"shares": [0.7, 0.7]}},
        {"adapters": {"shares": [-0.1]}},
        {"adapters": {"shares": [0.5], "zipf": 1.0}},
        {"adapters": {"count": 0}},
        {"priorities": {}},
        {"priorities": {"high": 1}},
        {"priorities": {0: -1}},
        {"priorities": {2**40: 1}},
    ],
)
def test_what_cannot_be_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(wrong))):
        section(**wrong)


def test_labels_of_a_trace_are_not_replaced_in_silence(tmp_path: Path) -> None:
    file = tmp_path / "own.csv"
    file.write_text("arrival_s,input_tokens,output_tokens,priority,adapter\n0,10,5,1,x\n1,10,5,2,\n2,10,5,3,y\n")
    trace = {"trace": {"format": "csv", "path": str(file)}}
    own = rows(build_traffic(Section.model_validate(trace).model_dump(exclude_none=True)))
    assert (own.lora.tolist(), own.priority.tolist()) == ([1, 0, 2], [1, 2, 3])
    for more in ({"adapters": {"count": 2}}, {"priorities": {0: 1}}):
        with pytest.raises(ConfigError, match="column of its own"):
            build_traffic(Section.model_validate(trace | more).model_dump(exclude_none=True))


def test_what_traffic_carries() -> None:
    assert carried(build_traffic(section(), 0)) == frozenset()
    assert carried(build_traffic(section(adapters={"count": 1}), 0)) == {"adapters"}
    assert carried(build_traffic(section(priorities={5: 1}), 0)) == frozenset()
    assert carried(build_traffic(section(priorities={5: 1, 6: 1}), 0)) == {"priorities"}
    assert carried(build_traffic(section(50, sessions=2), 0)) == {"shared prefixes"}
