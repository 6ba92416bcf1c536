"""The best that a cache of a given size could have done, knowing the future (compiled: a trace has millions of pieces)."""

import heapq

import numpy as np
from numpy.typing import NDArray

from sim.jit import kernel


@kernel
def tokens_found(
    keys: NDArray[np.int64], tokens: NDArray[np.int64], begins: NDArray[np.bool_], following: NDArray[np.int64], capacity: int
) -> np.int64:
    """Tokens of prompts that a cache of ``capacity`` tokens holds when they are asked for.

    Each [n], piece after piece: ``keys`` (0 … k), ``tokens``, whether a piece ``begins`` a prompt, and the place of the next piece with the same
    key (n: none). A piece counts only where all before it in its prompt did. What is needed again last goes first.
    """
    n = len(keys)
    held = np.zeros(keys.max() + 1, np.int64)
    farthest = [np.int64(0)]  # −place of the next use of what is held; places that have passed are at the bottom
    farthest.pop()
    used = np.int64(0)
    found = np.int64(0)
    whole = True
    for i in range(n):
        key = keys[i]
        if begins[i]:
            whole = True
        have = held[key]
        if whole:
            found += min(have, tokens[i])
            whole = have >= tokens[i]
        if following[i] == n:
            used -= have
            held[key] = 0
            continue
        now = max(tokens[i], have)
        used += now - have
        held[key] = now
        heapq.heappush(farthest, -following[i])
        while used > capacity:
            worst = keys[-heapq.heappop(farthest)]
            used -= held[worst]
            held[worst] = 0
    return found
