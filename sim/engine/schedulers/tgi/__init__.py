"""Hugging Face Text Generation Inference, router v3 and v2, to the step.

Modelled, from text-generation-inference 3.3 (db931fcf):

* Admission (``router/src/infer/mod.rs``, ``router/src/validation.rs``): ``max_concurrent_requests`` permits, held from arrival to the
  end of the stream, else 429; 422 for prompts or totals that are too long; at most 1,024 new tokens per leg, after which the request
  goes to the tail of the queue with what it generated as part of its prompt.
* The queue (``backends/v3/src/queue.rs``, ``backends/v2/src/queue.rs``): first in, first out; every request reserves all its blocks, so
  nothing is ever preempted. An entry that is put back after its blocks were found leaves its prompt in the prefix cache although it was
  never computed, and hits it at the next attempt (``phantom_prefix``; the real server then answers from empty cache lines).
* The batching task (``backends/v3/src/backend.rs``): with chunking, newcomers join the running rows in one forward, and a decode always
  follows a prefill; without, running rows pause for a prefill when ``waiting_served_ratio`` or ``max_waiting_tokens`` says so.
* Block allocators (``block_allocator.rs``, ``radix.rs``): see `sim.engine.kv.tgi_blocks` and `sim.engine.kv.tgi_trie`.
* The model server (``flash_causal_lm.py``): next chunks from the newest row to the oldest, filter, concatenate; padded models.
* Launcher defaults (``launcher/src/main.rs``): attention kernels, prefix caching, chunking, ``max_batch_prefill_tokens``.

Speculation guesses ``speculate`` tokens per row and step; how many are right is drawn with ``acceptance``. Not modelled: see
`Tgi.not_modelled`.
"""

from sim.engine.schedulers.tgi import batching as _batching  # noqa: F401 - attaches the compiled functions
from sim.engine.schedulers.tgi.engine import Tgi
from sim.engine.schedulers.tgi.params import TgiParams

__all__ = ["Tgi", "TgiParams"]
