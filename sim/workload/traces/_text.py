"""Tokens of texts: by a tokenizer when one is given, else estimated, which is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from pydantic import Field

from sim.errors import ConfigError
from sim.workload.settings import Params

CHARS = 4.0


class TextParams(Params):
    """Settings of formats that hold texts instead of lengths."""

    tokenizer: str | None = Field(
        default=None, description="a tokenizer.json that counts tokens (needs the library tokenizers); default: an estimate"
    )
    chars_per_token: float = Field(
        default=CHARS, ge=0.25, le=100, allow_inf_nan=False,
        description="characters a token where there is no tokenizer: about 4 for English, 1.5 for Chinese",
    )  # fmt: skip


def counter(params: TextParams, trace: Any) -> Callable[[str], int]:
    """Text → tokens, 0 for an empty text. Raises `ConfigError` for a tokenizer that cannot be used."""
    if params.tokenizer is None:
        trace.note(f"tokens of texts are estimated: {params.chars_per_token:g} characters each (settings.tokenizer counts them)")
        return lambda text: int(-(-len(text) // params.chars_per_token)) if text else 0
    try:
        import tokenizers  # type: ignore[import-not-found,unused-ignore]
    except ImportError:
        raise ConfigError(
            "traffic.trace.settings.tokenizer", params.tokenizer, "needs the library tokenizers", hint="pip install tokenizers"
        ) from None
    try:
        made = tokenizers.Tokenizer.from_file(params.tokenizer)
    except Exception as error:
        raise ConfigError("traffic.trace.settings.tokenizer", params.tokenizer, f"is no tokenizer.json ({error})") from None
    return lambda text: len(made.encode(text, add_special_tokens=False).ids) if text else 0
