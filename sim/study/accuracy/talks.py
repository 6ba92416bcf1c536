"""Benchmark records that continue each other, as requests: prompts that begin with what was said before, turns that wait for the answer."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sim.ledger import Values
from sim.workload import content
from sim.workload.table import RequestBlock
from sim.workload.traces._turns import Request, Talk, block_of


def conversations(columns: Mapping[str, Values], wait: bool) -> RequestBlock:
    """Requests of ``columns`` (each [n]: ``arrival_s, prompt_tokens, output_tokens, talk, turn, wait_s``), by arrival.

    ``wait``: a later turn is sent its ``wait_s`` after the answer before it; else its client asks when it likes. ``tenant`` of a request is
    its row plus one. A prompt shares all of the turn before where it is longer than that prompt and answer together, the prompt alone where the
    answer does not fit (reasoning is dropped from conversations), and nothing where it is shorter (the conversation was cut).
    """
    talk, output = np.asarray(columns["talk"]), np.maximum(np.asarray(columns["output_tokens"]).astype(np.int64), 1)
    prompt, arrival = np.asarray(columns["prompt_tokens"]).astype(np.int64), np.asarray(columns["arrival_s"], float)
    pause = np.asarray(columns["wait_s"], float)
    requests: list[Request] = []
    said, before, first = Talk(), -1, 0.0
    for row in np.lexsort((columns["turn"], talk)).tolist():
        later = before >= 0 and talk[row] == talk[before] >= 0
        if not later:
            said, first = Talk(), float(arrival[row])
        elif prompt[row] > said.tokens + output[before]:
            said.add(content.OUTPUT + before, int(output[before]))
        elif prompt[row] <= said.tokens:
            said = Talk()
        said.add(content.PROMPT + row, int(prompt[row]) - said.tokens)
        after = wait and later and bool(np.isfinite(pause[row]))
        requests.append(
            Request(
                first if after else float(arrival[row]), int(prompt[row]), int(output[row]), int(talk[row]), tuple(said.said),
                content.OUTPUT + row, wait=float(pause[row]) if after else None,
            )
        )  # fmt: skip
        before = row
    block = block_of(requests)
    block.tenant = (block.out_content - content.OUTPUT + 1).astype(np.int32)
    return block
