"""Conversations: each turn's prompt is everything said so far and something new."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Literal

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
from sim.workload.settings import Params
from sim.workload.synthetic import how_many
from sim.workload.table import BLOCK_ROWS, MAX_TOKENS, MOST_SPANS, RequestBlock
from sim.workload.waits import Waits

_MOST_TURNS = 1000
_MEASURED_TURNS = 1 << 16


def _turn_bounds(turns: int | tuple[int, int]) -> int | tuple[int, int]:
    lo, hi = (turns, turns) if isinstance(turns, int) else turns
    if not 1 <= lo <= hi <= _MOST_TURNS:
        raise ValueError(f"must be a number of turns or [fewest, most], in [1, {_MOST_TURNS}]")
    return turns


def not_tiny(cv: float) -> float:
    """A coefficient of variation whose square is a number."""
    if 0 < cv < 0.001:
        raise ValueError("must be 0 or in [0.001, 100]")
    return cv


class SessionParams(Params):
    """Multi-turn sessions of synthetic traffic."""

    turns: Annotated[int | tuple[int, int], AfterValidator(_turn_bounds)] = Field(
        description="requests per session: a number, or [fewest, most] drawn uniformly"
    )
    think_time: Seconds = Field(
        default=0.0,
        le=1e9,
        description="mean time from one turn's arrival to the next one's: the answer is read and a new message written meanwhile",
    )
    think_from: Literal["arrival", "answer"] = Field(
        default="arrival",
        description="what the think time counts from: the arrival of the turn before, whether it has been answered or not, or its answer",
    )
    think_cv: Annotated[float, AfterValidator(not_tiny)] = Field(
        default=1.0,
        ge=0,
        le=100,
        description="coefficient of variation of the think time (gamma): 0 fixed, 1 exponential",
    )
    max_context: int | None = Field(
        default=None,
        ge=2,
        le=MAX_TOKENS,
        description="a session ends before the turn whose prompt + output would be longer than this",
    )

    @property
    def bounds(self) -> tuple[int, int]:
        """Fewest and most turns."""
        return (self.turns, self.turns) if isinstance(self.turns, int) else self.turns


@dataclass(slots=True)
class _Turns:
    """Turns of whole sessions, session after session. *Shape*: every column [turns]."""

    arrival: NDArray[np.float64]
    session: NDArray[np.int64]
    turn: NDArray[np.int64]
    group: NDArray[np.int64]
    user: NDArray[np.int64]  # new tokens that the user writes
    output: NDArray[np.int64]
    prompt: NDArray[np.int64]
    think: NDArray[np.float64]  # time before the turn

    def __getitem__(self, rows: object) -> _Turns:
        return _Turns(*(getattr(self, name)[rows] for name in self.__slots__))

    def __len__(self) -> int:
        return len(self.turn)

    def joined(self, other: _Turns) -> _Turns:
        return _Turns(*(np.concatenate([getattr(self, name), getattr(other, name)]) for name in self.__slots__))


class SessionTraffic(Traffic):
    """Sessions of several turns. Every turn draws a pair of lengths: the user's new tokens and the answer.

    The arrival process starts sessions, at its rate divided by the mean number of turns, so that the rate stays one of requests.
    In open loop a turn arrives a think time after the *arrival* of the turn before, whether that one has been answered or not;
    in closed loop it arrives after the answer. Setting another rate moves the sessions' starts and leaves think times as they
    are. Memory is proportional to the sessions under way, not to all of them.
    """

    def __init__(
        self, arrival: Arrival, length: Length, requests: int | None, seed: int, params: SessionParams,
        prefixes: Prefixes | None = None, max_tokens: int | None = None,
    ) -> None:  # fmt: skip
        self._arrival, self._prefixes, self._seed, self._params = arrival, prefixes, seed, params
        self._asked = requests
        self._client_limit = max_tokens
        self._shared = 0 if prefixes is None else prefixes.params.shared_tokens
        most = params.bounds[1]
        if params.max_context is not None:
            if params.max_context < self._shared + 2:
                raise ConfigError(
                    "traffic.synthetic.sessions.max_context", params.max_context, "leaves no room beside the shared prefix"
                )
            length = length.within(params.max_context - self._shared)
        self._length = length
        self._sessions_at_once = int(min(2048, max(1, MOST_SPANS // most**2)))
        whole = None if length.largest_total is None else self._shared + most * length.largest_total
        limits = [x for x in (whole, params.max_context) if x is not None]
        self.max_tokens = min(limits, default=None)
        self.max_prompt_tokens = None if self.max_tokens is None else self.max_tokens - 1
        if self.max_tokens is None or self.max_tokens > MAX_TOKENS:
            raise ConfigError(
                "traffic.synthetic.sessions.max_context", params.max_context, "is required: these contexts grow without limit"
            )
        self.waits = params.think_from == "answer"
        self._mean_turns = self._measured_turns()
        self.total = requests
        if arrival.ends:
            self.total, self.notes = self._how_many()

    def _how_many(self) -> tuple[int, tuple[str, ...]]:
        """Requests of the sessions that begin until arrivals end, or until the stage ends in which enough have been sent; and notes on that."""
        begins = self._arrival.with_rate(self._arrival.rate / self._mean_turns)
        asked = None if self._asked is None else self._first(requests=self._asked)[1]
        sessions, notes = how_many(begins, asked, self._seed)
        said = tuple(n.replace(" requests", " sessions", 1) for n in notes)
        return self._first(sessions=sessions)[0], said

    def _first(self, requests: int | None = None, sessions: int | None = None) -> tuple[int, int]:
        """(requests, sessions) of the first whole sessions that bring so many requests, or of so many sessions."""
        sent = begun = 0
        for turns in self._sessions(None, self._mean_turns):
            count = np.bincount(turns.session - begun, minlength=self._sessions_at_once)
            total = sent + np.cumsum(count)
            at = int(np.searchsorted(total, requests)) if requests is not None else (sessions or 1) - begun - 1
            if at < len(count):
                return int(total[at]), begun + at + 1
            sent, begun = int(total[-1]), begun + len(count)
        raise AssertionError("sessions never end")

    def _measured_turns(self) -> float:
        """Mean turns per session; where ``max_context`` ends sessions early, that of the first few thousand sessions."""
        if self._params.max_context is None:
            return sum(self._params.bounds) / 2
        sessions = turns = 0
        for some in self._sessions(None, 1.0):
            sessions, turns = sessions + self._sessions_at_once, turns + len(some)
            if turns >= _MEASURED_TURNS:
                break
        return turns / sessions

    @property
    def mean_rate(self) -> float:
        """Mean arrivals per second."""
        return self._arrival.rate

    def _with_rate(self, rate: float) -> Traffic:
        changed = copy.copy(self)
        changed._arrival = self._arrival.with_rate(rate)
        if self._arrival.ends:  # its seconds stay
            changed._asked = None if self._asked is None else math.ceil(self._asked * rate / self.mean_rate)
            changed.total, changed.notes = changed._how_many()
        return changed

    def _up_to(self, max_total_tokens: int) -> Traffic:
        params = self._params.model_copy(update={"max_context": max_total_tokens})
        return SessionTraffic(self._arrival, self._length, self._asked, self._seed, params, self._prefixes, self._client_limit)

    def conversations(self) -> Iterator[RequestBlock]:
        """Whole sessions, one after the other."""
        for turns in self._sessions(self.total, self._mean_turns):
            for first, last in _whole_sessions(turns, BLOCK_ROWS):
                block = self._block(turns, np.arange(first, last))
                block.arrival_s = np.zeros(len(block))
                yield block

    def _chunks(self) -> Iterator[RequestBlock]:
        """Turns of all sessions merged by arrival; a turn is handed out once no later session can start before it."""
        held: _Turns | None = None
        sent = np.empty(0, bool)
        for turns in self._sessions(self.total, self._mean_turns):
            held = turns if held is None else held.joined(turns)
            sent = np.concatenate([sent, np.zeros(len(turns), bool)])
            yield from self._in_order(held, ~sent & (held.arrival <= turns.arrival[turns.turn == 0][-1]))
            sent |= held.arrival <= turns.arrival[turns.turn == 0][-1]
            first = np.flatnonzero(held.turn == 0)
            alive = np.repeat(~np.logical_and.reduceat(sent, first), np.diff(np.append(first, len(held))))
            held, sent = held[alive], sent[alive]
        if held is not None:
            yield from self._in_order(held, ~sent)

    def _in_order(self, turns: _Turns, which: NDArray[np.bool_]) -> Iterator[RequestBlock]:
        rows = np.flatnonzero(which)
        rows = rows[np.argsort(turns.arrival[rows], kind="stable")]
        step = max(1, min(BLOCK_ROWS, MOST_SPANS // (2 * self._params.bounds[1])))
        for lo in range(0, len(rows), step):
            yield self._block(turns, rows[lo : lo + step])

    def _sessions(self, total: int | None, mean_turns: float) -> Iterator[_Turns]:
        """Whole sessions in order of their start; cut after ``total`` requests, counted session by session."""
        p, k = self._params, self._sessions_at_once
        stretch, begins = (
            (1.0, self._arrival.with_rate(self._arrival.rate / mean_turns)) if self._arrival.ends else (mean_turns, self._arrival)
        )
        starts = _reader(begins.times(stream(self._seed, "arrivals")), k)
        pairs = PairReader(self._length, stream(self._seed, "lengths"))
        turn_rng, think_rng, group_rng = (stream(self._seed, name) for name in ("turns", "think", "prefixes"))
        sessions = requests = 0
        while total is None or requests < total:
            count = turn_rng.integers(*p.bounds, size=k, endpoint=True)
            first = np.cumsum(count) - count
            n = int(count.sum())
            turn = np.arange(n) - np.repeat(first, count)
            user, output = pairs.take(n)
            if self._client_limit is not None:
                output = np.minimum(output, self._client_limit)
            think = np.where(turn > 0, self._think(think_rng, n), 0.0)
            group = np.zeros(k, np.int64) if self._prefixes is None else self._prefixes.draw(group_rng, k)
            start = next(starts) * stretch
            said = user + output
            before = np.cumsum(said) - said
            prompt = before - np.repeat(before[first], count) + user + self._shared
            waited = np.cumsum(think)
            arrival = np.repeat(start, count) + (waited - np.repeat(waited[first], count))
            if self.waits:  # it is sent when the answer is there: at the earliest when the session begins
                arrival, waited = np.repeat(start, count), think
            turns = _Turns(
                arrival, np.repeat(sessions + np.arange(k), count), turn, np.repeat(group, count), user, output, prompt, think
            )
            if p.max_context is not None:
                turns = turns[
                    prompt + output <= p.max_context
                ]  # contexts only grow, so what stays is the beginning of each session
            if total is not None:
                turns = turns[: total - requests]
            sessions, requests = sessions + k, requests + len(turns)
            yield turns

    def _waits(self, turns: _Turns, rows: NDArray[np.int64]) -> Waits:
        """Each turn waits for the one before it."""
        turn, session = turns.turn[rows], turns.session[rows]
        later = turn > 0
        more = rows + 1 < len(turns)
        more[more] = turns.turn[rows[more] + 1] > 0
        key = content.OUTPUT + ((session[later] << content.TURN_BITS) | (turn[later] - 1))
        off = np.concatenate([[0], np.cumsum(later)]).astype(np.int64)
        return Waits(np.where(later, turns.think[rows], np.nan), more.astype(np.int32), off, key)

    def _think(self, rng: np.random.Generator, n: int) -> NDArray[np.float64]:
        if self._params.think_cv == 0 or self._params.think_time == 0:
            return np.full(n, self._params.think_time)
        shape = 1.0 / self._params.think_cv**2
        drawn: NDArray[np.float64] = rng.standard_gamma(shape, n) * (self._params.think_time / shape)
        return drawn

    def _block(self, turns: _Turns, rows: NDArray[np.int64]) -> RequestBlock:
        """Rows of a table that holds their sessions from the first turn on."""
        turn = turns.turn[rows]
        lead = int(self._shared > 0)
        count = lead + 2 * turn + 1
        off = np.concatenate([[0], np.cumsum(count)])
        piece = np.arange(off[-1]) - np.repeat(off[:-1], count) - lead  # −1 shared prefix, even: user, odd: model
        at = np.repeat(rows - turn, count) + np.maximum(piece, 0) // 2
        number = (turns.session[at] << content.TURN_BITS) | turns.turn[at]
        spoken = np.where(piece % 2 == 0, content.PROMPT, content.OUTPUT) + number
        ids = np.where(piece < 0, content.SHARED + turns.group[at], spoken)
        length = np.where(piece < 0, self._shared, np.where(piece % 2 == 0, turns.user[at], turns.output[at]))
        return RequestBlock.of(
            turns.arrival[rows],
            turns.prompt[rows],
            turns.output[rows],
            session=turns.session[rows],
            out_content=content.OUTPUT + ((turns.session[rows] << content.TURN_BITS) | turn),
            spans=(off, ids, np.zeros(len(ids), np.int64), length),
            waits=self._waits(turns, rows) if self.waits else None,
        ).limited(self._client_limit)


def _reader(chunks: Iterator[NDArray[np.float64]], n: int) -> Iterator[NDArray[np.float64]]:
    held = np.empty(0)
    while True:
        while len(held) < n:
            held = np.concatenate([held, next(chunks)])
        yield held[:n]
        held = held[n:]


def _whole_sessions(turns: _Turns, rows: int) -> Iterator[tuple[int, int]]:
    """Ranges of about ``rows`` turns that do not split a session."""
    ends = np.append(np.flatnonzero(turns.turn == 0)[1:], len(turns))
    first = 0
    while first < len(turns):
        last = int(ends[min(int(np.searchsorted(ends, first + rows)), len(ends) - 1)])
        yield first, last
        first = last
