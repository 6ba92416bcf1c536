"""``servesim profiles``: what the numbers rest on."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.app import app

profiles = typer.Typer(name="profiles", help="Hardware, models and engines with sources and grades.", no_args_is_help=True)
app.add_typer(profiles)


@profiles.command("list")
def profiles_list() -> None:
    """List all built-in profiles."""
    from sim.report import profiles as view
    from sim.study.profiles import profiles as entries

    view.show_list(entries())


@profiles.command("families")
def profiles_families() -> None:
    """List the model_type of every architecture that is modelled."""
    from sim.model.families import FAMILIES

    typer.echo("\n".join(sorted(FAMILIES)))


@profiles.command("show")
def profiles_show(name: Annotated[str, typer.Argument(help="h100-sxm, llama-3.1-8b, vllm, 'vllm 0.15', …")]) -> None:
    """Print every figure of a profile with its grade and source."""
    from sim.report import profiles as view
    from sim.study.profiles import show

    view.show_one(*show(name))


@profiles.command("check")
def profiles_check() -> None:
    """Read every profile; exit 1 when one cannot be used or has a figure without a source."""
    from sim.study.profiles import check

    found = list(check())
    for profile, problem in found:
        typer.echo(f"{profile}: {problem}")
    typer.echo(f"{len(found)} problems" if found else "all profiles are well")
    raise typer.Exit(1 if found else 0)
