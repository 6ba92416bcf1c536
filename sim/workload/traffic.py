"""From the ``traffic`` section of a scenario to a stream of requests."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sim.config import settings
from sim.errors import ConfigError
from sim.units import parse_rate, parse_seconds
from sim.workload.arrivals._base import FASTEST, SLOWEST
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.prefixes import Prefixes, PrefixParams
from sim.workload.recorded import RecordedTraffic, cut, speed_for
from sim.workload.sessions import SessionParams, SessionTraffic
from sim.workload.settings import as_mapping, build
from sim.workload.synthetic import SyntheticTraffic

_OURS = ("path", "rate_scale", "rate", "window", "limit", "max_tokens")


def build_traffic(traffic: Any, seed: int = 0) -> Traffic:
    """The traffic of a scenario's ``traffic`` section (a model or a mapping).

    Raises `ConfigError` for settings that cannot be run, `DataError` for a trace file that cannot be read.
    """
    section = as_mapping(traffic)
    sources = [name for name in ("synthetic", "trace") if section.get(name) is not None]
    if len(sources) != 1:
        raise ConfigError("traffic", sources, "needs exactly one source", "synthetic, trace")
    made = _synthetic(section["synthetic"], seed) if sources == ["synthetic"] else _recorded(section["trace"])
    if section.get("closed_loop") is None:
        return made
    clients = as_mapping(section["closed_loop"])
    think = _quantity(parse_seconds, clients.get("think_time") or 0.0, "traffic.closed_loop.think_time")
    return made.with_closed_loop(ClosedLoop(_count(clients.get("concurrency"), "traffic.closed_loop.concurrency"), think, made))


def _synthetic(section: Any, seed: int) -> Traffic:
    field = "traffic.synthetic"
    section = as_mapping(section)
    for name in ("arrival", "lengths"):
        if section.get(name) is None:
            raise ConfigError(f"{field}.{name}", None, "is required")
    arrival = build("arrival", "process", section["arrival"], f"{field}.arrival")
    length = build("length", "kind", section["lengths"], f"{field}.lengths")
    limits = [section.get(name) for name in ("requests", "max_tokens")]
    requests, max_tokens = (
        None if x is None else _count(x, f"{field}.{n}") for n, x in zip(("requests", "max_tokens"), limits, strict=True)
    )
    prefixes = None
    if section.get("prefixes") is not None:
        prefixes = Prefixes(settings(PrefixParams, as_mapping(section["prefixes"]), f"{field}.prefixes"))
    if section.get("sessions") is None:
        return SyntheticTraffic(arrival, length, requests, seed, prefixes, max_tokens)
    sessions = settings(SessionParams, as_mapping(section["sessions"]), f"{field}.sessions")
    return SessionTraffic(arrival, length, requests, seed, sessions, prefixes, max_tokens)


def _recorded(section: Any) -> Traffic:
    field = "traffic.trace"
    section = as_mapping(section)
    for name in ("format", "path"):
        if not section.get(name):
            raise ConfigError(f"{field}.{name}", section.get(name), "is required")
    given = {k: v for k, v in section.items() if k not in _OURS and k != "settings" and (k == "format" or v is not None)}
    given |= section.get("settings") or {}
    reader = build("trace", "format", given, field)
    path = str(section["path"])
    block = reader.read(Path(path))
    limit = None if section.get("limit") is None else _count(section["limit"], f"{field}.limit")
    block = cut(block, _window(section.get("window"), f"{field}.window"), limit, path)
    if section.get("max_tokens") is not None:
        block = block.limited(_count(section["max_tokens"], f"{field}.max_tokens"))
    return RecordedTraffic(block, _speed(block, section, field))


def _speed(block: Any, section: Mapping[str, Any], field: str) -> float:
    scale = 1.0 if section.get("rate_scale") is None else section["rate_scale"]
    if isinstance(scale, bool) or not isinstance(scale, int | float) or not 1e-6 <= scale <= 1e6:
        raise ConfigError(f"{field}.rate_scale", scale, "must be a number in [1e-6, 1e6]")
    if section.get("rate") is None:
        return float(scale)
    if scale != 1.0:
        raise ConfigError(f"{field}.rate_scale", scale, "cannot be given together with rate")
    rate = _quantity(parse_rate, section["rate"], f"{field}.rate")
    if not SLOWEST <= rate <= FASTEST:
        raise ConfigError(f"{field}.rate", section["rate"], f"must be in [{SLOWEST:g}/s, {FASTEST:g}/s]")
    return speed_for(block, rate)


def _window(value: Any, field: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(field, value, "must be [start, end], such as [0s, 600s]")
    start, end = value
    return (
        0.0 if start is None else _quantity(parse_seconds, start, field),
        float("inf") if end is None else _quantity(parse_seconds, end, field),
    )


def _quantity(parse: Any, value: Any, field: str) -> float:
    try:
        parsed: float = parse(value)
    except ValueError as error:
        raise ConfigError(field, value, str(error)) from None
    return parsed


def _count(value: Any, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(field, value, "must be a whole number of at least 1")
    return value
