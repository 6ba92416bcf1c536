"""What is served, as plain numbers: `ModelSpec`. Everything derived from it is a method here or a line of `inventory`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property
from typing import NamedTuple

from sim.errors import ConfigError
from sim.model import inventory
from sim.model.blocks import Block, uniform_blocks
from sim.model.mlps import Routed
from sim.model.quant import WeightFormat, kv_element_bytes, weight_format
from sim.model.tensors import AttentionKind, Kept


class Images(NamedTuple):
    """The encoder of images: ``params``; ``patches`` that become one token; ``attention``, the widths of its layers with attention over
    the whole image, added up; ``span``: tokens that such attention covers at most (0: all of the image).
    """

    params: int = 0
    patches: float = 1.0
    attention: int = 0
    span: float = 0.0


NO_IMAGES = Images()


class LinearShape(NamedTuple):
    """One GEMM of a layer on one GPU: ``tokens × k`` times ``k × n``.

    ``repeat`` instances in each of ``layers`` layers; ``quantised`` says whether it runs in the format of the weights
    (False: in the 16-bit dtype of the model). ``all_reduce`` is True where an all-reduce over the tensor-parallel group follows.
    ``form``: a number format of its own, where it has one.
    """

    name: str
    n: int
    k: int
    repeat: int
    layers: int
    quantised: bool = True
    all_reduce: bool = False
    form: str = ""


class MoeShape(NamedTuple):
    """The routed experts of one GPU.

    ``experts`` of the model, ``local_experts`` held by this GPU, ``top_k`` chosen per token, each ``hidden × intermediate`` wide
    on this GPU (``intermediate`` is already divided by the tensor-parallel width of the experts), in ``layers`` layers.
    ``shared`` more are computed with them, for every token (0: apart, as linear layers).
    """

    experts: int
    local_experts: int
    top_k: int
    hidden: int
    intermediate: int
    gated: bool
    layers: int
    shared: int = 0


class KvGroup(NamedTuple):
    """Layers of one attention kind: ``window`` tokens are kept per sequence (0: all). Mean bytes of one token in such a layer, one GPU."""

    kind: AttentionKind
    layers: int
    window: int
    bytes_per_token: float


@dataclass(frozen=True)
class ModelSpec:
    """The architecture of a decoder-only model and the number formats it is served in.

    Models whose layers differ carry them in ``own_blocks``; the fields on attention and MLP then describe a typical layer.

    *Units*: counts and element numbers; bytes where a method says so. Zero means "this model has none of it".
    *Source*: the fields of a Hugging Face ``config.json`` (`sim.model.load`).
    """

    name: str
    architecture: str
    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    v_head_dim: int
    intermediate: int
    vocab: int
    max_position: int
    tie_embeddings: bool = False
    gated_mlp: bool = True
    weights: str = "bf16"
    dtype: str = "bf16"  # activations, and weights that stay unquantised
    kv_dtype: str = "bf16"
    state_dtype: str = "fp32"  # of recurrent states
    own_blocks: tuple[Block, ...] = ()  # layer by layer, where the fields below cannot say it
    end_formats: tuple[tuple[str, str], ...] = ()  # (tensor, number format) of embeddings and head, where they are not 16 bits
    kv_wanted: str = ""  # KV dtype the checkpoint asks for and `auto` of some engines follows; empty: it says nothing
    # attention, layer by layer
    attention: tuple[AttentionKind, ...] = ()  # empty: all full
    window: int = 0  # tokens a sliding or chunked layer looks back
    # mixture of experts
    n_experts: int = 0
    top_k: int = 0
    moe_intermediate: int = 0
    n_shared_experts: int = 0
    shared_intermediate: int = 0  # of all shared experts together
    moe_layers: tuple[bool, ...] = ()  # which layers have routed experts; empty: none, or all if n_experts
    # multi-head latent attention (DeepSeek)
    q_lora_rank: int = 0
    kv_lora_rank: int = 0
    qk_nope_head_dim: int = 0
    qk_rope_head_dim: int = 0
    index_heads: int = 0  # sparse-attention indexer (DeepSeek V3.2)
    index_head_dim: int = 0
    index_top_k: int = 0
    # linear attention (gated DeltaNet of Qwen3-Next, Qwen3.5)
    linear_key_heads: int = 0
    linear_value_heads: int = 0
    linear_key_dim: int = 0
    linear_value_dim: int = 0
    linear_conv: int = 0
    attention_gate: bool = False  # the query projection is twice as wide (output gate)
    # small tensors, for exact counts
    learned_positions: int = 0
    embedding_dim: int = 0  # where it differs from hidden (OPT-350m); 0: hidden
    attention_bias: bool = False
    output_bias: bool = False
    mlp_bias: bool = False
    norms_per_layer: int = 2
    norm_bias: bool = False
    sinks: int = 0  # elements of learned attention sinks in a layer
    qk_norm: int = 0  # elements of the query and key norms of a layer
    vision_params: int = 0  # of all encoders
    images: Images = NO_IMAGES
    draft_params: int = 0  # of draft layers in the checkpoint that its published size counts and engines load to draft with only
    other_params: int = 0  # of tensors beside the layers (per-layer embeddings), never quantised
    head_bias: bool = False
    rope_kind: str = ""  # of RoPE scaling
    rope_factor: float = 1.0
    rope_original: int = 0  # context the model was trained for before scaling
    model_max_length: int = 0  # a second length that some configs state
    warnings: tuple[str, ...] = ()
    source: str = ""

    # ---- what kind of layers

    @cached_property
    def blocks(self) -> tuple[Block, ...]:
        """Every layer."""
        return self.own_blocks or uniform_blocks(self)

    @cached_property
    def kinds(self) -> tuple[AttentionKind, ...]:
        """Attention kind of every layer."""
        return tuple(block.kind for block in self.blocks)

    @cached_property
    def experts_in(self) -> tuple[bool, ...]:
        """Which layers have routed experts."""
        if self.own_blocks:
            return tuple(isinstance(block.mlp, Routed) for block in self.own_blocks)
        return self.moe_layers or (self.n_experts > 0,) * self.layers

    @property
    def is_moe(self) -> bool:
        """Whether some layers route tokens to experts."""
        return self.n_experts > 0

    @property
    def is_mla(self) -> bool:
        """Whether keys and values are stored as one compressed vector."""
        return self.kv_lora_rank > 0

    @property
    def is_hybrid(self) -> bool:
        """Whether some layers forget: windows, or states instead of keys and values."""
        return not set(self.kinds) <= {"full", "cross", "none"}

    @property
    def format(self) -> WeightFormat:
        """How the weights are stored and multiplied."""
        return weight_format(self.weights)

    @property
    def kv_element_bytes(self) -> float:
        """Bytes of one element of the KV cache."""
        return kv_element_bytes(self.kv_dtype)

    # ---- parameters and bytes

    def param_count(self) -> int:
        """Parameters of the model, tied embeddings counted once."""
        return inventory.param_count(self)

    def active_param_count(self) -> int:
        """Parameters one token meets: without the experts it is not routed to (input embedding counted in full, as model cards do)."""
        return inventory.active_param_count(self)

    def weight_bytes(self, tp: int = 1, pp: int = 1, ep: int = 1, dp: int = 1, stage: int | None = None) -> float:
        """Bytes of weights on one GPU: of pipeline ``stage``, or of the heaviest stage.

        ``ep`` is the expert-parallel width (1: experts are cut over tp·dp); ``dp`` the number of attention replicas that share the experts.
        """
        return inventory.weight_bytes(self, tp, pp, ep, dp, stage)

    def layer_weight_bytes(self) -> list[tuple[float, float]]:
        """Bytes of weights of every layer: without its routed experts, and of these."""
        return inventory.layer_bytes(self)

    def end_weight_bytes(self) -> tuple[float, float]:
        """Bytes of weights before the first layer and after the last; tied embeddings count on both sides."""
        return inventory.end_bytes(self)

    def part(self, first: int, last: int) -> ModelSpec:
        """The layers ``[first, last)`` as a model of their own, with both ends."""
        if (first, last) == (0, self.layers):
            return self
        kinds, experts = self.attention[first:last], self.experts_in[first:last] if self.n_experts else ()
        own = self.own_blocks[first:last]
        return replace(self, layers=last - first, attention=kinds, moe_layers=experts, own_blocks=own)

    def stages(self, pp: int) -> tuple[tuple[int, int], ...]:
        """Layer range ``[first, last)`` of every pipeline stage. *Source*: vLLM distributed/utils.py get_pp_indices."""
        return inventory.stages(self.layers, pp)

    # ---- KV cache

    def kv_groups(self, tp: int = 1, pp: int = 1) -> tuple[KvGroup, ...]:
        """Layers that keep keys and values, by kind, on one GPU of the fullest stage."""
        return tuple(KvGroup(*g) for g in inventory.kv_groups(self, tp, pp))

    def kv_bytes_per_token(self, tp: int = 1, pp: int = 1) -> float:
        """Bytes one token takes in the KV cache of one GPU while it is inside every window (heaviest stage)."""
        return float(
            round(sum(g.layers * g.bytes_per_token for g in self.kv_groups(tp, pp)), 6)
        )  # of a group: a mean of its layers

    def kv_bytes(self, context: int, tp: int = 1, pp: int = 1) -> float:
        """Bytes one sequence of ``context`` tokens keeps on one GPU: windows forget, linear layers keep a fixed state."""
        kept = sum(
            g.layers * g.bytes_per_token * (min(context, g.window) if g.window else context) for g in self.kv_groups(tp, pp)
        )
        return kept + self.state_bytes(tp, pp)

    def state_bytes(self, tp: int = 1, pp: int = 1) -> float:
        """Bytes of recurrent state per sequence and GPU (linear attention); 0 for ordinary models."""
        return inventory.state_bytes(self, tp, pp)

    def layer_kept(self, tp: int = 1) -> list[tuple[Kept, ...]]:
        """What every layer keeps of a token on one GPU."""
        return [tuple(b.mixer.kept(tp, self.kv_element_bytes)) if b.mixer is not None else () for b in self.blocks]

    def layer_state_bytes(self) -> list[float]:
        """Bytes of recurrent state of one sequence in every layer, uncut."""
        return inventory.layer_states(self)

    # ---- shapes

    def linear_shapes(self, tp: int = 1) -> tuple[LinearShape, ...]:
        """Every dense GEMM of the layers on one GPU; routed experts are in `moe_shape`, the output head in `head_shape`."""
        return tuple(LinearShape(*s) for s in inventory.linear_shapes(self, tp))

    def moe_shape(self, tp: int = 1, ep: int = 1, dp: int = 1) -> MoeShape | None:
        """The routed experts on one GPU, or None."""
        shape = inventory.moe_shape(self, tp, ep, dp)
        return MoeShape(*shape) if shape else None

    def head_shape(self, tp: int = 1) -> LinearShape:
        """The output head on one GPU (vocabulary padded to 64 and cut over tp, as vLLM does)."""
        own = dict(self.end_formats).get("lm_head", "")
        return LinearShape("lm_head", inventory.padded_vocab(self.vocab) // tp, self.hidden, 1, 1, bool(own), form=own)

    @property
    def expert_form(self) -> str:
        """Number format of the routed experts where it is not the model's; else empty."""
        return next((block.form_of("expert_gate_up") for block in self.blocks if isinstance(block.mlp, Routed)), "")

    # ---- validation

    def check_parallelism(self, tp: int = 1, pp: int = 1, ep: int = 1, dp: int = 1, field: str = "deployment") -> None:
        """Raises `ConfigError` naming the field when the model cannot be cut this way."""
        for name, value in (("tp", tp), ("pp", pp), ("ep", ep), ("dp", dp)):
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ConfigError(f"{field}.{name}", value, "must be a whole number of at least 1")
        for what, number, copies in inventory.cuts(self):
            divides = max(number, tp) % min(number, tp) == 0 if copies else number % tp == 0
            if not divides:
                problem = "can be neither divided nor replicated" if copies else "cannot be divided evenly"
                of = f"{what} {number}" if what.endswith("width") else f"{number} {what}"
                raise ConfigError(
                    f"{field}.tp", tp, f"{of} of {self.name} {problem}", _divisors(self.heads if copies else number)
                )
        if pp > self.layers:
            raise ConfigError(f"{field}.pp", pp, f"{self.name} has only {self.layers} layers", f"1..{self.layers}")
        if ep > 1:
            self._check_experts(tp, ep, dp, field)
        elif self.is_moe and self.moe_intermediate % (tp * dp):
            raise ConfigError(
                f"{field}.tp", tp, f"expert width {self.moe_intermediate} of {self.name} cannot be divided over {tp * dp} GPUs",
                hint="set ep to spread whole experts instead",
            )  # fmt: skip

    def _check_experts(self, tp: int, ep: int, dp: int, field: str) -> None:
        if not self.is_moe:
            raise ConfigError(f"{field}.ep", ep, f"{self.name} has no experts", "1")
        if ep > self.n_experts:
            raise ConfigError(f"{field}.ep", ep, f"{self.name} has only {self.n_experts} experts", f"1..{self.n_experts}")
        width = max(tp * dp, ep)
        if width % ep or (ep % tp and tp % ep):
            raise ConfigError(f"{field}.ep", ep, f"does not divide the {tp * dp} GPUs of tp × dp", _divisors(tp * dp))
        if self.moe_intermediate % (width // ep):
            raise ConfigError(
                f"{field}.ep", ep, f"expert width {self.moe_intermediate} cannot be divided over {width // ep} GPUs"
            )


def _divisors(number: int) -> str:
    return ", ".join(str(d) for d in range(1, number + 1) if number % d == 0 and d <= 1024)
