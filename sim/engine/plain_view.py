"""What a scheduler in plain Python sees: its requests and its memory. Live: figures are those of now."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, NoReturn

from sim.engine import plain_state as ps

if TYPE_CHECKING:
    from sim.engine.plain_half import PythonHalf

Batch = Mapping["Request", int] | Iterable[tuple["Request", int]]
"""Requests and how many tokens of each are computed in the next step."""


class _Shown:
    """Attributes are set by the engine alone."""

    __slots__ = ()

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} is read-only")


class Request(_Shown):
    """A request as a scheduler sees it. Its true output length is not there to see, as in a real server.

    ``id``: its number in the run; ``arrival`` in seconds; ``prompt`` in tokens; ``max_tokens``: the client's limit on generated ones;
    ``priority``; ``lora``: the adapter, 0 for none. One that has left the engine only knows these.
    """

    __slots__ = ("_engine", "_slot", "arrival", "id", "lora", "max_tokens", "priority", "prompt")
    id: int
    arrival: float
    prompt: int
    max_tokens: int
    priority: int
    lora: int
    _engine: PythonHalf | _Left
    _slot: int

    def __init__(self, engine: PythonHalf, slot: int) -> None:
        values = [column[slot].item() for column in engine.theirs[:6]]
        names = ("id", "arrival", "prompt", "max_tokens", "priority", "lora", "_engine", "_slot")
        for name, value in zip(names, (*values, engine, slot), strict=True):
            object.__setattr__(self, name, value)

    @property
    def generated(self) -> int:
        """Tokens generated so far."""
        return int(self._engine.done[self._slot])

    @property
    def computed(self) -> int:
        """Tokens whose KV is in the cache; 0 again after an eviction."""
        return int(self._engine.computed[self._slot])

    @property
    def left(self) -> int:
        """Tokens to be computed until the next one is generated: 1 for a request that decodes."""
        return max(self.prompt + self.generated - self.computed, 1)

    @property
    def preemptions(self) -> int:
        """How often it was evicted."""
        return int(self._engine.preempt[self._slot])

    @property
    def finished(self) -> bool:
        """It has its last token and waits for the others of its batch (`PlainScheduler.together`)."""
        return bool(self._engine.done[self._slot] >= self._engine.output[self._slot])

    def __repr__(self) -> str:
        if isinstance(self._engine, _Left):
            return f"request {self.id} ({self.prompt} prompt tokens, no longer here)"
        return f"request {self.id} ({self.prompt} prompt tokens, {self.generated} generated, {self.computed} computed)"


class _Left:
    """Stands for the engine of a request that has left it."""

    def __getattr__(self, name: str) -> NoReturn:
        raise ValueError("the request has left the engine: keep no requests that have ended")


LEFT = _Left()


class Kv(_Shown):
    """The KV memory of one engine, ``total`` blocks of ``block_size`` tokens; ``total`` is infinite for one without a memory rule."""

    __slots__ = ("_engine", "block_size", "total")
    block_size: int
    total: float
    _engine: PythonHalf | _Left

    def __init__(self, engine: PythonHalf, block_size: int, total: float) -> None:
        object.__setattr__(self, "_engine", engine)
        object.__setattr__(self, "block_size", block_size)
        object.__setattr__(self, "total", total)

    @property
    def free(self) -> float:
        """Blocks that nobody holds."""
        return float(self._engine.box[ps.FREE])

    def need(self, request: Request, tokens: int) -> int:
        """Blocks that so many more tokens of a request would take."""
        e, slot = self._engine, request._slot
        return max(-(-(int(e.computed[slot]) + tokens) // self.block_size) - int(e.held[slot]), 0)

    def fits(self, request: Request, tokens: int) -> bool:
        """Whether `take` would succeed."""
        return self.need(request, tokens) <= self.free

    def take(self, request: Request, tokens: int) -> bool:
        """Memory for so many more tokens of a request; False, and nothing taken, if there is too little."""
        need = self.need(request, tokens)
        box = self._engine.box
        if need > box[ps.FREE]:
            self._engine.no_room()
            return False
        box[ps.FREE] -= need
        self._engine.held[request._slot] += need
        return True

    def evict(self, request: Request) -> None:
        """A running request loses its memory and waits again, at the head of the queue, to be computed anew."""
        self._engine.evict(request)
