"""``servesim warm``: compile ahead."""

from __future__ import annotations

from typing import Annotated, Optional

import typer

from sim.cli import common
from sim.cli.app import FILES, command


@command(FILES, "servesim warm vllm sglang")
def warm(
    engines: Annotated[Optional[list[str]], typer.Argument(metavar="ENGINE…", help="Engines by name; without one, all.")] = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, metavar="N", help="Engines side by side.")] = 1,
    quiet: common.Quiet = False,
) -> None:
    """Compile engines now, so that the first run does not have to: some 10 to 60 s of a processor for each, once per version."""
    from sim import registry
    from sim.study.warm import engines as known
    from sim.study.warm import warm_all

    names = list(dict.fromkeys(engines or known()))
    for name in names:  # all of them, before anything takes time
        registry.lookup("engine", name, "engine")
    for done in warm_all(names, jobs):
        state = f"compiled in {done.seconds:.0f} s" if done.compiled else "ready"
        common.say(quiet, f"{done.name}: {state}")
