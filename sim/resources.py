"""Where `profiles/` and `scenarios/` are: beside the package in a checkout, inside it in an installed wheel."""

from __future__ import annotations

from pathlib import Path
from typing import Any

_HERE = Path(__file__).resolve().parent


def path(folder: str, *parts: str) -> Path:
    """Path of a file that travels with the package, e.g. ``path("profiles", "hardware", "h100-sxm.yaml")``."""
    inside = _HERE / "_data" / folder
    return (inside if inside.is_dir() else _HERE.parent / folder).joinpath(*parts)


def read_yaml(file: Path) -> Any:
    """The content of a YAML file of ours, read by the C library where PyYAML has it."""
    import yaml

    return yaml.load(file.read_text(encoding="utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
