"""What `docs/hardware.md` prints, executed as printed."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

import sim
from sim.config import load
from sim.errors import ConfigError
from sim.fleet.build import plan
from sim.hardware import load_accelerator
from sim.study.schemas import KINDS, schema
from tests.documents import blocks, files, steps, text_of

PAGE = text_of("docs/hardware.md")
FILES = files(PAGE, "yaml")
COMMANDS = steps(PAGE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_block_is_a_file_or_a_command() -> None:
    assert len(re.findall("```", PAGE)) == 2 * (len(FILES) + len(blocks(PAGE, "console")))
    assert not any(printed for _, printed in COMMANDS)
    assert len(COMMANDS) >= 5


@pytest.mark.parametrize("words", [words for words, _ in COMMANDS], ids=" ".join)
def test_every_command_plans(words: list[str], folder: Path) -> None:
    assert words[0] == "servesim" and words[1] in ("run", "memory")
    overrides = [words[i + 1] for i, w in enumerate(words) if w == "-s"]
    planned = plan(load(words[2], overrides))

    assert planned[0].kv_blocks > 0


def test_the_answer_of_the_page(folder: Path) -> None:
    """A network of 25 GbE shows, and more where tensors cross it than where stages do."""

    def note(*overrides: str) -> list[str]:
        return [n for n in plan(load("two-servers.yaml", overrides))[0].evidence.notes if "nodes of 8" in n]

    assert "tcp-25g" in note()[0] and "rdma-400g" in note("deployment.network=rdma-400g")[0]
    with pytest.raises(ConfigError, match="no link"):
        plan(load("mine.yaml", ["deployment.tp=2"]))


def test_own_files_hold(folder: Path) -> None:
    card = load_accelerator("h300-sourced.yaml")

    assert card.link.name == "my-nvlink"
    p = plan(load("mine.yaml", ["deployment.profile=slow-host.yaml"]))[0]
    assert (p.profile.host_step, p.profile.overlap_gap) == (pytest.approx(0.0025), pytest.approx(0.0006))
    assert sim.memory(load("mine.yaml"))


@pytest.mark.parametrize("kind", KINDS)
def test_there_is_a_schema_with_descriptions(kind: str) -> None:
    found = schema(kind)

    assert found["type"] == "object"
    assert yaml.safe_load(yaml.safe_dump(found)) == found
    if kind != "servers":
        assert all("description" in p or "$ref" in p or "anyOf" in p for p in found["properties"].values())
