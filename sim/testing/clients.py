"""The laws of clients."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from sim import guard
from sim.config import settings
from sim.policy.client import FAILURES, Client
from sim.testing._base import refuses_unknown_settings, skip, subject


class ClientLaws:
    """What every client keeps. Say ``client``, and ``settings`` where it needs some.

    It makes at least one attempt; time-outs are positive, and none longer than the deadline helps; `retries` answers yes or no to every failure, `delay` a
    number of seconds, 0 or more, before every attempt; the same seed gives the same pauses; unknown settings are refused by name. *In a whole
    run* of ``scenario`` before a fleet that is overloaded and dies for a while: each request has one outcome, with no more attempts than it may
    make. ``runs = False`` leaves this out.
    """

    client: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    scenario: ClassVar[str] = "quickstart"
    requests: ClassVar[int] = 150
    runs: ClassVar[bool] = True

    def make(self) -> Client:
        """The client under test."""
        cls: Any = guard.guarded(subject("client", self.client, self), Client, everything=True)
        made: Client = cls(settings(cls.Params, self.settings, "clients"))
        return made

    def test_times_and_attempts_make_sense(self) -> None:
        """As properties, which the fleet reads before the run."""
        client = self.make()
        assert client.attempts >= 1, f"{client.attempts} attempts"
        for name in ("connect", "first_byte", "total", "deadline"):
            assert getattr(client, name) > 0.0, f"{name} is {getattr(client, name)}"

    def test_it_answers_to_every_failure(self) -> None:
        """Anything but yes or no raises `PluginError` out of the guard."""
        client = self.make()
        for failure in FAILURES:
            assert client.retries(failure) in (True, False)

    def test_pauses_are_seconds_and_rest_on_the_seed(self) -> None:
        """Before each attempt that it may make, and some more."""
        pauses = []
        for _ in range(2):
            client, rng = self.make(), np.random.default_rng(7)
            pauses.append([client.delay(k, rng) for k in range(min(client.attempts, 50) + 2)])
        assert pauses[0] == pauses[1]
        assert all(0.0 <= p < np.inf for p in pauses[0])

    def test_in_a_whole_run_each_request_has_one_outcome(self) -> None:
        """The laws of a run are checked by the run itself (`sim.metrics.laws`)."""
        if not self.runs:
            skip("only by itself")
        import sim

        how = [
            f"traffic.synthetic={{arrival: {{process: poisson, rate: 40/s}}, lengths: {{kind: azure-2023-conv}}, requests: {self.requests}}}",
            f"clients={{name: {self.client!r}, {', '.join(f'{k}: {v}' for k, v in self.settings.items())}}}",
            "deployment.engine.max_num_seqs=4",
            "faults=[{name: crash, at: 1s, for: 1s}]",
            "until=400s",
        ]
        result = sim.run(sim.load(self.scenario, how))
        assert sorted(result.columns["id"].tolist()) == list(range(self.requests))
        assert (result.columns["attempts"] >= 1).all()
        client = self.make()
        most = client.attempts * (1 + getattr(client.params, "max_hedges", 0))
        assert (result.columns["attempts"] <= most).all()

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("client", self.client, self))
