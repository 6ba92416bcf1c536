# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Images in a batch: what their encoder computes in the step that computes their tokens.

An image is a span of its prompt (`sim.ledger.IMAGE_CONTENT`). Engines run its encoder in front of the step whose chunk reaches it (vLLM
``v1/worker/gpu_model_runner.py: _execute_mm_encoder``, SGLang ``managers/mm_utils.py: embed_mm_inputs``), in the same process, so that the
whole batch waits. Here the work is spread over the tokens of the prompt: a chunk bears its share of it, a prefix found in the cache none, and a prompt
computed again after a preemption none either (vLLM keeps the encoder's outputs as long as there is room).
"""

from __future__ import annotations

import numpy as np

from sim.cost.features import ENCODER_TOKENS, ENCODER_WORK
from sim.jit import kernel
from sim.ledger import IMAGE_CONTENT


@kernel
def count_images(f, rows, slots, tokens, prompt, first_token, span, spans, sp_id, sp_len):
    """Fill the sums ``f`` of a batch that concern images: ``slots`` and new ``tokens`` of its rows; ``span``, ``spans``: where a slot's pieces are."""
    f[ENCODER_TOKENS] = f[ENCODER_WORK] = 0.0
    for i in range(rows):
        slot = slots[i]
        if spans[slot] == 0 or not np.isnan(first_token[slot]):
            continue
        share = min(tokens[i] / prompt[slot], 1.0)
        for j in range(span[slot], span[slot] + spans[slot]):
            if sp_id[j] >= IMAGE_CONTENT:
                size = float(sp_len[j])
                f[ENCODER_TOKENS] += share * size
                f[ENCODER_WORK] += share * size * size
