"""Random small servers and loads for the MindIE tests, and the benchmark's load."""

from __future__ import annotations

from typing import Any

import numpy as np

from sim.cost.features import COPIED_BLOCKS, DECODE_CTX, DECODE_ROWS, PREFILL_TOKENS, PREFILL_WORK
from sim.cost.step import new_linear_cost
from sim.engine.contract import Site
from sim.engine.group import EngineGroup
from sim.engine.schedulers.mindie import Mindie, MindieParams
from sim.engine.state import new_recorder
from sim.workload.table import RequestBlock


def server(blocks: int, settings: dict[str, Any], rows: int = 4096, extra: dict[str, Any] | None = None) -> EngineGroup:
    """One MindIE with a linear step cost in seconds."""
    recorder = new_recorder(1, 64, 1.0, rows, 64, 1e-4, 4.0)
    terms = np.array([DECODE_ROWS, DECODE_CTX, PREFILL_TOKENS, PREFILL_WORK, COPIED_BLOCKS])
    coefficients = np.array([[3e-5, 1e-8, 0.0, 0.0, 1e-4], [3e-5, 1e-8, 2e-5, 1e-9, 1e-4]])
    cost = new_linear_cost(np.array([8e-3, 1e-2]), terms, coefficients)
    site = Site(extra=extra or {})
    params = Mindie.resolve(MindieParams(**settings), site)
    return EngineGroup([Mindie.new_state(params, site, blocks, 0, recorder, cost)], recorder)


def run(group: EngineGroup, block: RequestBlock, multi_step: bool = True, until: float = np.inf) -> dict[str, Any]:
    """The finished requests in order of their ids."""
    group.set_multi_step(multi_step)
    group.submit(0, block.columns, block.spans, 0, len(block), 0)
    group.advance(until, False)
    rows = group.drain()
    order = np.argsort(rows["id"], kind="stable")
    return {name: column[order] for name, column in rows.items()}


def random_block(rng: np.random.Generator, n: int, gap: float, prompt: int, output: int) -> RequestBlock:
    """Requests in bursts, with shared beginnings."""
    arrival = np.cumsum(rng.exponential(gap, n) * (rng.random(n) < 0.7))
    off, ids, start, length = [0], [], [], []
    tokens = np.zeros(n, np.int64)
    for i in range(n):
        pieces = [(int(rng.integers(1, 5)), int(rng.choice([16, 64, 200]))), (10_000 + i, int(rng.integers(1, prompt)))]
        pieces = pieces[int(rng.random() < 0.4) :] if rng.random() < 0.8 else []
        for content, count in pieces:
            ids.append(content)
            start.append(0)
            length.append(count)
        tokens[i] = sum(c for _, c in pieces) or rng.integers(1, prompt)
        off.append(len(ids))
    made = rng.integers(1, output, n)
    return RequestBlock.of(arrival, tokens, made, spans=(off, ids, start, length))


KINDS = ("base", "sel", "swap", "mtp", "ftw", "chunk", "mixed")  # of `random_recording`
LAWFUL = ("prefix", "latency", "dynamic", "tight chunk", "chunk swap", "chunk prefix")  # kinds without a reference


def random_recording(rng: np.random.Generator, n: int, kind: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Settings and requests as the recordings write them; ``kind`` is one of `KINDS` (mixed: several features at once) or `LAWFUL`."""
    size = int(rng.choice([16, 64, 128] if kind in KINDS[:-1] else [1, 3, 7, 16, 37, 64, 100, 128]))
    longest = int(rng.choice([300, 900, 1500] if kind != "mixed" else [20, 60, 300, 900, 1500]))
    blocks = int(rng.choice([30, 60, 150])) * 128 // size
    c: dict[str, Any] = {
        "maxPrefillBatchSize": int(rng.choice([1, 2, 4, 10])),
        "maxBatchSize": int(rng.choice([1, 3, 8, 12, 20])),
        "maxPrefillTokens": int(rng.choice([1000, 2048, 4000])),
        "maxSeqLen": 2048,
        "cacheBlockSize": size,
        "npuBlockNum": blocks,
        "maxQueueDelayMicroseconds": int(rng.choice([500, 1000, 5000, 5001, 20000, 60000])),
        "max_iters": 600,
    }
    c["maxPrefillBatchSize"] = min(c["maxPrefillBatchSize"], c["maxBatchSize"])
    if kind == "sel":
        c |= {"supportSelectBatch": 1, "prefillTimeMsPerReq": int(rng.choice([50, 150, 600]))}
    elif kind == "swap":
        c |= {"maxPreemptCount": int(rng.choice([1, 4])), "cpuBlockNum": 100_000}
    elif kind == "mtp":
        c["speculationGamma"] = int(rng.integers(1, 4))
    elif kind == "ftw":
        c["maxFirstTokenWaitTime"] = int(rng.choice([100, 400, 1000]))
    elif kind == "chunk":
        c |= _chunked(rng) | {"npuBlockNum": 400_000 // size}
    elif kind == "mixed":
        c |= _several(rng)
        c["npuBlockNum"] = max(int(rng.choice([2 * longest + 300, 4000, 20_000])) // size, (longest + 130) // size + 4)
    else:
        c |= _lawful(rng, kind)
        c["npuBlockNum"] = max(blocks, (longest + 120) // size + 2)
    t, out = 0, []
    gap = float(rng.choice([2_000, 20_000, 100_000]))
    for i in range(n):
        t += int(rng.exponential(gap)) if rng.random() < 0.7 else 0
        prompt = int(rng.integers(1, longest))
        made = int(rng.integers(1, 120))
        shared = (int(rng.integers(1, 4)), int(rng.integers(1, longest))) if "enablePrefixCache" in c else (0, 0)
        out.append(
            {"id": i, "arrive_us": t, "input_len": prompt, "output_len": made, "prefix_group": shared[0], "prefix_len": shared[1]}
        )
    return c, out


def _chunked(rng: np.random.Generator) -> dict[str, Any]:
    return {
        "enableChunkedPrefill": 1,
        "maxPrefillTokens": int(rng.choice([64, 256, 512, 1024])),
        "prefillChunkSize": int(rng.choice([0, 32, 128, 256, 512])),
        "maxLongPartialPrefills": int(rng.integers(1, 4)),
        "longPrefillTokenThreshold": int(rng.choice([50, 100, 300, 1024])),
        "maxNumPartialPrefills": int(rng.choice([1, 4, 64])),
    }


def _several(rng: np.random.Generator) -> dict[str, Any]:
    """Select batch, swapping to a large or small host memory, look-ahead slots and the guard of first tokens, each now and then."""
    c: dict[str, Any] = {}
    if rng.random() < 0.5:
        c |= {
            "supportSelectBatch": 1,
            "prefillTimeMsPerReq": int(rng.choice([0, 50, 600])),
            "decodeTimeMsPerReq": int(rng.choice([0, 50])),
        }
    if rng.random() < 0.5:
        c |= {"maxPreemptCount": int(rng.choice([1, 2, 50])), "cpuBlockNum": int(rng.choice([100_000, 40, 10, 2000]))}
    if rng.random() < 0.5:
        c["speculationGamma"] = int(rng.choice([1, 2, 3, 5, 16]))
    if rng.random() < 0.5:
        c["maxFirstTokenWaitTime"] = int(rng.choice([0, 50, 100, 1000]))
    return c


def _lawful(rng: np.random.Generator, kind: str) -> dict[str, Any]:
    c: dict[str, Any] = _chunked(rng) | {"maxFirstTokenWaitTime": 3_600_000} if "chunk" in kind else {}
    if "prefix" in kind:
        c["enablePrefixCache"] = 1
    elif "swap" in kind:
        c |= {"maxPreemptCount": int(rng.choice([1, 50])), "cpuBlockNum": int(rng.choice([100_000, 40]))}
    elif kind == "latency":
        c |= {
            "stageSelectPolicy": 2,
            "prefillExpectedTime": int(rng.choice([100, 1500])),
            "decodeExpectedTime": int(rng.choice([20, 50])),
        }
    elif kind == "dynamic":
        c |= {"stageSelectPolicy": 2, "dynamicBatchSizeEnable": 1, "decodeExpectedTime": int(rng.choice([20, 50]))}
    return c
