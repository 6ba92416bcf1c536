"""What `docs/extending.md` prints, executed as printed."""

import os
import re
import subprocess
import sys

import pytest

from tests.documents import ROOT, blocks, files, steps, text_of

PAGE = text_of("docs/extending.md")
RECIPES = {part.partition("\n")[0]: part for part in PAGE.split("\n## ")[1:]}
COMMANDS = ("servesim", "pytest", "python")


def _files(text):
    return files(text, "python", "yaml")


def test_every_block_is_a_file_or_commands():
    assert len(re.findall("^```$", PAGE, re.M)) == len(_files(PAGE)) + len(blocks(PAGE, "console"))
    assert {"A scheduler", "A router", "A trace format", "An accelerator", "A study"} <= set(RECIPES)
    assert all(words[0] in COMMANDS for words, _ in steps(PAGE))


def test_the_plain_scheduler_is_short():
    body = _files(RECIPES["A scheduler"])["short_first.py"].partition("class ShortFirst(")[2]
    assert len(body.splitlines()) <= 30


@pytest.mark.parametrize("name", RECIPES)
def test_a_recipe_works_as_printed(name, tmp_path):
    for file, text in _files(RECIPES[name]).items():
        (tmp_path / file).write_text(text, encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(ROOT), "COLUMNS": "200", "PYTHONDONTWRITEBYTECODE": "1"}
    for words, printed in steps(RECIPES[name]):
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
