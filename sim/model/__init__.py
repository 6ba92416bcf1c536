"""What is served: architecture, number formats, weight bytes, KV bytes and GEMM shapes of a model."""

from sim.model.hf import spec_from_config
from sim.model.load import ModelProfile, load_model, model_names, model_profile
from sim.model.spec import KvGroup, LinearShape, ModelSpec, MoeShape

__all__ = [
    "KvGroup",
    "LinearShape",
    "ModelProfile",
    "ModelSpec",
    "MoeShape",
    "load_model",
    "model_names",
    "model_profile",
    "spec_from_config",
]
