"""Settings of TGI, spelled as its launcher spells them, and what it makes of those left open."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sim.engine.contract import EngineParams, Site
from sim.engine.releases import check_release
from sim.engine.schedulers.tgi.prefill import DEFAULT, card_of, family, prefill_budget
from sim.errors import ConfigError, NotModelledError

if TYPE_CHECKING:
    from sim.hardware.accelerator import Accelerator
    from sim.model.spec import ModelSpec

NEWEST = "3.3"
Attention = Literal["flashinfer", "flashdecoding", "paged"]
BLOCK_SIZE: dict[str, int] = {"flashinfer": 1, "flashdecoding": 256, "paged": 16}
_NO_CHUNKING = ("gemma3", "idefics", "qwen2vl", "qwen25vl", "mllama")
_FIELD = "deployment.engine"


class TgiParams(EngineParams):
    """Launcher arguments and environment. ``None``: the launcher's own choice for this model and accelerator."""

    version: str = Field(
        NEWEST,
        pattern=r"^\d+\.\d+(\.\d+)?$",
        description="Release whose host overheads apply, 0.8 to 3.3; decisions are those of 3.3 (``backend`` v2: of 2.x).",
    )
    backend: Literal["v3", "v2"] = Field("v3", description="Router generation: v3 (chunking, prefix cache) or the older v2.")
    max_concurrent_requests: int = Field(128, ge=1, le=1_000_000, description="Requests in the server; one more is answered 429.")
    waiting_served_ratio: float = Field(
        0.3, ge=0, le=1e6, description="Without chunking: waiting requests per running one that pause the running ones."
    )
    max_waiting_tokens: int = Field(20, ge=0, description="Without chunking: decode steps after which any waiting request does.")
    max_batch_size: int | None = Field(None, ge=1, description="Most requests in a batch; ignored while chunking, as upstream.")
    max_batch_prefill_tokens: int | None = Field(
        None, ge=1, description="Prompt tokens of one forward; by default what the card computes in a second, at most what fits."
    )
    max_batch_total_tokens: int | None = Field(
        None,
        ge=1,
        description="KV tokens; models with flash attention ignore it and measure (pin `deployment.kv_blocks` instead).",
    )
    max_input_tokens: int | None = Field(None, ge=1, description="Longest prompt; longer ones are answered 422.")
    max_total_tokens: int | None = Field(None, ge=2, description="Longest prompt plus (one leg of) output.")
    cuda_memory_fraction: float = Field(1.0, gt=0, le=1, description="Share of the GPU memory that may be used.")
    attention: Attention | None = Field(
        None, description="Attention kernels (environment ATTENTION); sets the block size: 1, 256, 16."
    )
    prefix_caching: bool | None = Field(
        None, description="Keep finished prompts for later requests (environment PREFIX_CACHING)."
    )
    prefill_chunking: bool = Field(True, description="Split prompts that exceed the budget (environment PREFILL_CHUNKING).")
    flash: bool = Field(
        True, description="Whether the model class has flash attention; without it rows are padded to the longest."
    )
    speculate: int = Field(
        0, ge=0, le=64, description="Tokens guessed per step (Medusa heads or n-grams); switches chunking off."
    )
    speculator: Literal["ngram", "medusa"] = Field(
        "ngram", description="What guesses: n-grams of the prompt, or Medusa heads, where the model's repository has them."
    )
    acceptance: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Probability that a guessed token is right, given those before it; by default estimated by speculator "
        "(no setting of TGI).",
    )
    phantom_prefix: bool = Field(
        True,
        description="As upstream: an entry that had to be put back leaves its prompt in the prefix cache although nobody computed it, "
        "and skips its prefill at the next attempt. False: only computed prompts are cached.",
    )

    @property
    def block_size(self) -> int:
        """Tokens per KV block."""
        return BLOCK_SIZE[self.attention or "flashinfer"]

    @property
    def chunking(self) -> bool:
        """Whether prompts are split; only meaningful once resolved."""
        flash_blocks = self.attention in ("flashinfer", "flashdecoding")
        return self.backend == "v3" and self.flash and self.prefill_chunking and self.speculate == 0 and flash_blocks


def resolve_params(p: TgiParams, site: Site) -> TgiParams:
    """Launcher ``resolve_attention`` and ``main``, and the model server's ``Model.__init__``."""
    _check_site(site)
    _check(p)
    _check_model(site.model)
    model, accelerator = site.model, site.accelerator
    changes: dict[str, object] = _attention(p, model, accelerator)
    if model is not None and family(model).startswith(_NO_CHUNKING):
        changes["prefill_chunking"] = False
    if p.max_batch_prefill_tokens is None:
        changes["max_batch_prefill_tokens"] = DEFAULT
        if model is not None and accelerator is not None:
            budget = prefill_budget(model, card_of(accelerator), accelerator.memory_bytes, site.tp, p.cuda_memory_fraction)
            changes["max_batch_prefill_tokens"] = budget.default_max_batch_prefill_tokens
    if p.flash:
        changes["max_batch_total_tokens"] = None
    return p.model_copy(update=changes)


def _attention(p: TgiParams, model: ModelSpec | None, accelerator: Accelerator | None) -> dict[str, object]:
    attention, caching = p.attention, p.prefix_caching
    if p.backend == "v2" or not p.flash:
        if caching:
            raise ConfigError(f"{_FIELD}.prefix_caching", True, "only v3 with flash attention has a prefix cache", "false")
        caching = False
    if model is not None:
        cuda = accelerator is None or accelerator.vendor == "nvidia"
        capability = float(accelerator.compute_capability or 0) if accelerator is not None else 9.0
        fallback: Attention = "flashdecoding" if cuda and capability >= 8.0 else "paged"
        if model.vision_params > 0 and caching is None:
            caching = False
        if model.head_dim not in (64, 128, 256):
            attention = attention or fallback
            caching = False if caching is None else caching
        elif family(model).startswith(("falcon", "deepseekv2")):
            attention = attention or fallback
        if not cuda:
            attention = attention or fallback
    attention = attention or "flashinfer"
    if caching is None:
        caching = attention != "paged"
    if caching and attention == "paged":
        raise ConfigError(
            f"{_FIELD}.prefix_caching", True, "paged attention has no prefix cache", "false, or attention flashinfer"
        )
    return {"attention": attention, "prefix_caching": caching}


def _check_site(site: Site) -> None:
    for name in ("pp", "dp", "ep"):
        if getattr(site, name) > 1:
            raise NotModelledError(f"deployment.{name}", getattr(site, name), "TGI shards by tensor parallelism only", "1")
    if site.accelerator is not None and site.accelerator.vendor not in ("nvidia", "amd"):
        vendor = site.accelerator.vendor
        raise NotModelledError(
            "deployment.accelerator", site.accelerator.name, f"TGI on {vendor} is not modelled", "NVIDIA and AMD GPUs"
        )


def _check_model(model: ModelSpec | None) -> None:
    if model is not None and "linear" in model.kinds:
        why = "TGI has no model with recurrent layers but Mamba, whose batches are not modelled"
        raise NotModelledError("model", model.name, why, "a model without them")


def _check(p: TgiParams) -> None:
    check_release("tgi", p.version, NEWEST)
    if p.max_input_tokens is not None and p.max_total_tokens is not None and p.max_input_tokens >= p.max_total_tokens:
        raise ConfigError(
            f"{_FIELD}.max_input_tokens", p.max_input_tokens, "must be below max_total_tokens", f"1..{p.max_total_tokens - 1}"
        )
    if p.max_total_tokens is not None and p.max_batch_total_tokens is not None and p.max_total_tokens > p.max_batch_total_tokens:
        raise ConfigError(
            f"{_FIELD}.max_total_tokens", p.max_total_tokens, "exceeds max_batch_total_tokens", f"2..{p.max_batch_total_tokens}"
        )
    for name, plain in (("acceptance", None), ("speculator", "ngram")):
        if p.speculate == 0 and getattr(p, name) != plain:
            raise ConfigError(f"{_FIELD}.{name}", getattr(p, name), "needs speculate of at least 1")
