"""What a step's duration depends on: a vector of sums over the batch, filled while the scheduler builds it.

A cost that needs only sums makes a step O(1) when nothing but the contexts changes. All entries are counts of tokens or rows.
"""

from __future__ import annotations

from typing import Final

TOKENS: Final = 0  # new tokens in the forward pass, all rows, before padding
DECODE_ROWS: Final = 1  # rows that continue after their prompt
DECODE_TOKENS: Final = 2  # new tokens of those rows (= rows without speculation, rows·(1+K) with it)
DECODE_CTX: Final = 3  # Σ over decode rows of the tokens attended to (context after this step's first token)
PREFILL_ROWS: Final = 4  # rows that compute prompt tokens
PREFILL_TOKENS: Final = 5  # their new tokens
PREFILL_WORK: Final = 6  # Σ c·(p + c/2): c new tokens over p tokens already in the cache
PREFILL_CTX: Final = 7  # Σ (p + c): keys and values read
SAMPLED: Final = 8  # rows whose last position is sampled
ROWS: Final = 9  # rows in the batch (= DECODE_ROWS + PREFILL_ROWS)
DRAFT_TOKENS: Final = 10  # tokens proposed by a draft model for the next step
ENCODER_TOKENS: Final = 11  # multimodal encoder tokens
LORA_TOKENS: Final = 12  # new tokens of rows that use an adapter
COPIED_BLOCKS: Final = 13  # KV blocks moved between device and host before the step
LARGEST_CTX: Final = 14  # longest context in the batch (0 where the scheduler does not track it)
SPARE: Final = 15
ADAPTERS: Final = 16  # different adapters in the batch
LORA_LOADS: Final = 17  # adapters copied from host memory to the device before the step
LORA_READS: Final = 18  # adapters read from disk before the step
ENCODER_WORK: Final = 19  # Σ over encoder tokens of the tokens of their image
N_FEATURES: Final = 20
