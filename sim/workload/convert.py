"""Traffic files written in another format, piece by piece."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Final

from sim.errors import ConfigError, DataError, did_you_mean
from sim.output import write_file
from sim.workload import content
from sim.workload.table import RequestBlock
from sim.workload.traces._auto import reader

_PACKED = {".gz": "gzip", ".zst": "zstd"}


def convert(
    path: str | Path,
    out: str | Path,
    to: str = "csv",
    form: str = "auto",
    settings: dict[str, Any] | None = None,
    block_tokens: int = 512,
) -> tuple[int, list[str]]:
    """Write the requests of a file as ``to``; (requests, notes). ``.gz`` or ``.zst`` in the name packs.

    Shared prefixes are written as ids of blocks of ``block_tokens``: equal as far as the prompts are, to the block. Raises `DataError`, `ConfigError`.
    """
    import pyarrow as pa

    if to not in WRITERS:
        raise ConfigError("--to", to, "is no format that can be written", ", ".join(WRITERS), did_you_mean(to, WRITERS))
    if block_tokens < 1:
        raise ConfigError("--block-tokens", block_tokens, "must be at least 1")
    path, out = Path(path), Path(out)
    if out.exists() and out.samefile(path):
        raise ConfigError("--out", str(out), "is the file that is read")
    made = reader(path, form, settings, "settings")
    count = 0

    def fill(fresh: Path) -> None:
        nonlocal count
        with pa.output_stream(str(fresh), compression=_PACKED.get(out.suffix)) as stream:
            for text, n in WRITERS[to](made.pieces(path), block_tokens):
                stream.write(text.encode())
                count += n

    try:
        write_file(out, fill, "--out")
    except OSError as error:
        raise DataError(str(out), f"cannot be written ({error.strerror or error})") from None
    notes = list(made.notes)
    if not made.timed:
        notes.append(f"{path.name} has no arrival times: all are written as 0")
    return count, notes


def _csv(blocks: Iterable[RequestBlock], size: int) -> Iterator[tuple[str, int]]:
    yield "arrival_s,input_tokens,output_tokens,max_tokens,session_id,priority,lora,hash_ids\n", 0
    for block in blocks:
        ids = _hashes(block, size)
        rows = zip(
            block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist(), block.max_tokens.tolist(), block.session.tolist(),
            block.priority.tolist(), block.lora.tolist(), ids, strict=True,
        )  # fmt: skip
        yield (
            "".join(
                f"{at!r},{p},{o},{m},{'' if s < 0 else s},{pr},{lo or ''},{' '.join(map(str, i))}\n"
                for at, p, o, m, s, pr, lo, i in rows
            ),
            len(block),
        )


def _mooncake(blocks: Iterable[RequestBlock], size: int) -> Iterator[tuple[str, int]]:
    for block in blocks:
        out = []
        rows = zip(
            block.arrival_s.tolist(), block.prompt_tokens.tolist(), block.output_tokens.tolist(), block.session.tolist(), block.priority.tolist(),
            _hashes(block, size), strict=True,
        )  # fmt: skip
        for at, prompt, output, session, priority, ids in rows:
            row: dict[str, Any] = {"timestamp": round(at * 1e3, 6), "input_length": prompt, "output_length": output}
            if ids:
                row["hash_ids"] = ids
            if session >= 0:
                row["session_id"] = session
            if priority:
                row["priority"] = priority
            out.append(json.dumps(row) + "\n")
        yield "".join(out), len(block)


def _hashes(block: RequestBlock, size: int) -> Iterator[list[int]]:
    """For every prompt the ids of its blocks: a block's id names its content and all before it; none for a prompt that is its own."""
    off, ids, start, length = (x.tolist() for x in block.spans)
    for row in range(len(block)):
        pieces = [(ids[k], start[k], length[k]) for k in range(off[row], off[row + 1])]
        yield _blocks(pieces, size)


def _blocks(pieces: list[tuple[int, int, int]], size: int) -> list[int]:
    out: list[int] = []
    state, room = hashlib.blake2b(digest_size=8), size
    for number, begin, tokens in pieces:
        while tokens:
            taken = min(tokens, room)
            state.update(b"%d,%d,%d;" % (number, begin, taken))
            begin, tokens, room = begin + taken, tokens - taken, room - taken
            if not room:
                out.append(int.from_bytes(state.digest(), "big") % content.NUMBERS)
                room = size
    if room < size and pieces:
        out.append(int.from_bytes(state.digest(), "big") % content.NUMBERS)
    return out


WRITERS: Final[dict[str, Callable[[Iterable[RequestBlock], int], Iterator[tuple[str, int]]]]] = {
    "csv": _csv,
    "mooncake": _mooncake,
}
