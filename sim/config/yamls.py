"""YAML as people expect it: version 1.2 scalars, no key twice, no aliases that unfold without end.

PyYAML follows YAML 1.1, where ``1:30`` is 90, ``no`` is false, ``1e6`` is text and a repeated key silently wins.
"""

from __future__ import annotations

import re
from typing import Any

import yaml

from sim.errors import ConfigError

LARGEST = 2_000_000
_MOST_NODES = 200_000
_DEEPEST = 50
_INT = re.compile(r"^[-+]?(?:[0-9]+|0x[0-9a-fA-F]+|0o[0-7]+)$")
_FLOAT = re.compile(
    r"^[-+]?(?:(?:\.[0-9]+|[0-9]+\.[0-9]*)(?:[eE][-+]?[0-9]+)?|[0-9]+[eE][-+]?[0-9]+|\.(?:inf|Inf|INF))$|^\.(?:nan|NaN|NAN)$"
)
_RESOLVERS = (
    ("tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    ("tag:yaml.org,2002:int", _INT, "-+0123456789"),
    ("tag:yaml.org,2002:float", _FLOAT, "-+0123456789."),
    ("tag:yaml.org,2002:null", re.compile(r"^(?:~|null|Null|NULL|)$"), ["~", "n", "N", ""]),
)


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 - PyYAML's own attribute
    depth = 0

    def compose_node(self, parent: Any, index: Any) -> Any:
        self.depth += 1
        if self.depth > _DEEPEST:
            raise yaml.composer.ComposerError(None, None, f"nested deeper than {_DEEPEST} levels", self.peek_event().start_mark)
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node

    def construct_mapping(self, node: Any, deep: bool = False) -> Any:
        seen: set[str] = set()
        for key, _ in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key must be a plain word", key.start_mark)
            if key.value in seen:
                raise yaml.constructor.ConstructorError(None, None, f"the key {key.value!r} is given twice", key.start_mark)
            seen.add(key.value)
        return {key.value: self.construct_object(value, deep=True) for key, value in node.value}

    def construct_int(self, node: Any) -> int:
        text = self.construct_scalar(node)
        return int(text, 0) if text.lstrip("+-")[:2] in {"0x", "0o"} else int(text)

    def construct_map(self, node: Any) -> Any:
        yield self.construct_mapping(node)


class _Dumper(yaml.SafeDumper):
    """Quotes text that either version of YAML would read as something else."""

    yaml_implicit_resolvers = {k: list(v) for k, v in yaml.SafeDumper.yaml_implicit_resolvers.items()}

    def ignore_aliases(self, data: Any) -> bool:
        return True


for _tag, _pattern, _first in _RESOLVERS:
    _Loader.add_implicit_resolver(_tag, _pattern, _first)
    _Dumper.add_implicit_resolver(_tag, _pattern, _first)
_Loader.add_constructor("tag:yaml.org,2002:map", _Loader.construct_map)
_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_int)


def parse(text: str, source: str) -> Any:
    """The value of one YAML document. ``source`` names it in the `ConfigError` that anything unreadable raises."""
    if len(text) > LARGEST:
        raise ConfigError("", source, f"{source}: is longer than {LARGEST:,} characters")
    loader: Any = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _unfolded(node, {}, set()) > _MOST_NODES:
            raise ConfigError("", source, f"{source}: aliases unfold to more than {_MOST_NODES:,} values")
        return loader.construct_document(node)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        at = f":{mark.line + 1}:{mark.column + 1}" if mark else ""
        raise ConfigError("", source, f"{source}{at}: is no readable YAML: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        first = str(error).splitlines() or ["nested too deep"]
        raise ConfigError("", source, f"{source}: is no readable YAML: {first[0]}") from None
    finally:
        if loader is not None:
            loader.dispose()


def dump(data: Any) -> str:
    """YAML text that `parse` reads back to equal data."""
    return yaml.dump(data, Dumper=_Dumper, sort_keys=False, allow_unicode=True, default_flow_style=None, width=120)


def _unfolded(node: Any, known: dict[int, int], open_: set[int]) -> int:
    """How many values a node stands for once its aliases are unfolded."""
    if id(node) in known:
        return known[id(node)]
    if id(node) in open_:
        raise yaml.composer.ComposerError(None, None, "an alias stands for itself", node.start_mark)
    size = 1
    if not isinstance(node, yaml.ScalarNode):
        open_.add(id(node))
        parts = node.value if isinstance(node, yaml.SequenceNode) else [n for pair in node.value for n in pair]
        size += sum(_unfolded(part, known, open_) for part in parts)
        open_.discard(id(node))
    known[id(node)] = size
    return size
