"""A plugin of pytest: which test runs which line, how long each takes, and which passes.

    NUMBA_DISABLE_JIT=1 python -m coverage run --rcfile tests/mutation/coverage.ini --data-file engine.cov \\
        -m pytest -p tests.mutation.covering --times engine.json --tb=no tests/engines tests/laws

A test that needs more than ``--most`` CPU seconds is given up; it takes no part.
"""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest

_seconds: dict[str, float] = {}
_outcome: dict[str, str] = {}


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--times", default="times.json")
    parser.addoption("--most", default=10.0, type=float)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    import coverage

    now = coverage.Coverage.current()
    if now is not None:
        now.switch_context(item.nodeid)
    begun = time.process_time()
    result = yield
    _seconds[item.nodeid] = time.process_time() - begun
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    def late(*_: object) -> None:
        raise TimeoutError("too long to take part")

    signal.signal(signal.SIGPROF, late)
    signal.setitimer(signal.ITIMER_PROF, item.config.getoption("--most"))
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        _outcome[report.nodeid] = report.outcome


def pytest_sessionfinish(session: pytest.Session) -> None:
    told = {name: [seconds, _outcome.get(name, "none")] for name, seconds in _seconds.items()}
    Path(session.config.getoption("--times")).write_text(json.dumps(told), encoding="utf-8")
