"""BLIS TraceV2: a CSV of 27 columns, beside a header in YAML."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from sim.registry import register
from sim.workload import content
from sim.workload.settings import Params
from sim.workload.table import Given, GivenSpans, RequestBlock
from sim.workload.traces._base import Head, Trace
from sim.workload.traces._columns import Clock, Piece, coded, csv_pieces, number_of, numbers, tokens, whole
from sim.workload.traces._table import Rows

_COLUMNS = (
    "request_id", "client_id", "tenant_id", "slo_class", "session_id", "round_index", "prefix_group", "prefix_length", "streaming", "input_tokens",
    "output_tokens", "text_tokens", "image_tokens", "audio_tokens", "video_tokens", "reason_ratio", "model", "deadline_us", "server_input_tokens",
    "arrival_time_us", "send_time_us", "first_chunk_time_us", "last_chunk_time_us", "num_chunks", "status", "error_message", "finish_reason",
)  # fmt: skip


class BlisParams(Params):
    """Settings of a BLIS trace."""

    context: Literal["independent", "accumulate", "header"] = Field(
        default="header",
        description="whether input_tokens of a later round are the new ones only (accumulate); header: as session_context_growth of the YAML "
        "beside the file says, independent without one",
    )


@register("trace")
class Blis(Trace):
    """``request_id, …, prefix_group, prefix_length, …, input_tokens, output_tokens, …, arrival_time_us, …``.

    As BLIS replays it: the shared prefix of a ``prefix_group`` comes on top of ``input_tokens``; ``server_input_tokens``, where measured and
    without a group, is the prompt; ``send_time_us``, where there is one, is when the request arrives. Rows whose ``status`` is not ``ok`` are sent too.

    *Source*: inference-sim, sim/workload/tracev2.go and replay.go.
    """

    name = "blis"
    aliases = ("blis-tracev2",)
    Params: ClassVar[type[Params]] = BlisParams
    params: BlisParams
    rank = 1
    holds = frozenset(("times", "sessions"))
    ends_with = ".csv"
    opening = ",".join(_COLUMNS) + "\n"

    def fits(self, head: Head) -> bool:
        """Its header."""
        return head.kind == "csv" and set(head.keys) >= {"arrival_time_us", "input_tokens", "output_tokens", "prefix_group"}

    def rows(self, block: RequestBlock, block_tokens: int) -> list[str]:
        """One line a request; what was measured is 0, as in a trace that was generated."""
        number = (block.out_content % content.NUMBERS).tolist()
        at = np.round(block.arrival_s * 1e6).astype(np.int64).tolist()
        columns = (number, block.session.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist(), at)
        return [
            f"{n},,,,{'' if s < 0 else s},0,,0,true,{p},{o},{p},0,0,0,0,,0,0,{t},0,0,0,0,ok,,"
            for n, s, p, o, t in zip(*columns, strict=True)
        ]

    def pieces(self, path: Path) -> Iterator[RequestBlock]:
        """The requests of a file, block after block."""
        wanted = {"arrival": ("arrival_time_us",), "prompt": ("input_tokens",), "output": ("output_tokens",)}
        more = {
            "session": ("session_id",), "round": ("round_index",), "group": ("prefix_group",), "prefix": ("prefix_length",), "sent": ("send_time_us",),
            "server": ("server_input_tokens",), "priority": ("priority",),
        }  # fmt: skip
        every = (
            "request_id",
            "client_id",
            "text_tokens",
            "first_chunk_time_us",
            "last_chunk_time_us",
            "num_chunks",
            "status",
            "error_message",
        )
        rows = Rows(self, path, Clock(1e-6), harmless=(*every, "finish_reason", "streaming"))
        grows = self._grows(path)
        for piece in csv_pieces(path, wanted, more, text=("group",)):
            prompt, spans = self._prompts(piece, rows.first)
            output = tokens(piece.source, piece["output"])
            when = piece["arrival"]
            if "sent" in piece and (numbers(piece.source, piece["sent"], "must be a finite time") > 0).all():
                when = piece["sent"]
            arrival = rows.clock.arrivals(piece.source, when)
            given: Given = {} if spans is None else {"spans": spans}
            block = rows.block(piece, arrival, prompt, output, **given)
            if grows and "round" in piece and (whole(piece.source, piece["round"], 0, 1 << 30) > 0).any():
                piece.source.fail(
                    "says session_context_growth: accumulate: prompts of later rounds hold the answers before, which a replay by time cannot know",
                    "settings.context: independent plays each round by its own tokens",
                )
            yield block

    def _grows(self, path: Path) -> bool:
        if self.params.context != "header":
            return bool(self.params.context == "accumulate")
        stem = path.name.split(".")[0]
        for name in (f"{stem}.yaml", f"{stem}.yml", "trace.yaml"):
            header = path.with_name(name)
            if header.is_file():
                return "session_context_growth: accumulate" in header.read_text(encoding="utf-8", errors="replace")
        return False

    def _prompts(self, piece: Piece, first: int) -> tuple[NDArray[np.int64], GivenSpans | None]:
        source = piece.source
        prompt = tokens(source, piece["prompt"]).astype(np.int64)
        code, names = coded(piece["group"].values) if "group" in piece else (np.zeros(len(prompt), np.int64), [])
        content_of = np.array([content.RECORDED + number_of(f"prefix/{g}") if str(g) else -1 for g in names] + [-1], np.int64)[
            code
        ]
        named = content_of >= 0
        if "server" in piece:
            server = whole(source, piece["server"], 0, 1 << 30)
            prompt = np.where((server > 0) & ~named, server, prompt)
        if not named.any() or "prefix" not in piece:
            return prompt, None
        prefix = np.where(named, whole(source, piece["prefix"], 0, 1 << 30), 0)
        count = 1 + (prefix > 0)
        off = np.concatenate([[0], np.cumsum(count)]).astype(np.int64)
        ids, length = np.zeros(off[-1], np.int64), np.zeros(off[-1], np.int64)
        last = off[1:] - 1
        ids[last], length[last] = content.PROMPT + first + np.arange(len(prompt)), prompt
        shared = off[:-1][prefix > 0]
        ids[shared] = content_of[prefix > 0]
        length[shared] = prefix[prefix > 0]
        return prompt + prefix, (off, ids, np.zeros(off[-1], np.int64), length)
