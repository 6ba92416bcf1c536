"""What may stand in a file of a user, for hypothesis: documents with values spoilt, tables with cells spoilt, texts with bytes spoilt."""

from __future__ import annotations

import copy
import gzip
import json
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import yaml
from hypothesis import strategies as st

ODD = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=4),
    st.lists(st.integers(-2, 9), max_size=3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
    st.sampled_from([[], {}, 0, -1, -0.0, 0.5, 1e308, 1e-320, 10**19, 2**31, 2**63, [[]], [None], {"value": None}]),
    st.sampled_from(
        ["", "inf", "nan", "1e400", "-1", "0", "²", "1e9999999s", "\ud800", "x" * 5000, "../../../etc", "/dev/zero", "a\nb"]
    ),
)
"""A value that is hardly ever what was asked for."""
CELLS = st.one_of(
    st.text(max_size=4),
    st.integers(-3, 10**19).map(str),
    st.sampled_from(["", "nan", "-inf", "1e400", '"', "|", "\0", "9" * 400, "2024-99-99", "²"]),
)


def places(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """Paths of everything inside a document; of long lists the first entries."""
    if path:
        yield path
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from places(inner, (*path, key))
    elif isinstance(value, list):
        for i, inner in enumerate(value[:3]):
            yield from places(inner, (*path, i))


def value_at(document: Any, path: tuple[Any, ...]) -> Any:
    """What is at a place of a document."""
    for key in path:
        document = document[key]
    return document


@st.composite
def spoilt(draw: st.DrawFn, documents: list[Any], most: int = 3) -> Any:
    """A copy of one of the documents in which up to ``most`` things are removed, added, exchanged or replaced by `ODD`."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, most))):
        there = list(places(document))
        if not there:
            break
        path = draw(st.sampled_from(there))
        inside = value_at(document, path[:-1])
        how = draw(st.sampled_from(("odd", "odd", "odd", "gone", "added", "moved")))
        if how == "gone":
            del inside[path[-1]]
        elif how == "added" and isinstance(inside, dict):
            inside[draw(st.text(max_size=6))] = copy.deepcopy(draw(ODD))
        elif how == "moved":
            inside[path[-1]] = copy.deepcopy(value_at(document, draw(st.sampled_from(there))))
        else:
            inside[path[-1]] = copy.deepcopy(draw(ODD))
    return document


@st.composite
def spoilt_table(draw: st.DrawFn, tables: list[str], most: int = 3) -> bytes:
    """A CSV table in which up to ``most`` cells are gone or replaced by `CELLS`."""
    rows = [line.split(",") for line in draw(st.sampled_from(tables)).splitlines()]
    for _ in range(draw(st.integers(1, most))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        field = draw(st.integers(0, max(len(row) - 1, 0)))
        row[field : field + 1] = [] if draw(st.integers(0, 3)) == 0 else [draw(CELLS)]
    return "\n".join(",".join(row) for row in rows).encode("utf-8", "surrogatepass")


@st.composite
def spoilt_bytes(draw: st.DrawFn, content: bytes) -> bytes:
    """The same bytes as other programs and accidents leave them: cut, with some exchanged, packed, with a mark, other line ends, other encodings."""
    how = draw(
        st.sampled_from(("as it is", "as it is", "cut", "bytes", "packed", "packed and cut", "mark", "lines", "utf-16", "twice"))
    )
    if how == "cut":
        return content[: draw(st.integers(0, len(content)))]
    if how == "bytes":
        out = bytearray(content)
        for _ in range(draw(st.integers(1, 4))):
            if out:
                out[draw(st.integers(0, len(out) - 1))] = draw(st.integers(0, 255))
        return bytes(out)
    if how == "packed":
        return gzip.compress(content, mtime=0)
    if how == "packed and cut":
        packed = gzip.compress(content, mtime=0)
        return packed[: draw(st.integers(2, len(packed)))]
    if how == "mark":
        return b"\xef\xbb\xbf" + content
    if how == "lines":
        return content.replace(b"\n", draw(st.sampled_from((b"\r\n", b"\r", b"\n\n"))))
    if how == "utf-16":
        return content.decode("utf-8", "replace").encode("utf-16")
    return content + content if how == "twice" else content


def as_yaml(document: Any) -> bytes:
    """YAML of any document; what YAML cannot say becomes JSON, which it also reads."""
    try:
        return yaml.safe_dump(document, sort_keys=False, allow_unicode=True).encode("utf-8", "surrogatepass")
    except yaml.YAMLError:
        return as_json(document)


def as_json(document: Any) -> bytes:
    """JSON, NaN included."""
    return json.dumps(document, default=str).encode("utf-8", "surrogatepass")


def as_lines(document: Any) -> bytes:
    """JSON lines of a list, else JSON."""
    return b"\n".join(map(as_json, document)) if isinstance(document, list) else as_json(document)


def files(documents: list[Any], write: Callable[[Any], bytes]) -> st.SearchStrategy[bytes]:
    """Contents of a file that should hold a document like these."""
    return spoilt(documents).map(write).flatmap(spoilt_bytes) | st.sampled_from(documents).map(write).flatmap(spoilt_bytes)


def tables(texts: list[str]) -> st.SearchStrategy[bytes]:
    """Contents of a file that should hold a table like these."""
    return spoilt_table(texts).flatmap(spoilt_bytes)


@cache
def zeros() -> bytes:
    """Fifty megabytes in fifty kilobytes."""
    return gzip.compress(b"\0" * 50_000_000, mtime=0)


ANY = st.one_of(
    st.binary(max_size=80),
    st.text(max_size=60).map(lambda t: t.encode("utf-8", "surrogatepass")),
    st.sampled_from(
        [
            *(
                b"",
                b"[" * 100_000,
                b'{"a":' * 50_000,
                b"- " * 50_000,
                b"a: &a [*a]",
                b"\xff\xfe",
                b"!!python/object:os.system x",
                b"\0" * 9,
            ),
            *(zeros, b"a" * 2_000_000, b"," * 200_000, b"1e999\n" * 9, b"---\n" * 1000),
            *(b"[", b"[1]", b"[{}", b"{}", b"[{}]", b"\xef\xbb\xbf", b"[{},\x00]", b"[\xff]", b"null", b"NaN"),
        ]
    ).map(lambda content: content() if callable(content) else content),
)
"""Contents that are no document at all."""
