"""Every kind of file that a user can give: sound examples of it, and what reads it. A reader answers, or raises one error of ours."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import yaml
from hypothesis import strategies as st

import sim
from sim.cost.profile import engine_lines, load_engine_profile
from sim.hardware import load_accelerator
from sim.hardware.prices import read_prices
from sim.metrics.result import summarise
from sim.model import load_model
from sim.resources import path as resource
from sim.study.accuracy.step_log import read_step_log
from sim.study.bench import read as read_bench
from sim.study.conformance import check as replayed
from sim.study.conformance import engines
from sim.study.files import gather
from sim.study.single import Prepared
from sim.workload import build_traffic
from tests import strategies as given
from tests.hostile import accidents
from tests.hostile.examples import RESULTS, ROWS, TABLES
from tests.metrics.records import four_requests
from tests.study.test_step_log import STEPS
from tests.study.test_step_log import text as step_log
from tests.workload.conftest import whole

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Kind:
    """``contents`` and ``other``: what a file of the kind may hold; ``read`` opens the file ``name``. ``names``: whether its errors must name the file.

    ``sound``: such files as they should be.
    """

    name: str
    contents: st.SearchStrategy[bytes]
    other: st.SearchStrategy[bytes]
    read: Callable[[Path], Any]
    names: bool = True
    sound: tuple[bytes, ...] = ()


def documents(
    name: str, found: list[Any], write: Callable[[Any], bytes], read: Callable[[Path], Any], names: bool = True
) -> Kind:
    return Kind(name, given.files(found, write), accidents.files(found, write), read, names, tuple(map(write, found)))


def tables(name: str, texts: list[str], read: Callable[[Path], Any]) -> Kind:
    return Kind(name, given.tables(texts), accidents.tables(texts), read, True, tuple(map(str.encode, texts)))


def text(name: str, content: bytes, read: Callable[[Path], Any], names: bool = True) -> Kind:
    return Kind(
        name, st.just(content).flatmap(given.spoilt_bytes), st.just(content).flatmap(accidents.carried), read, names, (content,)
    )


def yamls(folder: str, *chosen: str) -> list[Any]:
    """Files of the package as data."""
    found = [resource(*folder.split("/"), f"{name}.yaml") for name in chosen]
    return [yaml.safe_load(file.read_text(encoding="utf-8")) for file in found]


def scenarios() -> list[Any]:
    files = {f.stem: f for f in resource("scenarios").rglob("*.yaml")}
    names = ("quickstart", "multi-turn", "closed-loop", "pd-vllm", "ollama-three-models", "pai-autoscale", "static-batching")
    return [yaml.safe_load(files[name].read_text(encoding="utf-8")) for name in names]


def scenario(file: Path) -> None:
    """Planned, with its traffic built, and the first requests drawn; what is cheap of a run."""
    made = Prepared(sim.load(file))
    block = next(iter(made.traffic.blocks(64)), None)
    assert block is None or np.isfinite(block.validate().arrival_s).all()


def study(file: Path) -> None:
    """As the study that stands in it, if that can be read, else as a comparison."""
    from sim import registry
    from sim.config import settings

    text = file.read_bytes() if file.is_file() and file.stat().st_size < 1 << 20 else b""
    name = next((n for n in STUDIES if f"study: {n}\n".encode() in text), "compare")
    cls = registry.lookup("study", name)
    found, options = gather(name, [str(file)])
    cls(found, settings(cls.Params, options))


def profile(file: Path) -> None:
    for line in engine_lines(str(file)):
        made = load_engine_profile(str(file), line, "h100-sxm")
        for name in ("host_step", "client_request", "gemm_scale"):
            assert np.isfinite(getattr(made, name)) and getattr(made, name) >= 0, name


def accelerator(file: Path) -> None:
    made = load_accelerator(str(file))
    assert made.memory_bytes > 0 and made.memory_bandwidth > 0


def network(file: Path) -> None:
    Prepared(sim.load("quickstart", (f"deployment.network={file}", "deployment.tp=2")))


def price(file: Path) -> None:
    for offer in read_prices(file):
        assert np.isfinite(offer.price_hour) and offer.price_hour >= 0 and offer.count >= 1


def model(file: Path) -> None:
    made = load_model(str(file))
    assert made.weight_bytes() > 0 and made.max_position > 0


def trace(file: Path) -> None:
    for block in build_traffic({"trace": {"path": str(file), "arrival": None}, "closed_loop": {"concurrency": 1}}).blocks(
        1 << 14
    ):
        assert np.isfinite(block.arrival_s).all() and (block.prompt_tokens >= 1).all() and (block.output_tokens >= 0).all()


def lengths(file: Path) -> None:
    arrival = {"process": "poisson", "rate": "1/s"}
    whole(build_traffic({"synthetic": {"arrival": arrival, "lengths": {"kind": "empirical", "path": str(file)}, "requests": 20}}))


def bench(file: Path) -> None:
    for run in read_bench(file):
        assert run.refused or run.measured
        assert all(np.isfinite(v) and v >= 0 for v in run.measured.values()), run.measured
        if run.columns and not run.refused:
            assert len({len(v) for v in run.columns.values()}) == 1
            assert (run.columns["prompt_tokens"] >= 1).all() and (run.columns["output_tokens"] >= 0).all()
            assert np.isfinite(run.columns["arrival_s"]).all() and run.columns["arrival_s"].min() == 0


def log(file: Path) -> None:
    for found in read_step_log(file):
        assert np.isfinite(found.elapsed_s).all() and (found.elapsed_s >= 0).all()


def result(file: Path) -> None:
    """A saved result whose ``summary.json`` is this file; errors name its folder."""
    folder = file.parent / file.stem
    if not folder.exists():
        summarise(four_requests(), renderer=None).save(folder)
    (folder / "summary.json").unlink()
    (folder / "summary.json").symlink_to(file)
    sim.load_result(folder)


def saved() -> list[tuple[str, bytes]]:
    """The files of a saved result, apart from its summary and report."""
    with TemporaryDirectory() as folder:
        summarise(four_requests(), renderer=None).save(folder)
        names = ("requests.parquet", "timeseries.parquet", "itl_histogram.csv", "scenario.yaml")
        return [(name, (Path(folder) / name).read_bytes()) for name in names if (Path(folder) / name).exists()]


def part_of_result(file: Path) -> None:
    """A saved result one of whose files is this one."""
    folder = file.parent / "saved"
    if not folder.exists():
        summarise(four_requests(), renderer=None).save(folder)
    (folder / file.name).unlink()
    (folder / file.name).symlink_to(file)
    sim.load_result(folder)


def runs(file: Path) -> None:
    """The store of a study."""
    from sim.study.store import Store

    folder = file.parent / "study"
    folder.mkdir(exist_ok=True)
    (folder / "runs.jsonl").unlink(missing_ok=True)
    (folder / "runs.jsonl").symlink_to(file)
    Store(folder, {"study": "sweep"}, "code").close()


def replay(engine: str) -> Callable[[Path], Any]:
    return lambda file: list(replayed(engine, [file]))


def own_class(file: Path) -> None:
    from sim import registry

    registry.lookup("router", f"{file}:Mine", "router")


MODELS = [
    json.loads(line)["config"] for line in (ROOT / "tests/model/real_configs.jsonl").read_text(encoding="utf-8").splitlines()[::4]
]
PLUGIN = """from sim.policy.router import Router

class Mine(Router):
    name = "mine"

    def choose(self, request, replicas, now):
        return 0
"""
PRICES = ["accelerator,count,price_hour,currency,provider\nh100-sxm,8,20.5,USD,here\na100-sxm-80g,1,1.2,EUR,there\n"]
STUDY = {"study": "compare", "scenarios": ["quickstart", "fleet"], "set": {"seed": 1}, "replications": 3}
STUDIES: dict[str, dict[str, Any]] = {
    "compare": STUDY,
    "sweep": {"study": "sweep", "scenario": "quickstart", "over": {"deployment.tp": [1, 2]}, "replications": 2},
    "plan": {"study": "plan", "scenario": "quickstart", "candidates": {"deployment.tp": [1, 2]}, "objective": "accelerators"},
    "stress": {"study": "stress", "scenario": "quickstart", "spike": [3, 60], "replications": 3},
    "capacity": {"study": "capacity", "scenario": "quickstart", "tolerance": 0.05},
    "select": {"study": "select", "scenario": "quickstart", "tp": [1, 2]},
}
RUNS = [
    {"format": "servesim-study/1", "definition": {"study": "sweep"}, "code": "code"},
    {"key": "a", "data": {"x": 1}, "error": ""},
    {"end": True},
]
KINDS = [
    documents("scenario.yaml", scenarios(), given.as_yaml, scenario, names=False),
    documents("study.yaml", list(STUDIES.values()), given.as_yaml, study, names=False),
    documents("profile.yaml", yamls("profiles/engines", "vllm", "mindie", "llama.cpp"), given.as_yaml, profile),
    documents("accelerator.yaml", yamls("profiles/hardware", "h100-sxm", "a10", "ascend-910b2"), given.as_yaml, accelerator),
    documents("network.yaml", yamls("profiles/links", "hccs-910b", "rdma-400g"), given.as_yaml, network, names=False),
    tables("prices.csv", PRICES, price),
    documents("config.json", MODELS, given.as_json, model, names=False),
    documents("trace.jsonl", ROWS, given.as_lines, trace),
    tables("trace.csv", TABLES, trace),
    tables("lengths.csv", ["prompt_tokens,output_tokens\n10,5\n20,6\n"], lengths),
    documents("bench.json", RESULTS, given.as_json, bench),
    documents("bench.jsonl", [r for r in RESULTS if isinstance(r, list)], given.as_lines, bench),
    text("server.log", step_log(STEPS).encode(), log),
    documents("monday.json", [summarise(four_requests(), renderer=None).summary.as_dict()], given.as_json, result),
    documents("runs.jsonl", [RUNS], given.as_lines, runs, names=False),
    text("mine.py", PLUGIN.encode(), own_class, names=False),
    *[text(name, content, part_of_result, names=False) for name, content in saved()],
    *[documents(f"recording-{e}.json", [{"config": {}, "requests": [], "steps": []}], given.as_json, replay(e), names=False) for e in engines()],
]  # fmt: skip
