"""One measured operating point: everything needed to simulate it, and what was measured."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Required, TypedDict

from sim.document import loads
from sim.errors import DataError
from sim.workload.textfile import LARGEST, read_all

if TYPE_CHECKING:
    from sim.config.scenario import Scenario
    from sim.document import Json
    from sim.ledger import Values
    from sim.study.accuracy.step_log import StepLog

QUALITIES = ("good", "fair", "weak")
LATENCIES = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "step_s")


class Lengths(TypedDict, total=False):
    """``uniform``: lowest and highest; or the name of a data set (``trace``) and its ``mean``; or the ``mean`` of answers cut at ``most``,
    and the ``spread`` (sigma of the logarithm) of those that are alike.
    """

    uniform: list[float]
    trace: str
    mean: float
    most: int
    spread: float


class Stage(TypedDict):
    """So many requests per second for so many seconds."""

    rate: float
    duration: float


class Told(TypedDict, total=False):
    """``traffic`` of a point. ``kind``: trace, closed_loop, stages, burst, static_batch, steps, passes; the rest belongs to some of them."""

    kind: Required[str]
    file: str
    num_requests: int
    prompt_tokens: float | Lengths
    output_tokens: float | Lengths
    unique_prompts: int
    prefix_tokens: int
    concurrency: int
    max_rate: float
    paced: bool
    stages: list[Stage]
    arrival: str
    batch: int


class Window(TypedDict, total=False):
    """Which requests the figures cover: of a ``stage``, within some seconds, without the first."""

    stage: int
    after_s: float
    before_s: float
    skip_first: int


@dataclass(frozen=True)
class Point:
    """A row of a ``points.jsonl`` (see `read_folder`), or a user's own benchmark result.

    ``measured`` maps ``ttft_s.mean``, ``output_tokens_per_s`` … to seconds or per second. ``inside`` says that the figures were taken
    inside the engine, without what a client adds; ``chat`` that clients called the chat endpoint. ``traffic`` and ``window`` are as in
    the file; a ``trace`` may carry its requests in ``columns`` instead of a file. ``settings`` are the engine's, by its own names.
    ``launcher``: the project that ran the server, as ``owner/name``, where it is known. ``generator``: what sent the requests, in its
    source's words.
    """

    id: str
    model: str
    engine: str
    version: str | None
    accelerator: str
    traffic: Told
    measured: Mapping[str, float]
    weights: str = "auto"
    kv_cache: str = "auto"
    settings: Mapping[str, Json] = field(default_factory=dict)
    tp: int = 1
    pp: int = 1
    dp: int = 1
    ep: int = 1
    nodes: int = 1
    sides: Mapping[str, Mapping[str, int]] = field(default_factory=dict)
    kv_blocks: int | None = None
    block_size: int | None = None
    window: Window = field(default_factory=Window)
    quality: str = "fair"
    overload: bool = False
    assumed: tuple[str, ...] = ()
    inside: bool = False
    chat: bool = False
    launcher: str = ""
    generator: str = ""
    earlier: tuple[Told, ...] = ()
    """Traffic that the same server had served before, where its prefix cache knows the prompts from there (`earlier`)."""
    folder: Path = Path()
    columns: Mapping[str, Values] | None = None
    logs: tuple[StepLog, ...] = ()
    """Steps as the server itself told them."""
    scenario: Scenario | None = None
    notes: tuple[str, ...] = ()
    """What was assumed or left out in reading a benchmark result."""
    refused: str = ""
    """Why this is no operating point."""

    @property
    def disaggregated(self) -> bool:
        """Whether prompts and tokens are computed by replicas of their own: ``sides`` has widths and instances of ``prefill`` and ``decode``."""
        return bool(self.sides)

    @property
    def deployment(self) -> str:
        """The part of the id that names the deployment."""
        return self.id.rpartition("/")[0] or self.id


def read_folder(folder: Path) -> Iterator[Point]:
    """Points of one deployment: ``points.jsonl`` beside an optional ``deployment.json``. Raises `DataError`."""
    file = folder / "points.jsonl"
    lines = read_all(file, LARGEST).decode("utf-8").splitlines()
    told = _told(folder / "deployment.json")
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                raw = loads(line)
                yield replace(parse(raw, folder), **told)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                what = f"{error} is missing" if isinstance(error, KeyError) else str(error)
                raise DataError(f"{file}:{number}", f"is no operating point: {what}") from None


def _told(file: Path) -> dict[str, Any]:
    """What is told of the run: whether times were taken inside the engine, whether clients called the chat endpoint, who launched the server."""
    try:
        told = loads(read_all(file, LARGEST))
        return {
            "inside": str(told.get("metrics", {}).get("ttft_s", "")).startswith("engine"),
            "chat": "chat" in str(told.get("load_generator", "")),
            "generator": str(told.get("load_generator", "")),
            "launcher": _launcher(told.get("source") or {}),
        }
    except (OSError, ValueError, AttributeError, DataError):
        return {}


def _launcher(source: Mapping[str, object]) -> str:
    """The project whose runs these are, where another published them."""
    runs = re.search(r"\(runs of ([\w.-]+/[\w.-]+)\)", str(source.get("path") or ""))
    return runs[1] if runs else str(source.get("repo") or "")


def _weights(raw: Mapping[str, object]) -> str:
    """The number format that was served; Meta's FP8 checkpoints of Llama 3 leave attention in 16 bits."""
    weights = str(raw.get("weights") or "auto")
    meta = str(raw.get("checkpoint") or "").startswith("meta-llama/Llama-3")
    return "fbgemm-fp8" if weights == "fp8" and meta else weights


def parse(raw: Mapping[str, Any], folder: Path) -> Point:
    """One point from its mapping."""
    engine, parallel = raw["engine"], raw.get("parallelism") or {}
    measured: dict[str, float] = {}
    for key, value in raw["measured"].items():
        if isinstance(value, Mapping):
            measured |= {f"{key}.{stat}": float(x) for stat, x in value.items() if x is not None}
        elif value is not None:
            measured[key] = float(value)
    if raw.get("kv_blocks"):
        measured["kv_blocks"] = float(raw["kv_blocks"])
    quality = raw.get("quality", "fair")
    if quality not in QUALITIES:
        raise ValueError(f"quality {quality!r} is none of {', '.join(QUALITIES)}")
    return Point(
        id=str(raw["id"]),
        model=str(raw["model"]),
        engine=str(engine["name"]),
        version=engine.get("version"),
        accelerator=str(raw["accelerator"]),
        traffic=raw["traffic"],
        measured=measured,
        weights=_weights(raw),
        kv_cache=raw.get("kv_cache") or "auto",
        settings=engine.get("settings") or {},
        tp=int(parallel.get("tp") or 1),
        pp=int(parallel.get("pp") or 1),
        dp=int(parallel.get("dp") or 1),
        ep=int(parallel.get("ep") or 1),
        nodes=int(raw.get("nodes") or 1),
        sides=parallel.get("pd") or {},
        kv_blocks=raw.get("kv_blocks"),
        block_size=raw.get("block_size"),
        window=raw.get("window") or Window(),
        quality=quality,
        overload=bool(raw.get("overload")),
        assumed=tuple(raw.get("assumed") or ()),
        folder=folder,
    )
