"""``servesim conformance``: recordings of real schedulers replayed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from sim.cli import common
from sim.cli.app import TRUST, command


@command(TRUST, "servesim conformance vllm recordings/")
def conformance(
    engine: Annotated[str, typer.Argument(metavar="ENGINE", help="vllm, sglang, tgi …")],
    paths: Annotated[list[Path], typer.Argument(metavar="PATH…", help="Recordings, or folders of them.")],
    quiet: common.Quiet = False,
) -> None:
    """Replay recordings of a real scheduler against ours: matched N of N, or the first step that differs (exit 1)."""
    from sim.report import conformance as view
    from sim.study.conformance import check

    cases = []
    for case in check(engine, paths):
        cases.append(case)
        if not quiet and case.difference is not None:
            view.show_difference(case)
    if not quiet:
        view.show_total(engine, cases)
    raise typer.Exit(0 if all(c.difference is None for c in cases) else 1)
