"""What is served."""

from __future__ import annotations

from typing import Any, Self

from pydantic import Field, model_validator

from sim.config.section import Section


class Model(Section):
    """The model: a built-in name or a Hugging Face ``config.json``. A bare string is the name."""

    name: str | None = Field(None, min_length=1, description="built-in name or Hugging Face id, such as llama-3.1-8b")
    config: str | None = Field(None, min_length=1, description="path of a config.json, or of the folder that holds it")
    weights: str = Field(
        "auto", description="number format of the weights (bf16, fp8, w8a8, awq-int4, …); auto: as the checkpoint has it"
    )
    kv_cache: str = Field("auto", description="number format of the KV cache; auto: as the checkpoint has it")

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: Any) -> Any:
        return {"name": value} if isinstance(value, str) else value

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.name is None) == (self.config is None):
            raise ValueError("needs exactly one of name and config")
        return self
