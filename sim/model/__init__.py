"""What is served: architecture, number formats, weight bytes, KV bytes and GEMM shapes of a model."""

from sim.model.spec import KvGroup, LinearShape, ModelSpec, MoeShape

__all__ = ["KvGroup", "LinearShape", "ModelSpec", "MoeShape"]
