"""A command for every registered study: its options come from the fields of its `Params`."""

from __future__ import annotations

import inspect
import types
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Optional, Union, get_args, get_origin

import typer
from pydantic.config import JsonDict
from pydantic.fields import FieldInfo

from sim import registry
from sim.cli import common
from sim.cli.app import ASK, TRUST, app
from sim.cli.help import Command
from sim.study.base import Answer, Params, Study

Many = Annotated[
    list[str], typer.Argument(metavar="SCENARIO…", help="Scenario files or built-in names, or one study file that names them.")
]
One = Annotated[str, typer.Argument(metavar="SCENARIO", help="A scenario file, a built-in name, or a study file.")]
Files = Annotated[
    list[str],
    typer.Argument(
        metavar="PATH…", help="Results of benchmark tools, tables of requests, logs of steps, folders of them, or one study file."
    ),
]
Deployed = Annotated[
    Optional[str],
    typer.Option(
        metavar="SCENARIO", help="What was deployed, which results of benchmark tools do not say: a scenario file or name."
    ),
]
Jobs = Annotated[
    Optional[int],
    typer.Option(
        "--jobs",
        "-j",
        metavar="N",
        help="Processes (default: as many as processors, where they pay off).",
        rich_help_panel=common.HOW,
    ),
]
Cluster = Annotated[
    Optional[str],
    typer.Option(
        metavar="ADDRESS", help="Run on a cluster: ray://HOST:10001 or dask=tcp://HOST:8786.", rich_help_panel=common.HOW
    ),
]
Fresh = Annotated[
    bool, typer.Option("--fresh", help="Forget finished runs in the output folder and begin anew.", rich_help_panel=common.HOW)
]
Json = Annotated[bool, typer.Option("--json", help="Print the answer as JSON.", rich_help_panel=common.HOW)]

_COMMON: dict[str, tuple[object, object]] = {
    "set_": (common.Overrides, None),
    "seed": (common.Seed, None),
    "jobs": (Jobs, None),
    "cluster": (Cluster, None),
    "out": (common.Out, None),
    "fresh": (Fresh, False),
    "gate": (bool, False),
    "json": (Json, False),
    "quiet": (common.Quiet, False),
    "no_save": (common.NoSave, False),
}


def add(cls: type[Study[Params]]) -> None:
    """The command ``servesim NAME`` of a study."""

    def command(**given: Any) -> None:
        _ask(cls, given)

    command.__doc__ = inspect.cleandoc(cls.__doc__ or f"The study {cls.name}.").partition("\n\n")[0]
    needed = inspect.Parameter.empty
    parameters: dict[str, tuple[object, object]] = {"scenarios": (Many if cls.takes == "many" else One, needed)}
    if cls.takes == "files":
        parameters = {"paths": (Files, needed), "scenario": (Deployed, None)}
    parameters |= {name: (_option(name, f), None) for name, f in cls.Params.model_fields.items() if not _extra(f).get("hidden")}
    gate = typer.Option("--gate", help=f"Exit with 3 {cls.gate}, for CI.", rich_help_panel=common.HOW)
    parameters |= _COMMON | {"gate": (Annotated[bool, gate], False)}
    kind = inspect.Parameter.KEYWORD_ONLY
    command.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
        [inspect.Parameter(n, kind, default=default, annotation=hint) for n, (hint, default) in parameters.items()]
    )
    command.__annotations__ = {n: hint for n, (hint, _) in parameters.items()}
    section = TRUST if cls.takes == "files" else ASK
    app.command(cls.name, cls=Command, rich_help_panel=section, epilog="\n".join(cls.examples) or None)(command)


def _extra(field: FieldInfo) -> JsonDict:
    return field.json_schema_extra if isinstance(field.json_schema_extra, dict) else {}


def _option(name: str, field: FieldInfo) -> object:
    """The option of a field. None is its default: what was not given is left to the study's own default, or to a study file."""
    extra = _extra(field)
    hint = _plain(field.annotation)
    metavar = str(extra["metavar"]) if extra.get("metavar") else _METAVARS.get(hint)
    if get_origin(hint) is Literal:
        metavar, hint = "|".join(map(str, get_args(hint))), str
    if extra.get("list") or hint not in (bool, int, float, str):
        hint = list[str] if extra.get("list") else str
    default = "" if field.default_factory is not None or field.is_required() else _shown(extra.get("shown", field.default))
    flag = name.replace("_", "-")
    flags = [
        f"--{flag}/--no-{flag}" if field.default is True else f"--{flag}",
        *([str(extra["option"])] if "option" in extra else []),
    ]
    if extra.get("metavar") and hint is float:
        hint = str  # shares such as 2%
    text = f"{field.description or name}{default}"
    return Annotated[
        Optional[hint], typer.Option(*flags, help=f"{text[0].upper()}{text[1:]}.", metavar=metavar, show_default=False)
    ]


_METAVARS = {int: "N", float: "NUMBER", str: "NAME"}
"""What stands for a value of such a type."""


def _shown(default: object) -> str:
    """Behind the help of an option."""
    if default in (None, ()) or isinstance(default, bool):
        return ""
    return f" (default: {','.join(map(str, default)) if isinstance(default, tuple) else default})"


def _plain(hint: Any) -> Any:
    """The type inside ``X | None`` and ``Annotated[X, …]``."""
    while get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    if get_origin(hint) in (Union, types.UnionType):
        inner = [a for a in get_args(hint) if a is not type(None)]
        return _plain(inner[0]) if len(inner) == 1 else hint
    return hint


def ask(name: str, scenario: str, options: Mapping[str, object], how: Mapping[str, object]) -> None:
    """Run a study for another command. ``options``: of the study, None where not given; ``how``: of those that all studies have."""
    _ask(
        registry.lookup("study", name),
        {**{n: default for n, (_, default) in _COMMON.items()}, **how, **options, "scenarios": scenario},
    )


def _ask(cls: type[Study[Params]], given: dict[str, Any]) -> None:
    from importlib import import_module

    from rich.console import Console

    from sim.config import settings
    from sim.report import words
    from sim.study.base import Interrupted
    from sim.study.driver import run_study
    from sim.study.files import gather, measured

    arguments = given.pop("paths" if cls.takes == "files" else "scenarios")
    asked = {name: given.pop(name) for name in _COMMON}
    overrides = [*(asked["set_"] or ()), *([f"seed={asked['seed']}"] if asked["seed"] is not None else ())]
    if cls.takes == "files":
        scenarios, options = measured(cls.name, arguments, given.pop("scenario"), overrides)
        options |= {} if asked["seed"] is None else {"seed": asked["seed"]}
    else:
        scenarios, options = gather(cls.name, [arguments] if isinstance(arguments, str) else arguments, overrides)
    options |= {name: value for name, value in given.items() if value is not None}
    study = cls(scenarios, settings(cls.Params, options))
    out = None if asked["no_save"] else asked["out"] or Path("servesim-results") / study.title
    quiet = asked["quiet"] or asked["json"]
    how = {name: asked[name] for name in ("jobs", "cluster", "fresh")}
    kept = f"finished runs are in {out}; the same command goes on" if out else "nothing was kept (--no-save)"
    with common.stopping(kept) as stopped, common.progress(quiet) as progress:
        try:
            answer = run_study(study, out=out, progress=lambda *at: progress(*at) or bool(stopped()), **how)
        except Interrupted as error:
            typer.echo(f"interrupted after {words.counted(error.finished, 'run')}: {kept}", err=True)
            raise typer.Exit(common.interrupted(stopped() or 2)) from None
    with common.printing():
        if asked["json"]:
            typer.echo(common.json(answer.as_dict()))
        elif not asked["quiet"]:
            Console().print(import_module(cls.report).screen(answer))
        if out:
            common.say(quiet, f"Report: {out / 'report.html'}   Runs: {out / 'runs.parquet'}")
    if stopped():
        typer.echo(f"interrupted: {kept}", err=True)
        raise typer.Exit(common.interrupted(stopped()))
    raise typer.Exit(_code(answer, asked["gate"]))


def _code(answer: Answer, gate: bool) -> int:
    if (
        gate and answer.verdict is False and not getattr(answer, "unbounded", False)
    ):  # no load was too high: nothing speaks against it
        return 3
    return 1 if getattr(answer, "answered", True) is False else 0


_built = {name: registry.lookup("study", name) for name in registry.names("study")}
for _name, _cls in sorted(_built.items(), key=lambda item: item[1].takes == "files"):
    if _cls.name == _name:  # not its aliases
        add(_cls)
