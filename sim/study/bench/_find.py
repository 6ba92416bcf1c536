"""Which reader a file belongs to, and all results in a folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from sim import registry
from sim.errors import DataError
from sim.places import files_below
from sim.study.bench._base import Bench
from sim.study.bench._document import Document
from sim.study.bench._run import Run

SUFFIXES = (".json", ".jsonl", ".csv", ".yaml", ".yml", ".ndjson")
_PACKED = (".gz", ".zst")


def known() -> list[Bench]:
    """Every reader, the most particular first (a plain table is taken last)."""
    every = [registry.lookup("bench", name)() for name in registry.names("bench")]
    return sorted(every, key=lambda b: (b.name == "requests-csv", b.name))


def reader_of(document: Document) -> Bench | None:
    """The reader whose tool wrote the file; None when no one knows it. Raises `DataError` for what cannot be parsed at all."""
    document.kind  # noqa: B018 - parses, so that a damaged file is named as such
    return next((reader for reader in known() if reader.fits(document)), None)


def read(path: Path) -> list[Run]:
    """All runs in a file. Raises `DataError` naming what is read."""
    document = Document(path)
    reader = reader_of(document)
    if reader is None:
        what = ", ".join(map(str, document.first)) or (", ".join(document.value[0]) if document.kind == "csv" else "no object")
        raise DataError(
            str(path),
            f"is no benchmark result that is known; it has: {what[:160]}",
            "read are " + "; ".join(b.title for b in known()),
        )
    found = list(reader.runs(document))
    if not found:
        raise DataError(str(path), f"is {reader.title}, but holds no run")
    return found


def is_candidate(path: Path) -> bool:
    """Whether a file of a folder may be a result, by its name."""
    name = path.name
    for packed in _PACKED:
        name = name.removesuffix(packed)
    return name.endswith(SUFFIXES) and not name.startswith(".")


def read_tree(folder: Path, skip: set[Path]) -> Iterator[tuple[Path, list[Run] | None]]:
    """Every file below a folder that may be a result, with its runs, or None where no reader knows it. ``skip``: folders left out."""
    files = [f for f in files_below(folder) if is_candidate(f) and not skip & set(f.parents)]
    readers: dict[Path, Bench | None] = {}
    for file in files:
        try:
            readers[file] = reader_of(Document(file))
        except DataError:
            readers[file] = None
    aside: set[Path] = set()
    for file, reader in readers.items():
        if reader is None:
            continue
        aside |= set(reader.told_by(file.parent)) - {file}
        for above in file.parents:  # a summary above the runs that it sums up
            if above == folder.parent:
                break
            aside |= {above / name for name in reader.beside if "*" not in name and above / name != file}
    for file in files:
        reader = readers[file]
        if file in aside:
            continue
        yield file, None if reader is None else list(reader.runs(Document(file)))
