"""``servesim traffic``: what is in a traffic file, and the same in another format."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from sim.cli import common
from sim.cli.app import FILES, command, group
from sim.places import is_folder

if TYPE_CHECKING:
    from sim.document import Json

traffic = group("traffic", FILES, "Traffic files: what is in them, and other formats.")

Format = Annotated[str, typer.Option("--format", "-f", metavar="NAME", help="Format of the files; auto tries all of them.")]
Settings = Annotated[
    Optional[list[str]],
    typer.Option("--setting", metavar="NAME=VALUE", help="A setting of the format, e.g. block_tokens=16. Repeatable."),
]


@command("Commands", "servesim traffic describe trace.jsonl", name="describe", of=traffic)
def describe(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Traffic files or folders.")],
    format_: Format = "auto",
    setting: Settings = None,
    out: Annotated[
        Optional[Path], typer.Option("--out", "-o", metavar="FOLDER", help="Folder for report.html, summary.json and YAML.")
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print everything as JSON.")] = False,
    quiet: common.Quiet = False,
) -> None:
    """Print counts, rates, burstiness, lengths, sharing and a synthetic section to paste; with --out also plots."""
    from sim.report import traffic as view
    from sim.workload.describe import describe_all

    target = common.target(out, "traffic") if out else None
    with common.progress(quiet or json):
        found = describe_all(files, format_, _settings(setting))
    if json:
        typer.echo(common.json([d.as_dict() for d in found]))
    elif not quiet:
        view.show(found)
    if target:
        view.save(found, target)
        common.say(quiet or json, f"Report: {target / 'report.html'}")


@command("Commands", "servesim traffic convert trace.jsonl --to csv --out trace.csv", name="convert", of=traffic)
def convert(
    files: Annotated[list[Path], typer.Argument(metavar="FILE…", help="Traffic files or folders.")],
    out: Annotated[
        Path, typer.Option("--out", "-o", metavar="PATH", help="The file to write (.gz, .zst pack), or a folder for several.")
    ],
    to: Annotated[
        str,
        typer.Option("--to", metavar="NAME", help="A format, such as csv, mooncake, azure-2023, burstgpt, vllm-custom, blis."),
    ] = "csv",
    format_: Format = "auto",
    setting: Settings = None,
    block_tokens: Annotated[int, typer.Option(metavar="N", help="Tokens of one hash id that is written.")] = 512,
    quiet: common.Quiet = False,
) -> None:
    """Write traffic files in another format."""
    from sim.workload.convert import convert as write
    from sim.workload.convert import writer

    several = len(files) > 1 or is_folder(out)
    if several:
        out.mkdir(parents=True, exist_ok=True)
    for file in files:
        target = out / f"{file.name.split('.')[0]}{writer(to).ends_with}" if several else out
        with common.progress(quiet):
            count, notes = write(file, target, to, format_, _settings(setting), block_tokens)
        for note in notes:
            common.say(quiet, f"! {note}")
        common.say(quiet, f"{target}: {count:,} requests")


def _settings(given: list[str] | None) -> dict[str, Json]:
    from sim.errors import ConfigError
    from sim.yaml_text import read

    out: dict[str, Json] = {}
    for text in given or ():
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise ConfigError("--setting", text, "is not of the form NAME=VALUE", hint="such as --setting block_tokens=16")
        try:
            out[name] = read(value)
        except ValueError:
            raise ConfigError("--setting", text, "has no value that can be read") from None
    return out
