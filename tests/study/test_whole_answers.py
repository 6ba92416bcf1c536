"""Every study's whole answer is the recorded one: what it asked, in which order, and all that it says; in worlds whose figures are a formula."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import sim
from sim.errors import ServesimError
from sim.study.base import Interrupted, Outcome, Study, Trial
from sim.study.bench import read
from sim.study.questions.capacity import Capacity
from sim.study.questions.compare import PARTS, Compare
from sim.study.questions.plan import Plan
from sim.study.questions.repeat import Repeat
from sim.study.questions.select import Select
from sim.study.questions.stress import Stress
from sim.study.questions.sweep import Sweep
from sim.study.stress.recovery import Recovery
from sim.study.variants import seed_of
from tests.answers import plain, same
from tests.fleet.catalogue import CLIENTS, DOORS, LEAST, MODELS, ONE, RANKS, SCALERS, SIDES, THREE, TRAFFIC, TWO, world
from tests.study.test_every_tool import RECORDS, write
from tests.study.world import World, ask, changed
from tests.whole import formula, load

# ---- answers


def told(answer: Any) -> dict[str, Any]:
    """All that an answer says."""
    return {"sentence": answer.sentence(), "verdict": answer.verdict, "data": answer.as_dict(), "fields": plain(_fields(answer))}


def _fields(answer: Any) -> dict[str, Any]:
    """Of the answer, those that have a plain form."""
    out = {}
    for name, value in vars(answer).items():
        try:
            out[name] = plain(value)
        except TypeError:
            continue
    return out


def asked(batches: list[list[Trial]]) -> list[list[Any]]:
    """What a study wanted to know."""
    return [[[t.settings, t.load, t.scenario.seed, t.scenario.traffic.so_many, t.problem] for t in batch] for batch in batches]


QUICK = ("record.timeseries=false",)
PRICED = ("economics={accelerator_hour: {h100-sxm: 2.5, a100-sxm-80g: 1.2}}",)
WAVE = (
    "traffic.synthetic={arrival: {process: spike, rate: 6/s, factor: 3, before: 40s, duration: 30s, after: 40s}, "
    "lengths: {kind: azure-2023-conv}}"
)
TENANTS = (
    "traffic={classes: {a: {tenant: x, synthetic: {arrival: {process: poisson, rate: 5/s}, lengths: azure-2023-conv, requests: 400}}, "
    "b: {synthetic: {arrival: {process: poisson, rate: 3/s}, lengths: azure-2023-code, requests: 300}}}}"
)
LUCK = {seed_of(0, r): 1.0 + 0.08 * math.sin(3 * r) for r in range(12)}
OVER = {"deployment.tp": [1, 2], "deployment.engine.max_num_seqs": [64, 256]}


def of_size(scenario: Any) -> float:
    """Requests/s of a unit by its width and its batch."""
    d = scenario.deployment
    return 4.0 * d.tp**0.8 * (1.1 if d.engine.settings.get("max_num_seqs") == 256 else 1.0)


def of_engine(scenario: Any) -> float:
    """The same, of engines that are not alike."""
    return of_size(scenario) * (1.3 if scenario.deployment.engine.name == "sglang" else 1.0)


STUDIES: dict[str, tuple[type[Study[Any]], dict[str, Any], tuple[str, ...], dict[str, Any]]] = {
    "capacity": (Capacity, {}, (), {"serves": 11.0, "luck": LUCK}),
    "capacity, coarse": (Capacity, {"tolerance": 0.2, "replications": 1, "model_error": False}, (), {"serves": 3.0}),
    "capacity, repeated": (Capacity, {"replications": 3, "confidence": 0.9}, (), {"serves": 20.0, "luck": LUCK}),
    "capacity, nothing holds": (Capacity, {"replications": 2}, ("slo.ttft=10ms",), {"serves": 5.0}),
    "capacity, replicas": (Capacity, {"replicas": True}, (), {"serves": 1.1, "luck": LUCK}),
    "capacity, few replicas": (Capacity, {"replicas": True, "max_replicas": 3, "replications": 2}, (), {"serves": 0.9}),
    "capacity, one replica": (Capacity, {"replicas": True, "max_replicas": 1, "replications": 1}, (), {"serves": 50.0}),
    "capacity, classes": (Capacity, {"replications": 1}, (TENANTS,), {"serves": 10.0}),
    "capacity, wave": (Capacity, {"replications": 1}, (WAVE,), {"serves": 10.0}),
    "plan": (
        Plan,
        {"candidates": [OVER], "screen": 300, "replications": 3, "finalists": 2},
        PRICED,
        {"serves": of_size, "luck": LUCK},
    ),
    "plan, accelerators": (
        Plan,
        {"candidates": [OVER], "objective": "accelerators", "replications": 3, "finalists": 2, "screen": 300},
        PRICED,
        {"serves": of_size},
    ),
    "plan, energy": (
        Plan,
        {
            "candidates": [OVER],
            "objective": "energy",
            "replications": 2,
            "step_time": 1.1,
            "rate": 1.5,
            "lengths": 1.1,
            "burst": 3.0,
        },
        PRICED,
        {"serves": of_size},
    ),
    "plan, few": (
        Plan,
        {"candidates": [OVER], "max_replicas": 2, "replications": 2, "finalists": 1},
        PRICED,
        {"serves": of_size},
    ),
    "plan, none": (Plan, {"candidates": [OVER], "max_replicas": 1, "replications": 2}, PRICED, {"serves": 0.5}),
    "plan, as it is": (
        Plan,
        {"candidates": [{"deployment.tp": [1]}], "replications": 2},
        ("economics={accelerator_hour: {h100-sxm: 2.5}}",),
        {"serves": 3.0, "luck": LUCK},
    ),
    "stress": (Stress, {"replications": 2}, (), {"serves": 12.0, "luck": LUCK}),
    "stress, lengths": (Stress, {"along": "lengths", "replications": 1, "most": 3.0, "spike": None}, (), {"serves": 15.0}),
    "stress, burst": (Stress, {"along": "burst", "replications": 1, "most": 4.0, "hysteresis": False}, (), {"serves": 17.0}),
    "stress, never": (Stress, {"replications": 1, "most": 1.5, "spike": (2.0, 20.0)}, (), {"serves": 90.0}),
    "stress, at once": (Stress, {"replications": 1, "spike": None, "hysteresis": False}, (), {"serves": 0.2}),
    "sweep": (Sweep, {"over": OVER}, (), {"serves": of_size}),
    "sweep, sampled": (
        Sweep,
        {
            "over": {"traffic.synthetic.arrival.rate": "2/s..9/s", "deployment.engine.max_num_seqs": [8, 32]},
            "sample": "latin-hypercube",
            "n": 33,
            "sensitivity": True,
        },
        (),
        {"serves": 9.0, "luck": LUCK},
    ),
    "sweep, points": (Sweep, {"points": [{"deployment.tp": 2}, {"deployment.tp": 4}]}, (), {"serves": of_size}),
    "repeat": (Repeat, {"replications": 4}, (), {"serves": 10.0, "luck": LUCK}),
    "repeat, precise": (Repeat, {"replications": 2, "precision": 0.03, "confidence": 0.9}, (), {"serves": 10.0, "luck": LUCK}),
    "select": (
        Select,
        {"engines": ["vllm", "sglang"], "accelerators": ["h100-sxm", "a100-sxm-80g"], "tp": [1, 2], "replications": 2},
        PRICED,
        {"serves": of_engine, "luck": LUCK},
    ),
    "select, few": (
        Select,
        {"engines": ["vllm", "tgi"], "accelerators": ["h100-sxm"], "max_replicas": 2, "tp": [1]},
        (),
        {"serves": 2.0},
    ),
}


def made(name: str, **more: Any) -> tuple[Any, World]:
    kind, params, overrides, how = STUDIES[name]
    return kind([sim.load("quickstart", [*QUICK, *overrides])], kind.Params(**params)), World(**(how | more))


def kept(world_: World) -> Any:
    """The same outcomes with what studies keep besides the figures: of a spike, of steps of load, whether a run has settled."""

    def perform(trial: Trial) -> Outcome:
        out = world_(trial)
        if out.data is None:
            return out
        x = min(world_.load(trial), 3.0)
        more: dict[str, Any] = {"stationary": "It fills up." if x > 1.0 else ""}
        if "spike" in trial.load:
            factor, start, duration = trial.load["spike"]
            windows = {
                "width_s": 1.0,
                "start_s": [0.0, start],
                "attainment": [None, 1.0 - x / 4],
                "ttft_p99_s": [None, x],
                "requests": [0, 9],
            }
            stuck = x > 0.9
            recovery = Recovery(
                trial.load["rate"], factor, duration, 5.0 * x, x, None if stuck else round(20 * x, 3), int(30 * x), stuck
            )
            more["spike"] = {"windows": windows, "recovery": vars(recovery)}
        if "course" in trial.load:
            more["met_at_step"] = [max(0.0, 1.0 - 0.1 * f * k) for k, f in enumerate(trial.load["course"][1])]
        return Outcome(trial, {**out.data, **more})

    return perform


@pytest.mark.parametrize("name", STUDIES)
def test_a_study_is_as_recorded(name: str) -> None:
    if STUDIES[name][1].get("sensitivity"):
        pytest.importorskip("SALib", reason="servesim[search] is not installed")
    with formula():
        study, world_ = made(name)
        answer, batches = ask(study.run(), kept(world_))
        same("study", name, {"expected": study.expected, "title": study.title, "asked": asked(batches), "told": told(answer)})


@pytest.mark.parametrize("stop", [0, 1, 4, 11])
@pytest.mark.parametrize("name", [n for n in STUDIES if "," not in n])
def test_a_study_that_is_stopped_is_as_recorded(name: str, stop: int) -> None:
    with formula():
        study, world_ = made(name)
        try:
            answer, batches = ask(study.run(), kept(world_), stop=stop)
            found: Any = {"asked": len(batches), "told": told(answer)}
        except Interrupted as error:
            found = f"interrupted: {error.finished}"
        except ServesimError as error:
            found = f"{type(error).__name__}: {error}"
    same("study-stopped", f"{name} after {stop}", found)


@pytest.mark.parametrize("wrong", ["all", "wide", "first"])
@pytest.mark.parametrize("name", [n for n in STUDIES if "," not in n])
def test_a_study_of_which_trials_fail_is_as_recorded(name: str, wrong: str) -> None:
    seen: list[Trial] = []

    def fails(trial: Trial) -> str:
        seen.append(trial)
        wide = trial.scenario.deployment.tp > 1 or trial.load.get("units", trial.load.get("replicas", 1)) > 2
        return "it broke" if wrong == "all" or (wrong == "wide" and wide) or (wrong == "first" and len(seen) == 1) else ""

    with formula():
        study, world_ = made(name, wrong=fails)
        try:
            answer, batches = ask(study.run(), kept(world_))
            found: Any = {"asked": asked(batches), "told": told(answer)}
        except ServesimError as error:
            found = f"{type(error).__name__}: {error}"
    same("study-failed", f"{name}, {wrong}", found)


# ---- comparisons


def outcome(trial: Trial) -> Outcome:
    """Of a run, as the study compare keeps it: what differs by batch size, and by the seed's luck."""
    if trial.problem:
        return Outcome(trial, None, trial.problem)
    size = int(trial.scenario.deployment.engine.settings.get("max_num_seqs") or 40)
    luck = 1.0 + 0.1 * math.sin(trial.scenario.seed % 97)
    ttft = luck * (0.3 + 4.0 / size)
    figures = changed(
        latency__ttft_s__p99=ttft,
        latency__tpot_s__p99=0.01 * luck + size * 1e-5,
        throughput__requests_per_s=8.0 - 10.0 / size,
        warnings=[],
    )
    parts = {"latency.ttft_s.p99": [ttft * (1 + 0.01 * math.sin(i)) for i in range(PARTS)]}
    return Outcome(
        trial, figures | {"stationary": "", "warmup_s": 3.0, "scenario": "", "alone": {}, "curves": {}, "parts": parts}
    )


COMPARED: dict[str, dict[str, Any]] = {
    "pairs": {},
    "few": {"replications": 2, "confidence": 0.9},
    "one": {"replications": 1},
    "precise": {"precision": 0.05, "replications": 2},
    "own traffic": {"own_traffic": True, "replications": 3},
    "warm": {"warmup": "auto", "replications": 2},
}


@pytest.mark.parametrize("name", COMPARED)
def test_a_comparison_is_as_recorded(name: str) -> None:
    study = Compare(
        [sim.load("quickstart", [*QUICK, *PRICED])],
        Compare.Params(over={"deployment.engine.max_num_seqs": [8, 16, 64]}, **COMPARED[name]),
    )
    answer, batches = ask(study.run(), outcome)
    same("study-compared", name, {"asked": asked(batches), "told": told(answer)})
    two = Compare([sim.load("quickstart", QUICK), sim.load("quickstart-a100", QUICK)], Compare.Params(**COMPARED[name]))
    answer, batches = ask(two.run(), outcome)
    same("study-compared", f"{name}, two", {"asked": asked(batches), "told": told(answer)})


# ---- runs


RUNS: dict[str, str] = {
    **{name: world(name, THREE, LEAST) for name in TRAFFIC},
    "two": world("plain", TWO, LEAST),
    "models": world("classes", MODELS, LEAST),
    "sides": world("plain", SIDES["vllm"], LEAST),
    "priced": world("plain", THREE, "economics: {accelerator_hour: {h100-sxm: 2.5}, electricity: 0.2, grid: DEU}"),
    "warm": world("even", THREE, "warmup: 100ms"),
    "busy": world("burst", THREE.replace("replicas: 3", "replicas: 1"), "until: 500ms"),
    "faults": world("plain", THREE, LEAST, "faults: [{name: crash, at: 100ms}, {name: slow, mtbf: 1s, for: 100ms}]"),
    "scaler": world("few", ONE, LEAST, f"scaling: {SCALERS['eas']}", f"clients: {CLIENTS[3]}"),
    "doors": world("classes", THREE, LEAST, f"admission: {DOORS[3]}"),
    "ranks": world("plain", RANKS, "faults: {name: rank}"),
}


@pytest.mark.parametrize("name", RUNS)
def test_a_run_with_all_that_a_study_adds_is_as_recorded(name: str) -> None:
    from sim.study.statistics.worth import confidence

    with formula():
        result = sim.run(load(RUNS[name]))
        found = result.summary.as_dict()
        evidence = [row for row in found.pop("evidence") if not str(row["what"]).startswith("memory")]
        found.pop("model_error", None)
        same(
            "study-runs",
            name,
            {
                "summary": found,
                "evidence": evidence,
                "worth": confidence(result),
                "rows": {k: np.asarray(v) for k, v in result.columns.items()},
            },
        )


REAL: dict[str, tuple[Any, str, dict[str, Any]]] = {
    "capacity": ("capacity", "plain", {"replications": 1, "tolerance": 0.3, "model_error": False}),
    "compare": ("compare", "even", {"over": {"router": ["round_robin", "least_outstanding"]}, "replications": 2}),
    "sweep": ("sweep", "shared", {"over": {"deployment.replicas": [1, 3]}, "replications": 2}),
    "stress": ("stress", "even", {"replications": 1, "most": 2.0, "spike": (3.0, 0.2)}),
    "repeat": ("repeat", "plain", {"replications": 3}),
    "plan": ("plan", "plain", {"candidates": {"deployment.kv_blocks": [80, 120]}, "replications": 2, "finalists": 1, "max_replicas": 8, "screen": 100}),
}  # fmt: skip


@pytest.mark.parametrize("name", REAL)
def test_a_study_of_real_runs_keeps_all_of_them_as_recorded(name: str, tmp_path: Path) -> None:
    import pyarrow.parquet as pq

    study, traffic, options = REAL[name]
    with formula():
        scenario = load(world(traffic, THREE, "economics: {accelerator_hour: {h100-sxm: 2.5}}"))
        answer = getattr(sim, study)(scenario, out=tmp_path / "out", jobs=1, **options)
    rows = pq.read_table(tmp_path / "out" / "runs.parquet").to_pylist()
    lines = [json.loads(line) for line in (tmp_path / "out" / "runs.jsonl").read_text().splitlines()]
    same(
        "study-real",
        name,
        {
            "told": told(answer),
            "rows": rows,
            "lines": [sorted(line) for line in lines],
            "files": sorted(f.name for f in (tmp_path / "out").iterdir()),
        },
    )


# ---- files of others


@pytest.mark.parametrize("failed", [False, True])
@pytest.mark.parametrize("tool", RECORDS)
def test_a_file_of_requests_is_read_as_recorded(tmp_path: Path, tool: str, failed: bool) -> None:
    name, content, *_ = RECORDS[tool]
    same(
        "study-bench",
        f"{tool}{', failed' if failed else ''}",
        [plain(run) for run in read(write(tmp_path, name, content(failed)))],
    )
