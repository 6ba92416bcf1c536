"""From the ``traffic`` section of a scenario to a stream of requests."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from sim.config import settings
from sim.errors import ConfigError, DataError, NotModelledError
from sim.streams import stream, sub_seed
from sim.units import parse_rate, parse_seconds
from sim.workload.agents import AgentParams, AgentTraffic
from sim.workload.arrivals._base import FASTEST, SLOWEST
from sim.workload.base import Traffic
from sim.workload.closed_loop import ClosedLoop
from sim.workload.images import imaged
from sim.workload.kept import Kept
from sim.workload.labels import labelled
from sim.workload.mixed import ClassFacts, MixedTraffic, Part
from sim.workload.pool import PoolParams, PoolTraffic
from sim.workload.prefixes import Prefixes, PrefixParams
from sim.workload.recorded import RecordedTraffic, cut, natural_rate, speed_for
from sim.workload.sessions import SessionParams, SessionTraffic
from sim.workload.settings import as_mapping, build
from sim.workload.streamed import HELD_ROWS, HELD_SPANS, StreamedTraffic, Times
from sim.workload.synthetic import SyntheticTraffic
from sim.workload.table import RequestBlock
from sim.workload.traces._auto import reader as reader_of
from sim.workload.traces._base import Trace
from sim.workload.traces._turns import by_arrival

if TYPE_CHECKING:
    from sim.config.traffic import Traffic as Section
    from sim.document import Json

_OURS = ("path", "rate_scale", "rate", "window", "limit", "max_tokens", "arrival")


def build_traffic(traffic: Section | Mapping[str, object], seed: int = 0) -> Traffic:
    """The traffic of a scenario's ``traffic`` section (a model or a mapping).

    Raises `ConfigError` for settings that cannot be run, `DataError` for a trace file that cannot be read.
    """
    section = as_mapping(traffic)
    if section.get("classes") is not None and section.get("synthetic") is None and section.get("trace") is None:
        return _mixed(section, seed)
    return _source(section, seed, "traffic")


def _mixed(section: Mapping[str, Any], seed: int) -> Traffic:
    """Classes of clients, each with random streams of its own."""
    parts: list[Part] = []
    tenants: dict[str, int] = {}
    classes = {name: as_mapping(given) for name, given in as_mapping(section["classes"]).items()}
    owned = any(one.get("tenant") is not None for one in classes.values())  # then a class that names none is one by itself
    for name, one in classes.items():
        field = f"traffic.classes.{name}"
        made = _source(one, sub_seed(seed, f"class {name}"), field)
        number = tenants.setdefault(one.get("tenant") or name, len(tenants) + 1) if owned else 0
        facts = ClassFacts(name, number, one.get("priority"), one.get("adapter"), one.get("model"), one.get("slo"))
        parts.append(Part(facts, made, ((one.get("synthetic") or {}).get("prefixes") or {}).get("name")))
    duration = section.get("duration")
    return MixedTraffic(
        parts,
        tuple(tenants),
        section.get("requests"),
        None if duration is None else _quantity(parse_seconds, duration, "traffic.duration"),
    )


def _source(section: Mapping[str, Json], seed: int, field: str) -> Traffic:
    """One source, with what its requests carry and the clients that wait."""
    sources = [name for name in ("synthetic", "trace") if section.get(name) is not None]
    if len(sources) != 1:
        raise ConfigError(field, sources, "needs exactly one source", "synthetic, trace")
    made = (
        _synthetic(section["synthetic"], seed, f"{field}.synthetic")
        if sources == ["synthetic"]
        else _recorded(section["trace"], seed, _untimed(section.get("closed_loop")), f"{field}.trace")
    )
    made = labelled(made, section, seed, field)
    if section.get("images") is not None:
        made = imaged(made, as_mapping(section["images"]), seed)
    if section.get("closed_loop") is None:
        return made
    if made.waits:
        why = "clients that wait ask one request after the other; these wait for one another already"
        raise NotModelledError(f"{field}.closed_loop", "set", why, "without it, or think_from: arrival")
    clients = as_mapping(section["closed_loop"])
    think = _quantity(parse_seconds, clients.get("think_time") or 0.0, f"{field}.closed_loop.think_time")
    count = _count(clients.get("concurrency"), f"{field}.closed_loop.concurrency")
    return made.with_closed_loop(ClosedLoop(count, think, made, bool(clients.get("paced"))))


def _untimed(closed_loop: object) -> bool:
    """Clients that wait, and need no arrival times."""
    return closed_loop is not None and not as_mapping(closed_loop).get("paced")


def _synthetic(section: Any, seed: int, field: str) -> Traffic:
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
    if section.get("clients") is not None:
        for other in ("prefixes", "sessions", "agents"):
            if section.get(other) is not None:
                raise NotModelledError(f"{field}.clients", "set", f"a pool of clients has no {other}")
        pool = settings(PoolParams, as_mapping(section["clients"]), f"{field}.clients")
        return PoolTraffic(arrival, length, requests, seed, pool, max_tokens)
    if section.get("prefixes") is not None:
        prefixes = Prefixes(settings(PrefixParams, as_mapping(section["prefixes"]), f"{field}.prefixes"))
    if section.get("agents") is not None:
        if section.get("sessions") is not None:
            raise ConfigError(f"{field}.agents", "set", "an agent's run is its session already", hint="give agents or sessions")
        agents = settings(AgentParams, as_mapping(section["agents"]), f"{field}.agents")
        return AgentTraffic(arrival, length, requests, seed, agents, prefixes, max_tokens)
    if section.get("sessions") is None:
        return SyntheticTraffic(arrival, length, requests, seed, prefixes, max_tokens)
    sessions = settings(SessionParams, as_mapping(section["sessions"]), f"{field}.sessions")
    return SessionTraffic(arrival, length, requests, seed, sessions, prefixes, max_tokens)


def _recorded(section: Any, seed: int, waiting: bool, field: str) -> Traffic:
    """``waiting``: clients of a closed loop, who need no arrival times."""
    section = as_mapping(section)
    if not section.get("path"):
        raise ConfigError(f"{field}.path", section.get("path"), "is required")
    given = {k: v for k, v in section.items() if k not in _OURS and k != "settings" and (k == "format" or v is not None)}
    given |= section.get("settings") or {}
    form = given.pop("format", None) or "auto"
    path = Path(str(section["path"]))
    if not isinstance(form, str):
        raise ConfigError(f"{field}.format", form, "must be a name")

    window = _window(section.get("window"), f"{field}.window")
    limits = {k: None if section.get(k) is None else _count(section[k], f"{field}.{k}") for k in ("limit", "max_tokens")}
    if window is not None and not 0 <= window[0] < window[1]:
        raise ConfigError(f"{field}.window", list(window), "must be [start, end] with 0 <= start < end")
    reader = reader_of(path, form, given, field)
    block = _read(reader, path, window, limits["limit"])
    if isinstance(block, Kept):
        if not block.requests:
            raise ConfigError(f"{field}.window", list(window or ()), f"no request of {path} arrives then")
        times = _times(reader, section, seed, waiting, f"{field}.arrival")
        large = StreamedTraffic(block, limits["max_tokens"], times=times)
        made: Traffic = large.at(_speed(large.mean_rate, section, field))
    else:
        if not len(block):
            raise DataError(str(path), "has no requests")
        block = _timed(block, reader, section, seed, waiting, f"{field}.arrival")
        block = cut(block, window, limits["limit"], str(path))
        if limits["max_tokens"] is not None:
            block = block.limited(limits["max_tokens"])
        made = RecordedTraffic(block, _speed(natural_rate(block), section, field))
    made.notes = tuple(reader.notes)
    made.images = reader.images
    return made


def _read(reader: Trace, path: Path, window: tuple[float, float] | None, limit: int | None) -> RequestBlock | Kept:
    """The requests up to the last that is needed: in memory, or cut and kept on disk when there are too many."""
    blocks: list[RequestBlock] = []
    kept: Kept | None = None
    rows = spans = 0
    for block in reader.pieces(path):
        if not len(block):
            continue
        rows, spans = rows + len(block), spans + len(block.span_id)
        blocks.append(block)
        if kept is None and (rows > HELD_ROWS or spans > HELD_SPANS):
            kept = Kept()
        if kept is not None:
            _keep(kept, blocks, window, limit)
            blocks.clear()
        have = rows if kept is None or window is None else kept.requests
        enough = limit and have >= limit and (kept or window is None)
        if reader.timed and (block.arrival_s[-1] >= (window[1] if window else float("inf")) or enough):
            break
        if not reader.timed and enough and _one_by_one(reader):
            break
    return RequestBlock.concat(blocks) if kept is None else kept.done()


def _one_by_one(reader: Trace) -> bool:
    """Whether the requests of a file without times arrive in its order, one at each time that is drawn."""
    return type(reader).starts is Trace.starts


def _keep(kept: Kept, blocks: list[RequestBlock], window: tuple[float, float] | None, limit: int | None) -> None:
    """Write what of the blocks lies in the window, up to the limit."""
    for block in blocks:
        if window is not None:
            lo, hi = np.searchsorted(block.arrival_s, window)
            block = block[int(lo) : int(hi)]
            block.arrival_s = block.arrival_s - window[0]
        if limit is not None:
            block = block[: limit - kept.requests]
        if len(block):
            kept.add(block)


def _timed(block: RequestBlock, reader: Trace, section: Mapping[str, Json], seed: int, waiting: bool, field: str) -> RequestBlock:
    """The block with arrival times: its own, those of ``arrival``, or none where clients wait."""
    if section.get("arrival") is None:
        if not reader.timed and not waiting:
            raise _no_times(Path(str(section["path"])), field)
        return block
    process = build("arrival", "process", section["arrival"], field)
    whole = len(block) if reader.timed else reader.beginnings(block)
    parts, found = [], 0
    for times in process.times(stream(seed, "arrivals")):
        parts.append(times[: whole - found])
        found += len(parts[-1])
        if found >= whole:
            break
    at = np.concatenate(parts)
    if not reader.timed:
        return by_arrival(reader.starts(block, at))
    reader.note(f"arrival times of the trace are replaced by {field}")
    block.arrival_s = at
    return block


def _times(reader: Trace, section: Mapping[str, Any], seed: int, waiting: bool, field: str) -> Times | None:
    """As `_timed`, for a trace that is read again for each run: what draws its arrival times; None: they are its own."""
    if section.get("arrival") is None:
        if not reader.timed and not waiting:
            raise _no_times(Path(str(section["path"])), field)
        return None
    if section.get("window") is not None or not _one_by_one(reader):
        raise ConfigError(field, section["arrival"], "cannot replace the times of a trace this large", "limit")
    process = build("arrival", "process", section["arrival"], field)
    if reader.timed:
        reader.note(f"arrival times of the trace are replaced by {field}")

    def times() -> Iterator[NDArray[np.float64]]:
        first = None
        for some in process.times(stream(seed, "arrivals")):
            if first is None:
                first = 0.0 if reader.timed else some[0]
            yield some - first

    return times


def _no_times(path: Path, field: str) -> ConfigError:
    known = "an arrival process such as {process: poisson, rate: 8/s}, or closed_loop"
    return ConfigError(field, None, f"is required: {path.name} does not say when its requests arrive", known)


def _speed(natural: float, section: Mapping[str, Json], field: str) -> float:
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
    return speed_for(natural, rate)


def _window(value: object, field: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise ConfigError(field, value, "must be [start, end], such as [0s, 600s]")
    start, end = value
    return (
        0.0 if start is None else _quantity(parse_seconds, start, field),
        float("inf") if end is None else _quantity(parse_seconds, end, field),
    )


def _quantity(parse: Callable[[object], float], value: object, field: str) -> float:
    try:
        parsed: float = parse(value)
    except ValueError as error:
        raise ConfigError(field, value, str(error)) from None
    return parsed


def _count(value: object, field: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ConfigError(field, value, "must be a whole number of at least 1")
    return value
