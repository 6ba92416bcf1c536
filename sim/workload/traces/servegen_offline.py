"""ServeGen's traces of offline batches: lengths in the order of the batch, without times."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from sim.registry import register
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import tokens
from sim.workload.traces._json import Fields, json_pieces
from sim.workload.traces._source import Source

_FIELDS = Fields(("input_length", "output_length"))


@register("trace")
class ServeGenOffline(Trace):
    """One JSON object per line: ``request_id, type, input_length, output_length, duration`` (ms, what the request took; not used).

    A batch is submitted as a whole, so that the traffic says when requests arrive. The traces with ``hash_ids`` do not say how long answers
    were and are refused.

    *Source*: github.com/alibaba/ServeGen, data/offline.
    """

    name = "servegen-offline"
    timed = False

    def fits(self, head: Head) -> bool:
        """Its names, without times."""
        names = set(head.keys)
        return head.kind == "jsonl" and names >= {"request_id", "type", "input_length"} and bool(names & {"duration", "img_ids"})

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        first = 0
        if b'"output_length"' not in next(Source(path).pieces()).data.lstrip().splitlines()[0]:
            Source(path).fail("has no field 'output_length'", "a trace that says how long answers were, such as trace_d.jsonl")
        for records in json_pieces(path, _FIELDS):
            prompt, output = tokens(records.source, records["input_length"]), tokens(records.source, records["output_length"])
            self.unused(path, records.others - {"request_id", "type"})
            yield RequestBlock.of(np.zeros(len(prompt)), prompt, output, first)
            first += len(prompt)
