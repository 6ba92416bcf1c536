"""vllm-ascend: vLLM V1 with other defaults and graph sizes, and schedulers of its own (vllm-project/vllm-ascend 182b75ea, vLLM 0.24).

**What differs from vLLM** (modules under ``vllm_ascend/``): blocks of 128 tokens; ``gpu_memory_utilization`` 0.9; graphs (ACLGraph) up to
min(``max_num_seqs`` × (1 + drafts), 512) rows instead of twice as many (`platform.py`); host overheads (`profiles/engines/vllm-ascend.yaml`).

**Schedulers**, each in a file of its own:

- ``additional_config.ascend_scheduler_config.enabled`` (to 0.11): batches of whole prompts or of decodes, `prefill_first`. Chunked prefill
  and prefix caching are off unless asked for; with ``enable_chunked_prefill`` in that section vLLM's own scheduler decides.
- ``additional_config.scheduler_config.short_request_first_config``: three lanes in the waiting queue, `short_first`.
- ``enable_balance_scheduling`` in the same section: ranks that step together do not admit while the batch of any is full (`sim.engine.lockstep`).

**Versions.** ``version`` is vllm-ascend's own, which counts as vLLM's. 0.9 forces the AscendScheduler upon models without MLA (pull request
2659 on its branch, August 2025). 0.11.0 left it again before its release (4094, after 2894 had brought it to the main branch), so 0.10 and 0.11
begin with vLLM's scheduler; candidates of both (0.10.2rc1, 0.11.0rc0) need ``enabled: true``. To 0.9.1 V1 was opt-in (``VLLM_USE_V1=1``, release
notes of 0.9.0rc2): 0.8 is modelled with it on.

**Deviations.** Where no prompt in the queue passes the watermark while nothing runs, the AscendScheduler would ask for ever; here the request
at the head ends.

**Not modelled**, and refused: recompute on decode nodes, batch jobs, DyntraLB, profiling chunk; the AscendScheduler with
speculation, pipeline stages or a KV connector, short requests first with adapters or a KV connector.
"""

from sim.engine.schedulers.vllm_ascend.engine import VllmAscend
from sim.engine.schedulers.vllm_ascend.params import VllmAscendParams

__all__ = ["VllmAscend", "VllmAscendParams"]
