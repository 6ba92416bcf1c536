"""Agents: calls one after the other with tools between them, some of them several at once, and a context that grows with all answers."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from numpy.typing import NDArray
from pydantic import AfterValidator, Field

from sim.errors import ConfigError
from sim.streams import stream
from sim.units import Seconds
from sim.workload import content
from sim.workload.arrivals._base import Arrival
from sim.workload.base import Traffic
from sim.workload.lengths._base import Length, PairReader
from sim.workload.prefixes import Prefixes
from sim.workload.sessions import not_tiny
from sim.workload.settings import Params
from sim.workload.table import BLOCK_ROWS, MAX_TOKENS, MOST_SPANS, RequestBlock
from sim.workload.waits import Waits

_MOST = 1000
_MEASURED = 1 << 15

Array = NDArray[np.int64]


def _bounds(given: int | tuple[int, int]) -> int | tuple[int, int]:
    lo, hi = (given, given) if isinstance(given, int) else given
    if not 1 <= lo <= hi <= _MOST:
        raise ValueError(f"must be a number or [fewest, most], in [1, {_MOST}]")
    return given


Range = Annotated[int | tuple[int, int], AfterValidator(_bounds)]


class AgentParams(Params):
    """Runs of an agent. Every call draws a pair of lengths: what the tool (or the user) adds to the context, and the answer."""

    steps: Range = Field(
        description="calls of the model one after the other in a run: a number, or [fewest, most] drawn uniformly"
    )
    tool_time: Seconds = Field(
        default=0.0, le=1e9, description="mean time from an answer to the next call: the tool runs meanwhile"
    )
    tool_cv: Annotated[float, AfterValidator(not_tiny)] = Field(
        default=1.0,
        ge=0,
        le=100,
        allow_inf_nan=False,
        description="coefficient of variation of the tool time (gamma): 0 fixed, 1 exponential",
    )
    fan_out: Range = Field(
        default=1,
        description="calls at once after a step, each with the context so far and something of its own; the next step waits for all",
    )
    fan_out_share: float = Field(
        default=1.0, ge=0, le=1, allow_inf_nan=False, description="share of the steps (but the last) that fan out"
    )
    max_context: int | None = Field(
        default=None,
        ge=2,
        le=MAX_TOKENS,
        description="a run ends before the call whose prompt + output would be longer than this",
    )

    def range(self, name: str) -> tuple[int, int]:
        """Fewest and most."""
        value = getattr(self, name)
        return (value, value) if isinstance(value, int) else value


@dataclass(slots=True)
class _Runs:
    """Calls of whole runs, run after run: a step's call, then the calls that it fans out to. *Shape*: every column [calls].

    ``at``: number within the run; ``main``: row of the step's call (its own for that call itself); ``before``: tokens of the context that a call
    finds; ``new``: tokens that come on top; ``width``: calls that a step's call fans out to (0: none).
    """

    run: Array
    at: Array
    main: Array
    before: Array
    new: Array
    output: Array
    width: Array
    wait: NDArray[np.float64]
    start: NDArray[np.float64]
    group: Array

    def __len__(self) -> int:
        return len(self.run)

    def __getitem__(self, rows: object) -> _Runs:
        return _Runs(*(getattr(self, name)[rows] for name in self.__slots__))


class AgentTraffic(Traffic):
    """Runs begin along the arrival process, at its rate divided by the mean number of calls of a run; every later call waits for answers.

    Answers of calls at once enter the context of the next step, in their order. Another rate moves the beginnings and leaves tools as they are.
    """

    waits = True

    def __init__(
        self, arrival: Arrival, length: Length, requests: int | None, seed: int, params: AgentParams,
        prefixes: Prefixes | None = None, max_tokens: int | None = None,
    ) -> None:  # fmt: skip
        if arrival.ends:
            raise ConfigError(
                "traffic.synthetic.arrival.process",
                arrival.name,
                "a curve of runs of agents is not modelled",
                "poisson, gamma, weibull, mmpp",
            )
        self._arrival, self._seed, self._params, self._prefixes = arrival, seed, params, prefixes
        self._client_limit = max_tokens
        self._shared = 0 if prefixes is None else prefixes.params.shared_tokens
        most = params.range("steps")[1] * (1 + (params.range("fan_out")[1] if params.range("fan_out")[1] > 1 else 0))
        if params.max_context is not None:
            if params.max_context < self._shared + 2:
                raise ConfigError(
                    "traffic.synthetic.agents.max_context", params.max_context, "leaves no room beside the shared prefix"
                )
            length = length.within(params.max_context - self._shared)
        self._length = length
        whole = None if length.largest_total is None else self._shared + most * length.largest_total
        self.max_tokens = min((x for x in (whole, params.max_context) if x is not None), default=None)
        if self.max_tokens is None or self.max_tokens > MAX_TOKENS:
            raise ConfigError(
                "traffic.synthetic.agents.max_context", params.max_context, "is required: these contexts grow without limit"
            )
        self.max_prompt_tokens = self.max_tokens - 1
        self._at_once = int(min(1024, max(1, MOST_SPANS // most**2)))
        self.total = requests
        calls = runs = 0
        for some in self._runs(1.0):
            calls, runs = calls + len(some), runs + self._at_once
            if calls >= _MEASURED:
                break
        self._mean_calls = calls / runs

    @property
    def mean_rate(self) -> float:
        """Mean calls per second, as far as answers do not hold them up."""
        return self._arrival.rate

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._arrival = self._arrival.with_rate(rate)
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        params = self._params.model_copy(update={"max_context": max_total_tokens})
        return AgentTraffic(self._arrival, self._length, self.total, self._seed, params, self._prefixes, self._client_limit)

    def _chunks(self) -> Iterator[RequestBlock]:
        left = self.total
        for runs in self._runs(self._mean_calls):
            n = len(runs) if left is None else min(len(runs), left)
            step = max(1, min(BLOCK_ROWS, MOST_SPANS // (4 * self._params.range("steps")[1] * self._params.range("fan_out")[1])))
            for lo in range(0, n, step):
                yield self._block(runs, np.arange(lo, min(lo + step, n)))
            if left is not None:
                left -= n
                if left <= 0:
                    return

    def _runs(self, mean_calls: float) -> Iterator[_Runs]:
        """Whole runs in order of their beginning, without end."""
        p, k = self._params, self._at_once
        times = self._arrival.times(stream(self._seed, "arrivals"))
        pairs = PairReader(self._length, stream(self._seed, "lengths"))
        rngs = [stream(self._seed, name) for name in ("steps", "fan out", "tools", "prefixes")]
        begun, held = 0, np.zeros(0)
        while True:
            while len(held) < k:
                held = np.concatenate([held, next(times)])
            start, held = held[:k] * mean_calls, held[k:]
            steps = rngs[0].integers(*p.range("steps"), size=k, endpoint=True)
            width = self._widths(rngs[1], steps)
            group = np.zeros(k, np.int64) if self._prefixes is None else self._prefixes.draw(rngs[3], k)
            calls = 1 + width  # of each step
            n = int(calls.sum())
            main = np.repeat(np.cumsum(calls) - calls, calls)
            run = np.repeat(np.repeat(np.arange(k), steps), calls)
            new, output = pairs.take(n)
            if self._client_limit is not None:
                output = np.minimum(output, self._client_limit)
            wait = np.where(np.diff(run, prepend=-1) > 0, np.nan, self._tools(rngs[2], n))
            rows = _Runs(
                run,
                np.zeros(n, np.int64),
                main,
                np.zeros(n, np.int64),
                new,
                output,
                np.repeat(width, calls),
                wait,
                start[run],
                group[run],
            )
            rows = self._cut(rows)
            rows.run = rows.run + begun
            begun += k
            yield rows

    def _widths(self, rng: np.random.Generator, steps: Array) -> Array:
        """How many calls at once follow each step: 0 where none do, as after the last one."""
        low, high = self._params.range("fan_out")
        n = int(steps.sum())
        drawn = rng.integers(low, high, size=n, endpoint=True)
        chosen = rng.random(n) < self._params.fan_out_share
        width = np.where(chosen & (drawn > 1), drawn, 0)
        width[np.cumsum(steps) - 1] = 0
        return width

    def _tools(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        p = self._params
        if p.tool_cv == 0 or p.tool_time == 0:
            return np.full(n, p.tool_time)
        shape = 1.0 / p.tool_cv**2
        return np.asarray(rng.standard_gamma(shape, n) * (p.tool_time / shape))

    def _cut(self, rows: _Runs) -> _Runs:
        """Contexts filled in, and each run ended before what is too long; `at`, `main` and `width` as they are then."""
        own = rows.main == np.arange(len(rows))
        rows = self._filled(rows, own)
        most = self._params.max_context
        if most is None:
            return rows
        long = rows.before + rows.new + rows.output > most
        first = np.full(int(rows.run[-1]) + 1, len(rows))
        np.minimum.at(first, rows.run[long], np.flatnonzero(long))
        bad = first[rows.run]
        bad_main = rows.main[np.minimum(bad, len(rows) - 1)]  # of a call beside others: the step before it is the last
        at_once = (bad < len(rows)) & (bad_main != bad)
        end = np.where(at_once, bad_main + 1, bad)
        keep = np.arange(len(rows)) < end
        kept = rows[keep]
        kept.width = np.where(at_once[keep] & (kept.main == bad_main[keep]), 0, kept.width)
        number = np.cumsum(keep) - 1
        kept.main = number[kept.main]
        ends = np.append(np.diff(kept.run) > 0, True)
        kept.width = np.where(ends & (kept.main == np.arange(len(kept))), 0, kept.width)  # nothing follows any more
        return self._filled(kept, kept.main == np.arange(len(kept)))

    def _filled(self, rows: _Runs, own: NDArray[np.bool_]) -> _Runs:
        said = np.where(own, rows.new + rows.output, rows.output)  # that enters the context
        before = np.cumsum(said) - said
        first = np.flatnonzero(np.diff(rows.run, prepend=-1) > 0)
        count = np.diff(np.append(first, len(rows)))
        rows.before = self._shared + np.where(own, before, before[rows.main] + said[rows.main]) - np.repeat(before[first], count)
        rows.at = np.arange(len(rows)) - np.repeat(first, count)
        return rows

    def _block(self, runs: _Runs, rows: Array) -> RequestBlock:
        """Rows of a table that holds their runs from the first call on."""
        every = np.arange(len(runs))
        own = runs.main == every
        pieces = np.where(own, 2, 1)  # texts that a call adds to the context: what is new and the answer, or the answer alone
        offset = np.cumsum(pieces) - pieces
        number = (runs.run << content.TURN_BITS) | runs.at
        text = np.zeros(int(pieces.sum()), np.int64)
        size = np.zeros_like(text)
        text[offset[own]], size[offset[own]] = content.PROMPT + number[own], runs.new[own]
        text[offset + pieces - 1], size[offset + pieces - 1] = content.OUTPUT + number, runs.output
        first = every - runs.at
        lead = int(self._shared > 0)
        upto = np.where(own, offset + 1, offset[runs.main] + 2)[rows]  # the context ends here
        begin = offset[first][rows]
        extra = (~own[rows]).astype(np.int64)
        count = lead + (upto - begin) + extra
        off = np.concatenate([[0], np.cumsum(count)])
        place = np.arange(off[-1]) - np.repeat(off[:-1], count)
        within = np.repeat(begin, count) + place - lead
        last = place == np.repeat(count, count) - 1
        tail = last & (np.repeat(extra, count) > 0)
        head = (place == 0) & (lead > 0)
        safe = np.clip(within, 0, len(text) - 1)
        ids, length = text[safe], size[safe]
        owner = np.repeat(rows, count)
        ids = np.where(tail, content.PROMPT + number[owner], np.where(head, content.SHARED + runs.group[owner], ids))
        length = np.where(tail, runs.new[owner], np.where(head, self._shared, length))
        return RequestBlock.of(
            runs.start[rows],
            (runs.before + runs.new)[rows],
            runs.output[rows],
            session=runs.run[rows],
            out_content=content.OUTPUT + number[rows],
            spans=(off, ids, np.zeros(len(ids), np.int64), length),
            waits=self._waits(runs, rows, own, number),
        ).limited(self._client_limit)

    def _waits(self, runs: _Runs, rows: Array, own: NDArray[np.bool_], number: Array) -> Waits:
        """A call at once waits for its step's call, a step's call for all at once of the step before, or for that step's call."""
        every = np.arange(len(runs))
        first = runs.at == 0
        previous = np.where(first, every, runs.main[np.maximum(every - 1, 0)])  # of a step's call: the call of the step before
        width = runs.width[previous]
        low = np.where(own, np.where(width > 0, previous + 1, previous), runs.main)
        many = np.where(first, 0, np.where(own, np.maximum(width, 1), 1))
        count = many[rows]
        off = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        parent = np.repeat(low[rows], count) + np.arange(off[-1]) - np.repeat(off[:-1], count)
        goes_on = np.append(runs.run[1:] == runs.run[:-1], False)
        ends = np.flatnonzero(~goes_on)
        final = np.repeat(runs.main[ends], np.diff(np.append(-1, ends)))  # the last step's call of each run
        awaited = np.where(own, np.where(runs.width > 0, runs.width, goes_on), runs.main < final)
        return Waits(runs.wait[rows], awaited[rows].astype(np.int32), off, content.OUTPUT + number[parent])
