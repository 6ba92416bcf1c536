"""What a scheduler is: a `Params` model, a description of the engine, and compiled functions on its own struct of arrays.

The shared loop (`loop.py`) owns clock, inbox, pipeline of batches in flight, step cost and recording. A scheduler owns decisions.
Time passes only in the loop, except that a scheduler may move ``s.now`` forward where the real engine sleeps.

**Compiled side.** Declare ``@struct class MyState(EngineState)`` (fields are Numba types) and attach plain functions of exactly these
names and arguments with ``sim.jit.implement(MyState, plan=…, …)``; helpers they call are decorated with ``@inline``.

``enqueue(s, slot)``
    A request has arrived (``s.r_arrival[slot] <= s.now``). Put it into the engine's queue, or turn it away:
    ``record_end(s, slot, s.now, REJECTED); free_slot(s, slot)``.
``plan(s)``
    One decision at ``s.now``. Fill place ``p = next_place(s)`` of the ring: ``q_slot[p, i]``, ``q_tok[p, i]`` (new tokens), ``q_aux``,
    ``q_rows[p]`` and the sums ``q_feat[p]`` (`sim.cost.features`; `clear_place` zeroes them). Returns `NOTHING` (no batch), `EMPTY`
    (a batch without work that still takes a place in the pipeline) or `BATCH`. Set ``s.more`` if the engine would decide again at once
    while the pipeline has a free place; set ``s.wake`` if it wants to be called again without an arrival. Update the gauges.
``complete(s, p)``
    The batch in place ``p`` has finished at ``s.now``: apply what it means (`emit` tokens, finish, free, insert into caches). Update gauges.
``steady_steps(s)``
    For how many further decisions would `plan` build the same pure-decode batch as the last one, with nothing finishing at any of their
    completions, no admission possible, no memory decision to take? 0 or 1 means: go step by step. All rows of the batch must have
    received a token at ``s.now`` (the last completion). Arrivals are the loop's business.
``apply_steady(s, k)``
    ``k`` such steps have been executed, the last completing at ``s.now``: advance ``r_done`` (+k), ``r_last_token`` (= now), blocks, contexts.
    With ``depth`` 2 one equal batch is in flight before and after.
``grow(s, n)``
    Grow the scheduler's own request columns to ``n`` rows (`grown`).

A client that goes: `sim.engine.withdraw`, optional.

Request life: inbox → `enqueue` → (`first_scheduled`) → `emit`… → `record_end` → `free_slot` (when no batch in flight refers to it).

**Python side.** A registered class (``@register("engine")``) derived from `Scheduler`. Settings are spelled as the engine spells them.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from pydantic import BaseModel, ConfigDict

from sim.cost.features import N_FEATURES
from sim.engine.adapters import Adapters
from sim.engine.seam import Group
from sim.engine.sides import HandOver, Role
from sim.engine.state import EngineState
from sim.errors import NotModelledError
from sim.jit import generic, inline
from sim.model.serving import cache_warning

if TYPE_CHECKING:
    from sim.cost.extras import Extras
    from sim.cost.memory import Rule
    from sim.cost.profile import EngineProfile
    from sim.cost.shared import SharedCost
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.tiers.plan import TierPlan
    from sim.hardware.accelerator import Accelerator
    from sim.model.spec import ModelSpec

NOTHING = 0
EMPTY = 1
BATCH = 2


@generic
def enqueue(s: EngineState, slot: int) -> None:
    """A request has arrived."""


@generic
def plan(s: EngineState) -> int:
    """One scheduling decision at ``s.now``; returns NOTHING, EMPTY or BATCH."""
    raise NotImplementedError


@generic
def complete(s: EngineState, p: int) -> None:
    """The batch in place ``p`` has finished."""


@generic
def steady_steps(s: EngineState) -> int:
    """How many further decisions are surely the same decode batch without a finish."""
    raise NotImplementedError


@generic
def apply_steady(s: EngineState, k: int) -> None:
    """``k`` unchanged decode steps have been executed."""


@generic
def grow(s: EngineState, n: int) -> None:
    """Grow the scheduler's own request columns."""


@inline
def next_place(s):
    """Ring place that the next planned batch goes to."""
    return (s.q_head + s.q_len) % s.q_rows.size


@inline
def clear_place(s, p):
    """Zero the rows and sums of a ring place before filling it."""
    s.q_rows[p] = 0
    for j in range(N_FEATURES):
        s.q_feat[p, j] = 0.0


class EngineParams(BaseModel):
    """Base of an engine's settings. ``None`` means: the engine's own default for this model and hardware (see `Scheduler.resolve`)."""

    model_config = ConfigDict(frozen=True, extra="forbid")


@dataclass(frozen=True)
class Site:
    """Where an engine runs: what defaults and capacities depend on.

    ``model`` and ``accelerator`` may be None in conformance replays, where everything is given.
    """

    model: ModelSpec | None = None
    accelerator: Accelerator | None = None
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    kv_blocks: int | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def spec(self) -> ModelSpec:
        """The model, where there must be one."""
        assert self.model is not None, "a recording without a model asks for what depends on it"
        return self.model

    @property
    def card(self) -> Accelerator:
        """The accelerator, where there must be one."""
        assert self.accelerator is not None, "a recording without an accelerator asks for what depends on it"
        return self.accelerator


@dataclass(frozen=True)
class Ranks:
    """Data-parallel ranks of one engine: ``n`` schedulers, each with queue, KV pool and caches of its own, behind the engine's balancer.

    ``together``: their layers share experts, so they step together (`sim.engine.lockstep`, which says what ``interval`` is); otherwise each
    is an engine of its own. ``balancer``: name and settings of the router that chooses the rank.
    """

    n: int
    together: bool
    balancer: str
    settings: dict[str, object] = field(default_factory=dict)
    interval: int = 0


P = TypeVar("P", bound=EngineParams)


class Scheduler(ABC, Generic[P]):
    """One serving engine in one version line, with the settings ``P``.

    ``models`` names the upstream project, version and modules it mirrors; it is printed with every result. ``not_modelled`` lists
    what a setting of the real engine can do and this cannot; such settings are refused.
    """

    name: ClassVar[str]
    Params: ClassVar[type[EngineParams]]
    version: ClassVar[str]
    models: ClassVar[str]
    not_modelled: ClassVar[tuple[str, ...]] = ()
    rule: ClassVar[type[Rule] | None] = None
    """How the engine divides the memory (a class of `sim.cost.memory_rules`); None: it does not manage KV memory."""
    profile: ClassVar[str | None] = None
    """Name of the engine's profile of host overheads (`profiles/engines`); None: the engine's own name."""
    follows_checkpoint_kv: ClassVar[bool] = False
    """Whether ``auto`` for the KV cache takes the dtype that the checkpoint asks for (`ModelSpec.kv_wanted`)."""
    own_caches: ClassVar[tuple[str, ...]] = ()
    """Kinds of layer that forget (``sliding``, ``chunked``, ``linear``) whose caches are managed as the engine does; others warn."""
    encodes: ClassVar[bool] = False
    """Requests may have images: the engine runs their encoder in front of the step that computes their tokens (`sim.engine.encoders`)."""
    notices_after: ClassVar[float] = 0.0
    """Seconds between two looks of the server at whether a client is still there; 0: it is told at once. What follows: `sim.engine.withdraw`."""
    hands_over: ClassVar[HandOver | None] = None
    """How requests go from prefill to decode engines (`sim.engine.hand_over`); None: not modelled."""

    @classmethod
    def recomputes(cls, params: P) -> bool:
        """Whether a decode side computes a prompt itself whose KV was lost on its way; else the request fails."""
        return False

    @classmethod
    def edition(cls, settings: Mapping[str, object]) -> type[Scheduler[Any]]:
        """The class for these settings as given: an engine whose old versions are a scheduler of their own hands over to it."""
        return cls

    @classmethod
    @abstractmethod
    def resolve(cls, params: P, site: Site) -> P:
        """Fill settings left open with the engine's defaults for this hardware and model. Raises ConfigError."""

    @classmethod
    @abstractmethod
    def new_state(cls, params: P, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost) -> EngineState:
        """The compiled state of one replica. ``params`` are resolved, ``blocks`` the KV blocks (or tokens) of the memory budget."""

    @classmethod
    def tiers(cls, params: P, site: Site, blocks: int) -> TierPlan | None:
        """The tiers behind a KV cache of ``blocks`` under (resolved) settings, a `sim.engine.tiers.plan.TierPlan`; None: there are none."""
        return None

    @classmethod
    def group(cls, states: Sequence[EngineState], recorder: Recorder) -> Group:
        """The replicas of a pool from their states."""
        from sim.engine.group import EngineGroup

        return EngineGroup(states, recorder)

    @classmethod
    def lockstep(
        cls, states: Sequence[EngineState], recorder: Recorder, ranks: int, shared: SharedCost | None, interval: int
    ) -> Group:
        """The same of data-parallel ranks that step together, as `sim.engine.lockstep.LockstepGroup` takes them."""
        from sim.engine.lockstep import LockstepGroup

        return LockstepGroup(states, recorder, ranks, shared, interval)

    @classmethod
    def notes(cls) -> tuple[str, ...]:
        """Sentences that are said with every result."""
        return ()

    @classmethod
    def cache_notes(cls, params: P, site: Site) -> tuple[str, ...]:
        """Sentences on what of the model's caches is approximated under these (resolved) settings."""
        note = cache_warning(site.model, cls.caches(params, site.model))
        return () if note is None else (note,)

    @classmethod
    def memory_rule(cls, params: P, site: Site) -> Rule | None:
        """The rule with the settings it shares, by name, with the (resolved) ``params``; None without one."""
        if cls.rule is None:
            return None
        names = [f.name for f in fields(cls.rule) if f.name not in ("name", "version")]
        given = {n: getattr(params, n) for n in names if getattr(params, n, None) is not None}
        return cls.rule(**given)

    @classmethod
    def host(cls, params: P, profile: EngineProfile) -> EngineProfile:
        """The profile of host overheads (`sim.cost.profile`) under these settings: asynchronous scheduling, graphs off."""
        return profile.adapted(overlap=cls.overlaps(params), graphs=False if cls.eager(params) else None)

    @classmethod
    def overlaps(cls, params: P) -> bool | None:
        """Whether the next step is scheduled while one executes; None: as the engine's profile was measured."""
        return None

    @classmethod
    def eager(cls, params: P) -> bool:
        """Whether every kernel is launched by itself, without graphs."""
        return False

    @classmethod
    def most_running(cls, params: P) -> int:
        """Most requests of one batch, for those who route by it; 0: no such setting."""
        return 0

    @classmethod
    def must_fit(cls, params: P) -> int | None:
        """Tokens of one request that the KV memory must hold for the engine to start; None: it does not ask."""
        return None

    context_setting: ClassVar[str] = ""
    """The setting by which `max_context` is raised; empty: the model alone bounds it."""
    cut_context: ClassVar[tuple[str, ...]] = ()
    """Context settings that are accepted above the model's length and cut to it (what others refuse)."""

    @classmethod
    def ranks(cls, params: P, site: Site) -> Ranks | None:
        """What the data-parallel ranks of ``deployment.dp`` are under these (resolved) settings; None: there is one. Raises `ConfigError`."""
        if site.dp == 1:
            return None
        raise NotModelledError("deployment.dp", site.dp, f"data-parallel ranks are not modelled for {cls.name}", "1")

    @classmethod
    def extras(cls, params: P, site: Site) -> Extras | None:
        """What the settings add to a step (`sim.cost.extras.Extras`): drafts, adapters; None: nothing."""
        return None

    @classmethod
    def adapters(cls, params: P) -> Adapters | None:
        """What (resolved) settings make of adapters; None: the engine serves none, and traffic that names them is refused."""
        return None

    @classmethod
    def caches(cls, params: P, model: ModelSpec | None) -> tuple[str, ...]:
        """`own_caches` under (resolved) settings."""
        return cls.own_caches

    @classmethod
    def max_context(cls, params: P, site: Site) -> int:
        """Longest prompt + output that the engine accepts: the model's context."""
        return int(site.spec.max_position)

    @classmethod
    def beyond_context(cls, params: P, site: Site) -> tuple[int, str] | None:
        """Where `max_context` is more than the context really kept: that context, and what becomes of longer requests."""
        return None

    @classmethod
    def max_batch_tokens(cls, params: P, site: Site) -> int:
        """Largest number of tokens in one step: the length of the cost tables."""
        raise NotImplementedError

    @classmethod
    def as_side(cls, params: P, role: Role) -> P:
        """The settings (not yet resolved) of one side of a disaggregated deployment. Raises ConfigError, NotModelledError."""
        raise NotModelledError("pools.role", role, f"prefill and decode sides of {cls.name} are not modelled", "vllm")
