"""Other ways to be wrong than those of `tests.strategies`: what people mean otherwise, what YAML does behind one's back, what copying does to a file."""

from __future__ import annotations

import copy
import gzip
import io
import json
import zipfile
from collections.abc import Iterator
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml
from hypothesis import strategies as st

from tests.strategies import places, value_at

# ---- what people mean otherwise: other types, other units, other letters

WORDS = st.sampled_from(
    [
        *("5 tokens", "3e2ms", "１２", "٣", "1,000", "1.000,5", "1_000", "0x10", "0o17", "1:30", "12:30:45", "1 000", "+5", "5.", ".5", "5%"),
        *("−3", "1e-400", "∞", "½", "NaN", "Infinity", "-inf s", "5GB/s/s", "per second", "8/ s", "/s", "s", "1e5000/s", "9" * 5000 + "s", "1" * 400),
        *("yes", "off", "~", "null", "none", "True", "auto", "default", "{}", "[]", "{{ x }}", "${HOME}", "$(id)", "%s%n", "'; --", "<b>&"),
        *("2026-11-30", "2026-11-30T12:00:00Z", "\u202eabc\u202c", "\u2066x", "a\u0301", "ﬁ", "\ufeffx", "\u200b", "名前", "🙂" * 400, "\x1b[31mred", "a\tb"),
        *("a\u2028b", "\x00", "\ud83d", "/" * 3000, "~/x", "C:\\x", "\\\\h\\s", "file:///etc/passwd", ".", "..", "x.py:Y", "sim.errors:ConfigError", ":"),
    ]
)  # fmt: skip
WHOLE = st.sampled_from(
    [2**31 - 1, 2**32, 2**53 + 1, -(2**63), 2**64, 10**30, 10**400, -1, True, 1e16, 5e-324, float("nan"), -float("inf")]
)


@st.composite
def meant(draw: st.DrawFn, documents: list[Any]) -> Any:
    """One of the documents with up to four values, sections or keys in another form; the same thing may also stand several times deeper."""
    document = copy.deepcopy(draw(st.sampled_from(documents)))
    for _ in range(draw(st.integers(1, 4))):
        there = list(places(document))
        if not there:
            break
        path = draw(st.sampled_from(there))
        inside = value_at(document, path[:-1])
        value = inside[path[-1]]
        match draw(st.integers(0, 10)):
            case 0:
                new: Any = str(value)
            case 1:
                new = {str(i): v for i, v in enumerate(value)} if isinstance(value, list) else [value]
            case 2:
                new = [[k, v] for k, v in value.items()] if isinstance(value, dict) else {"value": value}
            case 3:
                new = value
                for k in range(draw(st.sampled_from([1, 3, 40, 90]))):
                    new = [new] if k % 2 else {draw(st.sampled_from(["name", "value", "x"])): new}
            case 4:
                new = draw(WORDS)
            case 5:
                new = draw(WHOLE)
            case 6:
                other = draw(st.sampled_from(documents))  # a section of another document
                new = copy.deepcopy(draw(st.sampled_from(list(other.values() if isinstance(other, dict) else other) or [None])))
            case 7:
                new = [value] * draw(st.sampled_from([0, 2, 50, 3000]))
            case 8:
                new = None
            case 9 if isinstance(inside, dict):
                inside[draw(WORDS)] = inside.pop(path[-1])  # the key in another spelling
                continue
            case 9 | 10:
                if isinstance(inside, dict):
                    inside[str(path[-1]).upper()] = copy.deepcopy(value)
                    inside[f" {path[-1]}"] = copy.deepcopy(value)
                continue
        inside[path[-1]] = new
    return document


# ---- what YAML and JSON can say that no document should


def tricked(document: Any) -> st.SearchStrategy[bytes]:
    """The document with something in its text that a parser takes seriously."""
    text = yaml.safe_dump(
        json.loads(json.dumps(document, default=str)), sort_keys=False, allow_unicode=True, default_flow_style=None, width=10**6
    )
    lines = text.splitlines()

    def at(n: int, new: str) -> str:
        k = n % (len(lines) + 1)
        indent = " " * (len(lines[k]) - len(lines[k].lstrip())) if k < len(lines) else ""
        return "\n".join([*lines[:k], indent + new, *lines[k:]])

    def value(n: int, new: str) -> str:
        k = n % max(len(lines), 1)
        return "\n".join([*lines[:k], *([lines[k].partition(":")[0] + ": " + new] if lines else []), *lines[k + 1 :]])

    bomb = "\n".join(
        ["l0: &l0 [x, x, x, x, x, x, x, x, x]", *(f"l{k}: &l{k} [{', '.join([f'*l{k - 1}'] * 9)}]" for k in range(1, 12))]
    )
    lists = st.integers(0, 400)
    entries = st.sampled_from(
        [
            *("<<: *none", "<<: [1, 2]", "<<: {seed: 1}", "? [a, b]\n: 1", "? {a: b}\n: 1", "1: 2", "null: 3", "true: 4", "1.5: x", "2026-11-30: x"),
            *("x: !!python/name:os.system", "x: !!binary aGk=", "x: !!binary '*'", "x: !!set {a, b}", "x: !!omap [a: 1]", "x: !!float abc", "x: !!int ''"),
            *("x: !custom {a: 1}", "x: !!timestamp nonsense", "!!map x: y", "---", "...", "%YAML 9.9", "- x", "\tx: 1", "x: |", "x: >-\n  a", "@x: 1", "`: 1"),
            *("'': ''", "x: &a *a", "x: &a {y: *a}", "\u202ename\u202c: 1", "name: x\nname: y", "seed: 1\nseed: 2", "# \x07", "x: \"\\ud800\"", "x: 08"),
            *("model: {}", "traffic:", "x: [" + "[" * 900 + "]" * 900 + "]", "x: " + "{a: " * 300 + "1" + "}" * 300, "k" * 200_000 + ": 1"),
        ]
    )  # fmt: skip
    values = st.sampled_from(
        [
            *("2026-11-30", "2026-11-30 12:00:00", "0999", "1:30", "190:20:30", ".inf", "-.INF", ".nan", "1e3", "1_0", "0b11", "0x1F", "on", "NO", "~", ""),
            *("!!str 5", "!!int '5'", "!!null x", "!!bool maybe", "!!binary aGk=", "[]", "{}", "[,]", "{a}", '"\\x00"', "'" + "é" * 70_000 + "'", "9" * 4400),
        ]
    )  # fmt: skip
    return st.one_of(
        st.tuples(lists, entries).map(lambda p: at(*p)),
        st.tuples(lists, values).map(lambda p: value(*p)),
        st.just(f"{text}\n{bomb}"),
        lists.map(lambda n: f"base: &base\n  a: 1\n{at(n, '<<: *base')}"),
        lists.map(lambda n: "\n".join(lines + lines[n % max(len(lines), 1) :])),  # keys twice
        st.just("\n".join("  " * (k % 7) + line for k, line in enumerate(lines))),
        st.just(json.dumps(document, default=str).replace(":", ":\t").replace("{", '{"a":1,"a":2,', 1)),
        st.sampled_from(["//c\n", ",", "}", "\x1a", " \n" * 9, "\u00a0", "'"]).map(
            lambda end: json.dumps(document, default=str) + end
        ),
        st.just(json.dumps(document, default=str).replace('"', "'")),
    ).map(lambda found: found.encode("utf-8", "surrogatepass"))


# ---- what copying, packing and exporting do to a file


def wrong_tables() -> Iterator[bytes]:
    """Parquet that holds something else than was asked for."""
    columns: list[dict[str, Any]] = [
        {"arrival_s": ["a", "b"], "prompt_tokens": [1, 2], "output_tokens": [1, 2]},
        {"arrival_s": [0.0, None], "prompt_tokens": [None, 2], "output_tokens": [1, 2]},
        {"arrival_s": [[0.0], [1.0]], "prompt_tokens": [{"x": 1}, {"x": 2}], "output_tokens": [b"1", b"2"]},
        {"arrival_s": [float("nan"), float("inf")], "prompt_tokens": [2**62, -5], "output_tokens": [1.5, -0.5]},
        {"num_prefill_tokens": [True, False], "num_decode_tokens": ["9" * 50, ""]},
        {"arrival_s": [], "prompt_tokens": [], "output_tokens": []},
        {"": [1], "\u202e": [2]},
    ]
    for table in columns:
        to = io.BytesIO()
        pq.write_table(pa.table(table), to)
        yield to.getvalue()
        yield to.getvalue()[: len(to.getvalue()) // 2]
        yield to.getvalue()[:-6] + b"\xff\xff\xff\x7fPA"


def _zipped(content: bytes) -> bytes:
    to = io.BytesIO()
    with zipfile.ZipFile(to, "w") as archive:
        archive.writestr("x", content[:100_000])
    return to.getvalue()


@st.composite
def carried(draw: st.DrawFn, content: bytes) -> bytes:
    """The content as it arrives."""
    how = draw(st.integers(0, 12))
    cut = draw(st.integers(0, 200))
    match how:
        case 0:
            packed: bytes = pa.Codec("zstd").compress(content, asbytes=True)
            return packed[: max(len(packed) - cut, 0)]
        case 1:
            return gzip.compress(gzip.compress(content, mtime=0), mtime=0)
        case 2:
            packed = gzip.compress(content, mtime=0)
            return packed + gzip.compress(b"garbage", mtime=0)[: 5 + cut % 20]
        case 3:
            packed = bytearray(gzip.compress(content, mtime=0))  # type: ignore[assignment]
            packed[-8 + cut % 8] ^= 0xFF  # type: ignore[index]
            return bytes(packed)
        case 4:
            return _zipped(content)
        case 5:
            return content.decode("utf-8", "replace").encode("gb18030")
        case 6:
            return content.decode("utf-8", "replace").encode("latin-1", "replace") + b"\xe9\xff"
        case 7:
            return content.decode("utf-8", "replace").encode("utf-32")
        case 8:
            return content[:cut] + b"\xef\xbb\xbf" + content[cut:]
        case 9:
            return content[:cut] + b"\0" * 4096 + content[cut:]
        case 10:
            return content.replace(b"\n", b"\xe2\x80\xa8")
        case 11:
            return draw(st.sampled_from(list(wrong_tables())))
        case _:
            return content[cut:] + content[:cut]


def files(documents: list[Any], write: Any) -> st.SearchStrategy[bytes]:
    """Contents of a file that should hold a document like these."""
    return st.one_of(
        meant(documents).map(write),
        st.sampled_from(documents).flatmap(tricked),
        st.sampled_from(documents).map(write).flatmap(carried),
    )


@st.composite
def _cells(draw: st.DrawFn, texts: list[str]) -> bytes:
    rows = [line.split(",") for line in draw(st.sampled_from(texts)).splitlines()]
    for _ in range(draw(st.integers(1, 3))):
        row = rows[draw(st.integers(0, len(rows) - 1))]
        cell = str(draw(st.one_of(WORDS, WHOLE)))
        row[draw(st.integers(0, max(len(row) - 1, 0)))] = draw(st.sampled_from([cell, f'"{cell}"', f'"{cell}', f'{cell}"x']))
    match draw(st.integers(0, 5)):
        case 0:
            rows.insert(draw(st.integers(0, len(rows))), rows[0])  # the header again
        case 1:
            rows = [[*row, *row] for row in rows]
        case 2:
            rows = rows[1:]
    between = draw(st.sampled_from([",", ",", ",", ";", "\t"]))
    return "\n".join(between.join(row) for row in rows).encode("utf-8", "surrogatepass")


def tables(texts: list[str]) -> st.SearchStrategy[bytes]:
    """Contents of a file that should hold a table like these."""
    return st.one_of(_cells(texts), _cells(texts).flatmap(carried), st.sampled_from(texts).map(str.encode).flatmap(carried))
