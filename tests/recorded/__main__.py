"""Record the worlds again, or show one.

    NUMBA_DISABLE_JIT=1 python -m tests.recorded --why "chunks of prompts end at blocks"
    NUMBA_DISABLE_JIT=1 python -m tests.recorded --show "vllm: pressed"

Names beside ``--why`` are beginnings of worlds: only these are recorded again. What changed is printed; read it before you commit.
"""

from __future__ import annotations

import argparse
import json
import sys

from sim.jit import JIT
from tests.recorded.everything import made, names
from tests.recorded.kept import LONG, WHY, difference, keep, recorded, short
from tests.recorded.trace import Trace


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="python -m tests.recorded", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("worlds", nargs="*", help="beginnings of their names (default: all)")
    parser.add_argument("--why", help="the reason, at least a sentence")
    parser.add_argument("--show", help="print everything of one world")
    given = parser.parse_args()
    if JIT:
        parser.error("say NUMBA_DISABLE_JIT=1: only in plain Python can one look into the steps")
    if given.show:
        for section, lines in made(given.show).items():
            print(f"== {section}", *lines, sep="\n")
        return 0
    if not given.why or len(given.why) < 20:
        parser.error("--why: say the reason, in a sentence")
    groups: dict[str, dict[str, Trace]] = {}
    changed = []
    for name in names():
        group = groups.setdefault(name.partition(":")[0], {})
        old = recorded(name.partition(":")[0]).get(name)
        if old is not None and given.worlds and not name.startswith(tuple(given.worlds)):
            group[name] = old
            continue
        group[name] = short(made(name))
        if old is not None and (what := difference(name, group[name])):
            changed.append(name)
            print(f"--- {name}\n{what}\n")
    for group_name, traces in groups.items():
        if traces != recorded(group_name):
            keep(group_name, traces)
    told = json.loads(WHY.read_text()) if WHY.exists() else []
    told.append({"why": given.why, "worlds changed": len(changed)})
    WHY.write_text(json.dumps(told, indent=1) + "\n")
    print(f"{len(changed)} worlds are not as they were; of {', '.join(LONG)} only a digest is kept")
    return 0


if __name__ == "__main__":
    sys.exit(main())
