"""YAML read in one place: quickly, to a bounded size and depth, with what JSON can hold and nothing given twice."""

from __future__ import annotations

import re
from typing import Any, Final

import yaml

from sim.document import Json
from sim.errors import brief

DEEPEST: Final = 50
"""Values within values."""
MOST: Final = 200_000
"""Values of a text; what an alias stands for counts wherever it stands."""
_NUMBERS = {
    "tag:yaml.org,2002:int": r"[-+]?(?:0|[1-9][0-9_]*|0b[01_]+|0x[0-9a-fA-F_]+)",
    "tag:yaml.org,2002:float": r"[-+]?(?:[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?|\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?|\.(?:inf|Inf|INF))|\.(?:nan|NaN|NAN)",
}
"""Of YAML's numbers those that mean what they look like: ``010`` is not eight, ``1:30`` is not ninety."""


class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """No dates, bytes, sets or other values that JSON has not: what looks like one is text. Keys given twice are refused."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, Json]:
        """The mapping, unless a key is given twice or is no name."""
        seen = set()
        for key, _ in node.value:
            name = self.construct_object(key, deep=True)
            if isinstance(name, list | dict):
                raise _at(key, "a key must be a name")
            if name in seen:
                raise _at(key, f"{brief(str(name))!r} is given twice")
            seen.add(name)
        made: dict[object, Json] = super().construct_mapping(node, deep)
        return made


_ODD = {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "binary", "set", "omap", "pairs")}
Loader.yaml_constructors = {tag: make for tag, make in Loader.yaml_constructors.items() if tag not in _ODD}
Loader.yaml_implicit_resolvers = {
    first: [(tag, re.compile(f"^(?:{_NUMBERS[tag]})$") if tag in _NUMBERS else form) for tag, form in forms if tag not in _ODD]
    for first, forms in Loader.yaml_implicit_resolvers.items()
}


def read(text: str, aliases: bool = False) -> Json:
    """The value of a YAML text. Raises ValueError that says where it is none; ``aliases``: parts of it may stand for others."""
    try:
        loader = Loader(text)
        try:
            node = loader.get_single_node()
            if node is None:
                return None
            _bounded(node, aliases)
            found: Json = loader.construct_document(node)
            return found
        finally:
            loader.dispose()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError, OverflowError) as error:
        raise ValueError(f"is no YAML: {(str(error) or type(error).__name__).splitlines()[0]}") from None
    except (
        KeyError,
        AttributeError,
        IndexError,
        TypeError,
    ):  # what PyYAML's constructors do with a value that its tag does not fit
        raise ValueError("is no YAML: a value does not fit its tag (!!…)") from None


def _bounded(root: yaml.Node, aliases: bool) -> None:
    """Raise for what is too much, before anything is made of it."""
    seen: set[int] = set()
    rest: list[tuple[Any, int]] = [(root, 1)]
    for _ in range(MOST):
        if not rest:
            return
        node, depth = rest.pop()
        if not aliases and id(node) in seen:
            raise _at(node, "aliases are not allowed, and this is used twice")
        if depth > DEEPEST:
            raise _at(node, "nested too deeply")
        seen.add(id(node))
        if isinstance(node, yaml.MappingNode):
            rest += [(part, depth + 1) for pair in node.value for part in pair]
        elif isinstance(node, yaml.SequenceNode):
            rest += [(part, depth + 1) for part in node.value]
    if rest:
        raise _at(root, f"holds more than {MOST:,} values")


def _at(node: yaml.Node, problem: str) -> yaml.constructor.ConstructorError:
    return yaml.constructor.ConstructorError(None, None, problem, node.start_mark)
