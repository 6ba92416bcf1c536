"""Ollama, both generations, to the step.

Modelled, from Ollama fb307609 (0.33.0-rc2, "new") and 0.24.0 ("classic"):

* What serves a loaded model. New: llama-server (`sim.engine.schedulers.llamacpp`) with the flags Ollama passes (``startLlamaServer``):
  split KV cache, context shift, ``num_batch`` as both batch sizes. Classic: ollamarunner and llamarunner, see
  `sim.engine.schedulers.ollama.runner`.
* ``OLLAMA_NUM_PARALLEL`` is a semaphore: others wait first in, first out, without limit and without 503.
* Prompts beyond the context are cut (``completionPromptForRequest``): the first ``num_keep`` tokens and the newest.
* Defaults by memory (``routes.go``, ``sched.go``): ``num_ctx`` 4,096, 32,768 or 262,144; ``num_batch`` from 512 to 2,048.
* Layers that do not fit on the card, or not into ``num_gpu``, on the CPU (``host``): as llama.cpp fits them, or (to 0.24) by the classic
  formula; their time is that of `sim.cost.ggml`.
* Decisions about several models: the queue and 503, keep-alive, eviction (`residency`), GPUs and batch size (`placement`), layers on
  GPUs and CPU by the classic formula (`layout`), cache slots and truncation (`context`).
* Pools that name a ``model`` of their own share one accelerator (`sim.fleet.ollama_host`).

Not modelled: see `Ollama.not_modelled`.
"""

from sim.engine.schedulers.llamacpp import server as _server  # noqa: F401 - attaches the compiled functions
from sim.engine.schedulers.ollama.engine import Ollama
from sim.engine.schedulers.ollama.params import OllamaParams

__all__ = ["Ollama", "OllamaParams"]
