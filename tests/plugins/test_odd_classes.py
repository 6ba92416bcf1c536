"""Classes of one's own that say of themselves what cannot be: refused in one sentence, or without effect."""

from __future__ import annotations

from pathlib import Path

import pytest

import sim
from sim.errors import ConfigError, PluginError
from sim.study.single import Prepared

ROUTER = """
from sim.policy.router import Router

class Odd(Exception):
    def __str__(self):
        return 5

class Mine(Router):
    name = "mine"
    {says}

    def choose(self, snapshot, block, row):
        {does}
"""


def made(folder: Path, says: str = "", does: str = "return 0") -> Prepared:
    file = folder / "mine.py"
    file.write_text(ROUTER.format(says=says, does=does))
    return Prepared(sim.load("quickstart", (f"router={file}:Mine", "deployment.replicas=2", "traffic.synthetic.requests=3")))


@pytest.mark.parametrize(
    ("says", "refused"),
    [
        ("stateless = True", "stateless, but defines no `route`"),
        ("interval = float('nan')", "no time between two looks"),
        ("interval = -1", "no time between two looks"),
        ("interval = 'x'", "no time between two looks"),
        ("interval = 1e-9", "allowed: None, or at least 0.001 s"),
    ],
)
def test_what_a_router_cannot_be(says: str, refused: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"^router.name: .*{refused}"):
        made(tmp_path, says)


def test_a_rule_must_be_one(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="^router.name: has a `rule` that answers 5"):
        made(tmp_path, "rule = lambda self: 5").run()


def test_it_cannot_take_its_guards_away(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"mine\.py:1[24].*nan"):
        made(tmp_path, "guards = None", "return float('nan')").run()


def test_an_exception_that_cannot_be_shown_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(PluginError, match=r"mine\.py:1[2-4].*Odd"):
        made(tmp_path, "", "raise Odd").run()


@pytest.mark.parametrize(
    ("setting", "text", "says"),
    [
        (
            "traffic.synthetic.lengths",
            "from sim.workload.lengths._base import Length\n\nclass Mine(Length):\n    name = 'mine'\n\n    def draw(self, rng, n):\n        yield 3\n",
            r"Mine\.draw answered <generator .*allowed: two arrays",
        ),
        (
            "admission",
            (
                "from sim.policy.admitting import Admission\n\nclass Mine(Admission):\n    name = 'mine'\n\n    def offer(self, ticket, snapshot):\n"
                "        return True\n\n    def release(self, snapshot):\n        yield 0\n"
            ),
            r"Mine\.release answered <generator .*allowed: a list",
        ),
    ],
)
def test_a_generator_is_no_answer(setting: str, text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    file.write_text(text)
    value = f"[{file}:Mine]" if setting == "admission" else f"{file}:Mine"
    with pytest.raises(PluginError, match=says):
        Prepared(sim.load("quickstart", (f"{setting}={value}", "traffic.synthetic.requests=3"))).run()
