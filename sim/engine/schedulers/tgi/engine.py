"""The registered class: from settings to the state of one replica."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

import numpy as np

from sim.cost.drafts import acceptance, estimate_note
from sim.cost.extras import Extras
from sim.cost.memory_rules import TgiRule
from sim.engine.contract import Scheduler, Site
from sim.engine.kv.tgi_blocks import TgiBlocks
from sim.engine.outline import addresses
from sim.engine.releases import older_host
from sim.engine.schedulers.tgi.params import TgiParams, resolve_params
from sim.engine.schedulers.tgi.state import NONE, TgiSettings, TgiState, new_tgi_state
from sim.errors import ConfigError
from sim.jit import by_name
from sim.registry import register
from sim.streams import stream

if TYPE_CHECKING:
    from sim.cost.step import StepCost
    from sim.engine.recorder import Recorder
    from sim.engine.seam import I8
    from sim.engine.state import EngineState

LEG = 1024
"""Tokens generated before a request is queued anew (router/src/infer/mod.rs)."""
_DRAWS = 8191
_MOST = 2**30
_NO_BLOCKS = frozenset({"allocate", "release"})


@register("engine")
class Tgi(Scheduler[TgiParams]):
    """Hugging Face Text Generation Inference; see the package's docstring."""

    name = "tgi"
    context_setting = "max_total_tokens"
    rule = TgiRule
    own_caches = ("sliding", "chunked")
    aliases = ("text-generation-inference",)
    Params = TgiParams
    version = "3.3"
    models = (
        "huggingface/text-generation-inference db931fcf (2026-01): backends/v3/src/{queue,backend,block_allocator,radix}.rs, "
        "backends/v2/src/{queue,backend}.rs, router/src/{infer/mod,validation}.rs, launcher/src/main.rs, "
        "server/text_generation_server/models/flash_causal_lm.py"
    )
    not_modelled: ClassVar[tuple[str, ...]] = (
        "best_of above 1",
        "LoRA adapters (they switch prefix caching off)",
        "prompt log-probabilities (they skip the prefix cache)",
        "Gaudi, Neuron, TensorRT-LLM and llama.cpp back ends",
        "encoder-decoder models; models with recurrent layers (of which TGI has only Mamba)",
        "guesses dropped for one step when batches are joined",
    )

    @classmethod
    def resolve(cls, params: TgiParams, site: Site) -> TgiParams:
        """The launcher's defaults for this model and accelerator. Raises ConfigError, NotModelledError."""
        return resolve_params(params, site)

    @classmethod
    def cache_notes(cls, params: TgiParams, site: Site) -> tuple[str, ...]:
        """Also where the host side is of an older line."""
        return (*super().cache_notes(params, site), *older_host("tgi", params.version, cls.version))

    @classmethod
    def max_context(cls, params: TgiParams, site: Site) -> int:
        """``max_total_tokens`` where it is given, even above the model's length: the launcher does not compare them."""
        return int(params.max_total_tokens or site.spec.max_position)

    @classmethod
    def new_state(
        cls, params: TgiParams, site: Site, blocks: int, replica: int, recorder: Recorder, cost: StepCost
    ) -> EngineState:
        """One server; ``blocks`` KV blocks of ``params.block_size`` tokens, as measured by the warm-up."""
        p, v3, model = params, params.backend == "v3", site.model
        prefill = p.max_batch_prefill_tokens or 4096
        longest = model.max_position if model is not None else _MOST
        tokens = blocks * p.block_size
        if not p.flash:
            tokens = p.max_batch_total_tokens or max(16_000, p.max_total_tokens or 0, prefill)
        most = p.max_total_tokens
        if most is None and (p.chunking or not p.flash):
            most = min(tokens, longest)
        elif most is None:
            # the tokens of the warm-up batch, a full prefill budget
            most = prefill
            if p.max_input_tokens is not None and p.max_batch_size is not None:
                most = min(most, p.max_input_tokens * p.max_batch_size)
        if most > tokens or (p.flash and blocks < 2):
            raise ConfigError(
                "deployment.engine.max_total_tokens",
                most,
                f"not enough memory: the KV cache holds {tokens} tokens",
                f"2..{tokens}",
            )
        told = by_name(
            TgiSettings,
            v3=v3,
            padded=not p.flash,
            chunking=p.chunking,
            caching=bool(p.prefix_caching),
            phantom=p.phantom_prefix,
            track=False,
            block=p.block_size,
            window=model.window if model is not None and not v3 and model.kinds.count("sliding") == model.layers else 0,
            speculate=p.speculate,
            prefill_budget=prefill,
            token_budget=tokens,
            max_waiting=p.max_waiting_tokens,
            max_size=p.max_batch_size or NONE,
            permits=p.max_concurrent_requests,
            max_input=p.max_input_tokens or most - 1,
            max_total=most,
            leg=LEG,
            rows=p.max_concurrent_requests,
            ratio=p.waiting_served_ratio,
        )
        draws = accepted(cls._right(p), int(site.extra.get("seed", 0)), replica)
        return new_tgi_state(
            replica,
            recorder,
            cost,
            addresses(TgiState),
            addresses(TgiBlocks, frozenset() if v3 and p.flash else _NO_BLOCKS),
            told,
            draws,
        )

    @staticmethod
    def _right(p: TgiParams) -> tuple[float, ...]:
        """Probability that the guess at each position is right, given those before it."""
        return acceptance(p.speculator, p.speculate) if p.acceptance is None else (p.acceptance,) * p.speculate

    @classmethod
    def extras(cls, params: TgiParams, site: Site) -> Extras | None:
        """Guesses: a look-up, or a pass through each Medusa head."""
        if params.speculate == 0:
            return None
        notes = (estimate_note(params.speculator, cls._right(params)),) if params.acceptance is None else ()
        return Extras(params.speculator, params.speculate, notes=notes)

    @classmethod
    def max_batch_tokens(cls, params: TgiParams, site: Site) -> int:
        """A full prefill budget, rounded up to a block, beside every other permit's decode row."""
        block, rows = params.block_size, params.max_concurrent_requests
        prefill = params.max_batch_prefill_tokens or 4096
        return -(-prefill // block) * block + rows * (1 + params.speculate)


def accepted(probabilities: tuple[float, ...], seed: int, replica: int) -> I8:
    """Draws of the tokens a decode step yields: one and the guesses up to the first wrong one. i8[draws]."""
    if not probabilities:
        return np.ones(1, np.int64)
    right = stream(seed, f"tgi.acceptance.{replica}").random((_DRAWS, len(probabilities))) < np.array(probabilities)
    return 1 + np.cumprod(right, axis=1).sum(axis=1).astype(np.int64)
