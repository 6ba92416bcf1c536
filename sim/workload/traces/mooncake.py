"""Mooncake traces: prompts as ids of 512-token blocks, so that shared prefixes survive; and the extensions of Dynamo and aiperf."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.ledger import Values
from sim.registry import register
from sim.workload import textfile
from sim.workload.settings import Params
from sim.workload.table import Given, RequestBlock
from sim.workload.traces._base import Head, Trace, TurnParams
from sim.workload.traces._columns import HASHES, Clock, Column, hash_spans, labels, tokens, whole
from sim.workload.traces._json import Fields, Records, json_pieces
from sim.workload.traces._source import Source
from sim.workload.traces._table import plain_rows
from sim.workload.traces._turns import accumulated, by_arrival
from sim.workload.traces._waiting import WaitingRows
from sim.workload.traces._writing import block_ids
from sim.workload.waits import Waits

if TYPE_CHECKING:
    from sim.document import Json

_FIELDS = Fields(
    ("input_length", "output_length"),
    ("timestamp", "delay", "delay_ms", "tool_wait_ms", "priority"),
    ("session_id", "request_id", "wait_for"),
    ("hash_ids",),
)
_DELAYS = frozenset(("delay", "delay_ms", "tool_wait_ms", "wait_for"))
_NAMES = frozenset(("timestamp", "input_length", "output_length"))
_HARMLESS = frozenset(("type", "output_token_ids", "num_turns", "index"))
_OTHERS = frozenset(("chat_id", "parent_chat_id"))


class MooncakeParams(TurnParams):
    """Settings of a Mooncake trace."""

    context: Literal["whole", "accumulate"] = Field(
        default="whole",
        description="what the rows of a session hold: the whole prompt, or only what a turn adds to all that was said before "
        "(accumulate: aiperf's default, Dynamo's mooncake-delta)",
    )

    block_tokens: int = Field(
        default=512, ge=1, description="tokens of one hash id; the file does not say (published traces: 512)"
    )
    spread: bool = Field(
        default=False,
        description="spread requests of one time stamp evenly up to the next one: the conversation trace was released "
        "in batches every 3 s, which real users are not",
    )


@register("trace")
class Mooncake(Trace):
    """One JSON object per line: ``timestamp`` (ms), ``input_length``, ``output_length`` and, for shared prefixes, ``hash_ids`` (gzip, zstd allowed).

    An id stands for its block *and everything before it*, so equal ids are equal prefixes; each becomes one span, the last one
    perhaps shorter. Generated tokens have no ids in the format: a later prompt that repeats them does not find them in the
    cache. ``session_id`` and ``priority`` are passed on. A request with ``delay`` (ms) is sent so long after the answer to the turn before it
    in its session, one with ``wait_for`` (``request_id`` of requests above it) ``tool_wait_ms`` after the last of their answers; see
    ``settings.delays``. Also reads copies in CSV with ``arrival_s,input_tokens,output_tokens,hash_ids``.

    *Source*: github.com/kvcache-ai/Mooncake, FAST25-release/traces; Dynamo and aiperf, Mooncake trace format.
    """

    name = "mooncake"
    Params: ClassVar[type[Params]] = MooncakeParams
    params: MooncakeParams
    unit_s = 1e-3
    harmless: ClassVar[frozenset[str]] = _HARMLESS
    holds: ClassVar[frozenset[str] | None] = frozenset(("times", "sessions", "priorities", "prefixes", "waits"))

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One object a request; those that wait for answers name the requests and say for how long (``wait_for``, ``tool_wait_ms``)."""
        ids = block_ids(block, block_tokens) if "prefixes" in (self.holds or ()) else repeat([], len(block))
        columns = (block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist())
        more = (block.session.tolist(), block.priority.tolist(), block.out_content.tolist())
        out = []
        for k, (at, prompt, output, session, priority, own, hashes) in enumerate(zip(*columns, *more, ids, strict=True)):
            row: dict[str, object] = {"timestamp": self._stamp(at), "input_length": prompt, "output_length": output}
            if hashes:
                row["hash_ids"] = hashes
            if session >= 0 and "sessions" in (self.holds or ()):
                row["session_id"] = session
            if priority and "priorities" in (self.holds or ()):
                row["priority"] = priority
            if block.waits is not None:
                row |= _waiting_for(block.waits, k, own)
            out.append(json.dumps(row))
        return out

    def _stamp(self, seconds: float) -> float:
        return round(seconds / self.unit_s, 9)

    def fits(self, head: Head) -> bool:
        """JSON lines with its names, and times in whole ms."""
        names = set(head.keys)
        if (
            head.kind != "jsonl"
            or not names >= {"input_length", "output_length"}
            or names & _OTHERS
            or not names & {"timestamp", "delay"}
        ):
            return False
        return "hash_ids" in names or not _fractions(head)

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        first = next(Source(path).pieces())
        if first.data.lstrip()[:1] == b"{":
            made = self._json(path)
        else:
            if first.data.lstrip()[:1] == b"[":
                first.fail("is a JSON array", "write its objects one a line, without brackets around all and commas between them")
            if b"hash_ids" not in first.data.lstrip().splitlines()[0]:
                first.fail("is neither JSON lines nor a CSV table with hash_ids", "its first line must be a JSON object")
            wanted = {"arrival": ("arrival_s",), "prompt": ("input_tokens",), "output": ("output_tokens",), "hashes": HASHES}
            made = plain_rows(self, path, wanted, block_tokens=self.params.block_tokens)
        if self.params.spread:
            block = RequestBlock.concat(list(made))
            block.arrival_s = _spread(block.arrival_s)
            made = iter([block])
        yield from made

    def _json(self, path: Path) -> Iterator[RequestBlock]:
        clock, first, waiting, last = Clock(self.unit_s), 0, WaitingRows(), dict[int, float]()
        held: list[RequestBlock] = []
        delayed, grows = textfile.mentions(path, [f'"{name}"' for name in _DELAYS]), self.params.context == "accumulate"
        for records in json_pieces(path, _FIELDS):
            self._check(path, records)
            prompt, output = tokens(records.source, records["input_length"]), tokens(records.source, records["output_length"])
            ids, counts = records.ids["hash_ids"]
            spans = hash_spans(records.source, "hash_ids", ids, counts, prompt, self.params.block_tokens)
            session = (
                labels(records["session_id"].values) if "session_id" in records.present else np.full(records.rows, -1, np.int64)
            )
            columns: Given = {"session": session, "priority": _priority(records), "spans": spans}
            if delayed:
                arrival = self._turns(path, records, session, waiting, last)
            else:
                missing = np.isnan(records["timestamp"].values)
                if missing.any() and "timestamp" not in records.present:
                    records.source.fail(f"line {records.source.line(int(np.argmax(missing)))}: has no field 'timestamp'")
                arrival = clock.arrivals(records.source, records["timestamp"])
            if delayed and not grows:
                self._afresh(path, session, ids, counts)
            held.append(RequestBlock.of(arrival, prompt, output, first, **columns))
            first += len(prompt)
            if not (grows or delayed):
                yield held.pop()
        if held:
            block = RequestBlock.concat(held)
            block = accumulated(block) if grows else block
            yield by_arrival(waiting.attach(block) if waiting.starts else block)

    def _check(self, path: Path, records: Records) -> None:
        names = records.present
        if names & _OTHERS and not self.harmless & _OTHERS:
            records.source.fail(
                "is a Qwen-Bailian trace: its times are seconds and its blocks have 16 tokens", "use format: bailian"
            )
        if self.params.delays != "wait" and "wait_for" in names:
            why = "requests that wait for several others are only modelled as waiting"
            raise self.refuse(path, "wait_for", why, "settings.delays: wait")
        if "priority" in names:
            self.note(f"{path.name}: priority is passed on as the engine reads it (vLLM: smaller is served first)")
        self.unused(path, records.others - self.harmless)

    def _afresh(self, path: Path, session: NDArray[np.int64], ids: Values, counts: NDArray[np.int64]) -> None:
        """Say when turns do not begin as the turn before: aiperf sends the conversation so far before what such a file holds."""
        rows = np.flatnonzero((counts > 0) & (session >= 0))
        rows = rows[np.argsort(session[rows], kind="stable")]
        firsts, key = ids[(np.cumsum(counts) - counts)[rows]], session[rows]
        afresh = bool(((key[1:] == key[:-1]) & (firsts[1:] != firsts[:-1])).any())
        if afresh:
            what = (
                "they are simulated as whole prompts; where the file holds only what each turn adds, settings.context: accumulate"
            )
            self.note(f"{path.name}: turns that do not begin as the turn before them: {what}")

    def _waiting(self, path: Path, records: Records, session: NDArray[np.int64], waiting: WaitingRows) -> NDArray[np.float64]:
        """The rows join those that wait for answers; arrivals are set when all are known."""
        stamps: NDArray[np.float64] = np.asarray(records["timestamp"].values) * self.unit_s
        delay = np.nan_to_num(records["delay"].values) + np.nan_to_num(records["delay_ms"].values)
        given = ~np.isnan(records["delay"].values) | ~np.isnan(records["delay_ms"].values)
        tool = records["tool_wait_ms"].values
        wait = np.where(given | ~np.isnan(tool), (delay + np.nan_to_num(tool)) * 1e-3, np.nan)
        if (wait < 0).any():
            row = int(np.argmax(wait < 0))
            records.source.fail_at(row, "delay", float(wait[row] * 1e3), "must not be negative")
        names, others = np.asarray(records["request_id"].values), records["wait_for"].values
        negative = stamps < 0
        if negative.any():
            row = int(np.argmax(negative))
            records.source.fail_at(row, "timestamp", float(records["timestamp"].values[row]), "must not be negative")
        rule = "must be a number, or the row must wait: it "
        if "wait_for" not in records.present:
            row, problem = waiting.add_all(stamps, wait, session, names if "request_id" in records.present else None)
            if problem:
                records.source.fail_at(row, "timestamp", None, rule + problem)
        for row in range(records.rows) if "wait_for" in records.present else ():
            after = others[row]
            if after is not None and not hasattr(after, "__len__"):
                records.source.fail_at(row, "wait_for", after, "must be a list of request ids")
            after = None if after is None else [after] if isinstance(after, str) else list(after)
            at, late = (None if np.isnan(x[row]) else float(x[row]) for x in (stamps, wait))
            problem = waiting.add(at, late, int(session[row]), names[row], after)
            if problem:
                records.source.fail_at(row, "wait_for" if after else "timestamp", after, rule + problem)
        if records.present & _DELAYS:
            self.note(
                f"{path.name}: turns with a delay are sent so long after the answer before them; their time stamps are not used"
            )
        return np.zeros(records.rows)

    def _turns(
        self, path: Path, records: Records, session: NDArray[np.int64], waiting: WaitingRows, last: dict[int, float]
    ) -> NDArray[np.float64]:
        """Arrivals where turns have delays: a time stamp is kept, a delay counts from the arrival of the turn before (``delays``).

        ``last``: of each session the arrival of its last turn so far.
        """
        if self.params.delays == "wait":
            return self._waiting(path, records, session, waiting)
        delay = np.where(np.isnan(records["delay"].values), records["delay_ms"].values, records["delay"].values) * 1e-3
        stamps: NDArray[np.float64] = np.asarray(records["timestamp"].values) * self.unit_s
        out: NDArray[np.float64] = np.empty(len(stamps))
        for row, (stamp, wait, key) in enumerate(zip(stamps, delay, session, strict=True)):
            known = not np.isnan(stamp)
            if known and (np.isnan(wait) or self.params.delays == "ignore"):
                out[row] = stamp
            elif key >= 0 and int(key) in last and not np.isnan(wait) and self.params.delays == "after_arrival":
                out[row] = last[int(key)] + wait
            elif known:  # the first turn of its session, or none of a session
                out[row] = stamp
            else:
                records.source.fail_at(row, "timestamp", None, "must be a number where no turn of its session came before")
            last[int(key)] = float(out[row])
        if not (np.isfinite(out).all() and (out >= 0).all()):
            records.source.fail_at(
                int(np.argmax(~(np.isfinite(out) & (out >= 0)))), "timestamp", None, "must be a finite time of at least 0"
            )
        kept = (
            "are ignored" if self.params.delays == "ignore" else "count from the arrival of the turn before, not from its answer"
        )
        self.note(f"{path.name}: delays of turns {kept}")
        return out


def _waiting_for(waits: Waits, row: int, own: int) -> dict[str, Json]:
    """Who a request is to those that wait for it, and whom it waits for itself."""
    named: dict[str, Json] = {"request_id": str(own)} if waits.awaited[row] else {}
    others = waits.key[waits.off[row] : waits.off[row + 1]].tolist()
    if others:
        named |= {"wait_for": [str(x) for x in others], "tool_wait_ms": round(float(waits.wait_s[row]) * 1e3, 9)}
    return named


def _fractions(head: Head) -> bool:
    return any(isinstance(r, dict) and isinstance(r.get("timestamp"), float) and r["timestamp"] % 1 for r in head.rows)


def _priority(records: Records) -> NDArray[np.int64]:
    if "priority" not in records.present:
        return np.zeros(records.rows, np.int64)
    return whole(records.source, Column("priority", np.nan_to_num(records["priority"].values)), -(2**31) + 1, 2**31 - 1)


def _spread(arrival: NDArray[np.float64]) -> NDArray[np.float64]:
    """Requests with one time stamp, evenly spaced up to the next stamp; the last batch takes the length of the one before it."""
    stamps, first, count = np.unique(arrival, return_index=True, return_counts=True)
    if len(stamps) < 2:
        return arrival
    width = np.diff(stamps)
    width = np.append(width, width[-1])
    rank = np.arange(len(arrival)) - np.repeat(first, count)
    spread: NDArray[np.float64] = arrival + np.repeat(width / count, count) * rank
    return spread
