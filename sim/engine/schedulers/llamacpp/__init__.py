"""The llama.cpp server (``llama-server``), to the step.

Modelled, from llama.cpp 0c1e570 (ggml 0.25.3):

* Slots (``tools/server/server-context.cpp`` ``get_available_slot``): a task goes to the idle slot that shares the longest prefix with its
  prompt, above ``slot_prompt_similarity``, else to the one unused for longest; without an idle slot it is deferred, without limit. Each
  release moves the oldest deferred task to the *front* of the queue, so of several released in one step the newest is served first.
* Batches (``update_slots``): one token per generating slot, then prompts in slot order up to ``n_batch``. Slots with another LoRA adapter
  than the first of the batch wait.
* Contexts: context shift (``ctx_shift``), or the end of the request; prompts that fill the context are refused (400).
* KV memory: split into equal slots or unified; a full unified cache purges idle slots, then fails every request being served.
* Sliding windows (gemma-2 and -3, gpt-oss; ``swa_full`` off): a cache of the window and a micro-batch, reuse only from there or from
  checkpoints, prompts cut for these, no context shift: see `sim.engine.schedulers.llamacpp.checkpoints`.
* The prompt cache in RAM (``cache_ram_mib``, ``cache_idle_slots``): see `sim.engine.schedulers.llamacpp.prompt_cache`.
* Auto-fit (``common/fit.cpp``): the context shrinks until everything fits with a margin of 1 GiB; layers (or experts) that do not fit
  stay on the CPU, ``host``: see `sim.engine.schedulers.llamacpp.fit` for where, `sim.cost.ggml` for the time. Several cards
  (``deployment.tp``) hold their layers one after the other (``--split-mode layer``).

The micro-batches of ``n_ubatch`` tokens that a batch is computed in are one step here. Not modelled: see `LlamaCpp.not_modelled`.
"""

from sim.engine.schedulers.llamacpp import server as _server  # noqa: F401 - attaches the compiled functions
from sim.engine.schedulers.llamacpp.engine import LlamaCpp
from sim.engine.schedulers.llamacpp.params import LlamaCppParams

__all__ = ["LlamaCpp", "LlamaCppParams"]
