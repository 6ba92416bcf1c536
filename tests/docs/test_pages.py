"""What the documents print is executed as printed; links and reference pages hold."""

from __future__ import annotations

import re
import runpy
import shlex
import sys
from pathlib import Path

import pytest

from sim import cli

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = ("extending.md", "hardware.md")
"""Pages that tests of their own execute."""
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
EXECUTED = [p for p in PAGES if Path(p).name not in ELSEWHERE]


def blocks(page: str, kind: str) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```$", (ROOT / page).read_text(encoding="utf-8"), re.S | re.M)


def commands(page: str) -> list[list[str]]:
    return [
        shlex.split(line[2:])
        for block in blocks(page, "console")
        for line in block.replace("\\\n", " ").splitlines()
        if line.startswith("$ ")
    ]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


def execute(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    assert words[0] == "servesim", words
    monkeypatch.setattr(sys, "argv", words)
    try:
        cli.main()
    except SystemExit as done:
        return int(done.code or 0)
    return 0


@pytest.mark.parametrize("page", [p for p in EXECUTED if commands(p) or blocks(p, "python")])
def test_a_page_works_as_printed(
    page: str, folder: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for kind in ("yaml", "csv", "json"):
        for block in blocks(page, kind):
            first, _, rest = block.partition("\n")
            if first.startswith("# file: "):
                Path(first.removeprefix("# file: ")).write_text(rest if kind != "yaml" else block, encoding="utf-8")
    for words in commands(page):
        assert execute(words, monkeypatch) == 0, (words, capfd.readouterr())
        assert capfd.readouterr().out.strip() or "--quiet" in words, words
    for i, block in enumerate(blocks(page, "python")):
        if not block.startswith("# file: "):
            script = Path(f"block{i}.py")
            script.write_text(block, encoding="utf-8")
            runpy.run_path(str(script))


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = (ROOT / page).read_text(encoding="utf-8")
    generated = set(_generated())
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        at = (ROOT / page).parent / target
        known = at.exists() or at.resolve().relative_to(ROOT / "docs").as_posix() in generated
        assert known, f"{page}: {target} does not exist"


def test_the_navigation_lists_every_page() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", (ROOT / "mkdocs.yml").read_text(encoding="utf-8"), re.M))
    written = {Path(p).relative_to("docs").as_posix() for p in PAGES if p.startswith("docs/")}
    assert listed == written | set(_generated())


def test_reference_pages_say_something(folder: Path) -> None:
    for path, text in _generated().items():
        assert text.startswith("# ") and len(text) > 1000, path
        assert "None" not in text.splitlines()[0]


_pages: dict[str, str] = {}


def _generated() -> dict[str, str]:
    if not _pages:
        _pages.update(runpy.run_path(str(ROOT / "docs" / "_site" / "pages.py"))["pages"]())
    return _pages
