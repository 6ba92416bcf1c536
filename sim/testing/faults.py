"""The laws of faults."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from sim.config import settings
from sim.policy.fault import Fault, Unit
from sim.testing._base import refuses_unknown_settings, subject


class _Hands:
    """Notes what is done, and what is still broken (`sim.policy.fault.Hands`)."""

    def __init__(self) -> None:
        self.done: list[tuple[object, ...]] = []
        self.broken: set[tuple[object, ...]] = set()

    def _now(self, what: tuple[object, ...], broken: bool, how: object = None) -> None:
        self.done.append((*what, broken, how))
        (self.broken.add if broken else self.broken.discard)(what)

    def crash(self, replica: int) -> None:
        """The process dies."""
        self._now(("process", replica), True)

    def restart(self, replica: int) -> None:
        """A new one listens."""
        self._now(("process", replica), False)

    def slow(self, replica: int, factor: float) -> None:
        """So many times as long."""
        assert factor > 0.0, f"a factor of {factor}"
        self._now(("speed", replica), factor != 1.0, factor)

    def shut(self, hangs: bool) -> None:
        """The gateway."""
        self._now(("gateway",), True, hangs)

    def open(self) -> None:
        """It works again."""
        self._now(("gateway",), False)

    def forget(self) -> None:
        """The router starts anew: nothing that could be mended."""
        self.done.append(("router",))

    def store(self, there: bool) -> None:
        """The remote store of KV."""
        self._now(("store",), not there)

    def link(self, factor: float) -> None:
        """Between prefill and decode replicas."""
        assert factor >= 0.0, f"a factor of {factor}"
        self._now(("link",), factor != 1.0, factor)


class FaultLaws:
    """What every fault keeps. Say ``fault``, and ``settings``; ``at: 10s`` and ``for: 5s`` are given.

    It does something when it begins, to what it ``touches`` and to the replica it is told; when it has ended nothing of it is left; the same again does the
    same; it says in words what has happened; it has a rate, lasts a time that is not negative, and happens only to units that there are; unknown
    settings are refused by name.
    """

    fault: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}

    def make(self) -> Fault:
        """The fault under test."""
        cls: Any = subject("fault", self.fault, self)
        made: Fault = cls(settings(cls.Params, {"at": "10s", "for": "5s"} | dict(self.settings), "faults"))
        return made

    def _units(self) -> list[Unit]:
        return [Unit(k, 1 + k % 2) for k in range(4)]

    def _places(self, fault: Fault) -> list[int]:
        return [u.replica for u in fault.concerns(self._units())] if fault.scope == "replica" else [-1]

    def test_what_breaks_is_mended(self) -> None:
        """On each replica that it concerns, or once for the fleet."""
        fault, hands = self.make(), _Hands()
        places = self._places(fault)
        assert places, "it concerns nobody"
        for replica in places:
            before = len(hands.done)
            fault.begin(hands, replica)
            told = hands.done[before:]
            assert told, "nothing happens when it begins"
            assert {t[0] for t in told} == {fault.touches}, f"it says that it touches the {fault.touches}, and does {told}"
            assert all(t[1] == replica for t in told if t[0] in ("process", "speed")), (
                f"told of replica {replica}, it does {told}"
            )
            fault.end(hands, replica)
            assert not hands.broken, f"still broken in the end: {hands.broken}"

    def test_again_is_the_same(self) -> None:
        """It keeps nothing between two times."""
        fault, hands = self.make(), _Hands()
        replica = self._places(fault)[0]
        for _ in range(2):
            fault.begin(hands, replica)
            fault.end(hands, replica)
        half = len(hands.done) // 2
        assert hands.done[:half] == hands.done[half:]

    def test_it_can_be_told(self) -> None:
        """In one clause."""
        fault = self.make()
        for replica in self._places(fault):
            assert fault.words(replica).strip()
            assert "\n" not in fault.words(replica)

    def test_rates_and_times(self) -> None:
        """Of every unit that it concerns."""
        fault, units = self.make(), self._units()
        concerned = fault.concerns(units)
        assert set(concerned) <= set(units)
        for unit in concerned:
            assert fault.rate(unit) >= 0.0
            assert fault.lasts(unit) >= 0.0
        assert fault.crashes == (fault.touches == "process"), "whether processes die is not what it touches"

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("fault", self.fault, self))
