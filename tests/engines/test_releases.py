"""Releases: the lines whose host side is known are listed, others are refused by name."""

from __future__ import annotations

import pytest

from sim.config import settings
from sim.config.scenario import Scenario
from sim.errors import NotModelledError
from sim.fleet.build import plan

TRAFFIC = {
    "synthetic": {
        "arrival": {"process": "burst"},
        "lengths": {"kind": "fixed", "prompt_tokens": 10, "output_tokens": 10},
        "requests": 1,
    }
}


def planned(engine: str, version: str):
    deployment = {"accelerator": "h100-sxm", "engine": {"name": engine, "version": version}}
    return plan(settings(Scenario, {"model": "llama-3.1-8b", "traffic": TRAFFIC, "deployment": deployment}))[0]


@pytest.mark.parametrize(
    ("engine", "version", "line", "noted"),
    [
        ("sglang", "0.5.9", "0.5", False),
        ("sglang", "0.4.1", "0.4", True),
        ("tgi", "1.1", "0.8", True),
        ("tgi", "3.3", "2.0", False),
    ],
)
def test_a_release_takes_the_host_side_of_its_line(engine: str, version: str, line: str, noted: bool) -> None:
    made = planned(engine, version)
    assert made.profile.line == line
    assert any(f"line {line}; it decides as" in note for note in made.evidence.notes) is noted


@pytest.mark.parametrize(("engine", "version"), [("sglang", "0.1"), ("sglang", "0.6"), ("tgi", "0.7"), ("tgi", "4.0")])
def test_a_release_without_a_line_is_refused_and_the_lines_are_listed(engine: str, version: str) -> None:
    with pytest.raises(NotModelledError, match=r"lines begin at 0\.\d"):
        planned(engine, version)
