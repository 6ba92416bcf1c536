"""The slow twin of `step.step_time`: the same cost from the same tables in plain NumPy, written for reading rather than for speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sim import ledger
from sim.cost import features as f
from sim.cost import step as s
from sim.cost.tables import Tables

if TYPE_CHECKING:
    from sim.cost.residual import Floats

_ROWS = np.array([s.grid_point(i) for i in range(s.ROWS_GRID)])
_CONTEXT = np.array([s.grid_point(i) for i in range(s.CONTEXT_GRID)])


def plain_step_time(tables: Tables, feat: Floats) -> tuple[float, list[float]]:
    """Seconds of a step with these sums, and the seconds of each part in the order of `sim.ledger.PARTS`."""
    if float(feat[f.TOKENS]) == 0:
        return 0.0, [0.0] * ledger.N_PARTS
    device, floor, host, parts = _device(tables, feat)
    total = _wall(tables, device, floor, host)
    parts[ledger.PART_HOST] = total - device
    return total, parts


def plain_together_time(
    tables: Tables, padded: Floats, plain: Floats, graph_top: tuple[int, int], feats: Floats
) -> tuple[float, list[list[float]]]:
    """The slow twin of `shared.together_time`; ``graph_top``: most tokens of a graph for decode steps, for steps with a prompt."""
    most, mean = float(feats[:, f.TOKENS].max()), float(feats[:, f.TOKENS].mean())
    graphs = most <= graph_top[1 if feats[:, f.PREFILL_ROWS].any() else 0]
    own = []
    for feat in feats:
        seen = feat.copy()
        seen[f.TOKENS] = most if graphs else feat[f.TOKENS]
        own.append(_device(tables, seen))
    slowest = max(d for d, _, _, _ in own)
    table, tokens = (padded, most) if graphs else (plain, mean)
    grid = np.arange(len(table))
    experts = [float(np.interp(tokens, grid, table[:, j])) for j in (s.COMPUTE, s.MEMORY, s.COMMS, s.SMALL)]
    device = slowest + sum(experts)
    total = _wall(tables, device, max(x for _, x, _, _ in own), max(h for _, _, h, _ in own))
    for mine, _, _, parts in own:
        parts[ledger.PART_LINEAR_COMPUTE] += experts[0]
        parts[ledger.PART_LINEAR_MEMORY] += experts[1]
        parts[ledger.PART_COMMUNICATION] += experts[2] + slowest - mine
        parts[ledger.PART_OTHER] += experts[3]
        parts[ledger.PART_HOST] = total - device
    return total, [parts for _, _, _, parts in own]


def _wall(tables: Tables, device: float, floor: float, host: float) -> float:
    k = tables.constants
    if k[s.HOST_OVERLAP] == s.HOST_AHEAD:
        floor, host = floor + host, 0.0
    launched = (device**8 + floor**8) ** (1 / 8)
    return float(max(launched, host) + k[s.HOST_GAP] if k[s.HOST_OVERLAP] else launched + host)


def _device(tables: Tables, feat: Floats) -> tuple[float, float, float, list[float]]:
    parts = [0.0] * ledger.N_PARTS
    tokens, prompts, rows = float(feat[f.TOKENS]), float(feat[f.PREFILL_ROWS]), float(feat[f.DECODE_ROWS])
    k = tables.constants
    table = tables.layers_prompt if prompts else tables.layers
    columns = _layers(table, tokens) + _head(tables.head, float(feat[f.SAMPLED]))
    prefill = _prefill(tables, feat) if prompts else 0.0
    decode = _decode(tables, feat) if rows else 0.0
    other = columns[s.SMALL] + k[s.ENCODER_TOKEN] * feat[f.ENCODER_TOKENS] + k[s.ENCODER_PAIR] * feat[f.ENCODER_WORK]
    other += k[s.BLOCK_COPY] * feat[f.COPIED_BLOCKS]
    if feat[f.DRAFT_TOKENS]:
        other += k[s.DRAFT_STEP] + k[s.DRAFT_TOKEN] * feat[f.DRAFT_TOKENS]
    if feat[f.ADAPTERS]:
        other += k[s.LORA_STEP] + k[s.LORA_ADAPTER] * feat[f.ADAPTERS] + k[s.LORA_TOKEN] * feat[f.LORA_TOKENS]
        other += k[s.LORA_LOAD] * feat[f.LORA_LOADS] + k[s.LORA_READ] * feat[f.LORA_READS]
    device = columns[s.COMPUTE] + columns[s.MEMORY] + columns[s.COMMS] + other + prefill + decode
    host = k[s.HOST_STEP] + k[s.HOST_ROW] * (rows + prompts) + k[s.HOST_PREFILL_ROW] * prompts + k[s.HOST_TOKEN] * tokens
    floor = table[min(int(tokens), len(table) - 1), s.FLOOR]
    parts[ledger.PART_LINEAR_COMPUTE] = columns[s.COMPUTE]
    parts[ledger.PART_LINEAR_MEMORY] = columns[s.MEMORY]
    parts[ledger.PART_COMMUNICATION] = columns[s.COMMS]
    parts[ledger.PART_ATTENTION_PREFILL] = prefill
    parts[ledger.PART_ATTENTION_DECODE] = decode
    parts[ledger.PART_OTHER] = other
    return float(device), float(floor), float(host), [float(p) for p in parts]


def _layers(table: Floats, tokens: float) -> Floats:
    last = len(table) - 1
    if tokens <= last:
        found: Floats = table[int(tokens), :4]
        return found
    half = last // 2
    slope = (table[last, :4].sum() - table[half, :4].sum()) / (last - half)
    beyond: Floats = table[last, :4] * (1.0 + slope * (tokens - last) / table[last, :4].sum())
    return beyond


def _head(table: Floats, sampled: float) -> Floats:
    last = len(table) - 1
    return table[int(sampled), :4] if sampled <= last else table[last, :4] * (sampled / last)


def _prefill(tables: Tables, feat: Floats) -> float:
    k = tables.constants
    prompts, work, tokens = feat[f.PREFILL_ROWS], feat[f.PREFILL_WORK], feat[f.PREFILL_TOKENS]
    t = k[s.PREFILL_TOKEN_STATE] * tokens
    if k[s.FULL_SHARE]:
        t += _surface(tables.prefill, prompts, np.sqrt(2.0 * work / prompts))
    if k[s.WINDOW_SHARE]:
        chunk = tokens / prompts
        start = max(work / tokens - chunk / 2.0, 0.0)
        growing = np.clip(k[s.WINDOW] - start, 0.0, chunk)
        inside = growing * (start + growing / 2.0) + (chunk - growing) * k[s.WINDOW]
        t += _surface(tables.prefill_window, prompts, np.sqrt(2.0 * inside))
    return float(t)


def _decode(tables: Tables, feat: Floats) -> float:
    k = tables.constants
    rows = feat[f.DECODE_ROWS]
    context = feat[f.DECODE_CTX] / rows
    t = _surface(tables.decode, rows, context) if k[s.FULL_SHARE] else 0.0
    if k[s.WINDOW_SHARE]:
        t += _surface(tables.decode_window, rows, min(context, k[s.WINDOW]))
    if feat[f.PREFILL_ROWS] and not k[s.SPLIT_PREFILL]:
        t = max(t - k[s.DECODE_FLOOR], 0.0) * k[s.MIXED_FACTOR] + k[s.MIXED_ROW] * rows
    t *= 1.0 + k[s.CONTEXT_TOKEN] * (feat[f.DECODE_TOKENS] / rows - 1.0)
    return float(t + k[s.DECODE_ROW_STATE] * rows)


def _surface(table: Floats, x: float, y: float) -> float:
    """Bilinear between the grid points; the last cell goes on beyond the end."""
    x, y = max(x, 1.0), max(y, 1.0)
    i = min(int(np.searchsorted(_ROWS, x, side="right")) - 1, len(_ROWS) - 2)
    j = min(int(np.searchsorted(_CONTEXT, y, side="right")) - 1, len(_CONTEXT) - 2)
    u = (x - _ROWS[i]) / (_ROWS[i + 1] - _ROWS[i])
    v = (y - _CONTEXT[j]) / (_CONTEXT[j + 1] - _CONTEXT[j])
    low = table[i, j] * (1 - v) + table[i, j + 1] * v
    high = table[i + 1, j] * (1 - v) + table[i + 1, j + 1] * v
    return float(low * (1 - u) + high * u)
