"""Duration of one engine step: table look-ups plus a little arithmetic over the batch's sums (`features`). Compiled.

Everything that depends on sizes alone was tabulated when the cost was built (`build`): the tables hold seconds of *all* layers together.
A look-up is linear between grid points, four to an octave, so neither logarithms nor powers are taken here.
"""

from math import frexp

import numpy as np

from sim.cost.features import (
    COPIED_BLOCKS,
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    DRAFT_TOKENS,
    ENCODER_TOKENS,
    LORA_ROWS,
    PART_ATTENTION_DECODE,
    PART_ATTENTION_PREFILL,
    PART_COMMUNICATION,
    PART_HOST,
    PART_LINEAR_COMPUTE,
    PART_LINEAR_MEMORY,
    PART_OTHER,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    SAMPLED,
    TOKENS,
)
from sim.jit import f8s, f8ss, i8, i8s, inline, kernel, new, struct

# Columns of `layers` and `head`: seconds by what they are spent on; FLOOR: launching the kernels one by one, where no graph is replayed.
COMPUTE, MEMORY, COMMS, SMALL, FLOOR = 0, 1, 2, 3, 4
# Entries of `constants`.
HOST_STEP, HOST_ROW, HOST_PREFILL_ROW, HOST_TOKEN, HOST_OVERLAP, HOST_GAP = (0, 1, 2, 3, 4, 5)
DECODE_FLOOR, MIXED_FACTOR, MIXED_ROW, FULL_SHARE, WINDOW_SHARE, WINDOW = (6, 7, 8, 9, 10, 11)
DRAFT_TOKEN, DRAFT_STEP, ENCODER_TOKEN, LORA_STEP, LORA_ROW, BLOCK_COPY = (12, 13, 14, 15, 16, 17)
DECODE_ROW_STATE, PREFILL_TOKEN_STATE, SPLIT_PREFILL, CONTEXT_TOKEN = 18, 19, 20, 21
N_CONSTANTS = 24

PER_OCTAVE = 4


@struct
class StepCost:
    """``kind`` 0: linear in the features (recordings, queueing laws). 1: tables built from operators (`sim.cost.build`)."""

    kind: i8
    # linear: a + Σ coef·feature in the given order; set 0 for pure decode, set 1 if any row computes a prompt
    lin_base: f8s  # [2]
    lin_index: i8s
    lin_coef: f8ss  # [2, terms]
    # tables, seconds
    layers: f8ss  # [tokens in the step, 5]: everything of the layers but attention
    layers_prompt: f8ss  # the same for steps that compute prompts, where graphs serve decode only
    head: f8ss  # [sampled rows, 5]: output head and sampler
    decode: f8ss  # [rows, mean context] on the grid of `grid_point`: decode attention of all full layers
    prefill: f8ss  # [rows, equivalent length]: prompt attention of all full layers
    decode_window: f8ss  # the same for layers that look back a window
    prefill_window: f8ss
    constants: f8s
    stage_share: f8s  # [pp]: share of the layers' time by pipeline stage


@kernel
def new_linear_cost(base, index, coef):
    """A synthetic cost: ``base[m] + Σ coef[m, j]·feature[index[j]]``, summed in order; zero for an empty batch."""
    c = new(StepCost)
    c.kind = 0
    c.lin_base = base.copy()
    c.lin_index = index.copy()
    c.lin_coef = coef.copy()
    c.layers = np.zeros((0, 0))
    c.layers_prompt = c.layers
    c.head = c.layers
    c.decode = c.layers
    c.prefill = c.layers
    c.decode_window = c.layers
    c.prefill_window = c.layers
    c.constants = np.zeros(0)
    c.stage_share = np.ones(1)
    return c


@kernel
def new_table_cost(layers, layers_prompt, head, decode, prefill, decode_window, prefill_window, constants, stage_share):
    """A cost of tables, see `StepCost`."""
    c = new(StepCost)
    c.kind = 1
    c.lin_base = np.zeros(2)
    c.lin_index = np.zeros(0, np.int64)
    c.lin_coef = np.zeros((2, 0))
    c.layers = layers
    c.layers_prompt = layers_prompt
    c.head = head
    c.decode = decode
    c.prefill = prefill
    c.decode_window = decode_window
    c.prefill_window = prefill_window
    c.constants = constants
    c.stage_share = stage_share
    return c


def grid_point(i):
    """Size at grid index ``i``: 1, 1.25, 1.5, 1.75, 2, 2.5, …"""
    return 2.0 ** (i // PER_OCTAVE) * (1.0 + i % PER_OCTAVE / PER_OCTAVE)


@inline
def look_up(table, x, y):
    """Bilinear in both sizes; sizes below 1 count as 1, beyond the table the last cell goes on."""
    x = max(x, 1.0)
    y = max(y, 1.0)
    m, e = frexp(x)
    i = int(PER_OCTAVE * (2.0 * m - 1.0)) + PER_OCTAVE * (e - 1)
    u = PER_OCTAVE * (2.0 * m - 1.0)
    u -= int(u)
    if i > table.shape[0] - 2:
        i = table.shape[0] - 2
        low = 2.0 ** (i // PER_OCTAVE)
        u = PER_OCTAVE * (x / low - 1.0) - i % PER_OCTAVE
    m, e = frexp(y)
    j = int(PER_OCTAVE * (2.0 * m - 1.0)) + PER_OCTAVE * (e - 1)
    v = PER_OCTAVE * (2.0 * m - 1.0)
    v -= int(v)
    if j > table.shape[1] - 2:
        j = table.shape[1] - 2
        low = 2.0 ** (j // PER_OCTAVE)
        v = PER_OCTAVE * (y / low - 1.0) - j % PER_OCTAVE
    a = table[i, j] + v * (table[i, j + 1] - table[i, j])
    b = table[i + 1, j] + v * (table[i + 1, j + 1] - table[i + 1, j])
    return a + u * (b - a)


@inline
def step_time(c, feat, parts):
    """Seconds of a step with these sums; adds what they were spent on to ``parts``."""
    tokens = feat[TOKENS]
    if tokens == 0.0:
        return 0.0
    prefill_rows = feat[PREFILL_ROWS]
    if c.kind == 0:
        m = 1 if prefill_rows > 0.0 else 0
        t = c.lin_base[m]
        for j in range(c.lin_index.size):
            t += c.lin_coef[m, j] * feat[c.lin_index[j]]
        parts[PART_OTHER] += t
        return t

    k = c.constants
    # layers without attention: a row of the table; beyond its end the slope of its second half
    layers = c.layers_prompt if prefill_rows > 0.0 else c.layers
    n = layers.shape[0] - 1
    i = int(tokens)
    scale = 1.0
    if i > n:
        half = n // 2
        at_end = layers[n, COMPUTE] + layers[n, MEMORY] + layers[n, COMMS] + layers[n, SMALL]
        at_half = layers[half, COMPUTE] + layers[half, MEMORY] + layers[half, COMMS] + layers[half, SMALL]
        scale = 1.0 + (at_end - at_half) / (n - half) * (tokens - n) / at_end
        i = n
    compute = layers[i, COMPUTE] * scale
    memory = layers[i, MEMORY] * scale
    comms = layers[i, COMMS] * scale
    small = layers[i, SMALL] * scale
    floor = layers[i, FLOOR]

    # output head of the sampled rows
    i = int(feat[SAMPLED])
    scale = 1.0
    if i >= c.head.shape[0]:
        scale = i / (c.head.shape[0] - 1.0)
        i = c.head.shape[0] - 1
    compute += c.head[i, COMPUTE] * scale
    memory += c.head[i, MEMORY] * scale
    comms += c.head[i, COMMS] * scale
    small += c.head[i, SMALL] * scale

    attend_prefill = 0.0
    if prefill_rows > 0.0:
        # equivalent length: as many prompts of it, nothing cached, do the same work
        work = feat[PREFILL_WORK]
        attend_prefill = look_up(c.prefill, prefill_rows, (2.0 * work / prefill_rows) ** 0.5) if k[FULL_SHARE] > 0.0 else 0.0
        if k[WINDOW_SHARE] > 0.0:
            new_tokens = feat[PREFILL_TOKENS] / prefill_rows
            start = max(work / feat[PREFILL_TOKENS] - 0.5 * new_tokens, 0.0)  # tokens before the chunk
            ramp = min(max(k[WINDOW] - start, 0.0), new_tokens)  # tokens of the chunk whose window is not full yet
            mean_work = ramp * (start + 0.5 * ramp) + (new_tokens - ramp) * k[WINDOW]
            attend_prefill += look_up(c.prefill_window, prefill_rows, (2.0 * mean_work) ** 0.5)
        attend_prefill += k[PREFILL_TOKEN_STATE] * feat[PREFILL_TOKENS]
    attend_decode = 0.0
    rows = feat[DECODE_ROWS]
    if rows > 0.0:
        context = feat[DECODE_CTX] / rows
        if k[FULL_SHARE] > 0.0:
            attend_decode = look_up(c.decode, rows, context)
        if k[WINDOW_SHARE] > 0.0:
            attend_decode += look_up(c.decode_window, rows, min(context, k[WINDOW]))
        if prefill_rows > 0.0 and k[SPLIT_PREFILL] == 0.0:
            # one kernel for both: the decode rows run at prefill tiling, the launch counts once
            attend_decode = max(attend_decode - k[DECODE_FLOOR], 0.0) * k[MIXED_FACTOR] + k[MIXED_ROW] * rows
        attend_decode *= 1.0 + k[CONTEXT_TOKEN] * (feat[DECODE_TOKENS] / rows - 1.0)
        attend_decode += k[DECODE_ROW_STATE] * rows

    other = small + k[ENCODER_TOKEN] * feat[ENCODER_TOKENS] + k[BLOCK_COPY] * feat[COPIED_BLOCKS]
    if feat[DRAFT_TOKENS] > 0.0:
        other += k[DRAFT_STEP] + k[DRAFT_TOKEN] * feat[DRAFT_TOKENS]
    if feat[LORA_ROWS] > 0.0:
        other += k[LORA_STEP] + k[LORA_ROW] * feat[LORA_ROWS]

    device = compute + memory + comms + other + attend_prefill + attend_decode
    host = k[HOST_STEP] + k[HOST_ROW] * (rows + prefill_rows) + k[HOST_PREFILL_ROW] * prefill_rows + k[HOST_TOKEN] * tokens
    # a step whose kernels are launched one by one takes at least as long as launching them
    total = max(device, floor)
    total = max(total, host) + k[HOST_GAP] if k[HOST_OVERLAP] > 0.0 else total + host
    parts[PART_LINEAR_COMPUTE] += compute
    parts[PART_LINEAR_MEMORY] += memory
    parts[PART_COMMUNICATION] += comms
    parts[PART_ATTENTION_PREFILL] += attend_prefill
    parts[PART_ATTENTION_DECODE] += attend_decode
    parts[PART_OTHER] += other
    parts[PART_HOST] += total - device
    return total
