"""Tokens of texts: by a tokenizer when one is given, else estimated, which is said. Equal texts are equal content."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import Field

from sim.errors import ConfigError
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import RequestBlock

if TYPE_CHECKING:
    import pyarrow as pa

    from sim.workload.traces._base import Trace

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


@dataclass(frozen=True)
class Counter:
    """Counts tokens, 0 for an empty text. ``tokenizer``: of the library tokenizers; None: so many characters each."""

    chars: float
    tokenizer: Any = None

    def __call__(self, text: str) -> int:
        """Tokens of one text."""
        return int(self.each(strings([text]))[0])

    def each(self, texts: pa.Array) -> NDArray[np.int64]:
        """[n] tokens of an array of Arrow's strings."""
        import pyarrow.compute as pc

        if self.tokenizer is not None:
            found = self.tokenizer.encode_batch(texts.to_pylist(), add_special_tokens=False)
            return np.array([len(one.ids) for one in found], np.int64)
        length = np.asarray(pc.utf8_length(texts), np.int64)
        return -np.floor_divide(-length, self.chars).astype(np.int64)


def counter(params: TextParams, trace: Trace) -> Counter:
    """What counts the tokens of texts. Raises `ConfigError` for a tokenizer that cannot be used."""
    if params.tokenizer is None:
        trace.note(f"tokens of texts are estimated: {params.chars_per_token:g} characters each (settings.tokenizer counts them)")
        return Counter(params.chars_per_token)
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
    return Counter(params.chars_per_token, made)


def strings(texts: list[str]) -> pa.Array:
    """An array of Arrow's strings; half a surrogate pair, which JSON can hold and UTF-8 cannot, becomes the replacement character."""
    import pyarrow as pa

    try:
        return pa.array(texts, pa.large_string())
    except UnicodeEncodeError:
        whole = [text.encode("utf-16", "surrogatepass").decode("utf-16", "replace") for text in texts]
        return pa.array(whole, pa.large_string())


def filled(texts: pa.Array | pa.ChunkedArray) -> pa.Array:
    """An array of strings with an empty one where there is none."""
    import pyarrow as pa
    import pyarrow.compute as pc

    made = texts.combine_chunks() if isinstance(texts, pa.ChunkedArray) else texts
    return pc.fill_null(made, "").cast(pa.large_string())


def contents(texts: pa.Array) -> NDArray[np.int64]:
    """[n] content ids of an array of strings: different texts get different ones (60 bits of SipHash)."""
    from pandas.util import hash_array

    number = hash_array(texts.to_numpy(zero_copy_only=False), categorize=False) % np.uint64(content.NUMBERS)
    return number.astype(np.int64) + content.RECORDED


def text_block(
    texts: pa.Array, prompt: NDArray[np.int64], output: ArrayLike, first: int, arrival_s: ArrayLike | None = None
) -> RequestBlock:
    """Requests of which each has one text as its prompt; ``first`` is the number of the first one."""
    n = len(prompt)
    spans = (np.arange(n + 1), contents(texts), np.zeros(n, np.int64), prompt)
    return RequestBlock.of(np.zeros(n) if arrival_s is None else arrival_s, prompt, output, first, spans=spans)
