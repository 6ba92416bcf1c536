"""BurstGPT: requests to ChatGPT and GPT-4 on Azure, by the second."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from sim.errors import DataError
from sim.registry import register
from sim.workload.settings import Params
from sim.workload.table import RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import csv_pieces, tokens
from sim.workload.traces._table import Rows


class BurstGptParams(Params):
    """Settings of a BurstGPT trace."""

    failed: Literal["skip", "refuse"] = Field(
        default="skip", description="what becomes of requests with 0 response tokens, which failed: left out, or an error"
    )
    model: str | None = Field(default=None, description="only requests to this model: ChatGPT or GPT-4")
    log_type: str | None = Field(default=None, description="only requests of this log: 'Conversation log' or 'API log'")


@register("trace")
class BurstGpt(Trace):
    """``Timestamp`` (s), ``Model``, ``Request tokens``, ``Response tokens``, ``Total tokens``, ``Log Type``; since 1.2 also ``Session ID, Elapsed time``.

    Requests with 0 response tokens failed: they are left out, and a note says how many.

    *Source*: github.com/HPMLL/BurstGPT.
    """

    name = "burstgpt"
    Params: ClassVar[type[Params]] = BurstGptParams
    params: BurstGptParams
    holds = frozenset(("times", "sessions"))
    ends_with = ".csv"
    opening = "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"

    def fits(self, head: Head) -> bool:
        """Its header."""
        return head.kind == "csv" and set(head.keys) >= {"Timestamp", "Request tokens", "Response tokens"}

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request, to a model and from a log that are made up; how long answers took is left empty."""
        sessions = ["" if s < 0 else str(s) for s in block.session.tolist()]
        columns = (block.arrival_s.tolist(), sessions, block.prompt_tokens.tolist(), block.output_tokens.tolist())
        return [f"{at!r},{s},,ChatGPT,{p},{o},{p + o},API log" for at, s, p, o in zip(*columns, strict=True)]

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        wanted = {"arrival": ("Timestamp",), "prompt": ("Request tokens",), "output": ("Response tokens",)}
        more = {"session": ("Session ID",), "model": ("Model",), "log": ("Log Type",)}
        harmless = ("Total tokens", "Elapsed time", "Model", "Log Type")
        rows = Rows(self, path, harmless=harmless)
        failed = kept = 0
        for piece in csv_pieces(path, wanted, more):
            source = piece.source
            arrival = rows.clock.arrivals(source, piece["arrival"])
            output = tokens(source, piece["output"], 1 if self.params.failed == "refuse" else 0)
            prompt = tokens(source, piece["prompt"], 0)
            keep = output > 0
            failed += int((~keep).sum())
            empty = keep & (prompt == 0)
            if empty.any():
                source.fail_at(int(np.argmax(empty)), "Request tokens", 0, "must be at least 1 where there is a response")
            for ours, wish in (("model", self.params.model), ("log", self.params.log_type)):
                if wish is not None and ours in piece:
                    keep = keep & (piece[ours].values == wish).to_numpy()
            kept += int(keep.sum())
            yield rows.block(piece, arrival, np.maximum(prompt, 1), np.maximum(output, 1), keep)
        if failed:
            self.note(f"{path.name}: {failed:,} of {failed + kept:,} requests failed (0 response tokens) and are left out")
        if not kept:
            wish = f"model {self.params.model!r}, log_type {self.params.log_type!r}"
            raise DataError(str(path), f"has no request left that was answered ({wish})")
