"""The seam between the fleet and the engines: what a group of replicas is, whoever decides inside.

The fleet submits rows of request blocks and runs the engines up to the next outside event; outcomes that somebody waits for stop them.
"""

from __future__ import annotations

from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from sim.ledger import Series, Values

F8: TypeAlias = NDArray[np.float64]
I4: TypeAlias = NDArray[np.int32]
I8: TypeAlias = NDArray[np.int64]
Columns: TypeAlias = tuple[F8, I4, I4, I4, I4, I4, I8]
"""Of a block: arrival f8, prompt i4, output i4, limit i4, priority i4, lora i4, out_content i8."""
Spans: TypeAlias = tuple[I8, I8, I8, I8]
"""Of a block: offsets [n+1], content ids, starts, lengths."""
Rows: TypeAlias = dict[str, Values]
"""Columns of requests by name (`sim.ledger.COLUMNS`)."""
Watched: TypeAlias = tuple[I8, F8, I4]
"""Ids, times and replicas of outcomes that somebody waits for."""


class Group(Protocol):
    """N replicas of one pool. Times in seconds; replicas are numbered from 0 in each group."""

    n: int
    """Replicas."""

    @property
    def ranks(self) -> int:
        """Schedulers of one replica; results are by rank."""

    @property
    def outstanding(self) -> I8:
        """i8[n]: requests submitted to each replica and not yet finished."""

    def submit(self, replica: int, columns: Columns, spans: Spans, lo: int, hi: int, first_id: int, watch: int = 0) -> None:
        """Rows [lo, hi) of a block to one replica, not earlier than what it already has. Their ids are ``first_id`` + row."""

    def submit_routed(self, replica_of: I4, columns: Columns, spans: Spans, first_id: int, watch: int = 0) -> None:
        """A whole block, each row to its replica; negative: not for this group."""

    def advance(self, until: float, watched: bool) -> bool:
        """Complete all steps up to ``until`` and take all decisions before it; with ``watched`` stop at the first watched outcome (True)."""

    def next_event(self) -> float:
        """A time before which nothing that anyone could see happens here."""

    def take_watched(self) -> Watched:
        """Watched outcomes since the last call."""

    @property
    def finished(self) -> int:
        """Rows that have left and are not yet drained."""

    def drain(self) -> Rows:
        """Rows that have left since the last drain."""

    def in_flight(self) -> Rows:
        """Rows that have not left."""

    def gauges(self) -> F8:
        """f8[5, n]: running, waiting, KV in use, KV total, clock, as of the last decision of each."""

    def capacity(self) -> F8:
        """f8[n · ranks]: KV blocks (or tokens)."""

    def kv_peak(self) -> F8:
        """f8[n · ranks]: most of them in use at once."""

    def totals(self) -> dict[str, float]:
        """Steps, preemptions, the last simulated time, and the sums of inter-token gaps."""

    def series(self) -> tuple[Series, F8, F8]:
        """Time series, histogram of inter-token gaps, seconds by part (see `sim.metrics.record`)."""

    def set_front(self, serial: float) -> None:
        """Each engine's API server takes ``serial`` seconds for a request before the engine gets it."""

    def set_multi_step(self, on: bool) -> None:
        """Switch the one-stroke advance of unchanged decode steps."""
