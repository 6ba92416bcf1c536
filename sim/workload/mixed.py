"""Several classes of clients in one traffic: each keeps its own requests, whatever the others do."""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from sim.errors import ConfigError
from sim.workload import content
from sim.workload.base import Traffic
from sim.workload.table import BLOCK_ROWS, RequestBlock

if TYPE_CHECKING:
    from sim.config.slo import ClassSlo

_SPREAD = 44  # bits below which numbers of content are counted up
_ENDS_EARLY = 0.95


@dataclass(frozen=True)
class ClassFacts:
    """What sets a class apart. ``tenant``: number in `Traffic.tenants`; ``priority, adapter``: None leaves those of its source.

    ``slo``: its own targets (`sim.config.slo.ClassSlo`, or None); ``model``: the pool that it asks for (None: any).
    """

    name: str
    tenant: int = 0
    priority: int | None = None
    adapter: int | None = None
    model: str | None = None
    slo: ClassSlo | None = None


@dataclass(frozen=True)
class Part:
    """A class and its traffic. ``shared``: the name of its system prompts where other classes may have the same."""

    facts: ClassFacts
    traffic: Traffic
    shared: str | None = None

    def salts(self) -> NDArray[np.int64]:
        """i8[maker]: what the numbers of its content ids are mixed with, so that no two classes have the same ids by chance."""
        own = _salt(f"class {self.facts.name}")
        out = np.full(8, own, np.int64)
        if self.shared is not None:
            out[content.SHARED // content.NUMBERS] = _salt(f"prefixes {self.shared}")
        return out


def _salt(name: str) -> int:
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=8).digest(), "little") % content.NUMBERS


class MixedTraffic(Traffic):
    """The classes' requests merged by arrival.

    It ends after ``requests`` of all together, or at ``duration`` (s), or else when the last class that ends by itself has ended. A class that
    ends before the traffic does is named in `notes`.
    """

    def __init__(
        self, parts: Sequence[Part], tenants: Sequence[str], requests: int | None = None, duration: float | None = None
    ) -> None:
        self.parts, self.tenants = tuple(parts), tuple(tenants)
        self.classes = tuple(p.facts for p in parts)
        self._requests, self._duration = requests, duration
        self._salts = [p.salts() for p in parts]
        for i, a in enumerate(self._salts):
            for j, b in enumerate(self._salts[:i]):
                if int(a[0] ^ b[0]) >> _SPREAD == 0:
                    names = f"{parts[j].facts.name}, {parts[i].facts.name}"
                    raise ConfigError("traffic.classes", names, "these two names cannot be told apart", hint="rename one of them")
        prompts = [p.traffic.max_prompt_tokens for p in parts]
        totals = [p.traffic.max_tokens for p in parts]
        self.max_prompt_tokens = None if None in prompts else max(x for x in prompts if x is not None)
        self.max_tokens = None if None in totals else max(x for x in totals if x is not None)
        looping = [p for p in parts if p.traffic.closed_loop is not None]
        self._open = [k for k, p in enumerate(parts) if p.traffic.closed_loop is None]
        if not self._open:
            raise ConfigError(
                "traffic.classes", ", ".join(p.facts.name for p in parts), "all wait for answers: nothing says when the traffic ends",
                "a class with arrivals, or traffic.closed_loop for all",
            )  # fmt: skip
        self.waits = any(p.traffic.waits for p in parts)
        self._endless = all(parts[k].traffic.total is None for k in self._open)
        for p in (parts[k] for k in self._open):
            if p.traffic.total is None and not np.isfinite(p.traffic.mean_rate):
                raise ConfigError(
                    f"traffic.classes.{p.facts.name}.synthetic.requests", None, "is required where all requests come at once"
                )
        if requests is None and duration is None and self._endless:
            self._requests = 10_000
        self._until = self._ending()
        self.notes = tuple(f"class {p.facts.name}: {n}" for p in parts for n in p.traffic.notes)
        self.images = any(p.traffic.images for p in parts)
        if self._endless and self._requests is not None:
            self.total = self._requests
            self._end = float("nan")
        else:
            self.total, self._end = self._survey()
        self.until, self.most = self._duration or float("inf"), self._requests
        if looping:
            if self._duration is None:
                self.until = self._end if np.isfinite(self._end) else float("inf")
            self.total = self._requests
            marked = [(_Marked(self, k), p.traffic.closed_loop) for k, p in enumerate(parts) if p in looping]
            self.loops = tuple(loop.over(own) for own, loop in marked if loop is not None)

    def _ending(self) -> float:
        """Seconds at which the traffic ends, as far as it is known before anything is drawn."""
        if self._duration is not None:
            return self._duration
        finite = [self.parts[k] for k in self._open if self.parts[k].traffic.total is not None]
        if self._requests is not None or len(finite) == len(self._open):
            return float("inf")
        return max(float(b.arrival_s[-1]) for p in finite for b in p.traffic.blocks())

    def _survey(self) -> tuple[int, float]:
        """(how many requests there are, when the last one comes); those classes are named that end much earlier."""
        total, end = 0, 0.0
        last = np.full(len(self.parts), -1.0)
        for block in self._merged():
            total, end = total + len(block), float(block.arrival_s[-1])
            np.maximum.at(last, block.klass, block.arrival_s)
        if not total:
            raise ConfigError("traffic.duration", self._duration, "no request arrives before it")
        self._came = total
        end = end if self._duration is None else self._duration
        self.notes += tuple(
            f"class {p.facts.name} ends after {at:,.4g} s; the traffic goes on until {end:,.4g} s"
            for p, at in zip(self.parts, last, strict=True)
            if p.traffic.total is not None and at < _ENDS_EARLY * end and p.traffic.closed_loop is None
        )
        return total, end

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second: of all classes together, or where some end by themselves, of all that come until the end."""
        if self._endless:
            return float(sum(self.parts[k].traffic.mean_rate for k in self._open))
        return self._came / self._end if self._end > 0 else float("inf")

    def _with_rate(self, rate: float) -> Traffic:
        if self.loops:
            raise ConfigError("traffic.classes", rate, "clients of a class wait for their answers: they have no rate to set")
        k = rate / self.mean_rate
        return self.scaled({p.facts.name: k for p in self.parts})

    def scaled(self, factors: Mapping[str, float]) -> MixedTraffic:
        """The same classes, some of them at so many times their rate. Raises `ConfigError` for a class without a rate."""
        parts = [
            p
            if (k := factors.get(p.facts.name, 1.0)) == 1.0
            else replace(p, traffic=p.traffic.with_rate(k * p.traffic.mean_rate))
            for p in self.parts
        ]
        return MixedTraffic(parts, self.tenants, self._requests, self._duration)

    def _up_to(self, max_total_tokens: int) -> Traffic:
        parts = [replace(p, traffic=p.traffic.up_to(max_total_tokens)) for p in self.parts]
        return MixedTraffic(parts, self.tenants, self._requests, self._duration)

    def _chunks(self) -> Iterator[RequestBlock]:
        return self._merged()

    def _merged(self) -> Iterator[RequestBlock]:
        """All classes by arrival until the traffic ends."""
        left = self._requests
        for block in merged([self._own(k) for k in self._open]):
            over = bool(block.arrival_s[-1] >= self._until)
            if over:
                block = block[
                    : int(np.searchsorted(block.arrival_s, self._until, "left" if self._duration is not None else "right"))
                ]
            if left is not None:
                block, left = block[:left], left - min(left, len(block))
            if len(block):
                yield block
            if over or left == 0:
                return

    def _own(self, k: int) -> Iterator[RequestBlock]:
        """The requests of class ``k``, marked as its own."""
        return self.marked(k, self.parts[k].traffic.blocks())

    def marked(self, k: int, blocks: Iterable[RequestBlock]) -> Iterator[RequestBlock]:
        """Requests as those of class ``k``."""
        facts, salts = self.parts[k].facts, self._salts[k]
        for block in blocks:
            block = copy.copy(block)
            n = len(block)
            block.klass = np.full(n, k, np.int32)
            if facts.tenant:
                block.tenant = np.full(n, facts.tenant, np.int32)
            if facts.priority is not None:
                block.priority = np.full(n, facts.priority, np.int32)
            if facts.adapter is not None:
                block.lora = np.full(n, facts.adapter, np.int32)
            block.session = np.where(block.session >= 0, block.session ^ salts[0], -1)
            block.out_content = block.out_content ^ salts[block.out_content >> 60]
            block.span_id = block.span_id ^ salts[block.span_id >> 60]
            if block.waits is not None:
                block.waits = block.waits.renamed(lambda key: key ^ salts[key >> 60])
            yield block

    def carries(self) -> frozenset[str]:
        """As `sim.workload.labels.carried`, of all classes."""
        from sim.workload.labels import carried

        found: set[str] = set()
        for p in self.parts:
            found |= carried(p.traffic)
        if any(p.facts.adapter is not None for p in self.parts):
            found.add("adapters")
        if len({p.facts.priority for p in self.parts}) > 1:
            found.add("priorities")
        named = [p.shared for p in self.parts if p.shared is not None]
        if len(set(named)) < len(named):
            found.add("shared prefixes")
        return frozenset(found)


class _Marked(Traffic):
    """The requests of one class of a mix, for clients that wait."""

    def __init__(self, mix: MixedTraffic, k: int) -> None:
        self._mix, self._k = mix, k
        inner = mix.parts[k].traffic
        self.total, self.max_tokens, self.max_prompt_tokens = inner.total, inner.max_tokens, inner.max_prompt_tokens

    def conversations(self) -> Iterator[RequestBlock]:
        """Those of the class."""
        return self._mix.marked(self._k, self._mix.parts[self._k].traffic.conversations())


def merged(streams: Sequence[Iterator[RequestBlock]]) -> Iterator[RequestBlock]:
    """Ordered streams as one, in order of arrival; each keeps its own order. Rows are moved in runs, never one by one."""
    held: dict[int, RequestBlock] = {}
    todo = dict(enumerate(streams))
    while todo or held:
        for k in [k for k in todo if k not in held]:
            block = next((b for b in todo[k] if len(b)), None)
            if block is None:
                del todo[k]
            else:
                held[k] = block
        if not held:
            return
        limit = min(float(held[k].arrival_s[-1]) for k in held)
        out = []
        for k in sorted(held):
            block = held[k]
            cut = int(np.searchsorted(block.arrival_s, limit, side="right"))
            if cut:
                out.append(block if cut == len(block) else block[:cut])
                if cut == len(block):
                    del held[k]
                else:
                    held[k] = block[cut:]
        whole = RequestBlock.concat(out)
        if len(out) > 1:
            whole = whole.take(np.argsort(whole.arrival_s, kind="stable"))
        for lo in range(0, len(whole), BLOCK_ROWS):
            yield whole[lo : lo + BLOCK_ROWS]
