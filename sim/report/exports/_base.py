"""What an export is, and writing several."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from pydantic import BaseModel, ConfigDict

from sim import output, registry

if TYPE_CHECKING:
    from sim.metrics.result import Result


class ExportParams(BaseModel):
    """An export has no settings."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Export:
    """Writes a result in one format. Subclasses are registered with ``@register("export")`` and carry ``name`` and ``file``.

    `text` yields the content in pieces. Whatever the format has and a simulation has not is left out, never invented.
    """

    name: ClassVar[str]
    file: ClassVar[str]
    """Name of the file in the result's folder."""
    Params: ClassVar[type[BaseModel]] = ExportParams

    def __init__(self, params: object = None) -> None:
        self.params = params or self.Params()

    def text(self, result: Result) -> Iterator[str]:
        """The content of the file."""
        raise NotImplementedError

    def write(self, result: Result, path: Path) -> Path:
        """Write the file whole or not at all."""
        output.write_file(path, lambda to: self.fill(result, to))
        return path

    def fill(self, result: Result, path: Path) -> None:
        """Write the file, in a folder that is made whole or not at all."""
        with path.open("w", encoding="utf-8", newline="\n") as file:
            file.writelines(self.text(result))


def find(names: Sequence[str], field: str = "--export") -> list[Export]:
    """The exports of these names. Raises `UnknownNameError`."""
    return [registry.lookup("export", name, field)() for name in dict.fromkeys(n.strip() for n in names) if name]


def write_exports(result: Result, names: Sequence[str], folder: str | Path) -> list[Path]:
    """Write a result in the named formats to a folder, which must exist; the files written. Raises `UnknownNameError`, OSError."""
    return [export.write(result, Path(folder) / export.file) for export in find(names)]
