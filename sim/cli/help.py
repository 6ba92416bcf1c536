"""How ``--help`` is laid out: plain text in sections, examples at its end, nothing cut at any width.

An option's or a command's section is what the command-line library calls its ``rich_help_panel``; a command's examples are its ``epilog``, one a line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import TYPE_CHECKING

from typer.core import TyperArgument, TyperCommand, TyperGroup

if TYPE_CHECKING:
    from typer._click import Command as Called
    from typer._click import Context, HelpFormatter

_Rows = list[tuple[str, str]]
_FIRST = ("Arguments", "Options")


class Command(TyperCommand):
    """A command whose help is laid out as said above."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """``SCENARIO``, where the library writes ``{SCENARIO}``."""
        return [self.options_metavar or "", *_arguments(self, ctx)]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Arguments, then options by section."""
        _parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Examples as they are typed, not wrapped."""
        _examples(self, formatter)

    def get_short_help_str(self, limit: int = 0) -> str:
        """The sentence that a list of commands shows, whole."""
        return (self.help or "").partition("\n\n")[0]


class Group(TyperGroup):
    """A command with commands, laid out the same."""

    def collect_usage_pieces(self, ctx: Context) -> list[str]:
        """See `Command`."""
        return ["[OPTIONS] COMMAND …"]

    def format_options(self, ctx: Context, formatter: HelpFormatter) -> None:
        """Commands first: they are what is looked for."""
        found = [(name, self.get_command(ctx, name)) for name in self.list_commands(ctx)]
        rows = [(getattr(c, "rich_help_panel", None) or "Commands", (n, c.get_short_help_str())) for n, c in found if c]
        _sections(rows, formatter)
        _parameters(self, ctx, formatter)

    def format_epilog(self, ctx: Context, formatter: HelpFormatter) -> None:
        """See `Command`."""
        _examples(self, formatter)

    get_short_help_str = Command.get_short_help_str


def _arguments(command: Called, ctx: Context) -> list[str]:
    return [str(p.metavar) if p.required else f"[{p.metavar}]" for p in command.get_params(ctx) if isinstance(p, TyperArgument)]


def _parameters(command: Called, ctx: Context, formatter: HelpFormatter) -> None:
    rows: list[tuple[str, tuple[str, str]]] = []
    for p in command.get_params(ctx):
        if isinstance(p, TyperArgument):
            rows.append(("Arguments", (str(p.metavar), p.help or "")))
        elif record := p.get_help_record(ctx):
            text = re.sub(r"  \[(.+)\]$", r" (\1)", record[1])  # its default, written as ours are
            rows.append((getattr(p, "rich_help_panel", None) or "Options", (record[0], text)))
    _sections(sorted(rows, key=lambda row: (*_FIRST, row[0]).index(row[0])), formatter)


def _sections(rows: Iterable[tuple[str, tuple[str, str]]], formatter: HelpFormatter) -> None:
    titled: dict[str, _Rows] = {}
    for title, row in rows:
        titled.setdefault(title, []).append(row)
    for title, those in titled.items():
        with formatter.section(title):
            formatter.write_dl(those)


def _examples(command: Called, formatter: HelpFormatter) -> None:
    if command.epilog:
        with formatter.section("Examples"):
            for line in command.epilog.splitlines():
                formatter.write(f"{'':>{formatter.current_indent}}{line}\n")
