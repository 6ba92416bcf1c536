"""Plug-ins that misbehave: one error with file, line and request, whatever they do."""

import signal
import textwrap
from types import SimpleNamespace

import numpy as np
import pytest

from sim import guard, registry
from sim.errors import PluginError
from sim.policy.router import Relocation
from sim.workload.table import RequestBlock

ROUTER = """
from sim.policy.router import Router, Relocation

class Mine(Router):
    name = "mine"
    interval = 1.0

    def choose(self, snapshot, block, row):
        BODY

    def poll(self, snapshot):
        return self.__dict__.get("moves", ())
"""
LINE = 9  # of BODY
FIRST = 8  # of the method


class Seen:
    """Two replicas at 3 s."""

    now = 3.0
    outstanding = np.array([4, 2])

    def gauges(self):
        return np.zeros((5, 2))

    def look(self):
        return {"running": np.array([1.0, 2.0])}

    def running(self, replica):
        return np.zeros((1, 5), np.int64), np.zeros(1)


Seen.__module__ = "sim.tests"  # as if of the package, whose objects are shown through a proxy


@pytest.fixture
def ask(tmp_path):
    """Ask a router whose `choose` has this body."""

    def choose(body):
        path = tmp_path / "mine.py"
        path.write_text(ROUTER.replace("BODY", textwrap.indent(body, " " * 8).strip()))
        cls = registry.lookup("router", f"{path}:Mine")
        router = cls(cls.Params(), 2, np.random.default_rng(0))
        block = RequestBlock.of([1.0, 2.0], [100, 200], [10, 20])
        return router, Seen(), block

    return choose


def test_a_good_router_is_not_disturbed(ask):
    router, seen, block = ask("return int(snapshot.outstanding.argmin()) if len(block) == 2 else -1")
    assert router.choose(seen, block, 1) == 1


def test_what_is_shown_is_of_now(ask):
    router, seen, block = ask("return int(snapshot.outstanding.argmin() if block.prompt_tokens[row] < 150 else snapshot.now)")
    answers = [router.choose(seen, block, 0)]
    seen.outstanding = np.array([1, 2])
    answers.append(router.choose(seen, block, 0))
    seen.outstanding[0] = 5
    answers.append(router.choose(seen, block, 0))
    block.prompt_tokens[0] = 400
    seen.now = 0.5
    answers.append(router.choose(seen, block, 0))
    other = RequestBlock.of([1.0], [100], [10])
    answers.append(router.choose(seen, other, 0))
    assert answers == [1, 0, 1, 0, 1]


@pytest.mark.parametrize(
    ("body", "line", "says"),
    [
        ("return 7", FIRST, "answered 7 (int); allowed: 0 to 1, or -1 for none"),
        ("return -2", FIRST, "answered -2"),
        ("return True", FIRST, "answered True (bool)"),
        ("return 1.0", FIRST, "answered 1.0 (float)"),
        ("return None", FIRST, "answered None"),
        ("return 'a' * 1000", FIRST, "(str)"),
        ("return {}[row]", LINE, "raised KeyError: 1"),
        ("raise SystemExit(3)", LINE, "raised SystemExit: 3"),
        ("raise GeneratorExit", LINE, "raised GeneratorExit"),
        ("raise KeyboardInterrupt", LINE, "raised KeyboardInterrupt"),
        ("snapshot.outstanding[0] = 0", LINE, "changes what it was only shown"),
        ("snapshot.gauges()[0] += 1", LINE, "changes what it was only shown"),
        ("snapshot.look()['running'] = 3", LINE, "TypeError"),
        ("snapshot.look()['running'][0] = 3", LINE, "changes what it was only shown"),
        ("snapshot.running(0)[0][0, 0] = 3", LINE, "changes what it was only shown"),
        ("block.prompt_tokens[row] = 1", LINE, "changes what it was only shown"),
        ("block.columns[0][row] = 1", LINE, "changes what it was only shown"),
        ("block.output_tokens = block.prompt_tokens", LINE, "changes what it was only shown"),
        ("snapshot.now = 0.0", LINE, "changes what it was only shown"),
    ],
)
def test_a_bad_router_is_told_with_file_line_and_request(ask, tmp_path, body, line, says):
    router, seen, block = ask(body)
    with pytest.raises(PluginError) as caught:
        router.choose(seen, block, 1)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path / 'mine.py'}:{line}: Mine.choose ")
    assert says in text
    assert "at 3 s: the request sent at 2 s with 200 prompt and 20 output tokens" in text
    assert len(text) < 400 + len(str(tmp_path))
    assert block.prompt_tokens.tolist() == [100, 200]
    assert block.output_tokens.tolist() == [10, 20]
    assert seen.outstanding.tolist() == [4, 2]


def test_ctrl_c_while_a_router_decides_is_no_fault_of_the_router(ask):
    router, seen, block = ask("import signal\nsignal.raise_signal(signal.SIGINT)\nreturn 0")
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell that runs tests in the background has it ignored
    try:
        with pytest.raises(KeyboardInterrupt):
            router.choose(seen, block, 1)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    "body", ["while True:\n    pass", "while True:\n    try:\n        row += 1\n    except Exception:\n        pass"]
)
def test_a_router_that_loops_is_stopped(ask, monkeypatch, body):
    monkeypatch.setattr(guard, "LIMIT", 0.2)
    router, seen, block = ask(body)
    with pytest.raises(PluginError, match=r"mine.py:\d+: Mine.choose has not come back after 0.2 s"):
        router.choose(seen, block, 0)
    router, seen, block = ask("return 0")
    assert router.choose(seen, block, 0) == 0


@pytest.mark.parametrize(
    "moves", [3, [1], [Relocation(1, 0, 2)], [Relocation(1, 1, 1)], [Relocation(None, 0, 1)], {"request": 1}]
)
def test_relocations_are_checked(ask, moves):
    router, seen, _ = ask("return 0")
    router.moves = [Relocation(7, 0, 1)]
    assert len(router.poll(seen)) == 1
    router.moves = moves
    with pytest.raises(PluginError, match=r"Mine.poll answered .*\(at 3 s\)"):
        router.poll(seen)


SCALER = """
from sim.policy.scaler import Scaler

class Mine(Scaler):
    name = "mine"

    def decide(self, now, current, metrics):
        return BODY
"""


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("-1", "answered -1"),
        ("2.5", "answered 2.5"),
        ("current / 0", "raised ZeroDivisionError"),
        ("metrics.clear()", "raised AttributeError"),
    ],
)
def test_a_bad_scaler_is_told_with_file_line_and_time(tmp_path, body, says):
    path = tmp_path / "mine.py"
    path.write_text(SCALER.replace("BODY", body))
    cls = registry.lookup("scaler", f"{path}:Mine")
    scaler = cls(SimpleNamespace())
    with pytest.raises(PluginError, match=r"mine.py:\d+: Mine.decide") as caught:
        scaler.decide(15.0, 2, {"qps": 3.0})
    assert says in str(caught.value)
    assert "at 15 s with 2 replicas" in str(caught.value)


def test_a_chunk_of_arrivals_that_fails_is_told_with_its_line(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from sim.workload.arrivals._base import Arrival\nclass Mine(Arrival):\n    name = 'mine'\n"
        "    def times(self, rng):\n        yield rng.random(3).cumsum()\n        raise RuntimeError('no more')\n"
    )
    cls = registry.lookup("arrival", f"{path}:Mine")
    times = cls(cls.Params(rate=1.0)).times(np.random.default_rng(0))
    assert len(next(times)) == 3
    with pytest.raises(PluginError, match=r"mine.py:6: Mine.times raised RuntimeError: no more"):
        next(times)


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return None", "answered None; allowed: a RequestBlock"),
        ("return [1, 2]", "answered [1, 2] (list); allowed: a RequestBlock"),
        ("return RequestBlock.of([0.0, 1.0], [5, -3], [2, 2])", "row 1, column 'prompt_tokens'"),
        ("return RequestBlock.of([0.0, float('nan')], [5, 3], [2, 2])", "row 1, column 'arrival_s'"),
        ("return RequestBlock.of([5.0, 1.0], [5, 3], [2, 2])", "must not run backwards"),
        ("return RequestBlock.of([0.0], [5, 3], [2, 2])", "column 'prompt_tokens' must be int32[1]"),
        ("return {}[path]", "raised KeyError"),
        ("while True: pass", "has not come back after 0.5 s"),
    ],
)
@pytest.mark.parametrize("method", ["read", "pieces"])
def test_a_bad_reader_is_told_with_file_line_and_what_it_read(tmp_path, monkeypatch, method, body, says):
    monkeypatch.setattr(guard, "LIMIT", 0.5)
    path = tmp_path / "mine.py"
    if method == "pieces":
        body = body.replace("return", "yield")
    path.write_text(
        "from sim.workload.table import RequestBlock\nfrom sim.workload.traces._base import Trace\n"
        f"class Mine(Trace):\n    name = 'mine'\n    def {method}(self, path):\n        {body}\n"
    )
    reader = registry.lookup("trace", f"{path}:Mine")()
    with pytest.raises(PluginError, match=rf"mine.py:[56]: Mine.{method} ") as caught:
        list(reader.pieces(tmp_path / "day.tab"))
    assert says in str(caught.value)
    assert f"reading {tmp_path / 'day.tab'}" in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "base", "body", "says"),
    [
        (
            "arrival",
            "Arrival",
            "    def times(self, rng):\n        yield [1.0]",
            "answered [1.0] (list); allowed: an array of times",
        ),
        ("arrival", "Arrival", "    def times(self, rng):\n        yield np.array([2.0, 1.0])", "run backwards"),
        ("arrival", "Arrival", "    def times(self, rng):\n        yield np.array([np.nan])", "allowed: finite times"),
        ("arrival", "Arrival", "    def times(self, rng):\n        return 3", "answered 3"),
        ("arrival", "Renewal", "    def gaps(self, rng, n):\n        return -np.ones(n)", "allowed: finite times of at least 0"),
        (
            "length",
            "Length",
            "    def draw(self, rng, n):\n        return np.ones(n), np.ones(n - 1)",
            "allowed: as many of either",
        ),
        (
            "length",
            "Length",
            "    def draw(self, rng, n):\n        return np.ones(n), np.zeros(n)",
            "output tokens; allowed: whole",
        ),
        ("length", "Length", "    def draw(self, rng, n):\n        return 7", "answered 7 (int); allowed: two arrays"),
    ],
)
def test_bad_arrivals_and_lengths_are_told_with_file_and_line(tmp_path, kind, base, body, says):
    path = tmp_path / "mine.py"
    path.write_text(
        f"import numpy as np\nfrom sim.workload.{kind}s._base import {base}\nclass Mine({base}):\n    name = 'mine'\n{body}\n"
    )
    cls = registry.lookup(kind, f"{path}:Mine")
    mine = cls(cls.Params(rate=1.0)) if kind == "arrival" else cls(cls.Params())
    with pytest.raises(PluginError, match=r"mine.py:[56]: Mine.(times|gaps|draw) ") as caught:
        next(mine.times(np.random.default_rng(0)) if kind == "arrival" else mine.pairs(np.random.default_rng(0)))
    assert says in str(caught.value)


def test_the_command_line_says_it_on_one_line(tmp_path, capsys, monkeypatch):
    import sim.cli

    path = tmp_path / "mine.py"
    path.write_text(ROUTER.replace("BODY", "return 99"))
    command = ["servesim", "run", "fleet", "--no-save", "-q", "-s", f"router={path}:Mine", "-s", "traffic.synthetic.requests=50"]
    monkeypatch.setattr("sys.argv", command)
    with pytest.raises(SystemExit) as caught:
        sim.cli.main()
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert said.startswith(f"error: {path}:8: Mine.choose answered 99 (int)")
    assert said.count("\n") == 1


def _engine(tmp_path, change):
    """The built-in static scheduler as a file of one's own, with a change."""
    from pathlib import Path

    import sim.engine.schedulers.static as static

    text = Path(static.__file__).read_text(encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(change(text).replace('name = "static"', 'name = "mine"'), encoding="utf-8")
    return path


def _simulate(path):
    import sim

    settings = [f"deployment.engine={path}:Static", "deployment.profile=static", "traffic.synthetic.requests=20"]
    return sim.run(sim.load("quickstart", settings))


def test_an_engine_that_does_not_compile_is_told_with_its_line(tmp_path):
    path = _engine(tmp_path, lambda text: text.replace("    s.steps_left -= 1\n", "    s.steps_lost -= 1\n"))
    line = path.read_text(encoding="utf-8").splitlines().index("    s.steps_lost -= 1") + 1
    with pytest.raises(PluginError) as caught:
        _simulate(path)
    assert str(caught.value).startswith(f"{path}:{line}: Static cannot be compiled: ")
    assert "\n" not in str(caught.value)


def test_an_engine_whose_defaults_fail_is_told_with_its_line(tmp_path):
    path = _engine(tmp_path, lambda text: text.replace("        return params\n", "        return params.nothing\n"))
    line = path.read_text(encoding="utf-8").splitlines().index("        return params.nothing") + 1
    with pytest.raises(PluginError, match=rf":{line}: Static.resolve raised AttributeError"):
        _simulate(path)


def test_a_router_without_its_base_is_told_what_to_do(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(ROUTER.replace("BODY", "return 0") + "\n    def __init__(self, params, replicas, rng):\n        pass\n")
    cls = registry.lookup("router", f"{path}:Mine")
    router = cls(cls.Params(), 2, None)
    with pytest.raises(PluginError, match="call super"):
        router.choose(Seen(), RequestBlock.of([1.0], [100], [10]), 0)


def test_a_study_of_ones_own_that_fails_is_told_with_its_line(tmp_path, capsys, monkeypatch):
    from sim.cli import main

    path = tmp_path / "mine.py"
    path.write_text(
        "from sim.study.base import Study\n\nclass Mine(Study):\n    name = 'mine-of-test'\n    def run(self):\n"
        "        yield []\n        open('/no/such/file')\n"
    )
    monkeypatch.setattr("sys.argv", ["servesim", f"{path}:Mine", "quickstart", "--no-save", "-q"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert f"error: {path}:7: Mine.run raised FileNotFoundError" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("return Answered()", "run answered"),
        ("yield 'a'", "yielded 'a'; allowed: a list of trials"),
        ("yield [3]", "yielded [3]; allowed: a list of trials"),
        ("yield []", "returned None, which has no sentence and no as_dict and no verdict"),
        ("yield []\n        return 5", "returned 5, which has no sentence"),
        ("yield []\n        raise KeyError('x')", "raised KeyError: 'x'"),
        ("yield []\n        while True: pass", "has not come back after 0.5 s"),
        ("yield []\n        raise SystemExit(0)", "raised SystemExit: 0"),
    ],
)
def test_a_bad_study_is_told_with_file_and_line(tmp_path, monkeypatch, body, says):
    from sim import load
    from sim.study.driver import run_study

    monkeypatch.setattr(guard, "LIMIT", 0.5)
    path = tmp_path / "mine.py"
    path.write_text(
        "from sim.study.base import Study\nclass Answered: pass\nclass Mine(Study):\n    name = 'mine'\n"
        f"    def run(self):\n        {body}\n"
    )
    study = registry.lookup("study", f"{path}:Mine")
    with pytest.raises(PluginError, match=r"mine.py:[5-7]: Mine.run ") as caught:
        run_study(study([load("quickstart")], study.Params()))
    assert says in str(caught.value)


def test_the_other_runs_of_a_study_are_kept(tmp_path):
    import sim

    path = tmp_path / "mine.py"
    path.write_text(ROUTER.replace("BODY", "return 99"))
    small = ["traffic.synthetic.requests=30", "expect={}"]
    answer = sim.sweep(sim.load("quickstart", small), over={"router": ["round_robin", f"{path}:Mine"]})
    assert [row["error"] == "" or row["error"] is None for row in answer.rows] == [True, False]
    assert "Mine.choose answered 99" in answer.rows[1]["error"]
