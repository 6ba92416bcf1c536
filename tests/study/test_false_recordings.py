"""Recordings of real schedulers in which one thing is not as it was: where each replay says so is the recorded answer."""

from __future__ import annotations

import gzip
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from sim.study import conformance
from sim.study.conformance import mindie, sglang, tgi, vllm
from tests.answers import plain, same
from tests.otherwise import made_of

GOLDEN = Path(__file__).resolve().parents[1] / "golden"
FEW = 4
"""Requests of a recording."""
ROWS = 9
"""Rows of one."""


def told(engine: str, files: list[Path]) -> Any:
    """What a replay says."""
    return [[c.name, c.steps, c.matched, c.difference and vars(c.difference)] for c in conformance.check(engine, files)]


def text(file: str) -> str:
    raw = (GOLDEN / file).read_bytes()
    return (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()


def lines(file: str) -> list[Any]:
    return [json.loads(line) for line in text(file).splitlines() if line.strip()]


def as_lines(rows: Any) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def of_vllm(file: str) -> list[Any]:
    """Some requests of a recording, and what becomes of them alone."""
    scenario = lines(f"{file}.jsonl.gz")[0]
    scenario["requests"] = scenario["requests"][:FEW]
    return [scenario, *json.loads(json.dumps(list(vllm.replay(scenario))))]


def of_sglang(file: str) -> Any:
    made = json.loads(text(f"{file}.json.gz"))
    made["requests"] = made["requests"][:FEW]
    return made | {"steps": json.loads(json.dumps([plain(row) for row in sglang.replay(made)]))}


def of_tgi(file: str, scenario: str) -> Any:
    row = next(r for r in lines(file) if r["scenario"] == scenario)
    row["requests"] = row["requests"][:FEW]
    replay = tgi.Replay(row["cfg"], row["requests"], tgi._version(row))
    row["trace"] = json.loads(json.dumps([plain(r) for r in replay.rows()]))
    return [row | {"token_times_us": replay.times, "version": tgi._version(row)}]


def of_mindie(scenario: str) -> Any:
    whole = json.loads(text("mindie/scenarios.json.gz"))
    one = whole["scenarios"][scenario]
    one["requests"] = one["requests"][:FEW]
    settings = mindie.DEFAULTS | one["config_overrides"]
    keys = ("t", "mode", "batch", "recomputed", "waiting", "running", "swapped", "free", "empties")
    rows = [[row[k] for k in keys] for row in mindie.replay(settings, one["requests"])]
    return {
        "scenarios": {scenario: {"config_overrides": one["config_overrides"], "requests": one["requests"], "rows": plain(rows)}}
    }


def of_operations() -> Any:
    rows = lines("tgi/radix_ops.jsonl.gz")[:2]
    return [row | {"ops": " ".join(row["ops"].split()[:24]), "results": row["results"][:24]} for row in rows]


def of_balancer() -> Any:
    return [case | {"events": case["events"][:24]} for case in json.loads(text("vllm/dp_lb.json.gz"))[:2]]


def of_rules() -> Any:
    """Two rows of each rule of routers."""
    kept: dict[str, list[Any]] = {}
    for row in json.loads(text("routers/unit_rows.json.gz"))["rows"]:
        kept.setdefault(row["rule"], []).append(row)
    return kept


def rows_of(rows: list[Any]) -> Any:
    return {"rows": rows}


def of_llumnix() -> dict[str, Any]:
    kept: dict[str, Any] = {}
    for row in json.loads(text("llumnix/policies.json.gz"))["rows"]:
        kept.setdefault(row["kind"], row)
    return kept


def of_prefixes() -> Any:
    """Long prompts of which two begin alike: what counts from 256 characters on."""
    urls = [f"http://e{i}:8000" for i in range(3)]
    load = {urls[0]: 2.0, urls[1]: 1.0, urls[2]: 1.0}
    a, b = "abcd" * 96, "abcd" * 64 + "dcba" * 40
    return [
        [urls, a, load, 0, urls, urls[1]],
        [urls, b, load, 256, [urls[1]], urls[1]],
        [urls, a, load | {urls[1]: 9.0}, 384, [urls[1]], urls[1]],
    ]


def of_rates() -> Any:
    """Who has the fewest requests a second."""
    urls = [f"http://e{i}:8000" for i in range(4)]
    return [
        [float(k), dict(zip(urls, rates, strict=True)), urls[0]]
        for k, rates in enumerate(([0.0, 1, 2, 3], [1.0, 1, 2, 3], [3.0, 1, 2, 0]))
    ]


def first(file: str, most: int = ROWS) -> Any:
    """The first rows of a recorded router."""
    made = json.loads(text(file))
    rows = made["rows"] if isinstance(made, dict) else made
    del rows[most:]
    for row in rows:
        if isinstance(row, dict):
            for key in ("events", "steps"):
                if key in row:
                    del row[key][most:]
    return made


RECORDINGS: dict[str, tuple[str, str, Callable[[], Any], Callable[[Any], str], int]] = {
    # engine, name of the file, what is in it, how it is written, changes of each value
    "vllm, prefill": ("vllm", "44.jsonl", lambda: of_vllm("vllm/44_pd_prefill_sync"), as_lines, 1),
    "vllm, drafts": ("vllm", "50.jsonl", lambda: of_vllm("vllm/50_eagle_block_aligned_prefix"), as_lines, 1),
    "vllm, balancer": ("vllm", "dp_lb.json", of_balancer, json.dumps, 2),
    "sglang": ("sglang", "22.json", lambda: of_sglang("sglang/22_skip_finishing_8x4"), json.dumps, 1),
    "tgi": ("tgi", "v3.jsonl", lambda: of_tgi("tgi/steps_v3.jsonl.gz", "single_chunk"), as_lines, 1),
    "tgi v2": ("tgi", "v2.jsonl", lambda: of_tgi("tgi/steps_v2.jsonl.gz", "nochunk_ratio_wait"), as_lines, 1),
    "tgi, operations": ("tgi", "ops.jsonl", of_operations, as_lines, 2),
    "tgi, budgets": ("tgi", "d.json", lambda: json.loads(text("tgi/default_prefill_tokens.json"))[:2], json.dumps, 2),
    "mindie": ("mindie", "m.json", lambda: of_mindie("s01_prefill_first_default"), json.dumps, 1),
    "ollama": ("ollama", "unit_rows.json", lambda: json.loads(text("ollama/unit_rows.json.gz")), json.dumps, 1),
    "router prodstack, long prompts": ("router", "prodstack_prefixaware_min256.json", of_prefixes, json.dumps, 2),
    "router prodstack, rates": ("router", "prodstack_lowest_qps.json", of_rates, json.dumps, 2),
    **{f"rule {k}": ("router", "unit_rows.json", partial(rows_of, v[:2]), json.dumps, 2) for k, v in of_rules().items()},
    **{f"llumnix {k}": ("llumnix", "p.json", partial(rows_of, [v]), json.dumps, 1) for k, v in of_llumnix().items()},
    **{
        f"router {name}": ("router", f"{name}.json", partial(first, f"routers/{name}.json.gz"), json.dumps, 2)
        for name in (
            "dynamo_select", "prodstack_prefixaware_min0", "prodstack_roundrobin", "prodstack_session", "ray_autoscaling", "ray_prefix_tree",
            "sglang_router_cache_aware", "sglang_router_rr", "smg_1.13.0_cache_aware", "vllm_router_0.1.17_text_no_tokens", "vtc_artifact",
        )
    },
}  # fmt: skip


@pytest.mark.parametrize("name", RECORDINGS)
def test_a_recording_in_which_one_thing_is_false_is_replayed_as_recorded(name: str, tmp_path: Path) -> None:
    engine, file, make, write, most = RECORDINGS[name]
    document = json.loads(json.dumps(make()))

    def made(changed: Any) -> Any:
        (tmp_path / file).write_text(write(changed), encoding="utf-8")
        return told(engine, [tmp_path / file])

    same("study-recordings", name, made_of(document, made, most))
