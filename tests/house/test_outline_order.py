"""Functions that compiled code calls by their place in a table have the same place whichever module is imported first: kept code has the place in it."""

import json
import os
import subprocess
import sys
from pathlib import Path

import sim

SCRIPT = """
import importlib, json, os, sys
from numba import njit  # what all have in common is imported once
import sim.engine.outline as outline

def table():
    return {f"{kind}": [f"{f.__module__}.{f.__name__}" for f in found] for kind, found in outline._functions.items()}

def told(first, names):
    read, write = os.pipe()
    if os.fork() == 0:
        for name in (first, *names):
            importlib.import_module(name)
        with os.fdopen(write, "w") as out:
            json.dump(table(), out)
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as answer:
        found = json.load(answer)
    os.wait()
    return found

names = sys.argv[1:]
assert table() == {}
print(json.dumps([told(name, names) for name in names]))
"""


def test_places_do_not_depend_on_what_is_imported_first():
    root = Path(sim.__path__[0])
    files = sorted(
        f for f in (root / "engine").rglob("*.py") if "outlined(" in f.read_text(encoding="utf-8") and f.name != "outline.py"
    )
    names = [".".join(("sim", *f.relative_to(root).with_suffix("").parts)).removesuffix(".__init__") for f in files]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *names],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"},
    )
    tables = json.loads(done.stdout)
    assert len(tables) == len(names) > 30
    assert len(tables[0]) > 6
    moved = {(name, kind) for name, table in zip(names, tables, strict=True) for kind in table if table[kind] != tables[0][kind]}
    assert not moved, "imported first, these change the order of a table: let them import what comes before theirs"
