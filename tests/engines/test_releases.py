"""Releases: the lines whose host side is known are listed, others are refused by name."""

from __future__ import annotations

import pytest

from sim.config import settings
from sim.config.scenario import Scenario
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan

TRAFFIC = {
    "synthetic": {
        "arrival": {"process": "burst"},
        "lengths": {"kind": "fixed", "prompt_tokens": 10, "output_tokens": 10},
        "requests": 1,
    }
}


def planned(engine: str, version: str, accelerator: str = "h100-sxm", weights: str = "auto", **more: object):
    deployment = {"accelerator": accelerator, "engine": {"name": engine, "version": version, **more}}
    model = {"name": "llama-3.1-8b", "weights": weights}
    return plan(settings(Scenario, {"model": model, "traffic": TRAFFIC, "deployment": deployment}))[0]


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


def test_one_line_of_mindie_is_known_and_every_release_of_it_says_whose_decisions_it_takes() -> None:
    newest, older = (planned("mindie", v, "ascend-910b3") for v in ("2.3", "1.0"))

    assert older.profile == newest.profile
    assert [n for n in older.evidence.notes if n not in newest.evidence.notes] == ["version 1.0 decides as 2.3"]
    with pytest.raises(NotModelledError, match=r"1\.0 to 2\.3"):
        planned("mindie", "3.0", "ascend-910b3")


def test_a_release_of_ollama_has_its_runner() -> None:
    told = {"accelerator": "rtx-4090", "weights": "q4_k_m"}

    assert planned("ollama", "0.24.0", **told).params.runner == "ollamarunner"
    assert planned("ollama", "0.24", **told, runner="llamarunner").params.runner == "llamarunner"
    assert planned("ollama", "0.31.2", **told).params.runner == "llama-server"
    with pytest.raises(ConfigError, match="ollamarunner, llamarunner"):
        planned("ollama", "0.24", **told, runner="llama-server")
    for other in ("0.11", "0.27", "0.40"):
        with pytest.raises(NotModelledError, match=r"0\.24, 0\.30 to 0\.33"):
            planned("ollama", other, **told)


def test_one_build_of_llama_cpp_is_known() -> None:
    told = {"accelerator": "rtx-4090", "weights": "q4_k_m", "n_ctx": 4096}

    assert planned("llamacpp", "0c1e570", **told).params.version == "0c1e570"
    with pytest.raises(NotModelledError, match="0c1e570"):
        planned("llamacpp", "b4000", **told)
    with pytest.raises(NotModelledError, match="nothing is published"):
        planned("bladellm", "0.12")
