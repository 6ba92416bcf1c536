"""Which models are loaded: the queue of requests for models that are not, 503, keep-alive, eviction. Decisions only; the caller keeps time.

*Source*: ollama/ollama fb3076099687 server/sched.go ``GetRunner``, ``processPending``, ``processCompleted``, ``findRunnerToUnload``,
``waitForVRAMRecovery``; envconfig/config.go. The same logic in v0.24.0. Times in seconds, sizes in bytes.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil, inf
from typing import Generic, Literal, NamedTuple, TypeVar

MAX_QUEUE = 512
KEEP_ALIVE = 300.0
MODELS_PER_GPU = 3
HEALTH_POLL = 0.25  # a started runner is asked so often whether it is ready
RECOVERY_POLL, RECOVERY_LIMIT, RECOVERED = 0.25, 5.0, 0.75


@dataclass
class Runner:
    """One loaded (or loading) model. ``session`` is its keep-alive: 0 unloads when idle, infinite never."""

    key: str
    vram: float = 0.0
    references: int = 0
    session: float = KEEP_ALIVE
    expires: float = inf  # when its timer ends; infinite while requests are served
    options: Mapping[str, int | None] = field(default_factory=dict)
    ready: float = 0.0  # when it answers its health check


def keep_alive(seconds: float) -> float:
    """A ``keep_alive`` as the scheduler sees it: negative means forever."""
    return inf if seconds < 0 else seconds


def max_loaded_models(setting: int, gpus: int) -> int:
    """``OLLAMA_MAX_LOADED_MODELS``; 0: three per GPU, three without one."""
    return setting or MODELS_PER_GPU * max(gpus, 1)


def find_runner_to_unload(runners: Sequence[Runner]) -> Runner | None:
    """The idle runner with the shortest keep-alive, ties by name, not the least recently used; without an idle one the first of all."""
    order = sorted(runners, key=lambda r: (r.session, r.key))
    return next((r for r in order if r.references == 0), order[0] if order else None)


def needs_reload(loaded: Mapping[str, int | None], wanted: Mapping[str, int | None], train_ctx: int) -> bool:
    """Whether the options differ in what a runner is started with. Absent keys (automatic) never cause a reload, nor does ``num_gpu`` < 0."""
    for name, value in wanted.items():
        if value is None or (name == "num_gpu" and value < 0):
            continue
        want = min(value, train_ctx) if name == "num_ctx" else value
        if loaded.get(name) != want:
            return True
    return False


def ready_after(seconds: float) -> float:
    """When a runner that takes ``seconds`` to load is seen to be ready: at the next poll of its health."""
    return ceil(round(seconds / HEALTH_POLL, 9)) * HEALTH_POLL


def recovery_wait(freed: Callable[[float], float], vram: float, discrete: bool = True, metal: bool = False) -> float:
    """Seconds after an unload until the next load: until three quarters of ``vram`` are back. ``freed(t)``: bytes free again after ``t``."""
    if not discrete or metal or vram <= 0:
        return 0.0
    t = 0.0
    while t < RECOVERY_LIMIT:
        t += RECOVERY_POLL
        if freed(t) >= RECOVERED * vram:
            return t
    return RECOVERY_LIMIT


class Action(NamedTuple):
    """What is to be done for the request at the head: ``use`` the loaded runner, ``load`` its model, ``evict`` a runner first."""

    do: Literal["use", "load", "evict"]
    key: str


R = TypeVar("R")


class Asked(NamedTuple, Generic[R]):
    """A request for a model, and what it wants of the runner."""

    key: str
    request: R
    session: float
    options: Mapping[str, int | None]
    train_ctx: int


class Residency(Generic[R]):
    """The models of one host. ``room(key, others)``: does the model fit fully beside these runners (`must_evict`, `create_layout`)?

    A request is any value; `submit` it, then repeat `next_action`, and do what it says: after ``load`` and the time that takes, `loaded`;
    after ``evict``, once the runner is idle and its memory is back, `unloaded`. Only one load is under way at any time, and the request at
    the head of the queue blocks those behind it.
    """

    def __init__(self, room: Callable[[str, Sequence[Runner]], bool], max_loaded: int, max_queue: int = MAX_QUEUE) -> None:
        self._room, self._max_loaded, self._max_queue = room, max_loaded, max_queue
        self.runners: dict[str, Runner] = {}
        self.pending: deque[Asked[R]] = deque()
        self.head: Asked[R] | None = None
        self.loading: str | None = None
        self.evicting: str | None = None
        self._at_lock: list[tuple[R, float]] = []

    def submit(
        self,
        key: str,
        request: R,
        session: float = KEEP_ALIVE,
        options: Mapping[str, int | None] | None = None,
        train_ctx: int = 1 << 62,
    ) -> Literal["use", "wait", "busy"]:
        """A request for model ``key``. ``use``: it may go to its runner at once, past the queue; ``busy``: answer 503."""
        options = options or {}
        runner = self.runners.get(key)
        usable = runner is not None and key not in (self.loading, self.evicting)
        if runner is not None and usable and not needs_reload(runner.options, options, train_ctx):
            self._use(runner, session)
            return "use"
        if key == self.loading:  # waits for the runner's lock, outside the queue
            self._at_lock.append((request, session))
            return "wait"
        if self.head is None:
            self.head = Asked(key, request, session, options, train_ctx)
        elif len(self.pending) >= self._max_queue:
            return "busy"
        else:
            self.pending.append(Asked(key, request, session, options, train_ctx))
        return "wait"

    def next_action(self) -> Action | None:
        """The next thing to do for the head of the queue; None: nothing, or something is under way."""
        if self.loading is not None or self.evicting is not None:
            return None
        if self.head is None:
            if not self.pending:
                return None
            self.head = self.pending.popleft()
        key, _, _, options, train_ctx = self.head
        runner = self.runners.get(key)
        if runner is not None:
            if not needs_reload(runner.options, options, train_ctx):
                return Action("use", key)
            return self._evict(runner)
        others = list(self.runners.values())
        if len(others) >= self._max_loaded or (others and not self._room(key, others)):
            victim = find_runner_to_unload(others)
            assert victim is not None
            return self._evict(victim)
        self.loading = key
        return Action("load", key)

    def _evict(self, runner: Runner) -> Action:
        runner.session = 0.0
        self.evicting = runner.key
        return Action("evict", runner.key)

    def take_head(self) -> R:
        """The request at the head gets its (loaded) runner."""
        assert self.head is not None
        key, request, session, _, _ = self.head
        self.head = None
        self._use(self.runners[key], session)
        return request

    def take_waiting(self, key: str) -> list[R]:
        """The requests that came for this model while it was loading: after `take_head`, they get its runner at once."""
        waiting, self._at_lock = self._at_lock, []
        for _, session in waiting:
            self._use(self.runners[key], session)
        return [request for request, _ in waiting]

    def drop(self, gone: Callable[[R], bool]) -> None:
        """Forget waiting requests whose client has left; one whose model is loading stays until that is done."""
        self.pending = deque(p for p in self.pending if not gone(p.request))

    def loaded(self, key: str, vram: float, now: float, options: Mapping[str, int | None] | None = None) -> Runner:
        """The model is ready; `next_action` will say ``use``."""
        self.loading = None
        runner = self.runners[key] = Runner(key, vram=vram, ready=now, options=dict(options or {}))
        return runner

    def failed(self) -> R:
        """The load has failed: the request at the head, to be answered with an error."""
        assert self.head is not None
        self.loading = None
        key, request, _, options, train_ctx = self.head
        self.head = None
        for waiting, session in reversed(self._at_lock):  # without a runner they go through the queue
            self.pending.appendleft(Asked(key, waiting, session, options, train_ctx))
        self._at_lock = []
        return request

    def unloaded(self, key: str) -> None:
        """The runner has gone and its memory is back."""
        del self.runners[key]
        if self.evicting == key:
            self.evicting = None

    def _use(self, runner: Runner, session: float) -> None:
        runner.references += 1
        runner.expires = inf
        runner.session = session  # the last request's keep-alive sticks to the runner

    def finished(self, key: str, now: float) -> bool:
        """A request has ended. True: the runner is to be unloaded now; else its timer (``expires``) may have started."""
        runner = self.runners[key]
        runner.references -= 1
        if runner.references > 0:
            return False
        if runner.session <= 0 or key == self.evicting:
            return True
        runner.expires = now + runner.session
        return False

    def idle_evictee(self) -> bool:
        """Whether the runner to evict serves nothing, so that it can go at once."""
        return self.evicting is not None and self.runners[self.evicting].references == 0

    def expired(self, now: float) -> list[str]:
        """Idle runners whose keep-alive has run out: to be unloaded."""
        return [r.key for r in self.runners.values() if r.references == 0 and r.expires <= now and r.key != self.evicting]
