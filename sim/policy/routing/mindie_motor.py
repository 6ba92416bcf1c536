"""MindIE Motor's coordinator in front of MindIE servers, or any other: plain pools, or pools with the roles prefill and decode.

*Source*: Ascend/MindIE-Motor 5dfb024e ``coordinator``, defaults of ``ms_coordinator.json``; rules in `sim.policy.motor`. Of its servers it knows
what it has sent them, and what they reported last (``cluster_synchronization_seconds`` of the controller).

Assumed: that the length it estimates from the text (``string_token_rate`` characters per token) is right; that ``single_node_max_requests``
bounds the links of a server; that a server which prefills and decodes counts a request on both sides; that one which its decode server gave
back goes to the same two. Messages take no time. Not modelled: groups (all servers are one), retries, ``first_token_timeout`` and
``infer_timeout`` (the servers have time-outs of their own).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, field_validator

from sim.errors import ConfigError
from sim.policy.coordinator import Coordinator, Dispatch
from sim.policy.motor import digs
from sim.policy.motor.default import CacheAffinity, RoundRobin
from sim.policy.motor.load import LoadCost, demand_of
from sim.policy.requests import Requests
from sim.policy.router import PollInterval, Relocation, ReplicaFacts, RouterParams, Snapshot
from sim.registry import register
from sim.units import Seconds

_COEFFICIENTS = 9


class MotorParams(RouterParams):
    """Settings as ``ms_coordinator.json`` spells them."""

    scheduler_type: Literal["digs_scheduler", "default_scheduler"] = Field(
        "digs_scheduler", description="by load and limits; default_scheduler: in turn or by conversation"
    )
    algorithm_type: Literal["load_balance", "round_robin", "cache_affinity"] = Field(
        "load_balance", description="load_balance is digs_scheduler's, the others are default_scheduler's"
    )
    cache_size: int = Field(100, ge=1, description="cache_affinity: conversations remembered")
    slots_thresh: float = Field(0.05, ge=0, le=1, description="cache_affinity: share of free slots that a server must exceed")
    block_thresh: float = Field(0.05, ge=0, le=1, description="cache_affinity: share of free blocks that a server must exceed")
    max_schedule_count: int = Field(10_000, ge=1, description="requests taken into a round at most")
    reordering_type: int = Field(
        1,
        ge=1,
        le=4,
        description="1 first come, 2 shortest, 3 longest, 4 longest matching prefix first (without effect, as upstream)",
    )
    res_limit_rate: float = Field(1.1, gt=0, allow_inf_nan=False, description="a server may be asked for so much of its capacity")
    select_type: int = Field(2, ge=1, le=2, description="2 load balance with that limit, 1 without")
    load_cost_values: str = Field("1,0", description="slots and blocks of every request; no blocks: those of its input")
    load_cost_coefficient: str = Field("0,0.22,1024,24,6,0,1,0,1", description="a,i,o,n,k,m,r,b,c of the load of decode servers")
    single_node_max_requests: int = Field(1000, ge=1, description="requests of a server at once")
    max_requests: int = Field(10_000, ge=1, description="requests at once; more are refused")
    schedule_timeout: Seconds = Field(600.0, gt=0, description="after so long a request without a server fails")
    cluster_synchronization_seconds: PollInterval = Field(1.0, description="time between two reports of the servers")
    total_slots_num: int | None = Field(
        None, ge=1, description="requests of a full batch of a server (not Motor's own: it asks the server)"
    )

    @field_validator("load_cost_values", "load_cost_coefficient")
    @classmethod
    def _numbers(cls, text: str) -> str:
        try:
            [float(part) for part in text.split(",")]
        except ValueError:
            raise ValueError("must be numbers joined by commas") from None
        return text


@register("router")
class MindieMotor(Coordinator):
    """The least asked server, first come, first served; or servers in turn, and conversations back to their server."""

    name = "mindie_motor"
    aliases = ("mindie-motor", "motor")
    Params = MotorParams
    params: MotorParams

    def __init__(self, params: MotorParams, replicas: int, rng: np.random.Generator) -> None:
        super().__init__(params, replicas, rng)
        self._values = [int(float(v)) for v in params.load_cost_values.split(",")]
        self._coefficients = [float(v) for v in params.load_cost_coefficient.split(",")]
        _check(params, self._values, self._coefficients)
        self.interval = params.cluster_synchronization_seconds
        self.period = digs.PERIOD
        self.patience = params.schedule_timeout
        self.capacity = params.max_requests
        self._used = [0.0] * replicas
        self._free: NDArray[np.float64] = np.ones((2, replicas))  # shares of slots and blocks
        self._facts: Sequence[ReplicaFacts] = ()
        self._slots: list[int] = []
        self._digs: digs.GlobalScheduler | None = None
        self._line: deque[tuple[int, int]] = deque()  # default_scheduler: request, session
        self._turns: RoundRobin | CacheAffinity | None = None
        self._decoders: dict[int, RoundRobin] = {}

    def setup(self, facts: Sequence[ReplicaFacts]) -> None:
        """Slots, blocks and roles. Raises `ConfigError` where a server's slots are not known or roles and algorithm disagree."""
        p = self.params
        self._facts = facts
        self._slots = [p.total_slots_num or f.slots for f in facts]
        if 0 in self._slots:
            raise ConfigError(
                "router.total_slots_num", None, f"the batch size of {facts[self._slots.index(0)].engine} is not known", "1.."
            )
        prefill = [i for i, f in enumerate(facts) if f.role != "decode"]
        decode = [i for i, f in enumerate(facts) if f.role == "decode"]
        if decode and p.algorithm_type == "cache_affinity":
            raise ConfigError("router.algorithm_type", p.algorithm_type, "is for servers that prefill and decode", "round_robin")
        affinity = p.algorithm_type == "cache_affinity"
        self._turns = CacheAffinity(len(prefill), p.cache_size) if affinity else RoundRobin(len(prefill))
        self._prefill, self._decode = prefill, decode
        self._decoders = {i: RoundRobin(len(decode)) for i in prefill} if decode else {}

    # -- what servers report

    def poll(self, snapshot: Snapshot) -> Sequence[Relocation]:
        """The servers report their slots and blocks."""
        seen = snapshot.look()
        used, total = seen["used_blocks"], np.maximum(seen["total_blocks"], 1.0)
        busy = np.minimum(seen["running"] + seen["waiting"], self._slots)
        self._used = used.tolist()
        self._free = np.array([1.0 - busy / np.array(self._slots), 1.0 - used / total])
        if self._digs is None and self.params.scheduler_type == "digs_scheduler":
            self._digs = self._scheduler(seen["total_blocks"].astype(np.int64).tolist())
        return ()

    def _scheduler(self, blocks: Sequence[int]) -> digs.GlobalScheduler:
        p = self.params
        servers = [
            digs.Instance(i, self._slots[i], blocks[i], _ROLES[f.role], p.single_node_max_requests)
            for i, f in enumerate(self._facts)
        ]
        return digs.GlobalScheduler(
            servers,
            LoadCost(*self._coefficients),
            reordering_type=p.reordering_type,
            select_type=p.select_type,
            limit_rate=p.res_limit_rate,
            max_schedule_count=p.max_schedule_count,
        )

    # -- requests

    def arrive(self, snapshot: Snapshot, number: int, block: Requests, row: int) -> None:
        """Into the queue."""
        if self.params.scheduler_type == "default_scheduler":
            session = int(block.session[row])
            self._line.append((number, session if session >= 0 else -1 - number))
            return
        if self._digs is None:
            self.poll(snapshot)
        self._digs.add(number, demand_of(int(block.prompt_tokens[row]), self._facts[0].block_size, self._values))  # type: ignore[union-attr]

    def dispatch(self, snapshot: Snapshot) -> Sequence[Dispatch]:
        """A round of the scheduler."""
        if self._digs is not None:
            found = self._digs.schedule(self._used)
            return [Dispatch(a.request, a.prefill, a.decode if self._decode else -1) for a in found]
        out = []
        for _ in range(len(self._line)):  # one that finds no server goes to the end
            number, session = self._line.popleft()
            sent = self._in_turn(number, session)
            if sent is None:
                self._line.append((number, session))
            else:
                out.append(sent)
        return out

    def _in_turn(self, number: int, session: int) -> Dispatch | None:
        if isinstance(self._turns, CacheAffinity):
            node = self._turns.choose(session, self._has_room)
            return Dispatch(number, self._prefill[node]) if node >= 0 else None
        assert self._turns is not None, "setup comes first"
        first = self._turns.choose(lambda n: self._is_free(self._prefill[n]))
        if first < 0:
            return None
        if not self._decode:
            return Dispatch(number, self._prefill[first])
        second = self._decoders[self._prefill[first]].choose(lambda n: self._is_free(self._decode[n]))
        return Dispatch(number, self._prefill[first], self._decode[second]) if second >= 0 else None

    def _is_free(self, replica: int) -> bool:
        return bool((self._free[:, replica] > 0.0).all())

    def _has_room(self, node: int) -> bool:
        slots, blocks = self._free[:, self._prefill[node]]
        return bool(slots > self.params.slots_thresh and blocks > self.params.block_thresh)

    def withdraw(self, number: int) -> None:
        """Out of the queue."""
        if self._digs is not None:
            self._digs.withdraw(number)
        else:
            self._line = deque(entry for entry in self._line if entry[0] != number)

    def prompt_computed(self, number: int) -> None:
        """What it asked of its prefill server is free."""
        if self._digs is not None:
            self._digs.prefill_ended(number)

    def ended(self, number: int) -> None:
        """What it asked of its servers is free."""
        if self._digs is not None:
            self._digs.ended(number)


_ROLES: dict[str, Literal["both", "prefill", "decode"]] = {"": "both", "prefill": "prefill", "decode": "decode"}


def _check(p: MotorParams, values: Sequence[int], coefficients: Sequence[float]) -> None:
    if (p.scheduler_type == "digs_scheduler") != (p.algorithm_type == "load_balance"):
        better = "load_balance" if p.scheduler_type == "digs_scheduler" else "round_robin, cache_affinity"
        raise ConfigError("router.algorithm_type", p.algorithm_type, f"is not one of {p.scheduler_type}", better)
    if len(values) != 2 or min(values) < 0:
        raise ConfigError("router.load_cost_values", p.load_cost_values, "must be the slots and blocks of a request", "1,0")
    if len(coefficients) != _COEFFICIENTS:
        raise ConfigError(
            "router.load_cost_coefficient",
            p.load_cost_coefficient,
            f"must be {_COEFFICIENTS} numbers",
            "0,0.22,1024,24,6,0,1,0,1",
        )
