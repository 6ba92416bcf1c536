"""Which deployments of which engine are tried under the user's traffic."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, TypedDict

import yaml

from sim.errors import ConfigError, ServesimError, UnknownNameError
from sim.resources import path as resource

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json

_LOOK = 20_000


@dataclass(frozen=True)
class Choice:
    """An engine with its settings, on ``tp`` accelerators of a kind."""

    engine: str
    settings: Mapping[str, Json]
    accelerator: str
    tp: int

    @property
    def point(self) -> dict[str, Json]:
        """As settings of the scenario."""
        engine = {"name": self.engine, **self.settings}
        return {"deployment.engine": engine, "deployment.accelerator": self.accelerator, "deployment.tp": self.tp}


class Defaults(TypedDict, total=False):
    """How an engine is tried: ``settings``, in which ``context`` and ``prompt`` stand for lengths of the traffic; ``accelerators`` that it needs."""

    settings: dict[str, str | float | bool]
    accelerators: list[str]


@lru_cache(maxsize=1)
def defaults() -> dict[str, Defaults]:
    """``profiles/selection.yaml``."""
    data: dict[str, Defaults | None] = yaml.safe_load(resource("profiles", "selection.yaml").read_text(encoding="utf-8"))
    return {k: v or {} for k, v in data.items()}


def longest(scenario: Scenario, replications: int = 1) -> int:
    """Tokens of the longest request, prompt and output, among the first ones of every replication; rounded up to 1,024."""
    from sim.study.variants import repeated
    from sim.workload import build_traffic

    most = 0
    for r in range(replications):
        again, seen = repeated(scenario, r), 0
        for block in build_traffic(again.traffic, again.seed).blocks():
            most = max(most, int((block.prompt_tokens.astype("i8") + block.max_tokens).max()))
            seen += len(block)
            if seen >= _LOOK:
                break
    return math.ceil(most / 1024) * 1024


def tries(
    scenario: Scenario, engines: Sequence[str], accelerators: Sequence[str], tps: Sequence[int], replications: int = 1
) -> list[Choice]:
    """Choices of settings, engine by engine, that serve the requests of all ``replications``.

    Raises `UnknownNameError` for an engine that does not exist, `ConfigError` for pools.
    """
    from sim import registry
    from sim.study.variants import is_random

    if scenario.deployment is None:
        raise ConfigError(
            "pools", len(scenario.pools or ()), "cannot be compared engine by engine", "a scenario with one deployment"
        )
    known = registry.names("engine")
    for name in engines:
        if name not in known and ".py:" not in name:
            raise UnknownNameError("engines", name, known)
    context = longest(scenario, replications if is_random(scenario) else 1)
    lengths: dict[str | float | bool, int] = {"context": context, "prompt": context - 1}
    out = []
    for name in engines or list(defaults()):
        own = defaults().get(name, {})
        settings = {k: lengths.get(v, v) for k, v in own.get("settings", {}).items()}
        cards = list(accelerators) or own.get("accelerators") or [scenario.deployment.accelerator]
        for card in cards:
            for tp in tps or (1, 2, 4, 8):
                given = scenario.deployment.engine.settings if name == scenario.deployment.engine.name else settings
                out.append(Choice(name, given, card, tp))
    return out


def made(scenario: Scenario, choices: Sequence[Choice]) -> list[Scenario | ServesimError]:
    """The scenario of each choice, without prices and at one replica; in place of one that cannot be, its error."""
    from sim.config import vary

    found: list[Scenario | ServesimError] = []
    bare = scenario.model_copy(update={"economics": None})
    for choice in choices:
        point = {**choice.point, "deployment.replicas": 1, "deployment.profile": None, "deployment.kv_blocks": None}
        try:
            found.append(vary(bare, point))
        except ServesimError as error:
            found.append(error)
    return found
