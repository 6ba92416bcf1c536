"""The block pool grows with what it caches; whatever its size, every hash is found and the order of eviction is kept."""

from __future__ import annotations

import numpy as np

from sim.engine.kv.blocks import cached_block, give_back_blocks, new_block_pool, put_block, take_blocks
from sim.jit import kernel


@kernel
def _fill(pool, keys, held):  # type: ignore[no-untyped-def]
    take_blocks(pool, keys.size)
    for i in range(keys.size):
        held[0, i] = put_block(pool, keys[i])


@kernel
def _found(pool, keys, out):  # type: ignore[no-untyped-def]
    for i in range(keys.size):
        e = cached_block(pool, keys[i])
        out[i] = pool.e_key[e] if e != 0 else 0


@kernel
def _give_back(pool, held, n):  # type: ignore[no-untyped-def]
    give_back_blocks(pool, 0, 0, held, 0, n)


@kernel
def _take(pool, n):  # type: ignore[no-untyped-def]
    take_blocks(pool, n)
    return pool.free


def test_it_grows_and_finds_every_hash_and_evicts_the_last_blocks_of_a_request_first() -> None:
    blocks = 10_000
    pool = new_block_pool(blocks, True, True)
    keys = np.random.default_rng(0).integers(1, 2**62, blocks)
    held = np.zeros((1, blocks), np.int32)
    _fill(pool, keys, held)
    out = np.zeros(blocks, np.int64)
    _found(pool, keys, out)
    np.testing.assert_array_equal(out, keys)
    _give_back(pool, held, blocks)
    assert _take(pool, 4_000) == blocks - 4_000
    _found(pool, keys, out)
    np.testing.assert_array_equal(out[: blocks - 4_000], keys[: blocks - 4_000])
    assert not out[blocks - 4_000 :].any()
