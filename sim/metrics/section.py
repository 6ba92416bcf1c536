"""What a section of a summary is: a frozen dataclass that is also a mapping, and that reads and writes itself as JSON.

>>> @dataclass(frozen=True)
... class Counts(Section):
...     '''Requests by outcome.'''
...     finished: int
...     wait: float | None = field(default=None, metadata=keyed("wait_s"))
>>> counts = Counts(finished=3, wait=0.5)
>>> counts.wait, counts["wait_s"], counts.as_dict()
(0.5, 0.5, {'finished': 3, 'wait_s': 0.5})
"""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator, Mapping
from dataclasses import field, fields
from functools import cache, partial
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any, ClassVar, Final, NamedTuple, Self

if TYPE_CHECKING:
    from sim.metrics.facts import Facts


ABSENT: Final = {"absent": True}
"""Metadata of a field that has no key at all where it is None."""


def keyed(name: str) -> dict[str, str]:
    """Metadata of a field whose key in files is ``name``, not the name of the field."""
    return {"key": name}


def said(words: str) -> Any:
    """A field with a description for the JSON schema, where the table of metrics has none."""
    return field(metadata={"words": words})


class Field(NamedTuple):
    """``absent``: None is no entry; ``read``: from JSON."""

    name: str
    absent: bool
    hint: Any
    read: Callable[[Any], Any]
    words: str


class Section(Mapping[str, Any]):
    """Base of all sections. Derived classes are ``@dataclass(frozen=True)``; their docstrings go into the JSON schema.

    Fields are numbers, words, None, other sections, tuples and mappings of these. ``summary.slo.met`` and ``summary["slo"]["met"]``
    are the same; the keys are those of files.
    """

    def __init_subclass__(cls) -> None:
        cls.__eq__ = Section.__eq__  # type: ignore[method-assign]  # as a mapping, which the decorator would replace
        cls.__repr__ = Section.__repr__  # type: ignore[method-assign]

    def __getitem__(self, name: str) -> Any:
        found = fields_of(type(self))[name]
        value = getattr(self, found.name)
        if value is None and found.absent:
            raise KeyError(name)
        return value

    def __iter__(self) -> Iterator[str]:
        for name, found in fields_of(type(self)).items():
            if not (found.absent and getattr(self, found.name) is None):
                yield name

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __eq__(self, other: object) -> bool:
        return plain(self) == plain(other) if isinstance(other, Mapping) else NotImplemented

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def as_dict(self) -> dict[str, Any]:
        """The same as plain dictionaries and lists, ready for JSON."""
        return {name: plain(value) for name, value in self.items()}

    @classmethod
    def from_dict(cls, data: Mapping[str, object]) -> Self:
        """What `as_dict` gave. Raises KeyError for a section without one of its figures, TypeError for one of another type."""
        values = {}
        for name, found in fields_of(cls).items():
            if name in _are(Mapping, data) or not found.absent:
                values[found.name] = found.read(data[name])
        return cls(**values)


class Extra(Section):
    """Base of sections that a summary has beside its own: one file in `sim.metrics.sections` with one registered class.

    ``name``: its key in the summary. `of` is asked at the end of every run.
    """

    name: ClassVar[str]

    @classmethod
    def of(cls, facts: Facts) -> Self | None:
        """The section of a run; None where it has nothing to say."""
        return None

    def sentences(self) -> list[str]:
        """The section in words, for the notes of the report."""
        return []


def plain(value: object) -> object:
    """Dictionaries and lists of what may hold sections."""
    if isinstance(value, Section):
        return value.as_dict()
    if isinstance(value, Mapping):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return [plain(v) for v in value]
    return value


@cache
def fields_of(cls: type[Section]) -> dict[str, Field]:
    """The fields of a section by key, in order; without what the section shows in its own way (metadata ``beside``)."""
    hints = typing.get_type_hints(cls)
    out = {}
    for f in fields(cls):  # type: ignore[arg-type]
        if f.metadata.get("beside"):
            continue
        out[f.metadata.get("key") or f.name] = Field(
            f.name, bool(f.metadata.get("absent")), hints[f.name], _reader(hints[f.name]), str(f.metadata.get("words", ""))
        )
    return out


def _reader(hint: object) -> Callable[[Any], Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (types.UnionType, typing.Union):
        some = [a for a in args if a is not type(None)]
        inner = _reader(some[0]) if len(some) == 1 else partial(_are, tuple(t for a in some for t in _LIKE[a]))
        return lambda v: None if v is None else inner(v)
    if isinstance(hint, type) and issubclass(hint, Section):
        return hint.from_dict
    if origin is tuple:
        item = _reader(args[0])
        return lambda v: tuple(item(x) for x in _are((list, tuple), v))
    if isinstance(origin, type) and issubclass(origin, Mapping):
        value = _reader(args[1])
        return lambda v: {k: value(x) for k, x in _are(Mapping, v).items()}
    return partial(_are, _LIKE[hint]) if hint in _LIKE else lambda v: v


_LIKE: Final[Mapping[object, tuple[type, ...]]] = {int: (Integral,), float: (Real,), str: (str,), bool: (bool,)}


def _are(kinds: type | tuple[type, ...], value: Any) -> Any:
    """The value, of one of the kinds; truth is no number. Raises TypeError."""
    if not isinstance(value, kinds) or (isinstance(value, bool) and kinds != (bool,)):
        raise TypeError(f"{str(value)[:80]!r} is of another type than was saved")
    return value


_TYPES = {int: "integer", float: "number", str: "string", bool: "boolean", type(None): "null"}


def json_schema(cls: type[Section], more: Mapping[str, type[Section]] | None = None) -> dict[str, Any]:
    """Draft 2020-12 schema of a section; ``more``: sections that it may have besides."""
    definitions: dict[str, Any] = {}
    out = _object(cls, definitions)
    for name, extra in (more or {}).items():
        out["properties"][name] = _schema(extra, definitions)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema"} | out | {"$defs": definitions}


def _object(cls: type[Section], definitions: dict[str, Any]) -> dict[str, Any]:
    from sim.metrics.definitions import described

    known, properties = fields_of(cls), {}
    for name, found in known.items():
        text = found.words or described(name)
        properties[name] = _schema(found.hint, definitions) | ({"description": text} if text else {})
    required = [name for name, found in known.items() if not found.absent]
    return {
        "title": cls.__name__,
        "description": " ".join((cls.__doc__ or "").split()),
        "type": "object",
        "properties": properties,
        "required": required,
    }


def _schema(hint: object, definitions: dict[str, Any]) -> dict[str, Any]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if hint in _TYPES:
        return {"type": _TYPES[hint]}
    if isinstance(hint, type) and issubclass(hint, Section):
        if hint.__name__ not in definitions:
            definitions[hint.__name__] = {}
            definitions[hint.__name__] = _object(hint, definitions)
        return {"$ref": f"#/$defs/{hint.__name__}"}
    if origin in (types.UnionType, typing.Union):
        found = [_schema(a, definitions) for a in args]
        simple = all(set(f) == {"type"} for f in found)
        return {"type": [f["type"] for f in found]} if simple else {"anyOf": found}
    if origin is tuple:
        return {"type": "array", "items": _schema(args[0], definitions)}
    if isinstance(origin, type) and issubclass(origin, Mapping):
        return {"type": "object", "additionalProperties": _schema(args[1], definitions)}
    return {}
