import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.workload.belady import tokens_found


def by_hand(keys, tokens, begins, capacity):
    """Step by step: everything held, the one that is needed last of all goes first."""
    held, found, whole = {}, 0, True
    for i, key in enumerate(keys):
        whole = True if begins[i] else whole
        have = held.pop(key, 0)
        if whole:
            found += min(have, tokens[i])
            whole = have >= tokens[i]
        if key in keys[i + 1 :]:
            held[key] = max(have, tokens[i])
        while sum(held.values()) > capacity:
            del held[max(held, key=lambda k: keys.index(k, i + 1))]
    return found


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(1, 9), st.booleans()), min_size=1, max_size=40), st.integers(0, 40))
def test_the_best_cache_is_the_one_found_by_hand(pieces, capacity):
    keys, tokens, begins = ([p[k] for p in pieces] for k in range(3))
    following = [next((j for j in range(i + 1, len(keys)) if keys[j] == key), len(keys)) for i, key in enumerate(keys)]
    arrays = (np.array(keys, np.int64), np.array(tokens, np.int64), np.array(begins), np.array(following, np.int64))

    assert tokens_found(*arrays, capacity) == by_hand(keys, tokens, begins, capacity)
