"""Traffic files written in another format, piece by piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim import registry
from sim.errors import ConfigError, DataError, did_you_mean
from sim.output import write_file
from sim.workload.table import RequestBlock
from sim.workload.traces._auto import reader
from sim.workload.traces._base import Trace
from sim.workload.traces._writing import HOLDS

if TYPE_CHECKING:
    from sim.document import Json

_PACKED = {".gz": "gzip", ".zst": "zstd"}


def writable() -> list[str]:
    """Names of the formats that can be written."""
    every = {name: registry.lookup("trace", name) for name in registry.names("trace")}
    return [name for name, cls in every.items() if cls.holds is not None and cls.name == name]


def writer(to: str) -> Trace:
    """The format of that name. Raises `ConfigError` for one that is only read."""
    known = writable()
    if to not in registry.names("trace") or registry.lookup("trace", to).holds is None:
        raise ConfigError("--to", to, "is no format that can be written", ", ".join(known), did_you_mean(to, known))
    made: Trace = registry.lookup("trace", to)()
    return made


def convert(
    path: str | Path,
    out: str | Path,
    to: str = "csv",
    form: str = "auto",
    settings: dict[str, Json] | None = None,
    block_tokens: int = 512,
) -> tuple[int, list[str]]:
    """Write the requests of a file as ``to``; (requests, notes). ``.gz`` or ``.zst`` in the name packs.

    Shared prefixes are written as ids of blocks of ``block_tokens`` where the format has such: equal as far as the prompts are, to the block; as
    equal text where it has text. Notes say what the format cannot hold. Raises `DataError`, `ConfigError`.
    """
    import pyarrow as pa

    made = writer(to)
    if block_tokens < 1:
        raise ConfigError("--block-tokens", block_tokens, "must be at least 1")
    path, out = Path(path), Path(out)
    if out.exists() and path.exists() and out.samefile(path):
        raise ConfigError("--out", str(out), "is the file that is read")
    source = reader(path, form, settings, "settings")
    count, lost = 0, dict.fromkeys(HOLDS, 0)

    def fill(fresh: Path) -> None:
        nonlocal count
        with pa.output_stream(str(fresh), compression=_PACKED.get(out.suffix)) as stream:
            for rows in _pieces(made, _checked(source, path, made, lost, to), block_tokens):
                stream.write(rows[0].encode())
                count += rows[1]

    try:
        write_file(out, fill, "--out")
    except OSError as error:
        raise DataError(str(out), f"cannot be written ({error.strerror or error})") from None
    notes = list(source.notes)
    if not source.timed and "times" in (made.holds or ()):
        notes.append(f"{path.name} has no arrival times: all are written as 0")
    notes += [f"{to} has no {name}: those of {n:,} requests are not written" for name, n in lost.items() if n]
    return count, notes


def _checked(source: Trace, path: Path, made: Trace, lost: dict[str, int], to: str) -> Iterator[RequestBlock]:
    """The blocks, and in ``lost`` what of them the format does not hold."""
    for block in source.pieces(path):
        for name, n in said(block, source.timed).items():
            if name in (made.holds or ()) or not n:
                continue
            if name == "waits":
                names = ", ".join(n for n in writable() if "waits" in registry.lookup("trace", n).holds)
                raise ConfigError("--to", to, "cannot say that requests wait for the answers to others, as these do", names)
            lost[name] += n
        yield block


def said(block: RequestBlock, timed: bool = True) -> dict[str, int]:
    """Of how many requests a block says each of `HOLDS`."""
    return {
        "times": len(block) if timed and len(block) and block.arrival_s[-1] > 0 else 0,
        "sessions": int((block.session >= 0).sum()),
        "priorities": int((block.priority != 0).sum()),
        "adapters": int((block.lora > 0).sum()),
        "limits": int((block.max_tokens > block.output_tokens).sum()),
        "prefixes": int((np.diff(block.span_off) > 0).sum()),
        "waits": 0 if block.waits is None else int(np.isfinite(block.waits.wait_s).sum()),
    }


def _pieces(made: Trace, blocks: Iterable[RequestBlock], block_tokens: int) -> Iterator[tuple[str, int]]:
    """(text, requests) piece by piece."""
    yield made.opening, 0
    some = False
    for block in blocks:
        rows = made.rows(block, block_tokens)
        yield (made.between if some and rows else "") + made.between.join(rows), len(block)
        some = some or bool(rows)
    yield made.closing, 0
