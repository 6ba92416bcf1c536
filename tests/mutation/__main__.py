"""The share of small faults in a room that its tests notice.

    python -m tests.mutation engine --covered engine.cov --times engine.json --number 100 --out engine.jsonl

Works on the checkout that it is run in and puts each file back: run it in a copy. ``--covered`` and ``--times`` are what `covering` wrote, under the same
environment (``NUMBA_DISABLE_JIT=1`` for the engines, whose kernels are then plain Python). Of each mutant the tests run that reach its line, those of its
module and room first, then the quickest, as many as ``--budget`` CPU seconds allow. One that no test reaches has survived. ``--again`` tries those that
survived once more, with a larger budget.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import signal
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

from tests.mutation.mutants import Mutant, mutants

ROOT = Path(__file__).resolve().parents[2]
WAIT = 240
"""Seconds by the clock for one mutant; one that takes longer never ends, which is noticed."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("room")
    parser.add_argument("--covered", required=True)
    parser.add_argument("--times", required=True)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=20.0)
    parser.add_argument("--most", type=int, default=40, help="tests for one mutant")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    os.chdir(ROOT)
    tests = Tests(given.covered, given.times)
    sample = drawn(given.room, given.number, given.seed)
    _preload()
    out = Path(given.out)
    before = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    if given.again:
        before = [line for line in before if line["verdict"] != "survived"]
        out.write_text("".join(json.dumps(line, ensure_ascii=False) + "\n" for line in before))
    known = {line["key"] for line in before}
    for file, mutant in sample[:3]:  # what is as it was must pass
        names, seconds = tests.of(file, mutant, given.budget, given.most)
        unchanged = replace(mutant, source=file.read_text(encoding="utf-8"))
        if names and tried(file, unchanged, names, seconds) != "survived":
            print(f"these tests fail without any mutant: {' '.join(names)}", file=sys.stderr)
            return 2
    for file, mutant in sample:
        key = f"{file.relative_to(ROOT)}:{mutant.line}: {mutant.before} → {mutant.after}"
        if key in known:
            continue
        names, seconds = tests.of(file, mutant, given.budget, given.most)
        begun = time.monotonic()
        verdict = tried(file, mutant, names, seconds) if names else "unreached"
        line = {"key": key, "verdict": verdict, "tests": len(names), "seconds": round(time.monotonic() - begun, 1)}
        with out.open("a", encoding="utf-8") as to:
            to.write(json.dumps(line, ensure_ascii=False) + "\n")
    found = [json.loads(line)["verdict"] for line in out.read_text().splitlines()]
    noticed = sum(v in ("noticed", "late") for v in found)
    print(f"{given.room}: {noticed} of {len(found)} noticed ({noticed / max(len(found), 1):.0%})")
    return 0


def drawn(room: str, number: int, seed: int) -> list[tuple[Path, Mutant]]:
    """So many of all mutants of the room."""
    whole = [(file, m) for file in sorted((ROOT / "sim" / room).rglob("*.py")) for m in mutants(file.read_text(encoding="utf-8"))]
    return random.Random(seed).sample(whole, min(number, len(whole)))


class Tests:
    """Which tests reach a line."""

    def __init__(self, covered: str, times: str) -> None:
        import coverage

        self._data = coverage.CoverageData(covered)
        self._data.read()
        told = json.loads(Path(times).read_text())
        self._seconds = {name: seconds for name, (seconds, outcome) in told.items() if outcome == "passed"}

    def of(self, file: Path, mutant: Mutant, budget: float, most: int) -> tuple[list[str], float]:
        """The quickest of them, and how long they take; of a line outside functions all tests of the file."""
        lines: dict[int, Any] = self._data.contexts_by_lineno(str(file))
        here = lines.get(mutant.line, ()) if mutant.inside else [name for names in lines.values() for name in names]
        about = {file.stem, file.parent.name}

        def far(name: str) -> bool:
            return not any(word in name.partition("::")[0] for word in about)

        known = sorted({name for name in here if name in self._seconds}, key=lambda n: (far(n), self._seconds[n], n))
        chosen, total = [], 0.0
        for name in known[:most]:
            if chosen and total + self._seconds[name] > budget:
                break
            chosen.append(name)
            total += self._seconds[name]
        return chosen, total


def tried(file: Path, mutant: Mutant, names: list[str], seconds: float) -> str:
    """``noticed``, ``late`` (it never ends) or ``survived``."""
    before = file.read_bytes()
    file.write_text(mutant.source, encoding="utf-8")
    try:
        child = os.fork()
        if child == 0:
            _child(names, seconds)
        end = time.monotonic() + WAIT + 10 * seconds
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                return "survived" if status == 0 else "noticed" if os.WIFEXITED(status) else "late"
            time.sleep(0.05)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        return "late"
    finally:
        file.write_bytes(before)


def _child(names: list[str], seconds: float) -> None:
    os.setpgid(0, 0)
    silent = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silent, 1)
    os.dup2(silent, 2)
    most = int(60 + 5 * seconds)
    resource.setrlimit(resource.RLIMIT_CPU, (most, most + 5))
    resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
    code = 1
    try:
        import pytest

        sys.path.insert(0, str(ROOT))
        code = int(
            pytest.main(
                [
                    "-x",
                    "-q",
                    "--tb=no",
                    "-p",
                    "no:cacheprovider",
                    "-o",
                    "addopts=",
                    "-W",
                    "ignore:Module already imported",
                    *names,
                ]
            )
        )
    finally:
        os._exit(code)


def _preload() -> None:
    """What is not ours is imported once, for all children."""
    for name in ("numpy", "pandas", "pyarrow.parquet", "pyarrow.csv", "numba", "numba.experimental.structref", "numba.typed", "simpy",
                 "pydantic", "scipy.stats", "scipy.optimize", "scipy.special", "hypothesis", "hypothesis.strategies", "jinja2",
                 "rich.console", "typer", "yaml", "platformdirs", "joblib"):  # fmt: skip
        __import__(name)


if __name__ == "__main__":
    sys.exit(main())
