"""A one-engine bench for laws: the static engine with a linear step cost behind the real world loop."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.features import PREFILL_TOKENS
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.static import Static, StaticParams
from sim.engine.schedulers.vllm import Vllm
from sim.engine.schedulers.vllm.params import VllmParams
from sim.engine.state import new_recorder
from sim.fleet.wiring import wire
from sim.fleet.world import World
from sim.registry import lookup
from sim.streams import stream
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock


def engine(replica: int, recorder: Any, batch: int, base: float, per_token: float) -> Any:
    """One engine of a `group`."""
    cost = new_linear_cost(np.array([base, base]), np.array([PREFILL_TOKENS]), np.array([[0.0], [per_token]]))
    return Static.new_state(StaticParams(max_batch_size=batch, response="when_done"), Site(), 0, replica, recorder, cost)


def group(replicas: int, batch: int, base: float, per_token: float, bins: int = 0) -> EngineGroup:
    """Static engines whose prefill step lasts ``base + per_token · prompt``; with outputs of one token that is the service time."""
    recorder = new_recorder(replicas, bins, 1.0, 1024, 64, 1e-4, 4.0)
    return EngineGroup([engine(i, recorder, batch, base, per_token) for i in range(replicas)], recorder)


def vllm_engine(replica: int, recorder: Any, batch: int, step: float) -> Any:
    """A vLLM engine of at most ``batch`` requests whose every step lasts ``step``, with memory enough for all of them."""
    cost = new_linear_cost(np.array([step, step]), np.array([PREFILL_TOKENS]), np.array([[0.0], [0.0]]))
    given = {"max_num_seqs": batch, "async_scheduling": False, "max_model_len": 100_000, "max_num_batched_tokens": 8192}
    params = Vllm.resolve(VllmParams(**given), Site())
    return Vllm.new_state(params, Site(), 100_000, replica, recorder, cost)


def vllm_group(batch: int, step: float) -> EngineGroup:
    """One of them."""
    recorder = new_recorder(1, 0, 1.0, 1024, 64, 1e-4, 4.0)
    return EngineGroup([vllm_engine(0, recorder, batch, step)], recorder)


def traffic(arrival: Any, prompt: Any, output: Any, clients: int = 0, think_time: float = 0.0) -> Traffic:
    """The requests; with ``clients``, sent by as many waiting ones."""
    made = RecordedTraffic(RequestBlock.of(arrival, prompt, output), 1.0)
    return made.with_closed_loop(ClosedLoop(clients, think_time, made)) if clients else made


def run(groups: list[EngineGroup], requests: Traffic, router: str = "round_robin", **how: Any) -> tuple[World, Any]:
    """A finished world and its request columns."""
    cls = lookup("router", router)
    world = wire(groups, [cls(cls.Params(), sum(g.n for g in groups), stream(0, "router"))], requests, **how)
    world.run()
    return world, world.requests()
