"""Reading what people have: folders of operating points, and results of benchmark tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from sim.errors import ConfigError, DataError
from sim.study.accuracy.point import Point, read_folder
from sim.study.accuracy.step_log import is_step_log, kinds, read_step_log, summary
from sim.study.bench import Run, known, read, read_tree


def read_points(paths: Iterable[str | Path], scenario: Any = None) -> Iterator[Point]:
    """Points under ``paths``, in order of their names.

    A folder is searched for ``points.jsonl``, for results of benchmark tools (`sim.study.bench`) and for servers' logs of their steps (``*.log``,
    ``*.iterations.csv``: `step_log`); any other file is one of the latter two. They say little about the deployment: ``scenario`` (see
    `sim.load`) does. Runs in which nothing was served are points with `Point.refused`; when there is no other, and for files that cannot be
    read, raises `DataError`; `ConfigError` without a scenario where one is needed.
    """
    given = [Path(p) for p in paths]
    found = 0
    held: list[Point] = []
    for path in given:
        for point in _tree(path, scenario) if path.is_dir() else _file(path, scenario):
            if point.refused and not found:
                held.append(point)
                continue
            found += 1
            yield from held
            held = []
            yield point
    if held:
        first = held[0]
        more = f" (and {len(held) - 1} more)" if len(held) > 1 else ""
        raise DataError(str(first.folder / first.id), f"{first.refused}{more}")


def _file(path: Path, scenario: Any) -> Iterator[Point]:
    if path.name == "points.jsonl":
        yield from read_folder(path.parent)
        return
    if is_step_log(path):
        yield _point(path, _steps(path), scenario)
        return
    runs = read(path)
    for run in runs:
        yield _point(path, run, scenario)


def _tree(folder: Path, scenario: Any) -> Iterator[Point]:
    told = sorted(f.parent for f in folder.rglob("points.jsonl"))
    for there in told:
        yield from read_folder(there)
    unknown, known_here = [], 0
    for path, runs in read_tree(folder, set(told)):
        if runs is None:
            unknown.append(str(path.relative_to(folder)))
            continue
        for run in runs:
            known_here += 1
            point = _point(path, run, scenario)
            yield replace(point, id=str(path.parent.relative_to(folder) / point.id))
    for path in sorted(f for f in folder.rglob("*") if is_step_log(f)):
        known_here += 1
        point = _point(path, _steps(path), scenario)
        yield replace(point, id=str(path.parent.relative_to(folder) / point.id))
    if not told and not known_here:
        others = f"; not known are {', '.join(unknown[:3])}{' …' if len(unknown) > 3 else ''}" if unknown else ""
        readable = "; ".join(b.title for b in known())
        raise DataError(str(folder), f"holds no points.jsonl and no benchmark result{others}", f"read are {readable}")


def _steps(path: Path) -> Run:
    """A server's log of its steps."""
    logs = read_step_log(path)
    found = kinds(logs)
    columns: dict[str, Any] = {"logs": logs}
    return Run("step log", path.name, columns, {"kind": "steps"}, summary(found, found.seconds))


def _needed(scenario: Any, path: Path) -> Any:
    if scenario is None:
        raise ConfigError(
            "--scenario", None, f"{path.name} does not say what was deployed: name a scenario with model and deployment"
        )
    if scenario.deployment is None:
        raise ConfigError("--scenario", scenario.name, "needs one deployment, not several pools")
    return scenario


def _point(path: Path, run: Run, scenario: Any) -> Point:
    s = _needed(scenario, path)
    d = s.deployment
    model = s.model.name or str(s.model.config)
    return Point(
        id=run.name,
        model=model,
        engine=d.engine.name,
        version=d.engine.settings.get("version"),
        accelerator=d.accelerator,
        traffic=run.traffic,
        measured=run.measured,
        weights=s.model.weights,
        kv_cache=s.model.kv_cache,
        settings=d.engine.settings,
        tp=d.tp,
        pp=d.pp,
        dp=d.dp,
        ep=d.ep,
        kv_blocks=d.kv_blocks,
        quality="good",
        folder=path.parent,
        columns=run.columns,
        scenario=scenario,
        notes=(*run.notes, *_other_model(run, model)),
        refused=run.refused,
    )


def _other_model(run: Run, model: str) -> list[str]:
    """A note when the file names a model that does not look like the scenario's."""
    told = str(run.said.get("model") or "")
    short = [x.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-").replace("meta-", "") for x in (told, model)]
    if not told or short[0][:9] == short[1][:9] or short[0] in short[1] or short[1] in short[0]:
        return []
    return [f"the file names the model {told!r}, the scenario deploys {model!r}"]
