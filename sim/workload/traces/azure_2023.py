"""Azure LLM inference traces."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
from pydantic import Field

from sim.registry import register
from sim.workload.images import PER_REQUEST, with_images
from sim.workload.settings import Params
from sim.workload.table import MAX_TOKENS, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import ARRIVAL, Clock, Column, Piece, csv_pieces, tokens, whole
from sim.workload.traces._stamps import stamped_seconds
from sim.workload.traces._table import Rows

_EPOCH = np.datetime64("2024-01-01T00:00:00")


class AzureParams(Params):
    """Settings of an Azure trace."""

    image_tokens: int | None = Field(
        default=None, ge=0, le=MAX_TOKENS,
        description="tokens that the model's encoder makes of an image (column NumImages of the multimodal trace), beside ContextTokens; the trace "
        "does not say how many",
    )  # fmt: skip


@register("trace")
class Azure2023(Trace):
    """``TIMESTAMP,ContextTokens,GeneratedTokens`` with stamps such as ``2023-11-16 18:17:03.9799600`` (no zone, or an offset).

    The multimodal trace of 2025 also has ``NumImages``. Also reads copies whose columns were renamed to
    ``arrival_s,input_tokens,output_tokens``.

    *Source*: github.com/Azure/AzurePublicDataset, AzureLLMInferenceTrace 2023 and 2024, AzureLMMInferenceTrace 2025.
    """

    name = "azure-2023"
    aliases = ("azure-2024", "azure-2025")
    Params: ClassVar[type[Params]] = AzureParams
    params: AzureParams
    holds = frozenset(("times",))
    ends_with = ".csv"
    opening = "TIMESTAMP,ContextTokens,GeneratedTokens\n"

    def fits(self, head: Head) -> bool:
        """Its header."""
        return head.kind == "csv" and set(head.keys) >= {"TIMESTAMP", "ContextTokens", "GeneratedTokens"}

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        wanted = {
            "arrival": ("TIMESTAMP", *ARRIVAL),
            "prompt": ("ContextTokens", "input_tokens"),
            "output": ("GeneratedTokens", "output_tokens"),
        }
        rows = Rows(self, path)
        stamps = Clock(1e-9)
        for piece in csv_pieces(path, wanted, {"images": ("NumImages",)}):
            source, column = piece.source, piece["arrival"]
            stamped = column.name == "TIMESTAMP"
            arrival = stamped_seconds(piece, stamps) if stamped else rows.clock.arrivals(source, column)
            block = rows.block(piece, arrival, tokens(source, piece["prompt"]), tokens(source, piece["output"]))
            yield self._with_images(path, piece, block) if "images" in piece else block

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request, in stamps of 100 ns from an arbitrary day on."""
        ticks = np.round(block.arrival_s * 1e7).astype(np.int64)
        days = (_EPOCH + (ticks // 10_000_000).astype("timedelta64[s]")).astype(str).tolist()
        columns = (days, (ticks % 10_000_000).tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist())
        return [f"{day.replace('T', ' ')}.{part:07d},{p},{o}" for day, part, p, o in zip(*columns, strict=True)]

    def _with_images(self, path: Path, piece: Piece, block: RequestBlock) -> RequestBlock:
        images = whole(piece.source, piece["images"], 0, PER_REQUEST)
        if self.params.image_tokens is None:
            if images.any():
                self.note(
                    f"{path.name}: column NumImages not used: the trace does not say what an image adds to the prompt "
                    "(settings.image_tokens adds that many tokens)"
                )
            return block
        self.images = bool(self.images or (images.any() and self.params.image_tokens))
        if not self.params.image_tokens:
            return block
        tokens(piece.source, Column("NumImages", block.prompt_tokens + images * self.params.image_tokens))
        return with_images(block, images, self.params.image_tokens)
