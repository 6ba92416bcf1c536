"""Details of reading what was measured: which tool wrote a file, how its runs are called, units, versions by date, what fits into memory."""

from __future__ import annotations

import json
from math import inf
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.cost import features as f
from sim.errors import ConfigError
from sim.study import room
from sim.study.accuracy.versions import _DATES, release
from sim.study.bench import read
from sim.study.bench._document import Document
from sim.study.bench._find import reader_of
from sim.study.bench._nvidia import UNITS
from sim.study.plan import bound as bound_module
from sim.study.plan.bound import _prompt, _time, demand
from sim.study.statistics.throughput import throughput_interval
from sim.workload.table import RequestBlock
from tests.study.test_every_tool import RECORDS, SUMS, write


def written(folder: Path) -> dict[str, Path]:
    """One file of every tool."""
    files = {}
    records = [(tool, name, made(False)) for tool, (name, made, _, _) in RECORDS.items()]
    for tool, name, content in records + [(f"{tool} sums", name, made()) for tool, (name, made, _, _) in SUMS.items()]:
        own = folder / tool.replace(" ", "-")
        own.mkdir()
        files[tool] = write(own, name, content)
    return files


def test_a_file_is_read_by_the_tool_that_wrote_it(tmp_path: Path) -> None:
    for tool, file in written(tmp_path).items():
        reader = reader_of(Document(file))
        assert reader is not None and reader.name == tool.removesuffix(" sums").removesuffix("-json")
    for content in (
        {"conc": 4, "isl": 5},
        {"metrics": {"tput_per_gpu": 1}},
        {"num_prompts": 3},
        {"ttft_s": 1.0},
        {"queued_ts": 1.0},
        {"n_prompt": 5, "n_gen": 3},
    ):
        assert reader_of(Document(write(tmp_path, "some.json", content))) is None
    found = reader_of(Document(write(tmp_path, "some.json", {"conc": 4, "tput_per_gpu": 5})))
    assert found is not None and found.name == "inferencex"


def test_runs_are_called_by_their_file_and_their_number_in_it(tmp_path: Path) -> None:
    for tool, file in written(tmp_path).items():
        names = [run.name for run in read(file)]
        assert names == [f"{file.name}[x]" if tool == "inference-benchmarker sums" else file.name], tool
    for tool in ("guidellm", "genai-perf-raw"):
        name, made, _, _ = RECORDS[tool]
        whole: Any = made(False)
        (key,) = whole
        twice = write(tmp_path, f"two-{name}", {key: whole[key] * 2})
        assert [run.name for run in read(twice)] == [f"two-{name}[1]", f"two-{name}[2]"]
    for tool, suffix in (("vllm-bench", "jsonl"), ("sglang-bench", "jsonl"), ("inferencex", "json")):
        content = SUMS[tool][1]()
        row = json.loads(content) if isinstance(content, str) else content
        text = json.dumps([row, row]) if suffix == "json" else f"{json.dumps(row)}\n{json.dumps(row)}\n"
        file = write(tmp_path, f"{tool}.{suffix}", text)
        assert [run.name for run in read(file)] == [f"{file.name}[1]", f"{file.name}[2]"], tool


@pytest.mark.parametrize(
    ("unit", "seconds"),
    [("ns", 1e-9), ("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("milliseconds", 1e-3), ("s", 1.0), ("sec", 1.0), ("seconds", 1.0)],
)
def test_figures_in_every_unit(unit: str, seconds: float, tmp_path: Path) -> None:
    made = SUMS["genai-perf"][1]()
    made["request_latency"] = {"unit": unit, "avg": 4.0}
    (run,) = read(write(tmp_path, "profile_export_genai_perf.json", made))
    assert run.measured["e2e_s.mean"] == pytest.approx(4.0 * seconds)
    assert len(UNITS) == 8


def test_counts_that_a_server_cannot_mean_are_none(tmp_path: Path) -> None:
    name, made, _, _ = RECORDS["genai-perf-raw"]
    for tokens, there in (((1 << 40) - 1, True), (1 << 40, False), (-1, False), (0, True)):
        raw: Any = made(False)
        row = raw["experiments"][0]["requests"][0]
        row["response_outputs"] = [{"response": json.dumps({"usage": {"prompt_tokens": 5, "completion_tokens": tokens}})}]
        (run,) = read(write(tmp_path, name, raw))
        assert bool(run.lacks) is (not there or tokens == 0)
    raw = made(False)
    raw["experiments"][0]["requests"][0]["success"] = False
    (run,) = read(write(tmp_path, name, raw))
    assert len(run.columns["prompt_tokens"]) == 5


def test_a_date_means_the_line_of_that_month() -> None:
    for engine, lines in _DATES.items():
        for i, (month, version) in enumerate(lines):
            assert release(engine, month) == version
            year, number = int(month[:4]), int(month[5:])
            before = f"{year - (number == 1)}-{number - 1 or 12:02}"
            assert release(engine, before) == lines[max(i - 1, 0)][1]
    assert release("vllm", "early 2024") == "0.2" and release("vllm", "2024") == "0.6" and release("vllm", "2025.01") == "0.12"
    assert release("tgi", "2025-05") is None and release("vllm", "nightly") is None


def test_a_step_has_the_features_of_its_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[np.ndarray] = []
    monkeypatch.setattr(bound_module, "step_time", lambda cost, feat, parts: seen.append(feat) or 1.0)
    plan: Any = SimpleNamespace(cost=None)
    _time(plan, decode_rows=6, context=100.0)
    _time(plan, prompt=40, before=60)
    names = (
        f.TOKENS,
        f.DECODE_ROWS,
        f.DECODE_TOKENS,
        f.DECODE_CTX,
        f.LARGEST_CTX,
        f.PREFILL_ROWS,
        f.PREFILL_TOKENS,
        f.PREFILL_WORK,
        f.PREFILL_CTX,
        f.ROWS,
        f.SAMPLED,
    )
    assert [[row[i] for i in names] for row in seen] == [
        [6, 6, 6, 600.0, 100.0, 0, 0, 0, 0, 6, 6],
        [40, 0, 0, 0.0, 100.0, 1, 40, 40 * 80.0, 100.0, 1, 1],
    ]
    seen.clear()
    assert _prompt(plan, 100.9, 40) == 3.0 and [row[f.PREFILL_TOKENS] for row in seen] == [40, 40, 20]
    assert [row[f.PREFILL_CTX] for row in seen] == [40, 80, 100] and _prompt(plan, 0.5, 40) == 0.0


def test_the_demand_of_traffic_is_that_of_its_first_requests() -> None:
    def traffic(*blocks: RequestBlock) -> Any:
        return SimpleNamespace(blocks=lambda: iter(blocks))

    one = RequestBlock.of(np.arange(100.0), np.arange(100), np.arange(100) + 1)
    found = demand(traffic(one), 0.9)
    assert (found.prompt, found.output, found.prompt_at, found.prefixes) == (49.5, 50.5, pytest.approx(89.1), False)
    many = RequestBlock.of(np.zeros(10_000), np.full(10_000, 7), np.full(10_000, 3))
    assert demand(traffic(many, one), 0.9).prompt == 7.0 and demand(traffic(many[:9999], one), 0.9).prompt > 7.0
    spans = (np.array([0, 1]), np.array([5]), np.array([0]), np.array([7]))
    assert demand(traffic(RequestBlock.of([0.0], [7], [3], spans=spans)), 0.9).prefixes


def test_room_is_counted_in_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    def fits(requests: int, memory: float, replicas: int = 1, held: bool = False, until: float = inf, disk: bool = True) -> bool:
        monkeypatch.setattr(room, "memory_bytes", lambda: memory)
        monkeypatch.setattr(room, "has_room", lambda rows: disk)
        plans: Any = [SimpleNamespace(replicas=replicas, rank_count=2)]
        traffic: Any = SimpleNamespace(total=requests, mean_rate=10.0)
        try:
            room.check_room(plans, traffic, until, held)
        except ConfigError:
            return False
        return True

    assert fits(1000, 600e3) and not fits(1001, 600e3) and fits(1000, 600e3, replicas=2) and not fits(1, 599e3, replicas=2)
    assert fits(10**9, 600e3, until=50.0) and not fits(10**9, 600e3, until=50.1)  # twice as many as come until then
    many = 10 * room.HELD_ROWS
    on_disk = room.HELD_ROWS * 600.0 + many * 120.0
    assert (
        fits(many, on_disk)
        and not fits(many, on_disk - 1)
        and not fits(many, on_disk, held=True)
        and not fits(many, on_disk, disk=False)
    )
    assert fits(many, many * 600.0, held=True) and fits(room.HELD_ROWS, room.HELD_ROWS * 600.0)


def test_a_run_without_length_has_no_throughput() -> None:
    assert throughput_interval(np.zeros(500), np.zeros(500)) is None
