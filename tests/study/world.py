"""A world whose figures are a formula: a study asks it instead of the simulator, so that its right answer is known.

A unit serves `World.serves` requests/s at most. At a share x of that a first token takes 0.2 / (1 − x) s, from 95 % on as long as a queue makes it, and a
further one 20 (1 + x) ms; of each target a share min(1, target / latency) is met. So 99 % attainment of 1 s to the first token breaks at x = 0.802.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import sim
from sim.study.base import Interrupted, Outcome, Trial, figures
from sim.study.single import Prepared
from tests.whole import formula

OFFERED = 8.0
"""Requests/s of the scenario quickstart."""


def border(slow: float = 1.0) -> float:
    """The share x up to which 99 % of requests are within both targets, where every step takes ``slow`` times as long."""
    return min(1.0 - 0.2 * 0.99 * slow, 0.05 / 0.99 / slow / 0.02 - 1.0)


def first_token(x: float) -> float:
    """Seconds at a share x of what is served."""
    return 0.2 / (1.0 - x) if x < 0.95 else 4.0 * (x / 0.95) ** 2


@cache
def plain_figures() -> dict[str, Any]:
    """Figures of a small run, as a trial keeps them: what the world does not say is as here."""
    with formula():
        return figures(Prepared(sim.load("quickstart", ["traffic.synthetic.requests=20", "record.timeseries=false"])).run())


def changed(**changes: Any) -> dict[str, Any]:
    """`plain_figures` with other values; ``a__b`` is the figure ``a.b``."""
    made = copy.deepcopy(plain_figures())
    for name, value in changes.items():
        *way, last = name.split("__")
        at = made
        for key in way:
            at = at[key]
        at[last] = value
    return made


def units(trial: Trial) -> int:
    """Of a trial."""
    return trial.load.get("units", trial.load.get("replicas", 1))


@dataclass
class World:
    """``serves``: requests/s of a unit, of a scenario; ``luck``: by seed, a factor of that; ``price``: of a unit and hour; ``offered``: the rate
    where a trial says none; ``wrong``: the error
    of a trial, or none.
    """

    serves: float | Callable[[Any], float] = 10.0
    luck: Mapping[int, float] = field(default_factory=dict)
    price: float = 2.5
    offered: float = OFFERED
    wrong: Callable[[Trial], str] = lambda _: ""
    trials: list[Trial] = field(default_factory=list)

    def most(self, trial: Trial) -> float:
        """Requests/s that the units of a trial serve."""
        each = self.serves(trial.scenario) if callable(self.serves) else self.serves
        return units(trial) * each * self.luck.get(trial.scenario.seed, 1.0)

    def load(self, trial: Trial) -> float:
        """The share x of what the units of a trial serve, by requests times lengths; bursts count by their height."""
        rate = trial.load.get("rate", self.offered)
        rate *= trial.load.get("lengths", 1.0) * trial.load.get("burst", 1.0)
        return float(rate / self.most(trial))

    def attained(self, x: float, ttft: float = 1.0, tpot: float = 0.05) -> dict[str, float]:
        """Shares within these targets."""
        took = {"ttft_s": first_token(x), "tpot_s": 0.02 * (1.0 + x)}
        shares = {"ttft_s": min(1.0, ttft / took["ttft_s"]), "tpot_s": min(1.0, tpot / took["tpot_s"])}
        return shares | {"joint": min(shares.values())}

    def __call__(self, trial: Trial) -> Outcome:
        self.trials.append(trial)
        error = trial.problem or self.wrong(trial)
        if error:
            return Outcome(trial, None, error)
        x = self.load(trial)
        slo = trial.scenario.slo
        shares = self.attained(x, slo.ttft or 1.0, slo.tpot or 0.05)
        required = slo.attainment
        met = shares["joint"] >= required
        demand = plain_figures()["slo"]["demands"][0] | {"attainment": shares["joint"], "met": met, "required": required}
        made = changed(
            seed=trial.scenario.seed, slo__attainment=shares, slo__effective=shares["joint"], slo__met=met, slo__required=required,
            slo__demands=[demand], latency__ttft_s__p99=first_token(x), latency__tpot_s__p50=0.02 * (1.0 + x),
            throughput__requests_per_s=min(x, 1.0) * self.most(trial), bottleneck__queue_grows=x > 1.0, bottleneck__sentence=f"Busy to {x:.2f}.", warnings=[],
        )  # fmt: skip
        n = units(trial)
        money = {"per_hour": n * self.price, "kilowatts": 0.7 * n, "g_co2e_per_hour": 300.0 * n}
        return Outcome(trial, made | {"economics": money})


def ask(
    steps: Generator[Sequence[Trial], list[Outcome], Any], world: Callable[[Trial], Outcome], stop: int | None = None
) -> tuple[Any, list[list[Trial]]]:
    """The answer of a study, or of a part of one, and the lists of trials it asked for. ``stop``: it is interrupted after so many of them."""
    asked: list[list[Trial]] = []
    done = 0
    try:
        batch = next(steps)
        while True:
            asked.append(list(batch))
            outcomes = [world(t) for t in batch[: None if stop is None else stop - done]]
            done += len(outcomes)
            batch = steps.throw(Interrupted(outcomes, done)) if len(outcomes) < len(batch) else steps.send(outcomes)
    except StopIteration as ended:
        return ended.value, asked
