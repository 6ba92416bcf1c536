"""A scheduler in plain Python: a class with one method, `PlainScheduler.plan`, in a file of one's own.

Everything else is the engine's: clock, step cost, memory accounting, recording. It is slower than a compiled scheduler, as Python is asked
before every step, and gives the same results as a compiled one that decides the same.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sim.cost.memory_rules import VllmRule
from sim.engine import plain_state as ps
from sim.engine.contract import EngineParams, P, Scheduler, Site
from sim.engine.group import EngineGroup
from sim.engine.plain_half import ADDRESS, PythonHalf, forget, halves, handles
from sim.engine.plain_view import Batch, Kv, Request
from sim.errors import NotModelledError

if TYPE_CHECKING:
    from sim.cost.profile import EngineProfile
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState

__all__ = ["Batch", "Kv", "PlainGroup", "PlainParams", "PlainScheduler", "Request"]


class PlainParams(EngineParams):
    """Settings that the memory rule and the step cost read. Derive your own from it."""

    max_num_seqs: int = Field(256, ge=1, le=ps.MOST_ROWS, description="most requests running at once")
    max_num_batched_tokens: int = Field(8192, ge=1, le=2**20, description="most tokens in one step")
    gpu_memory_utilization: float = Field(0.92, gt=0.0, le=1.0, description="share of the memory that the engine may use")
    block_size: int = Field(16, ge=1, le=1024, description="tokens per KV block")


class PlainScheduler(Scheduler[P]):
    """A scheduler whose decisions are plain Python. Derive a class, give it ``name`` and ``profile``, write `plan`::

        class Mine(PlainScheduler):
            name = "mine"
            profile = "vllm"

            def plan(self, waiting, running, kv): ...

    and name it in a scenario: ``engine: path/to/file.py:Mine``. There is one object per replica, which may keep what it likes.
    One batch is computed at a time; prefix caches, pipeline stages, data-parallel ranks, adapters, hand-over and migration are not modelled.
    """

    Params: ClassVar[type[EngineParams]] = PlainParams
    version: ClassVar[str] = "in plain Python"
    models: ClassVar[str] = "a scheduler of one's own in plain Python: what its `plan` decides"
    not_modelled: ClassVar[tuple[str, ...]] = (
        "prefix caching",
        "pipeline stages",
        "data-parallel ranks",
        "hand-over",
        "migration",
        "adapters",
    )
    rule: ClassVar[type | None] = VllmRule
    """How the memory is divided, with the settings of `Params` of the same names; None: memory without limit."""
    together: ClassVar[bool] = False
    """The requests of a batch leave together: finished ones stay in ``running`` until all are, and take part as padding if planned."""

    now: float
    """Seconds: the time of this decision."""

    def __init__(self, params: P) -> None:
        self.params = params
        self.now = 0.0
        self._wake = float("inf")

    def plan(self, waiting: Sequence[Request], running: Sequence[Request], kv: Kv) -> Batch:
        """The next batch, asked whenever none is under way and a request waits or runs.

        ``waiting``: in order of arrival, evicted ones in front. ``running``: those with memory, in order of admission. The answer says how
        many tokens of which requests are computed next: at most ``left`` of each; where it is all of them, the request gets a token at the end
        of the step. A waiting request in it becomes a running one. Memory is taken as needed for what is in the answer, or before by
        ``kv.take``. An empty answer waits for the next arrival, or for the time given to `wake_at`.
        """
        raise NotImplementedError

    def wake_at(self, time: float) -> None:
        """Inside `plan`: ask again at this time (seconds), whatever happens."""
        self._wake = float(time)

    # -- for the engine

    @classmethod
    def resolve(cls, params: P, site: Site) -> P:
        """Settings as given. Raises `NotModelledError` for pipeline stages."""
        if site.pp > 1:
            raise NotModelledError(
                "deployment.pp", site.pp, "pipeline stages are not modelled for schedulers in plain Python", "1"
            )
        return params

    @classmethod
    def host(cls, params: P, profile: EngineProfile) -> EngineProfile:
        """The profile, without steps scheduled ahead: the host's work before a step is not hidden behind the one before."""
        return profile.adapted(overlap=False, graphs=None)

    @classmethod
    def most_running(cls, params: P) -> int:
        """``max_num_seqs``, where the settings have it."""
        return int(getattr(params, "max_num_seqs", 0) or 0)

    @classmethod
    def max_batch_tokens(cls, params: P, site: Site) -> int:
        """``max_num_batched_tokens``."""
        return int(getattr(params, "max_num_batched_tokens", 8192))

    @classmethod
    def notes(cls) -> tuple[str, ...]:
        """Said with every result."""
        return (
            f"{cls.name} decides every step in plain Python: slower than a compiled scheduler by one to two orders of magnitude",
        )

    @classmethod
    def new_state(cls, params: P, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost) -> EngineState:
        """The compiled half of one replica; the Python half is made with it."""
        limited = cls.rule is not None
        size = int(getattr(params, "block_size", 16))
        engine = PythonHalf(cls, params, size, blocks if limited else -1, cls.max_batch_tokens(params, site))
        handle = next(handles)
        state: EngineState = ps.new_plain(replica, recorder, cost, handle, ADDRESS, cls.together, size, blocks if limited else -1)
        engine.state = state
        halves[handle] = engine
        return state

    @classmethod
    def group(cls, states: Sequence[EngineState], recorder: Recorder) -> PlainGroup:
        """The replicas of a pool."""
        return PlainGroup(states, recorder)


class PlainGroup(EngineGroup):
    """Replicas that decide in plain Python: an `EngineGroup` that raises what a decision has raised."""

    def __init__(self, states: Sequence[EngineState], recorder: Recorder) -> None:
        super().__init__(states, recorder)
        numbers = [int(ps.handle_of(s)) for s in states]
        self._halves = [halves[n] for n in numbers]
        self._numbers = numbers
        weakref.finalize(self, forget, numbers)

    def renewed(self, replica: int, fresh: EngineState) -> None:
        """Another process has taken a replica's place."""
        forget([self._numbers[replica]])
        self._numbers[replica] = number = int(ps.handle_of(fresh))
        self._halves[replica] = halves[number]

    def advance(self, until: float, watched: bool) -> bool:
        """Run to ``until``; with ``watched`` stop at the first watched outcome (True). Raises `PluginError`."""
        stopped = bool(super().advance(until, watched))
        for half in self._halves:
            if half.failure is not None:
                raise half.failure
        return stopped
