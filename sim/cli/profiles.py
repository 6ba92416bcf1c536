"""``servesim profiles``: what the numbers rest on."""

from __future__ import annotations

from typing import Annotated

import typer

from sim.cli.app import LOOK, command, group

profiles = group("profiles", LOOK, "Hardware, models and engines with sources and grades.")


@command("Commands", name="list", of=profiles)
def profiles_list() -> None:
    """List all built-in profiles."""
    from sim.report import profiles as view
    from sim.study.profiles import profiles as entries

    view.show_list(entries())


@command("Commands", name="families", of=profiles)
def profiles_families() -> None:
    """List the model_type of every architecture that is modelled."""
    from sim.model.families import FAMILIES

    typer.echo("\n".join(sorted(FAMILIES)))


@command("Commands", "servesim profiles show h100-sxm", name="show", of=profiles)
def profiles_show(
    name: Annotated[str, typer.Argument(metavar="NAME", help="h100-sxm, llama-3.1-8b, vllm, 'vllm 0.15' …")],
) -> None:
    """Print every figure of a profile with its grade and source."""
    from sim.report import profiles as view
    from sim.study.profiles import show

    view.show_one(*show(name))


@command("Commands", name="check", of=profiles)
def profiles_check() -> None:
    """Read every profile; exit 1 when one cannot be used or has a figure without a source."""
    from sim.study.profiles import check

    found = list(check())
    for profile, problem in found:
        typer.echo(f"{profile}: {problem}")
    typer.echo(f"{len(found)} problems" if found else "all profiles are well")
    raise typer.Exit(1 if found else 0)
