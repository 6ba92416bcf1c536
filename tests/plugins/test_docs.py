"""What `docs/extending.md` prints, executed as printed."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "extending.md").read_text(encoding="utf-8")
RECIPES = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
COMMANDS = ("servesim", "pytest", "python")


def _files(text):
    return dict(re.findall(r"```(?:python|yaml)\n# file: (\S+)\n(.*?)```", text, re.S))


def _steps(text):
    """Commands with the lines that they are said to print."""
    steps = []
    for block in re.findall(r"```console\n(.*?)```", text, re.S):
        for line in block.splitlines():
            if line.startswith("$ "):
                steps.append((shlex.split(line[2:]), []))
            else:
                steps[-1][1].append(line)
    return steps


def test_every_block_is_a_file_or_commands():
    blocks = len(re.findall("^```$", PAGE, re.M))
    assert blocks == len(_files(PAGE)) + len(re.findall("^```console$", PAGE, re.M))
    assert {"A scheduler", "A router", "A trace format", "An accelerator", "A study"} <= set(RECIPES)
    assert all(words[0] in COMMANDS for words, _ in _steps(PAGE))


def test_the_plain_scheduler_is_short():
    body = _files(RECIPES["A scheduler"])["short_first.py"].partition("class ShortFirst(")[2]
    assert len(body.splitlines()) <= 30


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_printed(name, tmp_path):
    for file, text in _files(RECIPES[name]).items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2]), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    for words, printed in _steps(RECIPES[name]):
        program = {"servesim": ["-m", "sim.cli"], "pytest": ["-m", "pytest", "-q", "-p", "no:cacheprovider"], "python": []}[
            words[0]
        ]
        done = subprocess.run(
            [sys.executable, *program, *words[1:]], cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert done.returncode == (2 if any(line.startswith("error:") for line in printed) else 0), done.stdout + done.stderr
        for line in printed:
            pattern = ".*".join(re.escape(piece) for piece in line.split("…"))
            assert re.search(pattern, done.stdout + done.stderr), (line, done.stdout + done.stderr)
