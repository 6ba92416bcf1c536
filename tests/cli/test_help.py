"""What ``--help`` says of every command."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
import typer

from sim.cli.main import application
from tests.cli.conftest import Command

PROGRAM: Any = typer.main.get_command(application())


def _all(command: Any, *called: str) -> Iterator[tuple[tuple[str, ...], Any]]:
    yield called, command
    for name, inner in getattr(command, "commands", {}).items():
        yield from _all(inner, *called, name)


COMMANDS = dict(_all(PROGRAM))


@pytest.mark.parametrize("width", [60, 80])
@pytest.mark.parametrize("called", COMMANDS, ids=" ".join)
def test_help_is_whole_at_any_width(
    called: tuple[str, ...], width: int, servesim: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    done = servesim(*called, "--help")
    said, _, examples = done.out.partition("\nExamples:\n")
    assert done.code == 0
    assert max(map(len, said.splitlines())) <= width
    assert not re.search(r"<(bool|int|str|float|path|list.*)>|[{}]", said), "a type of the program's own language"
    for option in COMMANDS[called].params:
        assert all(name in said for name in [*option.opts, *option.secondary_opts] if name.startswith("--"))
        assert option.help, option.name
    assert examples.splitlines() == [f"  {line}" for line in (COMMANDS[called].epilog or "").splitlines()]


EXAMPLES = [line.partition(" > ")[0] for command in COMMANDS.values() for line in (command.epilog or "").splitlines()]


@pytest.mark.parametrize("line", EXAMPLES)
def test_an_example_is_a_command(line: str) -> None:
    program, *words = shlex.split(line)
    command = PROGRAM
    while getattr(command, "commands", None):
        command = command.commands[words.pop(0)]
    assert program == "servesim"
    if words != ["--help"]:
        command.make_context("servesim", words)  # raises what is wrong with them


def test_what_is_on_by_itself_can_be_switched_off() -> None:
    flags = {option for command in COMMANDS.values() for p in command.params for option in p.secondary_opts}
    assert {"--no-model-error", "--no-hysteresis"} <= flags


def test_every_question_has_an_example() -> None:
    from sim import registry

    assert all(registry.lookup("study", name).examples for name in registry.names("study"))
