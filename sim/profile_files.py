"""Data files of profiles: YAML that is read strictly and checked as a whole, so that one message names everything that is wrong.

A figure is written as ``{value: …, source: …, evidence: …}``; a bare value counts as estimated, without a source.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, GetJsonSchemaHandler, ValidationError, field_validator, model_validator
from pydantic.json_schema import JsonSchemaValue
from pydantic_core import CoreSchema, ErrorDetails

from sim.document import Json
from sim.errors import DataError, brief, did_you_mean
from sim.yaml_text import read

Evidence = Literal["measured", "fitted", "datasheet", "estimated"]
GRADES: tuple[Evidence, ...] = ("measured", "fitted", "datasheet", "estimated")

LARGEST = 1 << 20
"""Bytes of a file of settings."""
_UNSOURCED = "no source given"
_SHOWN = 12
_LONGEST = 250
"""Characters of a sentence about one fault: a key or a value may be as long as the file."""

M = TypeVar("M", bound=BaseModel)
T = TypeVar("T")


class Record(BaseModel):
    """Base of everything a profile file holds: frozen, unknown keys refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Graded(Record, Generic[T]):
    """A figure with its source and grade. A bare value is taken as estimated."""

    value: T
    source: str = _UNSOURCED
    evidence: Evidence = "estimated"

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, given: object) -> object:
        if not isinstance(given, Mapping):
            return {"value": given}
        if "value" not in given:
            raise ValueError("needs value, source and evidence")
        return given

    @field_validator("evidence", mode="before")
    @classmethod
    def _grade(cls, given: object) -> object:
        if given not in GRADES:
            raise ValueError(f"evidence {brief(repr(given))} is none of {', '.join(GRADES)}")
        return given

    @field_validator("source", mode="before")
    @classmethod
    def _said(cls, given: object) -> object:
        if not isinstance(given, str) or not given.strip():
            raise ValueError("source must say where the figure comes from")
        return given

    @classmethod
    def __get_pydantic_json_schema__(cls, core: CoreSchema, handler: GetJsonSchemaHandler) -> JsonSchemaValue:
        whole = handler.resolve_ref_schema(handler(core))
        return {"anyOf": [whole["properties"]["value"], whole]}


def read_text(file: Path, what: str) -> str:
    """The text of a UTF-8 file. ``what`` it should be, for errors. Raises `DataError`."""
    try:
        if file.exists() and not file.is_file():
            raise DataError(str(file), f"is no file that could hold {what}")
        if file.is_file() and file.stat().st_size > LARGEST:
            raise DataError(str(file), f"is too large for {what}", f"at most {LARGEST:,} bytes")
        return file.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(str(file), "no such file", f"it should hold {what}") from None
    except UnicodeDecodeError:
        raise DataError(str(file), f"is no text, and no {what.removeprefix('the ')}") from None
    except (OSError, ValueError) as error:
        raise DataError(str(file), f"cannot be read: {getattr(error, 'strerror', None) or error}") from None


@lru_cache(maxsize=256)
def _parsed(text: str, source: str) -> object:
    try:
        return read(text, aliases=True)
    except ValueError as error:
        raise DataError(source, f"is no readable YAML: {_cut(str(error).removeprefix('is no YAML: '))}") from None


def parse_mapping(text: str, source: str, what: str) -> Mapping[str, Json]:
    """The mapping of a YAML text. Raises `DataError`."""
    raw = _parsed(text, source)
    if not isinstance(raw, Mapping):
        raise DataError(source, f"must hold one mapping, {what}")
    odd = [k for k in raw if not isinstance(k, str)]
    if odd:
        raise DataError(source, f"keys must be names, not {brief(repr(odd[0]))}")
    return raw


def read_mapping(file: Path, what: str) -> Mapping[str, Json]:
    """The mapping a YAML file holds; a file that was edited is read again. Raises `DataError`."""
    return parse_mapping(read_text(file, what), str(file), what)


def checked(model: type[M], raw: Mapping[str, object], source: str) -> M:
    """``model`` of what a file holds. Raises `DataError` that names everything that is wrong."""
    try:
        return model.model_validate(dict(raw))
    except ValidationError as error:
        raise DataError(source, _told(model, error)) from None
    except OverflowError:  # raised through, not collected, by pydantic
        raise DataError(source, "holds a whole number that is too large to compute with", "at most 1e308") from None


def _told(model: type[BaseModel], error: ValidationError) -> str:
    found = list(dict.fromkeys(_cut(_sentence(model, e)) for e in error.errors(include_url=False)))
    if len(found) == 1:
        return found[0]
    more = f"; and {len(found) - _SHOWN} more" if len(found) > _SHOWN else ""
    return f"{len(found)} things are wrong: {'; '.join(found[:_SHOWN])}{more}"


def _sentence(model: type[BaseModel], error: ErrorDetails) -> str:
    loc = [p for p in error["loc"] if not (isinstance(p, str) and p.startswith(("function-", "tagged-", "constrained-")))]
    kind, value = error["type"], error["input"]
    if kind == "extra_forbidden":
        inside, name = _dotted(loc[:-1]), str(loc[-1])
        known = list(model.model_fields) if len(loc) == 1 else []
        known = [model.model_fields[k].alias or k for k in known]
        near = did_you_mean(name, known)
        return f"{inside + ': ' if inside else ''}unknown key {name!r}" + (f" ({near})" if near else "")
    if kind == "missing":
        inside = _dotted(loc[:-1])
        return f"{inside + ': ' if inside else ''}{loc[-1]!r} is missing"
    where = _dotted(loc)
    message = str(error["msg"]).removeprefix("Value error, ")
    if message.startswith("Input should be "):
        message = "must be " + message.removeprefix("Input should be ")
    if kind in ("model_type", "dict_type"):
        message = "must be a mapping"
    got = "" if kind == "value_error" and repr(value) in message else f" (got {brief(repr(value))})"
    return f"{where}: {message}{got}" if where else f"{message}"


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 60]}… of {len(text):,} characters"


def _dotted(loc: Sequence[int | str]) -> str:
    text = ""
    for part in loc:
        if part == "value" and text:
            continue
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else str(part)
    return text
