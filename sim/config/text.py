"""YAML in and out: no aliases, no duplicate keys, no surprises."""

from __future__ import annotations

import yaml

from sim.document import Json
from sim.errors import DataError
from sim.yaml_text import Loader, read

_LARGEST = 1 << 20


class _Dumper(yaml.SafeDumper):
    """Quotes text that `sim.yaml_text`, or YAML as others read it, takes for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*Loader.yaml_implicit_resolvers.get(first, ()), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ())]
    for first in {*Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def parse(text: str, source: str) -> Json:
    """The value of a YAML text. Raises `DataError` with line and column."""
    if len(text) > _LARGEST:
        raise DataError(source, f"is no scenario: {len(text):,} characters", f"at most {_LARGEST:,}")
    try:
        return read(text)
    except ValueError as error:
        raise DataError(source, str(error)) from None


def dump(data: object) -> str:
    """YAML in the order of the fields."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return text
