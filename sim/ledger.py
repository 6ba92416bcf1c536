"""What is written down about requests and steps: status codes, flags, outcomes, columns, series, parts. Declared here and nowhere else.

Engines (compiled), the fleet and the metrics read it; it imports nothing of ours and no compiler.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypedDict, cast

import numpy as np
from numpy.typing import NDArray

NAN: Final = float("nan")

# -- what became of a request

FINISHED: Final = 0
REJECTED: Final = 1  # turned away at the door (429, 503, too long)
FAILED: Final = 2  # admitted, then given up by the engine
IN_FLIGHT: Final = 3  # the run ended first
RETURNED: Final = 4  # given back to the fleet, which submits it anew; never in a result (`sim.engine.hand_over`)

# -- flags of a request: what the fleet wants to be told of it (4 is SGLang's own)

WATCH_FINISH: Final = 1  # return from `advance` when it finishes
WATCH_FIRST_TOKEN: Final = 2  # … when its first token is out
HAND_OVER: Final = 8  # … when it has ended; its KV goes to another engine and is kept until then: see `sim.engine.hand_over`
REMOTE_KV: Final = 16  # … when it has memory; the KV of its prompt comes from another engine
WATCH_CHUNKS: Final = 32  # … when a chunk of its prompt is computed
COMPUTE: Final = 128  # its prompt is computed here, whatever the engine's connector would do
GONE: Final = 64  # not from outside: its row is written, only its slot is still taken

# -- kinds of watched outcomes, and their value; not Python ints, which would compile their kernel once for each

ENDED: Final = np.int64(0)  # status
FIRST_TOKEN: Final = np.int64(1)  # 0
ALLOCATED: Final = np.int64(2)  # tokens whose KV is to come
CHUNK_DONE: Final = np.int64(3)  # tokens of the prompt computed so far

# -- content of prompts

IMAGE_CONTENT: Final = 5 << 60  # content ids from here on are images: their tokens come from an encoder (`sim.workload.content`)

# -- the request table


Values: TypeAlias = NDArray[Any]
"""What a column holds, of the dtype that its declaration says."""


class Column(NamedTuple):
    """A column of the request table.

    ``name`` in results, ``field`` in the recorder of an engine, ``dtype``, and ``slot``: the engine's column of requests in flight that it is
    written from (empty: it is told when the row is written). ``default``: where nothing happened.
    """

    name: str
    field: str
    dtype: str
    slot: str
    default: float


COLUMNS: Final = (
    Column("id", "id", "i8", "r_id", 0),
    Column("replica", "replica", "i4", "", -1),  # none: turned away, or not there yet
    Column("arrival_s", "arrival", "f8", "r_sent", NAN),
    Column("taken_s", "taken", "f8", "r_taken", NAN),
    Column("first_scheduled_s", "first_scheduled", "f8", "r_first_scheduled", NAN),
    Column("first_token_s", "first_token", "f8", "r_first_token", NAN),
    Column("finish_s", "finish", "f8", "", NAN),
    Column("prompt_tokens", "prompt", "i4", "r_prompt", 0),
    Column("output_tokens", "output", "i4", "r_done", 0),
    Column("cached_tokens", "cached", "i4", "r_cached", 0),
    Column("preemptions", "preemptions", "i4", "r_preempt", 0),
    Column("status", "status", "i4", "", IN_FLIGHT),
)
"""What an engine writes of a request."""
ENGINE_COLUMNS: Final = tuple(c.name for c in COLUMNS)
REQUEST_COLUMNS: Final = ("id", "klass", *ENGINE_COLUMNS[1:])
"""The request table of a result: with the class of the traffic."""
ATTEMPT_COLUMNS: Final = ("attempts", "sent_s")
"""Beside those where clients do more than wait: how often it was sent, and when the time that counts."""
HAND_OVER_COLUMNS: Final = ("prefill_replica", "prefill_end_s", "kv_allocated_s", "kv_arrived_s", "decode_start_s")
"""Beside those above where prefill and decode are different replicas; ``replica`` is then the one that decodes (`sim.metrics.hand_over`)."""
LABEL_COLUMNS: Final = ("tenant", "session", "model")
"""Beside those above where the traffic has them, and of a fleet with several models on replicas of their own."""
_DEFAULTS: Final = {c.name: c.default for c in COLUMNS}


def request_row(**given: Any) -> dict[str, Any]:
    """A row of a request that no engine has: `ENGINE_COLUMNS`, defaults where nothing is given. Raises TypeError for another name."""
    unknown = given.keys() - _DEFAULTS.keys()
    if unknown:
        raise TypeError(f"no column {', '.join(sorted(unknown))} of requests")
    return _DEFAULTS | given


# -- time series: [replica, bin] integrals over simulated time of the first five, sums of the others

S_RUNNING: Final = 0
S_WAITING: Final = 1
S_KV_USED: Final = 2
S_KV_FULL: Final = 3  # time in which the head of the queue waited for KV memory
S_COVERED: Final = 4  # simulated time in the bin
S_BUSY: Final = 5
S_STEPS: Final = 6
S_DECODE: Final = 7  # tokens
S_PREFILL: Final = 8  # tokens
SERIES: Final = ("running", "waiting", "kv_used", "kv_full", "time_s", "busy_s", "steps", "decode_tokens", "prefill_tokens")
"""Names in the order of the numbers above."""


class Series(TypedDict, total=False):
    """Time series by name, each f8[replica, bin], and seconds per bin; nothing at all where they were not asked for."""

    running: Values
    waiting: Values
    kv_used: Values
    kv_full: Values
    time_s: Values
    busy_s: Values
    steps: Values
    decode_tokens: Values
    prefill_tokens: Values
    width_s: float


def by_name(series: Series) -> dict[str, Values]:
    """The series of a `Series`, in the order of `SERIES`."""
    columns = cast("dict[str, Values]", series)
    return {name: columns[name] for name in SERIES}


def series_of(columns: Mapping[str, Values], width_s: float) -> Series:
    """`SERIES` as a `Series`."""
    return cast("Series", {name: columns[name] for name in SERIES} | {"width_s": width_s})


# -- what the time of a step was spent on; `sim.cost.step.step_time` adds seconds into these

PART_LINEAR_COMPUTE: Final = 0
PART_LINEAR_MEMORY: Final = 1
PART_ATTENTION_PREFILL: Final = 2
PART_ATTENTION_DECODE: Final = 3
PART_COMMUNICATION: Final = 4
PART_HOST: Final = 5
PART_OTHER: Final = 6
N_PARTS: Final = 7
PARTS: Final = ("linear_compute", "linear_memory", "attention_prefill", "attention_decode", "communication", "host", "other")

# -- what a close look into an engine sees (`sim.engine.inside`)

LOOK_TOTAL_BLOCKS: Final = 0
LOOK_USED_BLOCKS: Final = 1
LOOK_RUNNING: Final = 2
LOOK_WAITING: Final = 3
LOOK_FIRST_WAITING_BLOCKS: Final = 4
LOOK_WAITING_BLOCKS: Final = 5
LOOK_LAST_RUNNING_BLOCKS: Final = 6
LOOK_PREEMPTED: Final = 7  # since the start
LOOK_DECODES: Final = 8
LOOK_WAITING_TOKENS: Final = 9  # prompt tokens to compute of requests in the queue
LOOK_PREFILL_TOKENS: Final = 10  # … of running requests
LOOK_UNALLOCATED_TOKENS: Final = 11  # … for which no block is held yet
LOOK_SEEN_UNTIL: Final = 12  # requests that came up to then are in these counters
LOOK: Final = tuple(
    name.removeprefix("LOOK_").lower()
    for name, _ in sorted(((n, v) for n, v in globals().items() if n.startswith("LOOK_")), key=lambda p: p[1])
)
"""Names in the order of the numbers above."""
