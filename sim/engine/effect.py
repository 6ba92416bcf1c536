"""What a setting can change: declared beside each field of an engine's `Params`, so that no setting is accepted in silence.

A field whose setting changes no time says so (`inert`), one that matters only to some traffic says to which (`needs`). Everything else must
change what requests see in some scenario; a test holds every engine to that.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

if TYPE_CHECKING:
    from pydantic.config import JsonDict
    from pydantic.fields import FieldInfo

Need = Literal[
    "adapters", "faults", "priorities", "shared prefixes", "window layers", "recurrent layers", "mxfp4 experts on Hopper"
]
_MISSING: dict[str, str] = {
    "adapters": "no request of this traffic names an adapter (traffic.adapters)",
    "faults": "nothing breaks in this scenario (faults)",
    "priorities": "no request of this traffic has a priority of its own (traffic.priorities)",
    "mxfp4 experts on Hopper": "only mxfp4 experts on Hopper have two kernels to choose from",
    "window layers": "the model has no layers that keep only a window or a chunk",
    "recurrent layers": "the model has no recurrent layers",
    "shared prefixes": "no prompts of this traffic share a prefix (traffic.synthetic.prefixes, sessions, or a trace with block hashes)",
}


def inert(why: str) -> JsonDict:
    """For ``json_schema_extra``: the setting is accepted and changes no time, for this reason."""
    return {"effect": "none", "why": why}


def needs(what: Need, *values: str) -> JsonDict:
    """For ``json_schema_extra``: any value but the default (or one of ``values``) matters only where requests have ``what``."""
    return {"needs": what, "values": list(values)}


def without_effect(params: type[BaseModel]) -> dict[str, str]:
    """Settings that change no time, by dotted name, and why."""
    return {name: extra["why"] for name, extra in _declared(params) if extra.get("effect") == "none"}


def idle_settings(given: BaseModel, traffic: Collection[str], prefix: str = "engine.") -> list[str]:
    """A sentence for every setting that was given another value than its default and changes nothing here.

    ``traffic``: what its requests have, and what the model is (`traits_of`).
    """
    out = []
    for name, info in type(given).model_fields.items():
        value = getattr(given, name)
        if value == info.get_default(call_default_factory=True):
            continue
        extra = info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}
        need = str(extra.get("needs", ""))
        if extra.get("effect") == "none":
            out.append(f"{prefix}{name} has no effect on time: {extra['why']}")
        elif need and need not in traffic and (not extra.get("values") or value in extra["values"]):
            out.append(f"{prefix}{name} has no effect here: {_MISSING[need]}")
        if isinstance(value, BaseModel):
            out += idle_settings(value, traffic, f"{prefix}{name}.")
    return out


def traits_of(kinds: Collection[str], weights: str, generation: str) -> set[str]:
    """What settings may need, of the kinds of a model's layers, the format of its weights and the ``generation`` of the card (``sm_90``)."""
    found: dict[Need, bool] = {
        "window layers": not {"sliding", "chunked"}.isdisjoint(kinds),
        "recurrent layers": "linear" in kinds,
        "mxfp4 experts on Hopper": weights == "mxfp4" and generation == "sm_90",
    }
    return {need for need, there in found.items() if there}


def _declared(params: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, JsonDict]]:
    for name, model, info in every_setting(params, prefix):
        del model
        yield name, info.json_schema_extra if isinstance(info.json_schema_extra, dict) else {}


def every_setting(params: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel] | None, FieldInfo]]:
    """(dotted name, model of its own settings or None, field) of all settings, those of nested models too."""
    for name, info in params.model_fields.items():
        inner = _inner(info.annotation)
        yield f"{prefix}{name}", inner, info
        if inner is not None:
            yield from every_setting(inner, f"{prefix}{name}.")


def _inner(annotation: object) -> type[BaseModel] | None:
    for kind in (annotation, *getattr(annotation, "__args__", ())):
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            return kind
    return None
