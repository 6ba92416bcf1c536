"""Sections of the summary: attributes and keys say the same, JSON goes there and back, the schema describes it, a new one is one class."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import FrozenInstanceError, dataclass
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from sim import registry
from sim.metrics.facts import Facts
from sim.metrics.result import summarise
from sim.metrics.section import Extra, fields_of
from sim.metrics.slo import Slo
from sim.metrics.summary import Summary, schema
from tests.metrics.records import four_requests
from tests.scenarios.runs import result as run

BUILT_IN = ("quickstart", "pai-autoscale", "pd-vllm", "static-batching")


@pytest.mark.parametrize("name", BUILT_IN)
def test_json_there_and_back(name: str) -> None:
    summary = run(name).summary
    text = json.dumps(summary.as_dict(), allow_nan=False)

    again = Summary.from_dict(json.loads(text))

    assert again == summary
    assert json.dumps(again.as_dict(), allow_nan=False) == text
    assert again.latency == summary.latency
    assert type(again.replicas[0]) is type(summary.replicas[0])


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_schema_describes_every_summary(name: str) -> None:
    published = schema()
    Draft202012Validator.check_schema(published)
    closed = _closed(published)

    Draft202012Validator(closed).validate(run(name).summary.as_dict())


def _closed(node: Any) -> Any:
    """The schema with no room for keys that it does not name."""
    if isinstance(node, Mapping):
        out = {k: _closed(v) for k, v in node.items()}
        return out | {"additionalProperties": False} if "properties" in node and "required" in node else out
    return [_closed(v) for v in node] if isinstance(node, list) else node


def test_attributes_and_keys_are_the_same() -> None:
    s = summarise(four_requests(slo=Slo(ttft=1.0))).summary

    assert s.latency.ttft.p99 == s["latency"]["ttft_s"]["p99"]
    assert s.slo.met is s["slo"]["met"]
    assert s.replicas[1].index == s["replicas"][1]["replica"] == 1
    assert (
        dict(s.requests)
        == s["requests"]
        == {"injected": 4, "finished": 3, "rejected": 1, "failed": 0, "in_flight": 0, "warmup": 0}
    )
    assert s.get("nothing") is None and "nothing" not in s
    with pytest.raises(KeyError):
        s["nothing"]
    with pytest.raises(AttributeError, match="nothing"):
        s.nothing  # noqa: B018
    with pytest.raises(FrozenInstanceError):
        s.seed = 3  # type: ignore[misc]


def test_what_does_not_apply_has_no_key() -> None:
    s = summarise(four_requests()).summary

    assert s.scaling is None
    assert not {"scaling", "fleet", "economics"} & set(s.as_dict())
    assert s["spell"] is None  # None is an answer: there was none


def test_a_section_of_ones_own_is_one_class(monkeypatch: pytest.MonkeyPatch) -> None:
    @dataclass(frozen=True)
    class Waits(Extra):
        """How long somebody waited."""

        name = "waits"

        longest_s: float
        ttft_s: float | None = None

        @classmethod
        def of(cls, facts: Facts) -> Waits | None:
            found = facts.record.stations.get("waits")
            return None if found is None else cls(**found)

    monkeypatch.setitem(registry._registered["section"], "waits", Waits)
    monkeypatch.setitem(globals(), "Waits", Waits)

    s = summarise(four_requests(stations={"waits": {"longest_s": 3.0}})).summary

    assert s.waits.longest_s == s["waits"]["longest_s"] == 3.0
    assert list(s)[-1] == "waits"
    assert Summary.from_dict(json.loads(json.dumps(s.as_dict()))) == s
    published = schema()
    assert published["$defs"]["Waits"]["description"] == "How long somebody waited."
    assert "TTFT" in published["$defs"]["Waits"]["properties"]["ttft_s"]["description"]
    assert "waits" not in summarise(four_requests()).summary
    assert "waits" not in fields_of(Summary)


def test_a_file_of_a_later_version_keeps_what_is_not_known_here() -> None:
    data = summarise(four_requests()).summary.as_dict()

    assert Summary.from_dict(data | {"comet": {"tail": [1, 2]}}).as_dict()["comet"] == {"tail": [1, 2]}
