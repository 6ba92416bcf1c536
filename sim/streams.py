"""Named random substreams: one more draw in one place never shifts the draws of another."""

from __future__ import annotations

import hashlib

import numpy as np


def stream(seed: int, name: str) -> np.random.Generator:
    """An independent generator for ``name`` (``"arrivals"``, ``"lengths"``, …) under ``seed``.

    Philox-4x64 keyed by BLAKE2b of seed and name: the same on every platform and in every process, whatever else was drawn
    before.
    """
    digest = hashlib.blake2b(f"{int(seed)}/{name}".encode(), digest_size=16).digest()
    return np.random.Generator(np.random.Philox(key=np.frombuffer(digest, dtype="<u8").astype(np.uint64)))


def sub_seed(seed: int, name: str) -> int:
    """The seed of a part that has streams of its own (``"class chat"``): whatever other parts there are, it is the same."""
    digest = hashlib.blake2b(f"{int(seed)}/{name}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
