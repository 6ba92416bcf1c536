"""Reading an architecture of an unknown family from its fields: only where every key is understood, and then said to be unverified.

An unknown config is read when it carries experts, latent attention or windows of the kinds that are modelled, under their usual names, and no
key that this file does not know. A plain dense config is refused: biases, norms and gates are not in its fields.
"""

from __future__ import annotations

from sim.errors import ConfigError
from sim.model.base import Fields, decoder, experts, leading_dense, shared
from sim.model.keys import Keys

_KINDS = ("kv_lora_rank", "num_experts", "n_routed_experts", "num_local_experts")

# Keys that bear no weights and change no cache: training, sampling, tokens, numerics, draft layers, how experts are chosen.
_HARMLESS = """
_name_or_path add_cross_attention architectures attention_dropout attn_implementation auto_map bos_token_id chunk_size_feed_forward
decoder_start_token_id dtype embd_pdrop embedding_dropout eos_token_id ep_size hidden_act hidden_dropout id2label initializer_range
is_decoder is_encoder_decoder label2id layer_norm_epsilon layer_norm_eps layernorm_epsilon model_type moe_layer_freq n_group
norm_eps norm_topk_prob num_expert_group num_nextn_predict_layers output_attentions output_hidden_states output_router_logits pad_token_id
partial_rotary_factor pretraining_tp problem_type quantization_config resid_pdrop return_dict rms_norm_eps rope_interleave
rope_parameters rope_scaling rope_theta rotary_dim routed_scaling_factor router_aux_loss_coef router_jitter_noise scoring_func
seq_aux tie_word_embeddings tokenizer_class topk_group topk_method torch_dtype transformers_version unk_token_id use_cache
use_sliding_window vision_config audio_config use_routing_bias moe_router_activation_func compression_config
max_window_layers attention_probs_dropout_prob num_key_value_heads head_dim qk_head_dim
"""
# Keys that are read here.
_READ = """
num_hidden_layers hidden_size num_attention_heads intermediate_size vocab_size max_position_embeddings sliding_window layer_types
q_lora_rank kv_lora_rank qk_nope_head_dim qk_rope_head_dim v_head_dim num_experts n_routed_experts num_local_experts
num_experts_per_tok moe_intermediate_size n_shared_experts num_shared_experts shared_expert_intermediate_size first_k_dense_replace
num_dense_layers mlp_layer_types attention_bias qkv_bias mlp_bias use_qk_norm qk_norm index_n_heads index_head_dim index_topk
model_max_length
"""
_UNDERSTOOD = frozenset((_HARMLESS + _READ).split())


def read_from_fields(c: Keys) -> Fields | None:
    """The fields of an unknown family, or None where it is plain or a key is not understood."""
    if not any(c.raw.get(key) for key in _KINDS):
        return None
    if not_understood(c):
        return None
    try:
        return _read(c)
    except ConfigError:  # a key of the kind is missing: not this kind
        return None


def _read(c: Keys) -> Fields:
    latent = c.raw.get("kv_lora_rank") is not None
    sizes = Keys({k: v for k, v in c.raw.items() if not latent or k not in ("head_dim", "num_key_value_heads")}, c.name, c.field)
    f = decoder(sizes, **({"head_dim": 1} if latent else {}), **_width(c))
    if latent:
        from sim.model.family.deepseek import latent as latent_fields

        latent_fields(c, f)
    experts_here = any(c.raw.get(key) for key in _KINDS[1:])
    if experts_here:
        experts(c, f)
        shared(c, f, "n_shared_experts", "num_shared_experts")
        if c.get("shared_expert_intermediate_size") is not None:
            f["shared_intermediate"] = c.whole("shared_expert_intermediate_size")
        leading_dense(c, f)
    f["attention_bias"] = c.flag("attention_bias", "qkv_bias", default=False)
    f["mlp_bias"] = c.flag("mlp_bias", default=False)
    if c.flag("use_qk_norm", "qk_norm", default=False):
        f["qk_norm"] = 2 * f["head_dim"]
    return f


def why_not(c: Keys) -> str:
    """What keeps an unknown family from being read from its fields; empty where nothing does, or nothing of a modelled kind is there."""
    strange = not_understood(c)
    if strange:
        return ", ".join(strange[:6]) + (f" and {len(strange) - 6} more" if len(strange) > 6 else "")
    if not any(c.raw.get(key) for key in _KINDS):
        return ""
    try:
        _read(c)
    except ConfigError as error:
        return str(error)
    return ""


def not_understood(c: Keys) -> tuple[str, ...]:
    """Keys whose value may bear weights and is not read here."""
    return tuple(key for key, value in c.raw.items() if key not in _UNDERSTOOD and value)


def _width(c: Keys) -> dict[str, int]:
    """The width of dense layers may be left out where there are none."""
    return {"intermediate": 1} if c.get("intermediate_size") is None and not c.get("first_k_dense_replace") else {}
