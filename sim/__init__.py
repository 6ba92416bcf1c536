"""servesim: a discrete-event simulator of LLM serving clusters. This module is the whole public API; it loads lazily.

>>> import sim
>>> result = sim.run(sim.load("quickstart"))          # doctest: +SKIP
>>> result.summary.latency.ttft.p99, result.requests  # doctest: +SKIP
"""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from sim.config import Scenario as Scenario
    from sim.config import load as load
    from sim.config import loads as loads
    from sim.metrics.result import Result as Result
    from sim.metrics.result import load_result as load_result
    from sim.study.accuracy import accuracy as accuracy
    from sim.study.base import Answer
    from sim.study.calibrate import calibrate as calibrate
    from sim.study.plan.answer import PlanAnswer
    from sim.study.questions.capacity import CapacityAnswer as CapacityAnswer
    from sim.study.questions.compare import CompareAnswer
    from sim.study.questions.select import SelectAnswer
    from sim.study.questions.stress import StressAnswer
    from sim.study.questions.sweep import SweepAnswer
    from sim.study.single import memory as memory
    from sim.study.single import simulate

    run = simulate
    capacity: Callable[..., CapacityAnswer]
    compare: Callable[..., CompareAnswer]
    plan: Callable[..., PlanAnswer]
    select: Callable[..., SelectAnswer]
    stress: Callable[..., StressAnswer]
    sweep: Callable[..., SweepAnswer]

__version__ = "1.0.0rc1"

_WHERE = {
    "Scenario": "sim.config",
    "load": "sim.config",
    "loads": "sim.config",
    "run": "sim.study.single:simulate",
    "accuracy": "sim.study.accuracy",
    "calibrate": "sim.study.calibrate",
    "memory": "sim.study.single",
    "Result": "sim.metrics.result",
    "load_result": "sim.metrics.result",
    "CapacityAnswer": "sim.study.questions.capacity",
    "ServesimError": "sim.errors",
    "ConfigError": "sim.errors",
    "DataError": "sim.errors",
    "NotModelledError": "sim.errors",
}
STUDIES = ("capacity", "compare", "plan", "select", "stress", "sweep")
"""Those that come with the package; a plug-in's is ``sim.NAME`` too."""
__all__ = [*_WHERE, *STUDIES, "__version__"]


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        value = None if name.startswith("_") else _study(name)
        if value is None:
            raise AttributeError(f"module 'sim' has no attribute {name!r}")
    else:
        module, _, attribute = where.partition(":")
        value = getattr(import_module(module), attribute or name)
    globals()[name] = value
    return value


def _study(name: str) -> Callable[..., Answer] | None:
    """The function of a registered study; None when there is none of that name."""
    if find_spec(f"{__name__}.{name}") is not None:  # a room, not a name
        return None
    registry = import_module("sim.registry")
    if name not in registry.names("study"):
        return None
    made: Callable[..., Answer] = import_module("sim.study.driver").api(registry.lookup("study", name))
    return made


def __dir__() -> list[str]:
    return sorted(__all__)
