"""``servesim prices``: what an hour of an accelerator costs, by provider, with source and date."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sim.cli import common
from sim.cli.app import LOOK, command


@command(LOOK, "servesim prices h100", "servesim prices h100 --kind spot")
def prices(
    accelerator: Annotated[
        Optional[str], typer.Argument(metavar="ACCELERATOR", help="Name of an accelerator; without, those that have prices.")
    ] = None,
    provider: Annotated[Optional[str], typer.Option(metavar="NAME", help="Only this provider.")] = None,
    kind: Annotated[Optional[str], typer.Option(metavar="KIND", help="Only this kind: on-demand, spot, reserved-1y …")] = None,
    json: Annotated[bool, typer.Option("--json", help="Print the rows as JSON.")] = False,
) -> None:
    """List public prices of an accelerator hour, cheapest first, each with its source and date."""
    from sim.report import prices as view

    rows = view.rows(accelerator, provider, kind)
    if json:
        typer.echo(common.json(rows))
    else:
        view.show(accelerator, rows)
