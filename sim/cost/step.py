"""Duration of one engine step: table look-ups plus a little arithmetic over the batch's sums (`features`). Compiled.

Everything that depends on sizes alone was tabulated when the cost was built (`build`): the tables hold seconds of *all* layers together.
A look-up is linear between grid points, four to an octave, so neither logarithms nor powers are taken here.
"""

from math import frexp, sqrt

import numpy as np

from sim.cost.features import (
    ADAPTERS,
    COPIED_BLOCKS,
    DECODE_CTX,
    DECODE_ROWS,
    DECODE_TOKENS,
    DRAFT_TOKENS,
    ENCODER_TOKENS,
    ENCODER_WORK,
    LORA_LOADS,
    LORA_READS,
    LORA_TOKENS,
    PREFILL_ROWS,
    PREFILL_TOKENS,
    PREFILL_WORK,
    SAMPLED,
    TOKENS,
)
from sim.jit import f8, f8s, f8ss, i8, i8s, inline, kernel, new, struct
from sim.ledger import (
    PART_ATTENTION_DECODE,
    PART_ATTENTION_PREFILL,
    PART_COMMUNICATION,
    PART_HOST,
    PART_LINEAR_COMPUTE,
    PART_LINEAR_MEMORY,
    PART_OTHER,
)

# Columns of the rows by tokens and by sampled positions: seconds by what they are spent on;
# FLOOR: launching the kernels one by one, where no graph is replayed.
COMPUTE, MEMORY, COMMS, SMALL, FLOOR = 0, 1, 2, 3, 4
# Entries of `constants`.
HOST_STEP, HOST_ROW, HOST_PREFILL_ROW, HOST_TOKEN, HOST_OVERLAP, HOST_GAP = 0, 1, 2, 3, 4, 5
DECODE_FLOOR, MIXED_FACTOR, MIXED_ROW, FULL_SHARE, WINDOW_SHARE, WINDOW = 6, 7, 8, 9, 10, 11
DRAFT_TOKEN, DRAFT_STEP, ENCODER_TOKEN, LORA_STEP, LORA_TOKEN, BLOCK_COPY = 12, 13, 14, 15, 16, 17
DECODE_ROW_STATE, PREFILL_TOKEN_STATE, SPLIT_PREFILL, CONTEXT_TOKEN = 18, 19, 20, 21
LORA_ADAPTER, LORA_LOAD, LORA_READ, ENCODER_PAIR = 22, 23, 24, 25
N_CONSTANTS = 26
HOST_AHEAD = 2.0  # value of HOST_OVERLAP where the device works behind all that the host does in a step (0: beside launches only, 1: steps overlap)

PER_OCTAVE = 4
ROWS_GRID = PER_OCTAVE * 11 + 1  # up to 2,048 rows
CONTEXT_GRID = PER_OCTAVE * 20 + 1  # up to 1,048,576 tokens
_SURFACE = ROWS_GRID * CONTEXT_GRID
_COLUMNS = 5
DECODE, PREFILL = N_CONSTANTS, N_CONSTANTS + _SURFACE
DECODE_OF_WINDOW, PREFILL_OF_WINDOW, LAYERS = PREFILL + _SURFACE, PREFILL + 2 * _SURFACE, PREFILL + 3 * _SURFACE


@struct
class StepCost:
    """``kind`` 0: linear in the features (recordings, queueing laws). 1: tables built from operators (`sim.cost.build`).

    ``data`` holds all tables one after the other (one array costs one reference count in the hot loop, seven cost seven): constants,
    surfaces ``[rows, mean context]`` of decode and ``[rows, equivalent length]`` of prompt attention for full and then for windowed layers,
    rows of `_COLUMNS` by tokens in the step (everything of the layers but attention), the same for steps that compute prompts, where graphs
    serve decode only, and rows by sampled positions (output head and sampler). All in seconds of all layers together.
    """

    kind: i8
    # linear: a + Σ coef·feature in the given order; set 0 for pure decode, set 1 if any row computes a prompt
    lin_base: f8s  # [2]
    lin_index: i8s
    lin_coef: f8ss  # [2, terms]
    data: f8s
    layers: i8  # where rows by tokens begin
    layers_prompt: i8
    n_layers: i8  # the largest token count in them
    head: i8
    n_head: i8
    stage_share: f8s  # [pp]: share of the layers' time by pipeline stage
    # steps that scatter (`sim.engine.scatter`): 0, or the number of `factors` in turn; the next one, the least, and the last step without
    scatter: i8
    scatter_next: i8
    scatter_least: f8
    scatter_base: f8
    factors: f8s


@inline
def _even(c):
    """Steps of a kind all last as long."""
    c.scatter = c.scatter_next = 0
    c.scatter_least = 1.0
    c.scatter_base = 0.0
    c.factors = np.zeros(0)


@kernel
def new_linear_cost(base, index, coef):
    """A synthetic cost: ``base[m] + Σ coef[m, j]·feature[index[j]]``, summed in order; zero for an empty batch."""
    c = new(StepCost)
    c.kind = 0
    c.lin_base = base.copy()
    c.lin_index = index.copy()
    c.lin_coef = coef.copy()
    c.data = np.zeros(0)
    c.layers = c.layers_prompt = c.n_layers = c.head = c.n_head = 0
    c.stage_share = np.ones(1)
    _even(c)
    return c


@kernel
def new_table_cost(data, layers, layers_prompt, n_layers, head, n_head, stage_share):
    """A cost of tables, see `StepCost`."""
    c = new(StepCost)
    c.kind = 1
    c.lin_base = np.zeros(2)
    c.lin_index = np.zeros(0, np.int64)
    c.lin_coef = np.zeros((2, 0))
    c.data = data
    c.layers = layers
    c.layers_prompt = layers_prompt
    c.n_layers = n_layers
    c.head = head
    c.n_head = n_head
    c.stage_share = stage_share
    _even(c)
    return c


# Constants that are seconds of the device.
_DEVICE = (
    DECODE_FLOOR,
    MIXED_ROW,
    DRAFT_TOKEN,
    DRAFT_STEP,
    ENCODER_TOKEN,
    ENCODER_PAIR,
    LORA_STEP,
    LORA_TOKEN,
    LORA_ADAPTER,
    LORA_LOAD,
    BLOCK_COPY,
    DECODE_ROW_STATE,
    PREFILL_TOKEN_STATE,
)


def shared_data(c, processes):
    """``data`` of a cost of tables for a device that is shared evenly by so many processes: what it does takes as many times as long."""
    out = cost_data(c) * processes
    out[:DECODE] = cost_data(c)[:DECODE]
    for index in _DEVICE:
        out[index] *= processes
    rows = out[LAYERS:].reshape(-1, _COLUMNS)
    rows[:, FLOOR] /= processes  # the host launches kernels for one process whatever the others do
    return out


@kernel
def cost_data(c):
    """The tables of a cost."""
    return c.data


@kernel
def copy_cost(c):
    """A cost of its own, which shares the tables."""
    d = new(StepCost)
    d.kind = c.kind
    d.lin_base = c.lin_base
    d.lin_index = c.lin_index
    d.lin_coef = c.lin_coef
    d.data = c.data
    d.layers = c.layers
    d.layers_prompt = c.layers_prompt
    d.n_layers = c.n_layers
    d.head = c.head
    d.n_head = c.n_head
    d.stage_share = c.stage_share
    d.scatter = c.scatter
    d.scatter_next = c.scatter_next
    d.scatter_least = c.scatter_least
    d.scatter_base = c.scatter_base
    d.factors = c.factors
    return d


def grid_point(i):
    """Size at grid index ``i``: 1, 1.25, 1.5, 1.75, 2, 2.5, …"""
    return 2.0 ** (i // PER_OCTAVE) * (1.0 + i % PER_OCTAVE / PER_OCTAVE)


@inline
def look_up(d, o, x, y):
    """Surface at offset ``o``, bilinear in both sizes; sizes below 1 count as 1, beyond the table the last cell goes on."""
    m, e = frexp(max(x, 1.0))
    u = PER_OCTAVE * (2.0 * m - 1.0) + PER_OCTAVE * (e - 1)
    i = int(u)
    if i > ROWS_GRID - 2:
        i = ROWS_GRID - 2
        u = PER_OCTAVE * (x / 2.0 ** (i // PER_OCTAVE) - 1.0) + (i - i % PER_OCTAVE)
    u -= i
    m, e = frexp(max(y, 1.0))
    v = PER_OCTAVE * (2.0 * m - 1.0) + PER_OCTAVE * (e - 1)
    j = int(v)
    if j > CONTEXT_GRID - 2:
        j = CONTEXT_GRID - 2
        v = PER_OCTAVE * (y / 2.0 ** (j // PER_OCTAVE) - 1.0) + (j - j % PER_OCTAVE)
    v -= j
    at = o + i * CONTEXT_GRID + j
    a = d[at] + v * (d[at + 1] - d[at])
    at += CONTEXT_GRID
    b = d[at] + v * (d[at + 1] - d[at])
    return a + u * (b - a)


@inline
def device_time(c, feat, parts):
    """Device seconds of a step with these sums, added to ``parts`` by what they are spent on; to launch its kernels one by one; of the host."""
    tokens = feat[TOKENS]
    prefill_rows = feat[PREFILL_ROWS]
    if c.kind == 0:
        m = 1 if prefill_rows > 0.0 else 0
        t = c.lin_base[m]
        for j in range(c.lin_index.size):
            t += c.lin_coef[m, j] * feat[c.lin_index[j]]
        parts[PART_OTHER] += t
        return t, 0.0, 0.0

    k = c.data
    # layers without attention: a row by token count; beyond the table the slope of its second half
    first = c.layers_prompt if prefill_rows > 0.0 else c.layers
    n = c.n_layers
    i = min(int(tokens), n)
    at = first + _COLUMNS * i
    compute, memory, comms, other, floor = k[at], k[at + 1], k[at + 2], k[at + 3], k[at + 4]
    if tokens > n:
        at = first + _COLUMNS * (n // 2)
        end = compute + memory + comms + other
        scale = 1.0 + (end - (k[at] + k[at + 1] + k[at + 2] + k[at + 3])) / (n - n // 2) * (tokens - n) / end
        compute, memory, comms, other = compute * scale, memory * scale, comms * scale, other * scale
    # output head of the sampled rows
    sampled = feat[SAMPLED]
    i = min(int(sampled), c.n_head)
    at = c.head + _COLUMNS * i
    scale = sampled / i if sampled > i > 0 else 1.0
    compute += k[at] * scale
    memory += k[at + 1] * scale
    comms += k[at + 2] * scale
    other += k[at + 3] * scale

    attend_prefill = 0.0
    if prefill_rows > 0.0:
        # equivalent length: as many prompts of it, nothing cached, do the same work
        work = feat[PREFILL_WORK]
        attend_prefill = look_up(k, PREFILL, prefill_rows, (2.0 * work / prefill_rows) ** 0.5) if k[FULL_SHARE] > 0.0 else 0.0
        if k[WINDOW_SHARE] > 0.0:
            new_tokens = feat[PREFILL_TOKENS] / prefill_rows
            start = max(work / feat[PREFILL_TOKENS] - 0.5 * new_tokens, 0.0)  # tokens before the chunk
            ramp = min(max(k[WINDOW] - start, 0.0), new_tokens)  # tokens of the chunk whose window is not full yet
            mean_work = ramp * (start + 0.5 * ramp) + (new_tokens - ramp) * k[WINDOW]
            attend_prefill += look_up(k, PREFILL_OF_WINDOW, prefill_rows, (2.0 * mean_work) ** 0.5)
        attend_prefill += k[PREFILL_TOKEN_STATE] * feat[PREFILL_TOKENS]
    attend_decode = 0.0
    rows = feat[DECODE_ROWS]
    if rows > 0.0:
        context = feat[DECODE_CTX] / rows
        if k[FULL_SHARE] > 0.0:
            attend_decode = look_up(k, DECODE, rows, context)
        if k[WINDOW_SHARE] > 0.0:
            attend_decode += look_up(k, DECODE_OF_WINDOW, rows, min(context, k[WINDOW]))
        if prefill_rows > 0.0 and k[SPLIT_PREFILL] == 0.0:
            # one kernel for both: the decode rows run at prefill tiling, the launch counts once
            attend_decode = max(attend_decode - k[DECODE_FLOOR], 0.0) * k[MIXED_FACTOR] + k[MIXED_ROW] * rows
        attend_decode *= 1.0 + k[CONTEXT_TOKEN] * (feat[DECODE_TOKENS] / rows - 1.0)
        attend_decode += k[DECODE_ROW_STATE] * rows

    other += k[ENCODER_TOKEN] * feat[ENCODER_TOKENS] + k[ENCODER_PAIR] * feat[ENCODER_WORK] + k[BLOCK_COPY] * feat[COPIED_BLOCKS]
    if feat[DRAFT_TOKENS] > 0.0:
        other += k[DRAFT_STEP] + k[DRAFT_TOKEN] * feat[DRAFT_TOKENS]
    if feat[ADAPTERS] > 0.0:
        other += k[LORA_STEP] + k[LORA_ADAPTER] * feat[ADAPTERS] + k[LORA_TOKEN] * feat[LORA_TOKENS]
        other += k[LORA_LOAD] * feat[LORA_LOADS] + k[LORA_READ] * feat[LORA_READS]

    device = compute + memory + comms + other + attend_prefill + attend_decode
    host = k[HOST_STEP] + k[HOST_ROW] * (rows + prefill_rows) + k[HOST_PREFILL_ROW] * prefill_rows + k[HOST_TOKEN] * tokens
    parts[PART_LINEAR_COMPUTE] += compute
    parts[PART_LINEAR_MEMORY] += memory
    parts[PART_COMMUNICATION] += comms
    parts[PART_ATTENTION_PREFILL] += attend_prefill
    parts[PART_ATTENTION_DECODE] += attend_decode
    parts[PART_OTHER] += other
    return device, floor, host


@inline
def wall_time(c, device, floor, host):
    """What the three together last."""
    if c.kind == 0:
        return device
    k = c.data
    # kernels launched one by one: short ones wait for their launch, long ones hide the next; between the two bounds a smooth maximum
    if k[HOST_OVERLAP] == HOST_AHEAD:  # the host's own work is one more launch
        floor += host
        host = 0.0
    total = sqrt(sqrt(sqrt(device**8 + floor**8))) if floor > 0.0 else device
    return max(total, host) + k[HOST_GAP] if k[HOST_OVERLAP] > 0.0 else total + host


@inline
def scattered(c, total):
    """A step as long as its turn says. The n-th step of an engine has the n-th factor whether it is taken alone or with others in one stroke."""
    if c.scatter > 0:
        c.scatter_base = total
        total *= c.factors[c.scatter_next]
        c.scatter_next = c.scatter_next + 1 if c.scatter_next + 1 < c.scatter else 0
    return total


@inline
def not_taken(c):
    """The step whose time was asked for last is not taken now: its factor waits for it."""
    if c.scatter > 0:
        c.scatter_next = c.scatter_next - 1 if c.scatter_next > 0 else c.scatter - 1


@inline
def step_time(c: StepCost, feat: f8s, parts: f8s) -> float:
    """Seconds of a step with these sums; adds what they were spent on to ``parts``."""
    if feat[TOKENS] == 0.0:
        return 0.0
    device, floor, host = device_time(c, feat, parts)
    total = scattered(c, wall_time(c, device, floor, host))
    parts[PART_HOST] += total - device
    return total


@inline
def stage_time(c, feat, total, stage):
    """Seconds of pipeline ``stage`` of a step that takes ``total``: layers by share, the output head on the last stage (``kind`` 1)."""
    i = min(int(feat[SAMPLED]), c.n_head)
    at = c.head + _COLUMNS * i
    k = c.data
    head = k[at] + k[at + 1] + k[at + 2] + k[at + 3]
    t = (total - head) * c.stage_share[stage]
    return t + head if stage == c.stage_share.size - 1 else t
