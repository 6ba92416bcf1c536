"""Adds the reference pages to the site while it is built."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

sys.path.insert(0, str(Path(__file__).parent))

from pages import pages, record

_RECORD = "<!-- record -->"


def on_files(files: Files, config: Any) -> Files:
    """Called by mkdocs when it has listed the files of `docs/`."""
    for path, text in pages().items():
        files.append(File.generated(config, path, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Called for each page: the accuracy record is a table of the package."""
    return markdown.replace(_RECORD, record()) if _RECORD in markdown else markdown
