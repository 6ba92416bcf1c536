"""Files of others in which one thing is otherwise, each in turn: what is read of each is the recorded answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sim.study.accuracy import read_points
from sim.study.accuracy.deploy import fleet
from sim.study.accuracy.launchers import as_measured, assumed_settings
from sim.study.accuracy.point import parse
from sim.study.accuracy.step_log import gap, kinds, read_step_log
from sim.study.accuracy.versions import release
from sim.study.bench import read
from tests.answers import plain, same
from tests.otherwise import made_of
from tests.study import test_forward_passes as forward
from tests.study.test_accuracy import LOOP, RAW
from tests.study.test_bench_others import EVALSCOPE, TOTALS, raw
from tests.study.test_bench_talks import records
from tests.study.test_every_tool import RECORDS, SUMS
from tests.study.test_step_log import STEPS
from tests.whole import formula

Lines = list[Any]


def number(cell: str) -> Any:
    """A cell of a table."""
    try:
        return float(cell) if "." in cell else int(cell)
    except ValueError:
        return cell


def opened(name: str, content: object) -> tuple[Any, Callable[[Any], str]]:
    """The document in a file, and how it is written."""
    if not isinstance(content, str):
        return content, json.dumps
    if name.endswith(".csv"):
        rows = [[number(cell) for cell in line.split(",")] for line in content.splitlines()]
        return rows, lambda rows: "\n".join(",".join("" if c is None else str(c) for c in row) for row in rows) + "\n"
    return [json.loads(line) for line in content.splitlines()], lambda rows: "".join(json.dumps(row) + "\n" for row in rows)


def locust() -> str:
    head = "Type,Name,Request Count,Failure Count,Median Response Time,Average Response Time,Requests/s,Failures/s,50%,95%,99%\n"
    return head + "POST,/v1/chat,100,2,1200,1300.5,10,0.2,1200,2000,2500\n,Aggregated,100,2,1200,1300.5,10,0.2,1200,2000,2500\n"


def talks(folder: Path) -> str:
    return str(records(folder, [1000, 1020, 1200], concurrency=2).read_text())  # type: ignore[no-untyped-call]


FILES: dict[str, tuple[str, Callable[[], Any]]] = {
    **{f"{tool}, requests": (name, partial(make, True)) for tool, (name, make, *_) in RECORDS.items()},
    **{f"{tool}, sums": (name, make) for tool, (name, make, *_) in SUMS.items()},
    "genai-perf-raw, no usage": ("profile_export.json", lambda: raw(False)),  # type: ignore[no-untyped-call]
    "evalscope, all": ("benchmark_summary.json", lambda: dict(EVALSCOPE)),
    "aisbench, totals": ("g.json", lambda: dict(TOTALS)),
    "locust": ("x_stats.csv", locust),
}


def read_of(file: Path, write: Callable[[Any], str]) -> Callable[[Any], Any]:
    """What is read of a document; its runs by all that they say."""

    def made(document: Any) -> Any:
        file.write_text(write(document), encoding="utf-8")
        return [plain({k: v for k, v in vars(run).items() if k != "logs"}) for run in read(file)]

    return made


@pytest.mark.parametrize("name", FILES)
def test_a_result_in_which_one_thing_is_otherwise_is_read_as_recorded(name: str, tmp_path: Path) -> None:
    file, make = FILES[name]
    document, write = opened(file, make())
    same("study-otherwise", name, made_of(document, read_of(tmp_path / file, write)))


def test_talks_in_which_one_thing_is_otherwise_are_read_as_recorded(tmp_path: Path) -> None:
    document, write = opened("profile_export.jsonl", talks(tmp_path))
    same("study-otherwise", "talks", made_of(document, read_of(tmp_path / "profile_export.jsonl", write)))


POINT: dict[str, Any] = RAW | {
    "engine": {"name": "vllm", "version": "0.15.1", "settings": {"max_num_seqs": 64, "cudagraph_mode": "FULL", "swap_space": 4}},
    "parallelism": {"tp": 2, "pp": 1, "dp": 1, "ep": 1},
    "kv_blocks": 60_000,
    "block_size": 32,
    "nodes": 1,
    "overload": False,
    "assumed": ["launch flags not recorded", "answers end naturally (up to 150 tokens): mean length used for all"],
    "window": {"skip_first": 2},
    "checkpoint": "meta-llama/Llama-3.1-8B-Instruct",
    "traffic": LOOP | {"unique_prompts": 3, "prefix_tokens": 32, "max_rate": 9.0},
}
SIDES: dict[str, Any] = RAW | {
    "parallelism": {"pd": {"prefill": {"instances": 2, "tp": 1}, "decode": {"instances": 1, "tp": 2, "dp": 1}}}
}
TOLD = {
    "metrics": {"ttft_s": "engine: queue to token"},
    "load_generator": "chat completions",
    "source": {"repo": "a/b", "path": "x (runs of c/d)"},
}


def planned_of(raw_point: Any) -> Any:
    """Of a point: its fields, and what would be deployed."""
    point = as_measured(parse(raw_point, Path()))
    made = {k: v for k, v in vars(point).items() if k not in ("folder", "columns", "logs", "scenario")}
    pools = [
        [p.name, p.replicas, p.model.name, p.accelerator.name, plain(p.layout), p.scheduler.name, p.profile.line, plain(p.params)]
        for p in fleet(point)
    ]
    return [made, pools, assumed_settings(point), release(point.engine, point.version, point.assumed)]


@pytest.mark.parametrize(("name", "document"), [("point", POINT), ("sides", SIDES)])
def test_a_point_in_which_one_thing_is_otherwise_is_planned_as_recorded(name: str, document: dict[str, Any]) -> None:
    def made(changed: Any) -> Any:
        try:
            return planned_of(changed)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            return type(error).__name__

    with formula():
        same("study-otherwise", name, made_of(json.loads(json.dumps(document)), made))


def test_what_is_told_of_a_run_in_which_one_thing_is_otherwise_is_as_recorded(tmp_path: Path) -> None:
    (tmp_path / "points.jsonl").write_text(json.dumps(RAW), encoding="utf-8")

    def made(document: Any) -> Any:
        (tmp_path / "deployment.json").write_text(json.dumps(document), encoding="utf-8")
        (point,) = read_points([tmp_path])
        return [point.inside, point.chat, point.launcher]

    same("study-otherwise", "told", made_of(json.loads(json.dumps(TOLD)), made))


def test_logs_of_steps_in_which_one_thing_is_otherwise_are_read_as_recorded(tmp_path: Path) -> None:
    head = ["time", "prompt_requests", "prompt_tokens", "decode_requests", "decode_tokens", "elapsed_ms"]
    steps = [*STEPS, (1, 4000, 2, 2), (1, 500, 3, 3), (0, 0, 4, 4), *[(0, 0, 3, 3)] * 9]
    document = [head, *([f"23:59:{50 + i // 2:02d}.25" if i < 20 else "00:00:01", *s, 40.0 + i] for i, s in enumerate(steps))]
    file = tmp_path / "a.iterations.csv"

    def made(rows: Any) -> Any:
        file.write_text("\n".join(",".join(map(str, row)) for row in rows) + "\n", encoding="utf-8")
        logs = read_step_log(file)
        return [[vars(log), log.without_pause(), log.contexts()] for log in logs], gap(logs), vars(kinds(logs))

    def told(rows: Any) -> Any:
        logs, between, found = made(rows)
        return [[[{k: v for k, v in a.items() if v is not None}, [[s.start, s.stop] for s in b], c] for a, b, c in logs], between, found]  # fmt: skip

    same("study-otherwise", "steps", made_of(document, told))


def test_forward_passes_in_which_one_thing_is_otherwise_are_read_as_recorded(tmp_path: Path) -> None:
    rows = [["mixed" if r[1] else "decode", "real", *r] for r in forward.passes(decodes=9)]  # type: ignore[no-untyped-call]
    document = [forward.HEAD.split(","), *rows[8:11], *rows[:8], *rows[11:]]
    file = tmp_path / forward.NAME.format(tp=1)

    def made(changed: Any) -> Any:
        file.write_text("\n".join(",".join(map(str, row)) for row in changed) + "\n", encoding="utf-8")
        return [[p.id, p.measured, p.notes, p.refused, [len(log) for log in p.logs]] for p in read_points([file])]

    same("study-otherwise", "passes", made_of(document, made))
