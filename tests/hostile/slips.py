"""Files in which a hand or a program has slipped: look-alike letters, other units, lines and keys twice, another file under the name, archives cut short."""

from __future__ import annotations

import bz2
import gzip
import lzma
import random
import re
from collections.abc import Callable
from typing import Final

from hypothesis import strategies as st

ALIKE: Final = dict(zip("aceopxyi-:,.0123456789 ", "асеорхуі−：，．０１２３４５６７８９\u00a0", strict=True))
MEANT: Final = [
    *("2 sec", "3 seconds", "1 hr", "8 rps", "8/second", "8 per s", "1h30m", "PT5S", "-0", "-0.0", "50%", "1/2", "1e", "1,5", "1'000", "$5", "٥", "2²"),
    *("1e309", "-1e309", "1e-330", "9" * 25, "9" * 310, "9" * 5000, "0xZZ", "0b2", "nan", "-inf", "[1", "{", "null", "''", '""', "!!", "&a", "*a", "|"),
    *("%", "@", "`", "? ", "- -", "\t", "\u200b5", "/", "/dev/stdin", "~nobody/x", "file.py:X", "::", "http://x", "\x7f", "\x1b[0m", "😀" * 50, "x" * 300),
]  # fmt: skip
_NUMBER = re.compile(r"(?<![\w.])-?\d+(?:\.\d+)?(?:[eE][-+]?\d+)?")
_NAME = re.compile(r"[A-Za-z_]\w{2,}")


def _text(content: bytes) -> str:
    return content.decode("utf-8", "surrogateescape")


def _bytes(text: str) -> bytes:
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")


def _some(content: bytes, form: re.Pattern[str], other: Callable[[str], str], chance: random.Random, most: int = 3) -> bytes:
    """The content with up to ``most`` matches of ``form`` in another form."""
    text = _text(content)
    there = list(form.finditer(text))
    for found in sorted(chance.sample(there, min(len(there), chance.randint(1, most))), key=lambda m: -m.start()):
        text = text[: found.start()] + other(found[0]) + text[found.end() :]
    return _bytes(text)


def _alike(content: bytes, chance: random.Random) -> bytes:
    return _some(content, re.compile("[" + re.escape("".join(ALIKE)) + "]"), ALIKE.__getitem__, chance, 6)


def _meant(content: bytes, chance: random.Random) -> bytes:
    return _some(content, _NUMBER, lambda _: chance.choice(MEANT), chance)


def _scaled(content: bytes, chance: random.Random) -> bytes:
    ways: list[Callable[[str], str]] = [
        lambda x: x + "0" * chance.choice([1, 9, 18, 400]),
        lambda x: x[1:] if x.startswith("-") else "-" + x,
        lambda x: x + "%",
        lambda x: x.partition("e")[0] + f"e{chance.choice([3, 9, 18, 308, -9, -300])}",
    ]
    return _some(content, _NUMBER, chance.choice(ways), chance)


def _all_numbers(content: bytes, chance: random.Random) -> bytes:
    value = chance.choice(["0", "-1", "1e9", "1e18", "0.5", "null", "2147483648", "NaN"])
    return _bytes(_NUMBER.sub(value, _text(content)))


def _names(content: bytes, chance: random.Random) -> bytes:
    ways: list[Callable[[str], str]] = [
        *(str.upper, str.title, lambda w: w + "s", lambda w: w[1:], lambda w: w.replace("_", "-"), lambda w: w * 30),
        *(lambda w: "__class__", lambda w: w + "\u200b", lambda w: "", lambda w: f"{w}.{w}", lambda w: f"{w}[0]"),
    ]
    return _some(content, _NAME, chance.choice(ways), chance)


def _lines(content: bytes, chance: random.Random) -> bytes:
    lines = content.split(b"\n")
    for _ in range(chance.randint(1, 4)):
        a, b = (chance.randrange(len(lines)) for _ in range(2))
        match chance.randrange(4):
            case 0:
                lines[a], lines[b] = lines[b], lines[a]
            case 1:
                lines.insert(b, lines[a])
            case 2:
                lines[a] = b" " * chance.randint(1, 9) + lines[a]
            case _:
                lines[a] = lines[a].lstrip()
    return b"\n".join(lines)


def _twice(content: bytes, chance: random.Random) -> bytes:
    text = _text(content)
    keys = list(re.finditer(r'"(\w+)"[ \t]*:|^([ \t]*)(\w+):', text, re.MULTILINE))
    if not keys:
        return content + content
    key = chance.choice(keys)
    again = f'"{key[1]}": 1, ' if key[1] else f"{key[2]}{key[3]}: 1\n"
    return _bytes(text[: key.start()] + again + text[key.start() :])


def _marks(content: bytes, chance: random.Random) -> bytes:
    mark, others = chance.choice(
        [(b'"', [b"'", b"", b'""', "“".encode()]), (b":", [b"=", b"", b":\t"]), (b",", [b";", b",,", b"\t"])]
    )
    return content.replace(mark, chance.choice(others), chance.choice([-1, 1, 3]))


def _long(content: bytes, chance: random.Random) -> bytes:
    at = chance.randint(0, len(content))
    return content[:at] + chance.choice([b"x", b"9", b" ", b"[", b"\n"]) * chance.choice([300, 5000, 200_000]) + content[at:]


def _packed(content: bytes, chance: random.Random) -> bytes:
    packed = bytearray(gzip.compress(content, mtime=0))
    packed[chance.randrange(len(packed))] ^= 1 << chance.randrange(8)
    whole = gzip.compress(content * 50, mtime=0)
    ways = [bytes(packed), whole[: chance.randint(0, len(whole))], bz2.compress(content), lzma.compress(content)]
    return chance.choice([*ways, b"PK\x03\x04" + content, b"PAR1" + content + b"PAR1"])


def _encoded(content: bytes, chance: random.Random) -> bytes:
    way = chance.choice(["utf-16-le", "utf-32-le", "utf-7", "cp1252", "shift_jis", "gbk", "cp037", "utf-8-sig"])
    return content.decode("utf-8", "replace").encode(way, "replace")


_WAYS: Final = [_alike, _meant, _scaled, _all_numbers, _names, _lines, _twice, _marks, _long, _packed, _encoded]


@st.composite
def slipped(draw: st.DrawFn, own: bytes, others: list[bytes]) -> bytes:
    """``own``, or one of the ``others`` under its name, or both after each other, after up to three slips."""
    chance = random.Random(draw(st.integers(0, 2**64)))
    content = own
    match chance.randrange(8):
        case 0:
            content = chance.choice(others)
        case 1:
            content = own + b"\n" + chance.choice(others)
    for _ in range(chance.randint(0 if content is not own else 1, 3)):
        content = chance.choice(_WAYS)(content, chance)
    return content
