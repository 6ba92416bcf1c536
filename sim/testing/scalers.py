"""The laws of autoscalers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sim import guard
from sim.config import settings
from sim.policy.scaler import METRICS, Scaler, Targets
from sim.testing._base import refuses_unknown_settings, subject


class ScalerLaws:
    """What every autoscaler keeps. Say ``scaler``, and ``settings``; those of the base are given (1 to 20 replicas, 10 requests/s each).

    `decide` answers with a whole number of replicas, 0 or more, for any metrics in order of time; the same metrics get the same answers; it
    changes nothing that it is shown; under constant load the number settles within ``settles`` evaluations and stays; more load never settles
    at fewer replicas; unknown settings are refused by name.
    """

    scaler: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    settles: ClassVar[int] = 200

    def make(self) -> Scaler:
        """A fresh scaler under test."""
        cls: Any = guard.guarded(subject("scaler", self.scaler, self), Scaler, everything=True)
        given = {"min": 1, "max": 20, "targets": {"qps": "10/s"}} | dict(self.settings)
        made: Scaler = cls(settings(cls.Params, given, "scaling"))
        return made

    def _answers(self, seed: int) -> list[int]:
        scaler, rng = self.make(), np.random.default_rng(seed)
        current, out = 1, []
        for step in range(100):
            load = float(rng.choice([0.0, 1.0, 50.0, 1e6])) * float(rng.random())
            metrics = {name: load / max(current, 1) for name in METRICS if getattr(self._targets(scaler), name) is not None}
            found = int(scaler.decide(step * float(scaler.params.interval), current, metrics))
            out.append(found)
            current = min(max(found, scaler.params.min), scaler.params.max)
        return out

    @staticmethod
    def _targets(scaler: Scaler) -> Targets:
        found: Targets = vars(scaler.params)["targets"]
        return found

    def _settled(self, load: float) -> int:
        scaler = self.make()
        current, seen = 1, [1]
        for step in range(2 * self.settles):
            metrics = {name: load * target / max(current, 1) for name, target in self._targets(scaler).given.items()}
            wanted = int(scaler.decide(step * float(scaler.params.interval), current, metrics))
            current = int(min(max(wanted, scaler.params.min), scaler.params.max))
            seen.append(int(current))
        late = set(seen[self.settles :])
        assert len(late) == 1, f"under constant load it goes on changing its mind: {sorted(late)} replicas"
        return seen[-1]

    def test_it_answers_with_a_number_and_changes_nothing(self) -> None:
        """Anything else raises `PluginError` out of the guard."""
        for seed in range(10):
            self._answers(seed)

    def test_the_same_metrics_get_the_same_answers(self) -> None:
        """Nothing but time, number and metrics decides."""
        assert self._answers(3) == self._answers(3)

    def test_constant_load_settles_and_more_load_never_at_fewer(self) -> None:
        """``load``: how many times the target of one replica."""
        settled = [self._settled(load) for load in (0.5, 3.0, 7.5, 1000.0)]
        assert settled == sorted(settled), f"more load settles at fewer replicas: {settled}"
        assert settled[-1] > settled[0], "load makes no difference"

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("scaler", self.scaler, self))
