"""YAML in and out: no aliases, no duplicate keys, no surprises."""

from __future__ import annotations

from collections.abc import Hashable

import yaml

from sim.document import Json, only_json
from sim.errors import DataError

_LARGEST = 1 << 20


@only_json
class _Loader(yaml.SafeLoader):
    """Refuses aliases (a small file could expand without end), keys given twice, and nesting without end."""

    depth = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.events.AliasEvent):
            raise yaml.composer.ComposerError(None, None, "aliases are not allowed", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        self.depth += 1
        if self.depth > 50:
            raise yaml.composer.ComposerError(None, None, "nested too deeply", self.peek_event().start_mark)  # type: ignore[no-untyped-call]
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, object]:
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, list | dict):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a name", key.start_mark)
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{name!r} is given twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)


class _Dumper(yaml.SafeDumper):
    """Quotes text that `_Loader`, or YAML as others read it, takes for something else."""


_Dumper.yaml_implicit_resolvers = {
    first: [*_Loader.yaml_implicit_resolvers.get(first, ()), *yaml.SafeDumper.yaml_implicit_resolvers.get(first, ())]
    for first in {*_Loader.yaml_implicit_resolvers, *yaml.SafeDumper.yaml_implicit_resolvers}
}


def parse(text: str, source: str) -> Json:
    """The value of a YAML text. Raises `DataError` with line and column."""
    if len(text) > _LARGEST:
        raise DataError(source, f"is no scenario: {len(text):,} characters", f"at most {_LARGEST:,}")
    try:
        found: Json = yaml.load(text, _Loader)
        return found
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise DataError(source, f"{where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise DataError(source, f"is no YAML: {str(error).splitlines()[0]}") from None
    except (
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
    ):  # what PyYAML's constructors do with a value that its tag does not fit
        raise DataError(source, "is no YAML: a value does not fit its tag (!!…)") from None


def dump(data: object) -> str:
    """YAML in the order of the fields."""
    text: str = yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=120, default_flow_style=False)
    return text
