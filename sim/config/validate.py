"""From pydantic's errors to one `ConfigError`: the dotted field, the value, what is allowed, the nearest valid key."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Sized
from math import inf, isfinite
from types import UnionType
from typing import Annotated, Final, TypeVar, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from sim import registry
from sim.config.base import Named
from sim.document import is_number
from sim.errors import ConfigError, did_you_mean, shown

M = TypeVar("M", bound=BaseModel)

_LARGEST: Final = 2**62
_FAR: Final = 1e30
"""Beyond this, and below one by it, products and quotients of a few settings leave float64."""
_SHOWN: Final = 9


def settings(model: type[M], data: Mapping[str, object], field: str = "") -> M:
    """``model`` of ``data``. Raises `ConfigError` that names all that is wrong, from ``field`` on; its attributes are of the first."""
    try:
        made = model.model_validate(dict(data))
    except ValidationError as error:
        raise _all_of(model, error, field) from None
    _check_numbers(made, data, field)
    return made


def _check_numbers(made: object, given: object, where: str) -> None:
    """Raise `ConfigError` where a number was made of ``true`` (pydantic takes it as 1), or is one that products and quotients cannot hold.

    What nobody gave is not looked at.
    """
    if is_number(made):
        _check_number(made, given, where)
    elif isinstance(made, BaseModel) and isinstance(given, Mapping):
        for name, field in type(made).model_fields.items():
            key = name if name in given else field.alias
            value = getattr(made, name)
            if key is not None and key in given and not value == inf == field.default:  # endless where nobody says how long
                _check_numbers(value, given[key], _dotted(where, (key,)))
    elif isinstance(made, Mapping) and isinstance(given, Mapping):
        for key in made.keys() & given.keys():
            _check_numbers(made[key], given[key], _dotted(where, (key,)))
    elif isinstance(made, list | tuple) and isinstance(given, list | tuple):
        for i, (one, its) in enumerate(zip(made, given, strict=False)):
            _check_numbers(one, its, _dotted(where, (i,)))


def _check_number(made: float, given: object, where: str) -> None:
    if isinstance(given, bool):
        raise ConfigError(where, given, "must be a number, not true or false")
    if isinstance(made, int):
        if abs(made) > _LARGEST:  # compiled code has 64 bits, and adds to it
            raise ConfigError(where, given, "is too large for a whole number", f"-{_LARGEST} to {_LARGEST}")
    elif not isfinite(made):
        raise ConfigError(where, given, "must be a finite number")
    elif abs(made) > _FAR:
        raise ConfigError(where, given, "is too large to compute with", f"up to {_FAR:g}")
    elif 0 < abs(made) < 1 / _FAR:
        raise ConfigError(where, given, "is too small to compute with", f"0, or at least {1 / _FAR:g}")


def _all_of(model: type[BaseModel], error: ValidationError, field: str) -> ConfigError:
    """One error of all; of a place that allows several forms the first."""
    found = [e for e in error.errors(include_url=False) if not _long_enough(e)]
    misspelt = {e["loc"][:-1] for e in found if e["type"] == "extra_forbidden"}  # explains what is missing beside it
    found = [e for e in found if e["type"] != "missing" or e["loc"][:-1] not in misspelt]
    found.sort(key=lambda e: e["type"] != "extra_forbidden")
    told = [_translate(model, e, field) for e in found]
    first, *more = [e for i, e in enumerate(told) if e.field not in {other.field for other in told[:i]}]
    if not more:
        return first
    also = [f"also {_one_of_more(e)}" for e in more[:_SHOWN]]
    also += [f"and {len(more) - _SHOWN} more"] if len(more) > _SHOWN else []
    return ConfigError(first.field, first.value, first.problem, first.allowed, "; ".join([h for h in [first.hint] if h] + also))


def _long_enough(e: ErrorDetails) -> bool:
    """Whether a list is called too short only because some of its items are wrong, which errors of their own say."""
    given = e["input"]
    return e["type"] == "too_short" and isinstance(given, Sized) and len(given) >= e.get("ctx", {}).get("min_length", 0)


def _one_of_more(e: ConfigError) -> str:
    got = "" if e.value is None else f" (got {shown(e.value)})"
    allowed = f", allowed: {e.allowed}" if e.value is None and e.allowed else ""
    return f"{e.field}: {e.problem}{got}{allowed}" + (f", {e.hint}" if e.hint else "")


ELSEWHERE: Final = {
    **dict.fromkeys(("tensor_parallel_size", "tp_size", "tensor_parallel", "gpus_per_replica"), "deployment.tp"),
    **dict.fromkeys(("pipeline_parallel_size", "pp_size"), "deployment.pp"),
    **dict.fromkeys(("data_parallel_size", "dp_size"), "deployment.dp"),
    **dict.fromkeys(("expert_parallel_size", "ep_size"), "deployment.ep"),
    **dict.fromkeys(("kv_cache_dtype", "kv_cache_type"), "model.kv_cache"),
    **dict.fromkeys(("quantization", "dtype"), "model.weights"),
    **dict.fromkeys(("gpu", "gpu_type", "device", "hardware"), "deployment.accelerator"),
    **dict.fromkeys(("gpus", "num_gpus", "num_replicas", "instances"), "deployment.replicas"),
    **dict.fromkeys(("rate", "request_rate", "qps", "rps", "request_per_second"), "traffic.synthetic.arrival.rate"),
    **dict.fromkeys(("num_prompts", "num_requests", "n_requests"), "traffic.synthetic.requests"),
    **dict.fromkeys(("concurrency", "max_concurrency"), "traffic.closed_loop.concurrency"),
}
"""What other tools call a setting → where it is here."""


def _meant(name: str, model: type[BaseModel], known: Sequence[str]) -> str:
    """What a setting that is not known at its place may be: another tool's name, one nearly alike, or a setting of another place."""
    if (at := ELSEWHERE.get(name.lower().replace("-", "_"))) is not None:
        return f"did you mean {at!r}?"
    places = [place for place in _places(model) if place.rpartition(".")[2] == name]
    if places:
        return f"it belongs at {min(places, key=lambda place: place.count('.'))!r}"
    if (alike := did_you_mean(name, known)) or "engine" not in known:
        return alike
    return "settings of the engine itself belong under 'engine'"


def _places(model: type[BaseModel], at: str = "", inside: tuple[type[BaseModel], ...] = ()) -> list[str]:
    """Every setting below ``model``, dotted (those of plug-ins, which are chosen by name, are not of it)."""
    found = []
    for name, field in model.model_fields.items():
        found.append(here := _dotted(at, (name,)))
        if (part := _model_in(field.annotation)) is not None and part not in inside:
            found += _places(part, here, (*inside, part))
    return found


def _translate(model: type[BaseModel], first: ErrorDetails, field: str) -> ConfigError:
    where = _dotted(field, first["loc"])
    value = first["input"]
    if first["type"] == "extra_forbidden":
        known = _keys(model, first["loc"][:-1])
        return ConfigError(where, value, "unknown setting", ", ".join(known), _meant(str(first["loc"][-1]), model, known))
    if first["type"] == "missing":
        return ConfigError(where, None, "is required", _names(_model_at(model, first["loc"][:-1]), str(first["loc"][-1])))
    if first["type"] in ("model_type", "dict_type", "model_attributes_type"):
        return ConfigError(where or "scenario", value, "must be a mapping", ", ".join(_keys(model, first["loc"])))
    if first["type"] == "tuple_type":
        return ConfigError(where, value, "must be a list")
    if first["type"] in ("too_short", "too_long"):
        few = first["type"] == "too_short"
        count = first["ctx"]["min_length" if few else "max_length"]
        return ConfigError(where, value, f"must have at {'least' if few else 'most'} {count} item{'' if count == 1 else 's'}")
    choices = str(first.get("ctx", {}).get("expected", ""))
    is_text = first["type"] == "string_type" or f"'{value}'" in choices
    if is_text and is_number(value):
        return ConfigError(
            where, value, "must be text: YAML reads a bare number", hint=f'quote it, as in {where.rpartition(".")[2]}: "{value}"'
        )
    if first["type"] in _PLAIN:
        return ConfigError(where, value, _PLAIN[first["type"]], hint=_in_digits(value) if first["type"] in _WHOLE else "")
    message = first["msg"].removeprefix("Value error, ")
    allowed = ""
    if first["type"] in ("literal_error", "enum"):
        allowed = choices
        message = "is not one of the choices"
    elif message.startswith("Input should be "):
        message = "must be " + message.removeprefix("Input should be ")
    if isinstance(value, Mapping):
        value = _short(value) if where else "the sections " + ", ".join(map(str, value))
    return ConfigError(where or "scenario", value, message, allowed)


_WHOLE: Final = ("int_type", "int_parsing", "int_parsing_size", "int_from_float")
_PLAIN: Final = dict.fromkeys(_WHOLE, "must be a whole number") | {
    "int_parsing_size": "is too large for a whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
}
"""Kind of pydantic's error → what is told instead of its message, which speaks of parsing."""


def _in_digits(value: object) -> str:
    """What to write instead of ``1e4``, which YAML reads as text."""
    try:
        number = float(value) if isinstance(value, str) else 0.5
    except ValueError:
        return ""
    return f"write its digits: {int(number)}" if number.is_integer() and abs(number) <= _LARGEST else ""


def _short(value: Mapping[object, object]) -> dict[object, object]:
    return {k: "…" if isinstance(v, Mapping | list) else v for k, v in list(value.items())[:4]}


def _dotted(field: str, loc: Sequence[int | str]) -> str:
    text = field
    for part in loc:
        if isinstance(part, int):
            text += f"[{part}]"
        elif not part.startswith(("function-", "tagged-", "constrained-")):
            text += f".{part}" if text else part
    return text


def _model_at(model: type[BaseModel], loc: Sequence[int | str]) -> type[BaseModel] | None:
    """The model of a place inside a model."""
    here: type[BaseModel] | None = model
    for part in loc:
        if here is not None and part in here.model_fields:
            here = _model_in(here.model_fields[str(part)].annotation)
    return here


def _keys(model: type[BaseModel], loc: Sequence[int | str]) -> list[str]:
    """Names of the fields at a place inside a model."""
    here = _model_at(model, loc)
    return list(here.model_fields) if here is not None else []


def _names(here: type[BaseModel] | None, key: str) -> str:
    """What may be named by ``key``, where a section is mostly a name."""
    return ", ".join(registry.names(here.registered)) if here is not None and issubclass(here, Named) and key == here.key else ""


def _model_in(annotation: object) -> type[BaseModel] | None:
    """The model inside ``X | None``, ``tuple[X, ...]``, ``Annotated[X, …]``."""
    if isinstance(annotation, type) and get_origin(annotation) is None:
        return annotation if issubclass(annotation, BaseModel) else None
    if get_origin(annotation) in (Union, UnionType, tuple, list, dict, Annotated):
        return next((found for inside in get_args(annotation) if (found := _model_in(inside)) is not None), None)
    return None
