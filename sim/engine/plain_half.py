"""The Python half of an engine whose scheduler is plain Python: it keeps the lists, asks the scheduler, checks what it plans."""

from __future__ import annotations

import ctypes
import itertools
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sim import guard
from sim.engine import plain_state as ps
from sim.engine.plain_view import LEFT, Kv, Request
from sim.errors import PluginError

if TYPE_CHECKING:
    from sim.engine.contract import P
    from sim.engine.plain import PlainScheduler
    from sim.engine.plain_view import Batch
    from sim.engine.state import EngineState
    from sim.ledger import Values


class PythonHalf:
    """The Python half of one replica."""

    def __init__(self, cls: type[PlainScheduler[P]], params: P, size: int, total: int, most_tokens: int) -> None:
        self.scheduler = cls(params)
        self.kv = Kv(self, size, float("inf") if total < 0 else float(total))
        self.state: EngineState | None = None
        self.failure: BaseException | None = None
        self.refused = False
        self._most_tokens = most_tokens
        self._version = -1.0
        self.theirs: tuple[Values, ...] = ()
        self.box: Any = None
        self._of: dict[int, Request] = {}
        self._waiting: dict[Request, None] = {}
        self._evicted: list[Request] = []
        self._running: dict[Request, None] = {}
        self._now_evicted: set[Request] = set()
        written = next(vars(c)["plan"] for c in cls.__mro__ if "plan" in vars(c))
        self._what = f"{cls.__name__}.plan"
        code = written.__code__
        self._file, self._line = code.co_filename, code.co_firstlineno
        watch = guard.Guard(about=self._about, limited=True)
        self._plan = guard.watched(written, watch, self._what)

    def _about(self, *_: object) -> str:
        waiting, running = self._waiting_now(), self._running
        first = next(iter(running), None) or next(iter(waiting), None)
        return f"at {self.scheduler.now:.6g} s, {len(running)} running, {len(waiting)} waiting, first {first!r}"

    def _waiting_now(self) -> tuple[Request, ...]:
        return (*reversed(self._evicted), *self._waiting)

    def _look(self) -> None:
        """Arrays that have grown; requests that left and came since the last decision."""
        if self.state is not None and (self._version < 0 or self.box[ps.VERSION] != self._version):
            self.theirs, own = ps.shared_arrays(self.state)
            self.done, self.output, self.preempt = self.theirs[6:]
            self.computed, self.held, self._came, self._gone, self._slots, self._tokens, self.box = own
            self._version = float(self.box[ps.VERSION])
        box = self.box
        for slot in self._gone[: int(box[ps.ENDED])].tolist():
            request = self._of.pop(slot)
            self._running.pop(request, None)
            self._waiting.pop(request, None)
            if request in self._evicted:
                self._evicted.remove(request)
            object.__setattr__(request, "_engine", LEFT)
        for slot in self._came[: int(box[ps.NEW])].tolist():
            request = self._of[slot] = Request(self, slot)
            self._waiting[request] = None
        box[ps.ENDED] = box[ps.NEW] = 0.0

    def no_room(self) -> None:
        """What was asked for does not fit."""
        self.refused = True

    def evict(self, request: Request) -> None:
        """See `Kv.evict`."""
        if request not in self._running:
            raise ValueError(f"{request!r} is not running and cannot be evicted")
        slot = request._slot
        del self._running[request]
        self._evicted.append(request)
        self._now_evicted.add(request)
        self.box[ps.FREE] += self.held[slot]
        self.box[ps.EVICTED] += 1.0
        self.held[slot] = self.computed[slot] = 0
        self.preempt[slot] += 1

    def decide(self) -> None:
        """One decision; what it raises is kept in ``failure``."""
        self._look()
        s, box = self.scheduler, self.box
        s.now, s._wake = float(box[ps.NOW]), float("inf")
        self.refused = False
        self._now_evicted.clear()
        answer = self._plan(s, self._waiting_now(), tuple(self._running), self.kv)
        rows = self._checked(answer)
        for j, (request, tokens) in enumerate(rows):
            self._slots[j], self._tokens[j] = request._slot, tokens
            if request not in self._running:
                self._running[request] = None
                self._waiting.pop(request, None)
        if self._evicted:
            self._evicted = [r for r in self._evicted if r not in self._running]
        for request in self._waiting_now() if self.kv.free < self.kv.total else ():
            self.box[ps.FREE] += self.held[request._slot]  # taken, but not used
            self.held[request._slot] = 0
        waiting = len(self._waiting) + len(self._evicted)
        box[ps.BATCHED], box[ps.RUNNING], box[ps.WAITING] = len(rows), len(self._running), waiting
        box[ps.BLOCKED] = float(self.refused and waiting > 0)
        box[ps.WAKE] = s._wake
        if not rows and self._running and s._wake == float("inf"):
            raise self._wrong("leaves all running requests out of the batch and does not say when to ask again (wake_at)")
        if s._wake <= s.now:
            raise self._wrong(f"asks to be called again at {s._wake:.6g} s, which is not later than now")

    def _checked(self, answer: Batch) -> list[tuple[Request, int]]:
        """The rows of an answer, their memory taken."""
        try:
            rows = list(answer.items() if isinstance(answer, Mapping) else answer)
            pairs = all(isinstance(r, tuple) and len(r) == 2 for r in rows)
        except TypeError:
            pairs = False
        if not pairs:
            raise self._wrong(f"answered {repr(answer)[:80]}; allowed: a mapping of requests to tokens, or pairs of them")
        if len(rows) > ps.MOST_ROWS:
            raise self._wrong(f"answered {len(rows)} requests; allowed: at most {ps.MOST_ROWS} in one batch")
        seen: set[Request] = set()
        total = 0
        for request, tokens in rows:
            if not isinstance(request, Request) or self._of.get(request._slot) is not request:
                raise self._wrong(f"answered with {request!r}, which neither waits nor runs here")
            if request in seen:
                raise self._wrong("answered with a request twice", request)
            if request in self._now_evicted:
                raise self._wrong("answered with a request that it has just evicted", request)
            seen.add(request)
            if isinstance(tokens, bool) or not hasattr(tokens, "__index__") or not 1 <= int(tokens) <= request.left:
                raise self._wrong(f"answered {tokens!r} tokens; allowed: 1 to {request.left}, the tokens left", request)
            if not self.kv.take(request, int(tokens)):
                need, free = self.kv.need(request, int(tokens)), self.kv.free
                raise self._wrong(f"answered {tokens} tokens, which take {need} KV blocks; {free:.0f} are free", request)
            total += int(tokens)
        if total > self._most_tokens:
            raise self._wrong(f"answered {total} tokens in all; allowed: at most {self._most_tokens} in one step")
        return [(request, int(tokens)) for request, tokens in rows]

    def _wrong(self, problem: str, request: Request | None = None) -> PluginError:
        about = f"at {self.scheduler.now:.6g} s, {request!r}" if request is not None else self._about()
        return PluginError(self._file, self._line, self._what, problem, about)


halves: dict[int, PythonHalf] = {}
handles = itertools.count(1)


def forget(numbers: Sequence[int]) -> None:
    """A group is gone."""
    for handle in numbers:
        halves.pop(handle, None)


def decide(handle: int) -> int:
    """Called from compiled code: one decision of the engine with this handle. An exception cannot pass through; it is kept."""
    engine = halves[handle]
    if engine.failure is None:
        try:
            engine.decide()
        except BaseException as error:
            engine.failure = error
            engine.box[ps.BATCHED] = 0.0
            engine.box[ps.WAKE] = float("inf")
    return 0


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_int64)(decide)
ADDRESS = int(ctypes.cast(_CALLBACK, ctypes.c_void_p).value or 0)
