"""Reading what people have: folders of operating points, and results of benchmark tools."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from sim.errors import ConfigError, DataError
from sim.ledger import Values
from sim.places import files_below, is_folder
from sim.study.accuracy.earlier import behind_others
from sim.study.accuracy.launchers import as_measured
from sim.study.accuracy.point import Point, Told, read_folder
from sim.study.accuracy.step_log import is_step_log, kinds, read_step_log, summary
from sim.study.bench import Run, known, read, read_tree

if TYPE_CHECKING:
    from sim.config.deployment import Deployment
    from sim.config.scenario import Scenario


def read_points(paths: Iterable[str | Path], scenario: Scenario | None = None) -> Iterator[Point]:
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
        for point in _tree(path, scenario) if is_folder(path) else _file(path, scenario):
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


def _file(path: Path, scenario: Scenario | None) -> Iterator[Point]:
    if path.name == "points.jsonl":
        yield from behind_others(map(as_measured, read_folder(path.parent)))
        return
    if is_step_log(path):
        yield _point(path, _steps(path), scenario)
        return
    runs = read(path)
    for run in runs:
        yield _point(path, run, scenario)


def _tree(folder: Path, scenario: Scenario | None) -> Iterator[Point]:
    files = files_below(folder)
    told = sorted(f.parent for f in files if f.name == "points.jsonl")
    for there in told:
        yield from behind_others(map(as_measured, read_folder(there)))
    found = list(read_tree(folder, set(told)))
    unknown = [str(path.relative_to(folder)) for path, runs in found if runs is None and not is_step_log(path)]
    left = f"not read, as no benchmark result that is known: {', '.join(unknown[:5])}{' …' if len(unknown) > 5 else ''}"
    known_here = 0
    for path, runs in found:
        for run in runs or ():
            point = _point(path, run, scenario)
            if unknown and not known_here:
                point = replace(point, notes=(*point.notes, left))
            known_here += 1
            yield replace(point, id=str(path.parent.relative_to(folder) / point.id))
    for path in filter(is_step_log, files):
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
    return Run("step log", path.name, {}, {"kind": "steps"}, summary(found, found.seconds), logs=tuple(logs))


def _needed(scenario: Scenario | None, path: Path) -> tuple[Scenario, Deployment]:
    if scenario is None:
        raise ConfigError(
            "--scenario", None, f"{path.name} does not say what was deployed: name a scenario with model and deployment"
        )
    if scenario.deployment is None:
        raise ConfigError("--scenario", scenario.name, "needs one deployment, not several pools")
    return scenario, scenario.deployment


def _named(path: Path, run: Run) -> Point:
    """A log whose name says what was deployed."""
    said = run.said
    return Point(
        id=run.name,
        model=str(said["model"]),
        engine=str(said["engine"]),
        version=str(said["version"]),
        accelerator=str(said["accelerator"]),
        traffic=run.traffic,
        measured=run.measured,
        tp=int(str(said["tp"])),
        ep=int(str(said["ep"])),
        quality="good",
        folder=path.parent,
        logs=run.logs,
        notes=("the file's name says what was deployed", *run.notes),
        inside=run.inside,
    )


def _point(path: Path, run: Run, scenario: Scenario | None) -> Point:
    if scenario is None and run.traffic["kind"] == "passes" and run.said:
        return _named(path, run)
    s, d = _needed(scenario, path)
    model = s.model.name or str(s.model.config)
    columns, traffic, notes = (run.columns, run.traffic, []) if not run.lacks else _of_scenario(run, s)
    return Point(
        id=run.name,
        model=model,
        engine=d.engine.name,
        version=d.engine.settings.get("version"),
        accelerator=d.accelerator,
        traffic=traffic,
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
        columns=None if run.traffic["kind"] in ("static_batch", "steps", "passes") else columns,
        logs=run.logs,
        scenario=scenario,
        notes=(*_other_model(run, model), *_other_layout(run, d), *run.notes, *notes),
        refused=run.refused,
        inside=run.inside,
    )


def _other_model(run: Run, model: str) -> list[str]:
    """A note when the file names a model that does not look like the scenario's."""
    told = str(run.said.get("model") or "")
    short = [x.rstrip("/").rsplit("/", 1)[-1].lower().replace("_", "-").replace("meta-", "") for x in (told, model)]
    if not told or short[0][:9] == short[1][:9] or short[0] in short[1] or short[1] in short[0]:
        return []
    return [f"the file names the model {told!r}, the scenario deploys {model!r}"]


def _other_layout(run: Run, deployment: Deployment) -> list[str]:
    """A note for every part of the deployment that the file tells otherwise."""
    told = {k: run.said[k] for k in ("tp", "pp", "ep", "engine", "accelerator") if run.said.get(k)}
    have = {
        "tp": deployment.tp,
        "pp": deployment.pp,
        "ep": deployment.ep,
        "engine": deployment.engine.name,
        "accelerator": deployment.accelerator,
    }
    out = []
    for key, value in told.items():
        mine, theirs = (str(x).lower().replace("_", "-") for x in (have[key], value))
        if mine != theirs and not (len(theirs) > 2 and (mine.startswith(theirs) or theirs.startswith(mine))):
            out.append(f"the file says {key} {value}, the scenario has {have[key]}")
    return out


def _too_few(run: Run, have: int, need: int) -> ConfigError:
    return ConfigError(
        "traffic", have, f"has fewer requests than the {need} of {run.name}, which does not say {', '.join(run.lacks)}"
    )


def _of_scenario(run: Run, scenario: Scenario) -> tuple[dict[str, Values], Told, list[str]]:
    """Requests as the scenario's traffic has them, for a file that does not say what was sent."""
    from sim.workload import RequestBlock, build_traffic

    made = build_traffic(scenario.traffic, scenario.seed)
    if made.total is None:
        raise ConfigError("traffic.synthetic.requests", None, f"is required: {run.name} does not say {', '.join(run.lacks)}")
    block = RequestBlock.concat(list(made.blocks()))
    columns: dict[str, Values] = {
        "arrival_s": block.arrival_s,
        "prompt_tokens": block.prompt_tokens,
        "output_tokens": block.output_tokens,
    }
    what = "requests are those"
    if run.columns:
        n = len(run.columns["prompt_tokens"])
        waits = scenario.traffic.closed_loop is not None and not scenario.traffic.closed_loop.paced
        if not waits and n > len(block):
            raise _too_few(run, len(block), n)
        columns = {**run.columns, "arrival_s": np.zeros(n) if waits else block.arrival_s[:n]}
        what = "requests are sent at the times"
    loop = scenario.traffic.closed_loop
    traffic: Told = {"kind": "trace"}
    if loop is not None:
        traffic = {"kind": "closed_loop", "concurrency": loop.concurrency, "paced": loop.paced}
    return columns, traffic, [f"the file does not say {', '.join(run.lacks)}: {what} of the scenario's traffic"]
