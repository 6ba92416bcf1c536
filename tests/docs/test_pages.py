"""What the documents print is executed as printed; links and reference pages hold."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

from tests.cli.conftest import Command, servesim  # noqa: F401
from tests.documents import ROOT, blocks, files, steps, text_of

ELSEWHERE = ("extending.md", "hardware.md")
"""Pages that tests of their own execute."""
PAGES = sorted(p.relative_to(ROOT).as_posix() for p in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
TRANSLATED = {p: f"docs/how-to/{Path(p).name}" for p in PAGES if p.startswith("docs/zh/") and not p.endswith("/index.md")}
"""Pages in Chinese, and what they are translations of."""
EXECUTED = [p for p in PAGES if Path(p).name not in ELSEWHERE and p not in TRANSLATED]


@pytest.mark.parametrize("page", [p for p in EXECUTED if steps(text_of(p)) or blocks(text_of(p), "python")])
def test_a_page_works_as_printed(page: str, servesim: Command) -> None:  # noqa: F811
    text = text_of(page)
    for name, content in files(text, "yaml", "csv", "json").items():
        Path(name).write_text(content, encoding="utf-8")
    for words, _ in steps(text):
        assert words[0] == "servesim", words
        done = servesim(*words[1:])
        assert done.code == 0, (words, done)
        assert done.out.strip() or "--quiet" in words, words
    for i, block in enumerate(blocks(text, "python")):
        if not block.startswith("# file: "):
            script = Path(f"block{i}.py")
            script.write_text(block, encoding="utf-8")
            runpy.run_path(str(script))


@pytest.mark.parametrize("page", TRANSLATED)
def test_a_translation_prints_what_is_executed_of_its_original(page: str) -> None:
    here, there = text_of(page), text_of(TRANSLATED[page])
    assert [words for words, _ in steps(here)] == [words for words, _ in steps(there)] != []
    assert all(blocks(here, kind) == blocks(there, kind) for kind in ("yaml", "python", "csv", "json"))


def test_commands_that_are_only_named_exist() -> None:
    known = set(re.findall(r"^#+ `servesim ([a-z ]+)`$", _generated()["reference/commands.md"], re.M))
    for page in EXECUTED:  # the others name studies of their own
        for said in re.findall(r"`servesim ([a-z]+(?: (?:list|show|check|families|describe|convert))?)\b", text_of(page)):
            assert said in known, f"{page}: servesim {said}"


@pytest.mark.parametrize("page", PAGES)
def test_links_lead_somewhere(page: str) -> None:
    text = text_of(page)
    generated = set(_generated())
    for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text):
        if "://" in target or target.startswith("mailto:"):
            continue
        at = (ROOT / page).parent / target
        known = at.exists() or at.resolve().relative_to(ROOT / "docs").as_posix() in generated
        assert known, f"{page}: {target} does not exist"


def test_the_navigation_lists_every_page() -> None:
    listed = set(re.findall(r": ([\w/-]+\.md)$", text_of("mkdocs.yml"), re.M))
    written = {Path(p).relative_to("docs").as_posix() for p in PAGES if p.startswith("docs/")}
    assert listed == written | set(_generated())


def test_reference_pages_say_something(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for path, text in _generated().items():
        assert text.startswith("# ") and len(text) > 1000, path
        assert "None" not in text.splitlines()[0]


def test_links_within_reference_pages_lead_to_headings() -> None:
    for path, text in _generated().items():
        heads = {re.sub(r"[^\w\s-]", "", h).strip().lower().replace(" ", "-") for h in re.findall(r"^#+ (.+)$", text, re.M)}
        assert set(re.findall(r"\]\(#([^)]+)\)", text)) <= heads, path


def test_the_accuracy_page_shows_the_record() -> None:
    """What `python docs/_site/pages.py` writes."""
    made = runpy.run_path(str(ROOT / "docs" / "_site" / "pages.py"))
    text = text_of("docs/accuracy.md")
    assert made["accuracy"](text) == text
    assert all(table in text for table in (made["errors"](), made["record"]()))


def test_every_engine_says_what_is_modelled_and_what_is_not() -> None:
    engines = re.split(r"^## ", _generated()["reference/engines.md"], flags=re.M)[1:]
    assert len(engines) == len({e.splitlines()[0] for e in engines}) >= 9
    for engine in engines:
        assert re.search(r"\*\*Not modelled\*\*: \S", engine), engine[:40]
        assert re.search(r"\*\*Without effect on time\*\*: \S", engine), engine[:40]
        assert "| setting | default |" in engine, engine[:40]


_pages: dict[str, str] = {}


def _generated() -> dict[str, str]:
    if not _pages:
        _pages.update(runpy.run_path(str(ROOT / "docs" / "_site" / "pages.py"))["pages"]())
    return _pages
