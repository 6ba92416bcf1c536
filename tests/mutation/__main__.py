"""The share of small faults in a room that its tests notice.

    NUMBA_DISABLE_JIT=1 python -m tests.mutation engine --map engine --map rest --number 100 --out engine.jsonl

Works on the checkout that it is run in and puts each file back: run it in a copy. ``--map NAME`` names what `covering` wrote, NAME.cov and NAME.json; kernels
are plain Python, as only then it is known which test runs which line. Everything is imported and all tests are collected once; each mutant is tried in a
process forked from that, which gets the changed functions (`inside`). Of each mutant the tests run that reach its line, those of its module and room first
(by their names, parameters included), then the quickest, as many as ``--budget`` CPU seconds allow. One that no test reaches has survived. Where the
compiler is on, ``--kernels none`` leaves compiled files of the sample to a second call with the compiler off, ``--kernels only`` and the same ``--out``.
``--again FIRST.jsonl`` is the second stage: what survived there, with a larger budget and into an ``--out`` of its own; the score counts both stages.
``--also`` names files of tests that are newer than the maps.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import random
import resource
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from sim.jit import JIT
from tests.mutation.inside import put
from tests.mutation.mutants import Mutant, mutants

Line = dict[str, Any]
"""A mutant that was tried: key, verdict, number of tests, seconds."""
NOTICED = ("noticed", "late")
ROOT = Path(__file__).resolve().parents[2]
WAIT = 300
"""Seconds by the clock for one mutant; one that takes longer never ends, which is noticed. A busy machine needs some patience: CPU time is the limit
that counts, several times what the tests need without a mutant (`_child`).
"""
PYTEST = ["-q", "--tb=no", "-p", "no:cacheprovider", "-o", "addopts=", "-W", "ignore:Module already imported"]


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.mutation")
    parser.add_argument("room")
    parser.add_argument("--map", action="append", required=True)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--budget", type=float, default=6.0)
    parser.add_argument("--most", type=int, default=60, help="tests for one mutant")
    parser.add_argument(
        "--kernels", choices=("all", "only", "none"), default="all", help="of the sample, files of compiled code or others"
    )
    parser.add_argument("--again", metavar="FIRST.jsonl", help="what survived there, instead of a sample")
    parser.add_argument("--also", action="append", default=[])
    parser.add_argument("--out", required=True)
    given = parser.parse_args()
    os.chdir(ROOT)
    campaign = Campaign(given, Tests(given.map))
    files = {name.partition("::")[0] for name in campaign.tests.seconds} | set(given.also)
    pytest.main([*PYTEST, *sorted(file for file in files if Path(file).exists())], plugins=[campaign])
    print("\n".join(campaign.told))
    print(f"{given.room}: {score(*(lines_of(name) for name in (given.again, given.out) if name))}")
    return 0


def lines_of(name: str) -> list[Line]:
    """What a stage has found so far."""
    file = Path(name)
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()] if file.exists() else []


def survivors(lines: list[Line]) -> set[str]:
    """Keys of what no test has noticed."""
    return {line["key"] for line in lines if line["verdict"] not in NOTICED}


def score(*stages: list[Line]) -> str:
    """How many of all mutants were noticed, each by the verdict of the last stage that tried it, and by which stage."""
    last = {line["key"]: line["verdict"] for stage in stages for line in stage}
    found = list(last.values())
    noticed = sum(v in NOTICED for v in found)
    told = ", ".join(f"{v} {found.count(v)}" for v in sorted(set(found)))
    by = " + ".join(str(sum(line["verdict"] in NOTICED for line in stage)) for stage in stages)
    return f"{noticed} ({by}) of {len(found)} noticed ({noticed / max(len(found), 1):.0%}): {told}"


def whole(room: str) -> list[tuple[Path, Mutant]]:
    """All mutants of the room."""
    return [(file, m) for file in sorted((ROOT / "sim" / room).rglob("*.py")) for m in mutants(file.read_text(encoding="utf-8"))]


def drawn(room: str, number: int, seed: int) -> list[tuple[Path, Mutant]]:
    """So many of them."""
    found = whole(room)
    return random.Random(seed).sample(found, min(number, len(found)))


def kept(room: str, keys: set[str]) -> list[tuple[Path, Mutant]]:
    """Those with these keys, each once: of an earlier version of the room as far as its lines are where they were."""
    return list({key: x for x in reversed(whole(room)) if (key := _key(*x)) in keys}.values())[::-1]


def _compiled(file: Path) -> bool:
    """Whether kernels are in it: with the compiler on nobody sees which test runs them, and no process takes changed ones."""
    return "@kernel" in file.read_text(encoding="utf-8")


def _key(file: Path, mutant: Mutant) -> str:
    return f"{file.relative_to(ROOT)}:{mutant.line}: {mutant.before} → {mutant.after}"


class Tests:
    """Which tests reach a line."""

    def __init__(self, maps: list[str]) -> None:
        import coverage

        self.seconds: dict[str, float] = {}
        self._data = []
        self._known: dict[Path, dict[int, set[str]]] = {}
        for name in maps:
            data = coverage.CoverageData(f"{name}.cov")
            data.read()
            self._data.append(data)
            told = json.loads(Path(f"{name}.json").read_text())
            self.seconds |= {name: seconds for name, (seconds, outcome) in told.items() if outcome == "passed"}

    def unknown(self, files: list[Path]) -> list[str]:
        """Files of which no test is known that reaches a function: the maps lack their tests."""
        return [str(f.relative_to(ROOT)) for f in files if not any(names - {""} for names in self._lines(f).values())]

    def _lines(self, file: Path) -> dict[int, set[str]]:
        """Tests by line of a file."""
        if file not in self._known:
            lines = self._known[file] = {}
            for data in self._data:
                for number, names in data.contexts_by_lineno(str(file)).items():
                    lines.setdefault(number, set()).update(names)
        return self._known[file]

    def of(self, file: Path, mutant: Mutant, budget: float, most: int) -> tuple[list[str], bool]:
        """The nearest and quickest of them, of each file of tests in turn as each judges by something else; and whether the line runs only
        when its module is imported: then any test of the file may notice."""
        lines = self._lines(file)
        here = lines.get(mutant.line, set()) - {""}
        early = not mutant.inside or (not here and mutant.line in lines)
        if early or mutant.line not in lines:  # (a line that the map does not know: it is older)
            here = set().union(*lines.values())
        about = {file.stem, file.parent.name, *file.relative_to(ROOT).parts[2:-1]}

        def far(name: str) -> bool:
            return not any(word in name for word in about)

        turn: dict[str, int] = {}
        seen: Counter[str] = Counter()
        # as quick, in no order of names: neighbours see the same
        for name in sorted(here & self.seconds.keys(), key=lambda n: (round(self.seconds[n], 1), crc32(n.encode()))):
            turn[name] = seen[name.partition("::")[0]]
            seen[name.partition("::")[0]] += 1
        chosen, total = [], 0.0
        for name in sorted(turn, key=lambda n: (far(n), turn[n], n)):
            if len(chosen) < most and (not chosen or total + self.seconds[name] <= budget):
                chosen.append(name)
                total += self.seconds[name]
        return chosen, early


class Campaign:
    """A plugin of pytest that runs, instead of all tests once, some of them for each mutant."""

    def __init__(self, given: Any, tests: Tests) -> None:
        self.given, self.tests = given, tests
        self.out = Path(given.out)
        self.failed: set[str] = set()
        self.sound: set[str] = set()
        self.told: list[str] = []
        known = {line["key"] for line in lines_of(given.out)}
        if given.again:
            keys = survivors(lines_of(given.again))
            found = kept(given.room, keys)
            if gone := sorted(keys - {_key(*x) for x in found}):
                self.told.append(f"not in the room any more: {', '.join(gone)}")
        else:
            found = drawn(given.room, given.number, given.seed)
        self.sample = [
            x for x in found if _key(*x) not in known and given.kernels in ("all", "only" if _compiled(x[0]) else "none")
        ]

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.failed:
            self.failed.add(report.nodeid)

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        items = {item.nodeid: item for item in session.items}
        _preload()
        also = [name for name in items if name.partition("::")[0] in self.given.also]
        chosen = {name for file, m in self.sample for name in self.tests.of(file, m, self.given.budget, self.given.most)[0]} | {
            *also
        }
        for words, names in (
            ("no test of the maps reaches", self.tests.unknown(sorted({file for file, _ in self.sample}))),
            ("in the maps and not collected any more", sorted(self.tests.seconds.keys() - items.keys())),
        ):
            if names:
                self.told.append(f"{words}: {', '.join(names)}")
        if JIT:  # kernels are loaded before the first fork; who fails without a mutant notices nothing
            run(session, [items[name] for name in sorted(chosen) if name in items], to_the_end=True)
            self.sound |= chosen - self.failed
        session.testsfailed = 0
        for file, mutant in self.sample:
            names, early = self.tests.of(file, mutant, self.given.budget, self.given.most)
            names = [*also, *(name for name in names if name in items and name not in also)]
            begun = time.monotonic()
            verdict = self.judged(file, mutant, early, [items[name] for name in names])
            line = {
                "key": _key(file, mutant),
                "verdict": verdict,
                "tests": len(names),
                "seconds": round(time.monotonic() - begun, 1),
            }
            with self.out.open("a", encoding="utf-8") as to:
                to.write(json.dumps(line, ensure_ascii=False) + "\n")
        if self.failed:
            self.told.append(f"left out, as they fail without any mutant: {', '.join(sorted(self.failed))}")
        return True

    def judged(self, file: Path, mutant: Mutant, early: bool, items: list[pytest.Item]) -> str:
        """The verdict of those of the tests that pass without a mutant, which is seen where one has noticed something."""
        while items := [item for item in items if item.nodeid not in self.failed]:
            verdict, by = self.tried(file, mutant, early, items)
            for item in items:
                if item.nodeid in by and item.nodeid not in self.sound:
                    (self.sound if self.forked([item], lambda: True)[0] == "survived" else self.failed).add(item.nodeid)
            if not self.failed & by:
                return verdict
        return "unreached"

    def tried(self, file: Path, mutant: Mutant, early: bool, items: list[pytest.Item]) -> tuple[str, set[str]]:
        """The verdict of these tests on a mutant, which also lies in its file meanwhile, as tests start processes; and who noticed it."""
        before = file.read_text(encoding="utf-8")
        file.write_text(mutant.source, encoding="utf-8")
        try:
            return self.forked(items, lambda: not early and put(file, before, mutant.source))
        finally:
            file.write_text(before, encoding="utf-8")

    def forked(self, items: list[pytest.Item], prepare: Callable[[], bool]) -> tuple[str, set[str]]:
        """``noticed``, ``late`` (it never ends) or ``survived``; where ``prepare`` cannot change the process, in a new one. Who failed."""
        told, tell = os.pipe()
        child = os.fork()
        if child == 0:
            _child(items, prepare, self.failed, tell, int(15 + 4 * self.given.budget))
        os.close(tell)
        end = time.monotonic() + WAIT
        while time.monotonic() < end:
            done, status = os.waitpid(child, os.WNOHANG)
            if done:
                with os.fdopen(told) as names:
                    by = set(names.read().splitlines())
                return "survived" if status == 0 else "noticed" if os.WIFEXITED(status) else "late", by
            time.sleep(0.02)
        os.killpg(child, signal.SIGKILL)
        os.waitpid(child, 0)
        os.close(told)
        return "late", set()


def run(session: pytest.Session, items: list[pytest.Item], to_the_end: bool = False) -> None:
    """Until one fails, or all of them."""
    for item, then in zip(items, [*items[1:], None], strict=True):
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=then)
        if session.testsfailed and not to_the_end:
            break


def _preload() -> None:
    """Everything is imported once, for all children."""
    for name in (
        "pandas",
        "plotly",
        "scipy.stats",
        "scipy.optimize",
        "jinja2",
        "pyarrow.csv",
        "pyarrow.parquet",
        "rich.console",
        "joblib",
    ):
        importlib.import_module(name)
    for found in pkgutil.walk_packages([str(ROOT / "sim")], "sim."):
        if not found.name.endswith("__main__"):
            importlib.import_module(found.name)


def _child(items: list[pytest.Item], prepare: Callable[[], bool], failed: set[str], tell: int, cpu: int) -> None:
    os.setpgid(0, 0)
    code = 1
    try:
        silent = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silent, 1)
        os.dup2(silent, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (cpu, cpu + 5))
        resource.setrlimit(resource.RLIMIT_AS, (8 << 30, 8 << 30))
        if prepare():
            session = items[0].session
            run(session, items)
            code = int(session.testsfailed > 0)
            names = sorted(failed & {item.nodeid for item in items})
        else:
            names = [item.nodeid for item in items]
            code = subprocess.run([sys.executable, "-m", "pytest", "-x", *PYTEST, *names], check=False).returncode
        os.write(tell, "\n".join(names).encode() if code else b"")
    finally:
        os._exit(code)


if __name__ == "__main__":
    sys.exit(main())
