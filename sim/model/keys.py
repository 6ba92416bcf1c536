"""Reading the keys of a ``config.json``: every fault names the key, the value and what is allowed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sim.errors import ConfigError, NotModelledError
from sim.model.tensors import AttentionKind

_MISSING: Any = object()
_MOST = 10**8
KINDS: Mapping[str, AttentionKind] = {
    "full_attention": "full",
    "attention": "full",
    "full": "full",
    "sliding_attention": "sliding",
    "chunked_attention": "chunked",
    "linear_attention": "linear",
}


class Keys:
    """The keys of a config (or of a section of it). Remembers in ``seen`` which were asked for."""

    def __init__(self, raw: Mapping[str, object], name: str, field: str = "model.config") -> None:
        self.raw, self.name, self.field = raw, name, field
        self.seen: set[str] = set()

    def get(self, *names: str) -> Any:
        """The first of these keys that is there and not null."""
        self.seen.update(names)
        return next((self.raw[n] for n in names if self.raw.get(n) is not None), None)

    def error(self, key: str, problem: str, allowed: str = "") -> ConfigError:
        """The error that names a key."""
        return ConfigError(f"{self.field}.{key}", self.raw.get(key), problem, allowed)

    def _found(self, names: tuple[str, ...], default: object) -> tuple[str, Any]:
        value = self.get(*names)
        if value is None:
            if default is _MISSING:
                raise ConfigError(f"{self.field}.{names[0]}", None, f"is missing in the config of {self.name}")
            return names[0], default
        return next(n for n in names if self.raw.get(n) is not None), value

    def whole(self, *names: str, default: object = _MISSING, least: int = 1, most: int = _MOST) -> int:
        """A whole number in ``[least, most]``."""
        key, value = self._found(names, default)
        if value is default and self.get(*names) is None:
            return int(default)
        if isinstance(value, bool) or not isinstance(value, int) or not least <= value <= most:
            raise self.error(key, f"must be a whole number of at least {least} in the config of {self.name}", f"{least}..{most}")
        return value

    def number(self, *names: str, default: Any = _MISSING) -> float:
        """A finite number above 0."""
        key, value = self._found(names, default)
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0.0 < value < float("inf"):
            raise self.error(key, f"must be a number above 0 in the config of {self.name}")
        return float(value)

    def flag(self, *names: str, default: bool = False) -> bool:
        """True or false."""
        key, value = self._found(names, default)
        if not isinstance(value, bool):
            raise self.error(key, f"must be true or false in the config of {self.name}")
        return value

    def text(self, *names: str, default: object = _MISSING) -> str:
        """A string."""
        key, value = self._found(names, default)
        if not isinstance(value, str):
            raise self.error(key, f"must be a text in the config of {self.name}")
        return value

    def wholes(self, key: str, n: int, default: object = _MISSING, least: int = 0) -> tuple[int, ...]:
        """One whole number for each of ``n`` layers, from a list of at least so many or one number for all."""
        _, value = self._found((key,), default)
        values = list(value) if isinstance(value, list | tuple) else [value] * n
        if len(values) < n or any(isinstance(v, bool) or not isinstance(v, int) or not least <= v <= _MOST for v in values):
            raise self.error(key, f"must be one whole number of at least {least}, or a list of {n}, in the config of {self.name}")
        return tuple(values[:n])

    def labels(self, key: str, n: int, allowed: tuple[str, ...]) -> tuple[str, ...] | None:
        """One of ``allowed`` for each of ``n`` layers; None where the key is missing."""
        value = self.get(key)
        if value is None:
            return None
        if not isinstance(value, list | tuple) or len(value) < n or any(v not in allowed for v in value[:n]):
            raise self.error(key, f"must list one of them for each of the {n} layers of {self.name}", ", ".join(allowed))
        return tuple(value[:n])

    def where(self, key: str) -> frozenset[int]:
        """Layer indices: a list of whole numbers, or a text of them with commas."""
        value = self.get(key)
        if isinstance(value, str):
            value = [int(v) if v.strip().isascii() and v.strip().isdigit() else v for v in value.split(",") if v.strip()]
        if value is None:
            return frozenset()
        if not isinstance(value, list | tuple) or any(isinstance(v, bool) or not isinstance(v, int) for v in value):
            raise self.error(key, f"must be a list of layer numbers in the config of {self.name}")
        return frozenset(value)

    def section(self, *names: str) -> Keys:
        """A mapping inside the config; empty where it is missing."""
        key, value = self._found(names, {})
        if not isinstance(value, Mapping):
            raise self.error(key, f"must be a mapping in the config of {self.name}")
        return Keys(value, self.name, f"{self.field}.{key}")

    def kinds(
        self, layers: int, key: str = "layer_types", more: Mapping[str, AttentionKind] | None = None
    ) -> tuple[AttentionKind, ...]:
        """Attention kinds listed under ``layer_types``; empty where none are. A longer list names draft layers after the model's."""
        value = self.get(key)
        if value is None:
            return ()
        known = {**KINDS, **(more or {})}
        if not isinstance(value, list | tuple) or len(value) < layers:
            shown = len(value) if isinstance(value, list | tuple) else value
            raise ConfigError(f"{self.field}.{key}", shown, f"does not list the {layers} layers of {self.name}")
        for kind in value[:layers]:
            if not isinstance(kind, str) or kind not in known:
                raise NotModelledError(f"{self.field}.{key}", kind, "unknown kind of layer", ", ".join(sorted(known)))
        return tuple(known[kind] for kind in value[:layers])


def every(layers: int, period: int, common: AttentionKind, special: AttentionKind = "full") -> tuple[AttentionKind, ...]:
    """``special`` in each layer whose 1-based number is a multiple of ``period``, ``common`` in the others."""
    return tuple(special if (i + 1) % period == 0 else common for i in range(layers))
