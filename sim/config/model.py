"""The ``model`` section."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from sim.config.base import Section


class Model(Section):
    """What is served: a built-in name, a Hugging Face id, or the path of a ``config.json``."""

    name: str | None = Field(None, description="built-in model name or Hugging Face id")
    config: str | None = Field(None, description="path of a Hugging Face config.json, instead of a name")
    weights: str = Field(
        "auto", description="number format of the weights: auto (the checkpoint's own), bf16, fp8, w8a8, int4, …"
    )
    kv_cache: str = Field("auto", description="number format of keys and values: auto, bf16, fp8, …")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        if isinstance(value, str):
            return {"name": value}
        if isinstance(value, Mapping) and (value.get("name") is None) == (value.get("config") is None):
            raise ValueError("needs exactly one of name and config; null takes one away")
        return value
