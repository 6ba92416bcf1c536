# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""64-bit chain hashes of full blocks over prompts given as spans: equal tokens, equal hash, however the spans are cut.

Each block's hash covers the hash before it, the maximal runs (content id, start, length) of its tokens, and the adapter. Two different
prefixes get the same hash with a probability of some 1e-19 per pair.
"""

import numpy as np

from sim.jit import JIT, inline

_K1 = -7046029254386353131  # 0x9E3779B97F4A7C15, odd
_K2 = -4658895280553007687  # 0xBF58476D1CE4E5B9, odd

if JIT:

    @inline
    def mix(h, v):
        """Fold one integer into a hash."""
        x = (h ^ v) * _K1
        x ^= np.int64(np.uint64(x) >> np.uint64(32))
        x *= _K2
        return x ^ np.int64(np.uint64(x) >> np.uint64(29))

else:

    def mix(h, v):
        """Fold one integer into a hash; Python's integers do not wrap by themselves."""
        low = (1 << 64) - 1
        x = ((int(h) ^ int(v)) * _K1) & low
        x ^= x >> 32
        x = (x * _K2) & low
        x ^= x >> 29
        return x - (1 << 64) if x >> 63 else x


@inline
def first_key(lora):
    """What the hash of a request's first block is chained to: caches of different adapters do not meet."""
    return mix(_K2, lora + 1)


@inline
def extend_keys(s, slot, first, n, parent, keys):
    """Hashes of blocks [first, n) into ``keys`` at the same places; ``parent`` is the hash of block first − 1.

    A block's hash also covers ``s.hash_ahead`` tokens after it. All these tokens must be known.
    """
    prompt = s.r_prompt[slot]
    base = s.r_span[slot]
    spans = s.r_spans[slot]
    j = 0  # span that holds the current position, and where it begins
    begin = 0
    size = s.block_size
    for i in range(first, n):
        pos = i * size
        end = pos + size + s.hash_ahead
        if j > 0 and pos < begin:  # tokens ahead lay in a later span
            j = 0
            begin = 0
        content = np.int64(0)
        start = np.int64(0)
        length = np.int64(0)
        h = parent
        while pos < end:
            if pos >= prompt:
                c = s.r_out_content[slot]
                o = np.int64(pos - prompt)
                m = end - pos
            elif spans == 0:
                c = mix(_K1, s.r_id[slot])  # unique content
                o = np.int64(pos)
                m = min(end, prompt) - pos
            else:
                while pos >= begin + s.sp_len[base + j]:
                    begin += s.sp_len[base + j]
                    j += 1
                c = s.sp_id[base + j]
                o = s.sp_start[base + j] + (pos - begin)
                m = min(end, begin + s.sp_len[base + j]) - pos
            if length > 0 and c == content and o == start + length:
                length += m
            else:
                if length > 0:
                    h = mix(mix(mix(h, content), start), length)
                content, start, length = c, o, m
            pos += m
        h = mix(mix(mix(h, content), start), length)
        if h == 0:
            h = np.int64(1)
        keys[i] = h
        parent = h
