"""What documents print: blocks of a kind, files to be written, commands and what they are said to answer."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
_FILE = re.compile(r"# file: (\S+)\n")


def text_of(page: str) -> str:
    """A page, by its path from the root of the project."""
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(text: str, kind: str) -> list[str]:
    """What stands in fenced blocks of a kind: ``console``, ``python``, ``yaml`` …"""
    return re.findall(rf"^```{kind}\n(.*?)^```$", text, re.S | re.M)


def files(text: str, *kinds: str) -> dict[str, str]:
    """Name → content of the blocks that begin with ``# file: NAME``; the content is without that line."""
    named = [(_FILE.match(block), block) for kind in kinds for block in blocks(text, kind)]
    return {found[1]: block[found.end() :] for found, block in named if found}


def steps(text: str) -> list[tuple[list[str], list[str]]]:
    """The words of every command after ``$`` in a console block, with the lines that it is said to print."""
    out: list[tuple[list[str], list[str]]] = []
    for block in blocks(text, "console"):
        assert block.startswith("$ "), block
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("$ "):
                out.append((shlex.split(line[2:]), []))
            else:
                out[-1][1].append(line)
    return out
