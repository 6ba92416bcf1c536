"""``python -m sim.cost.fit DATA_FOLDER [STACK …] [--out FOLDER] [--check]``: operator measurements to fitted profiles.

DATA_FOLDER holds Parquet tables in the layout of `fit/stacks.py`: ``gemm`` (system, framework, version, dtype, m, n, k, latency_us),
``attention_prefill`` (batch, isl, prefix, heads, kv_heads, head_dim, kv_dtype, window), ``attention_decode`` (batch, context, …),
``moe`` (tokens, hidden, inter, topk, experts, tp, ep, dtype, distribution), ``mla_prefill``, ``mla_decode``, ``collectives``
(collective, backend, gpus, bytes). To add an accelerator, measure what you can, write a stack file (YAML, keys as in `stacks.STACKS`)
and pass it with ``--stack FILE``. ``--check`` adds held-out errors (slower).
"""

from __future__ import annotations

import argparse
from pathlib import Path

import yaml

from sim.cost.fit.stacks import STACKS, fit_stack
from sim.resources import path


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(prog="python -m sim.cost.fit", description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("stacks", nargs="*")
    parser.add_argument("--out", type=Path, default=path("profiles", "fitted"))
    parser.add_argument("--stack", type=Path, action="append", default=[])
    parser.add_argument("--check", action="store_true")
    options = parser.parse_args()
    stacks = dict(STACKS)
    for file in options.stack:
        stacks |= yaml.safe_load(file.read_text())
    for name in options.stacks or stacks:
        fit_stack(name, stacks[name], options.data, options.out, options.check)


if __name__ == "__main__":
    main()
