"""Huawei MindIE (MindIE-LLM, the engine of MindIE Service), to the step.

Modelled, from Ascend/MindIE-LLM (8b4871ad, 2026-04-23; paths under ``src/``):

* The scheduler thread (``engine/llm_engine.cpp``): one batch at a time; after an empty round it sleeps a millisecond, so an idle server
  looks at its queue on a grid of milliseconds. A finished request keeps its blocks and its place among the running ones until the next
  round of decodes; a round of prompts neither frees nor forgets it.
* Prefill or decode (``scheduler/scheduler.cpp``): ``maxQueueDelayMicroseconds``, 5 % of the blocks reserved for decodes,
  ``supportSelectBatch`` (``stage_policy/tpt_stage_policy.cpp``), least laxity with its learning predictors
  (``stage_policy/latency_stage_policy.cpp``, ``latency_predictor/``), dynamic batch size (``policy/dynamic_batch_size.cpp``).
* Rounds (``policy/fcfs_policy.cpp``): prompts whole and first come first served, recomputed requests last; decodes in turns when more run
  than ``maxBatchSize``; preemption from the back, to host memory up to ``maxPreemptCount`` per round, else recomputation; a new request
  that waited longer than ``maxFirstTokenWaitTime`` has a running one preempted; requests that return from host memory do not count
  against ``maxBatchSize``. Chunked prefill (``templateType`` Mix or the splitfuse plugin).
* Blocks (``block_manager/``): allocation without a watermark; prefix cache by chained hashes of full blocks, shared also within a batch,
  computed from the next round on; eviction by last access (whose clock ticks every 128 s, as the real one's 32-bit seconds do),
  then by distance from the start. See `sim.engine.kv.mindie_blocks`.
* Speculation (mtp, la, memory_decoding plugins): placeholders, look-ahead slots and the admission test that ignores those already held;
  how many guesses are right is drawn from ``acceptance_rate``.
* Roles P and D of a disaggregated deployment (``policy/pdds_policy.cpp``; `sides`): pools with ``role`` prefill and decode. P computes prompts
  at once and keeps a sequence until D has pulled it; D leaves 5 % of its blocks and a token per row free; a request that D would compute again
  goes back to be prefilled. Not modelled: ``kv_trans_timeout``, which no pull here takes.
* Data-parallel ranks (``deployment.dp``) of a mixture of experts (``pre_scheduler.cpp``): they vote on each phase, all run it, idle ones with a
  dummy batch; the front end sends a request to the rank with the fewest.
* Limits of the server: longer prompts than ``maxInputTokenLen`` are refused, generation stops at ``maxIterTimes`` and ``maxSeqLen``; a
  request that waits longer than ``tokenTimeout`` for a token, or than ``e2eTimeout`` for its end, fails.

The guard of ``maxFirstTokenWaitTime`` can starve everybody: with chunked prefill, prompts that do not fit together take each other's blocks
after every chunk and none is ever computed. The rules imply it (a new prompt is put before whoever runs, also before another new one), so it
is modelled; the time-outs end it.

A request that could never be scheduled again (its tokens need more blocks than exist) fails; the real engine stops with an error or lets
it wait for its time-out. Releases before 2.2 were closed source; their settings and defaults agree, their inner rules may differ.
Not modelled: see `Mindie.not_modelled`.
"""

from sim.engine.schedulers.mindie.engine import Mindie
from sim.engine.schedulers.mindie.params import MindieParams, PluginParams

__all__ = ["Mindie", "MindieParams", "PluginParams"]
