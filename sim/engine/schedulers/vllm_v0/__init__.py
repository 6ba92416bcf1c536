"""vLLM V0: the scheduler of releases 0.2 to 0.7, to the step. ``engine: {name: vllm, version: "0.6"}`` is this engine.

**What is modelled** (upstream modules under ``vllm/``)

- Prompts first: a step is a batch of prompts or a token of every running request, never both; nothing is admitted while requests are swapped
  out: `core/scheduler.py: _schedule_default, _schedule_prefills, _schedule_running, _schedule_swapped`.
- Chunked prefill: decodes first, then swapped requests, then prompts with the rest of the token budget; the blocks of the whole prompt are
  taken with its first chunk: `_schedule_chunked_prefill`.
- Block managers v1 and v2 without prefix caching: watermark of 1 % of the blocks at admission and swap-in; a running request wants to see a
  free block whether it needs one or not; who never fits is ignored: `core/block_manager_v1.py`, `core/block_manager_v2.py`,
  `core/block/block_table.py`.
- Preemption from the end of the running list, by recompute or by swapping to host memory: `_preempt`.
- ``scheduler_delay_factor`` (`_passed_delay`), the priority policy (`_schedule_priority_preemption`), the adapter limit, lookahead slots.
- Asynchronous output processing: who ends takes part in one more step, and its blocks are free after that: `engine/llm_engine.py: step`.
- Defaults by version: `engine/arg_utils.py`, `config.py`.

**Versions.** A version without a patch number means the last release of its line. Read in the source of the time: prompts of a batch padded
to the longest and ``max_paddings`` (to 0.3); queues sorted by arrival at each decision (0.2 to 0.4); list order, asynchronous output
processing (0.6 on); finishing prompts first (0.7.3). From pull requests and release notes: 2,048 instead of 512 tokens with chunked prefill
(#10544, 0.6.5), priority policy (#5958, 0.6.2), block manager v2 by default (#8678, 0.6.3). Inferred from dates: sorting ended with 0.5.5
(#7162); chunked prefill by default above 32 K from 0.5.3 (#6666).

**Deviations.** Where upstream's engine dies (no host memory left to swap to) or asks for ever (a swapped request that does not fit above the
watermark while nothing runs), the request fails. A batch that only swaps is merged with the next one. The extra step that upstream skips for a
request at ``max_model_len`` is not skipped, as requests end at that length and not one token later.

**What is not**: prefix caching, multi-step scheduling, speculative decoding, several sequences per request, pipeline parallelism (virtual
engines), concurrent partial prefills, sliding windows in the block manager. Settings for them are refused or do not exist here.
"""

from sim.engine.schedulers.vllm_v0.engine import VllmV0
from sim.engine.schedulers.vllm_v0.params import VllmV0Params

__all__ = ["VllmV0", "VllmV0Params"]
