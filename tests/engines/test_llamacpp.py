"""llama.cpp server: recordings, laws, the one-stroke advance, settings."""

from __future__ import annotations

import gzip
import json
import os
import subprocess
import sys
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.cost.memory import memory_budget
from sim.engine.contract import Site
from sim.engine.schedulers.llamacpp import LlamaCpp, LlamaCppParams
from sim.engine.schedulers.llamacpp.params import placement
from sim.engine.schedulers.ollama import Ollama, OllamaParams
from sim.errors import ConfigError, DataError, NotModelledError
from sim.hardware import load_accelerator
from sim.ledger import FAILED, FINISHED, REJECTED
from sim.model import load_model
from sim.study.conformance.llamacpp import _Orders, check, recordings
from sim.workload.table import RequestBlock
from tests.engines.llamacpp_bench import random_block, run, server

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "llamacpp"


def test_recordings_are_matched_batch_by_batch() -> None:
    cases = [case for path in recordings(GOLDEN) for case in check(path)]
    assert [c.difference for c in cases if c.difference] == []
    assert sum(c.matched for c in cases) == sum(c.steps for c in cases) == 1725
    assert len(cases) == 9


def _renumbered(folder: Path, name: str, turn: int) -> tuple[Path, int]:
    """A recording whose tasks that start together are numbered otherwise, as if their posts had overtaken one another; and how many do."""
    rows = [json.loads(line) for line in gzip.decompress((GOLDEN / f"{name}.steps.jsonl.gz").read_bytes()).decode().splitlines()]
    seen: set[int] = set()
    names: dict[int, int] = {}
    moved = 0
    for row in rows:
        new = sorted({task for _, task in row["slots"]} - seen)
        seen |= set(new)
        order = new[turn % len(new) :] + new[: turn % len(new)] if new else []
        names |= dict(zip(new, order, strict=True))
        moved += len(new) > 1
        row["slots"] = [[slot, names[task]] for slot, task in row["slots"]]
    (folder / f"{name}.json").write_bytes(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
    path = folder / f"{name}.steps.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return path, moved


@pytest.mark.parametrize("turn", [1, 2, 3])
def test_tasks_launched_in_another_order_than_they_were_numbered(tmp_path: Path, turn: int) -> None:
    together = 0
    for recording in recordings(GOLDEN):
        path, moved = _renumbered(tmp_path, recording.name.removesuffix(".steps.jsonl.gz"), turn)
        together += moved
        (case,) = check(path)
        assert (case.name, case.difference) == (case.name, None)
    assert together >= 10


def test_every_order_of_launches_is_tried_once_and_wrong_beginnings_are_left_out() -> None:
    for n in range(2, 6):
        orders, tried = _Orders(list(range(n))), []
        while True:
            tried.append(tuple(orders.now))
            if not orders.advance(None):
                break
        assert tried[:2] == [tuple(range(n)), tuple(range(n))[::-1]]
        assert sorted(tried) == sorted(permutations(range(n)))
    orders, tried = _Orders([0, 1, 2, 3]), []
    right = (2, 0, 3, 1)
    while (now := tuple(orders.now)) != right:
        tried.append(now)
        assert orders.advance(next(i for i, x in enumerate(now) if x != right[i]))
    assert len(tried) < 8


def test_a_changed_recording_is_noticed(tmp_path: Path) -> None:
    name = "poisson_np4_b512"
    (tmp_path / f"{name}.json").write_bytes(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))
    rows = gzip.decompress((GOLDEN / f"{name}.steps.jsonl.gz").read_bytes()).decode().splitlines()
    row = json.loads(rows[200])
    row["runs"][0][2] += 1
    rows[200] = json.dumps(row)
    (tmp_path / f"{name}.steps.jsonl").write_text("\n".join(rows))
    (case,) = check(tmp_path / f"{name}.steps.jsonl")
    assert case.matched == 200
    assert case.difference is not None
    assert case.difference.step == 200


@pytest.mark.parametrize("text", ["", "nonsense", '{"a": 1}', "[1, 2]"])
def test_a_file_that_is_no_recording_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    (tmp_path / "bad.steps.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match=r"bad\."):
        list(check(tmp_path / "bad.steps.jsonl"))


SETTINGS: tuple[dict[str, Any], ...] = (
    {"n_parallel": 4, "n_ctx": 4096, "n_batch": 128, "cache_ram_mib": 0},
    {"n_parallel": 8, "n_ctx": 8192, "n_batch": 512},
    {"n_parallel": 2, "n_ctx": 1024, "n_batch": 64, "ctx_shift": True, "n_keep": 4},
    {"n_parallel": 4, "n_ctx": 768, "n_batch": 256, "kv_unified": True},
    {"n_parallel": 3, "n_ctx": 512, "n_batch": 256, "kv_unified": True, "ctx_shift": True, "cache_idle_slots": False},
    {"n_parallel": 1, "n_ctx": 512, "cache_prompt": False},
    {"n_parallel": 6, "n_ctx": 3072, "cache_ram_mib": -1, "slot_prompt_similarity": 0.5},
)


@pytest.mark.parametrize("settings", SETTINGS)
def test_one_stroke_and_step_by_step_give_the_same_bytes(settings: dict[str, Any]) -> None:
    for seed in range(40):
        rng = np.random.default_rng([seed, 7])
        block = random_block(rng, 40, float(rng.choice([0.01, 0.2, 2.0])), 120, 80)
        fast, slow = (run(server(LlamaCpp, settings)[0], block, on) for on in (True, False))
        for name in fast:
            assert fast[name].tobytes() == slow[name].tobytes(), (seed, name)


@pytest.mark.parametrize("settings", SETTINGS)
def test_requests_and_tokens_are_conserved(settings: dict[str, Any]) -> None:
    rng = np.random.default_rng(3)
    block = random_block(rng, 300, 0.05, 120, 80)
    group, s = server(LlamaCpp, settings)
    rows = run(group, block)
    assert rows["id"].tolist() == list(range(300))
    done = rows["status"] == FINISHED
    assert np.all(np.isin(rows["status"], (FINISHED, REJECTED, FAILED)))
    assert np.all((rows["first_token_s"] > rows["arrival_s"])[done])
    assert np.all((rows["finish_s"] >= rows["first_token_s"])[done])
    assert np.all((rows["output_tokens"] <= block.output_tokens)[done])
    assert np.all((rows["cached_tokens"] < rows["prompt_tokens"])[done])
    assert (rows["status"][block.prompt_tokens >= settings["n_ctx"]] == REJECTED).all()
    # every slot is idle and its list says what its cache holds; the prompt cache adds up
    lists = s.lists
    for c in range(s.slots):
        assert s.c_phase[c] == 0
        assert lists.l_tok[s.c_list[c]] == s.c_tok[c]
        assert lists.len[lists.l_off[s.c_list[c]] :][: lists.l_n[s.c_list[c]]].sum() == s.c_tok[c]
    assert sum(lists.l_tok[e] for e in s.e_list[: s.n_entries]) == s.e_tokens
    assert lists.n_free + s.n_entries + s.slots + 2 == lists.free.size
    assert s.live == 0


def _rows(prompts: list[int], outputs: list[int], arrivals: list[float]) -> RequestBlock:
    return RequestBlock.of(arrivals, prompts, outputs)


def test_a_generating_slot_gets_its_token_in_every_step() -> None:
    rows = run(server(LlamaCpp, {"n_parallel": 2, "n_ctx": 8192, "n_batch": 64})[0], _rows([10, 1000], [200, 2], [0.0, 0.1]))
    steps = -(-1000 // 63)
    assert rows["finish_s"][1] < rows["finish_s"][0]
    assert rows["first_token_s"][1] - 0.1 > (steps - 1) * 1e-2


def test_tasks_released_in_one_step_are_served_newest_first() -> None:
    """Two slots end at once: of the two deferred tasks, the newer is launched first and gets the slot that ended first."""
    block = _rows([10, 10, 50, 50], [5, 5, 5, 5], [0.0, 0.0, 0.001, 0.002])
    rows = run(server(LlamaCpp, {"n_parallel": 2, "n_ctx": 1024, "n_batch": 50})[0], block)
    assert rows["first_scheduled_s"][2] == rows["first_scheduled_s"][3]
    assert rows["first_token_s"][3] < rows["first_token_s"][2]


def test_without_context_shift_the_end_of_the_context_ends_the_request() -> None:
    rows = run(server(LlamaCpp, {"n_parallel": 1, "n_ctx": 256})[0], _rows([100, 256], [400, 5], [0.0, 0.0]))
    assert rows["output_tokens"][0] == 156
    assert rows["status"].tolist() == [FINISHED, REJECTED]


def test_a_full_unified_cache_fails_everything_being_served() -> None:
    settings = {"n_parallel": 2, "n_ctx": 512, "kv_unified": True}
    rows = run(server(LlamaCpp, settings)[0], _rows([300, 200], [100, 100], [0.0, 0.0]))
    assert rows["status"].tolist() == [FAILED, FAILED]


def test_plain_python_gives_the_same_bytes() -> None:
    code = (
        "import numpy as np, hashlib\n"
        "from sim.engine.schedulers.llamacpp import LlamaCpp\n"
        "from tests.engines.llamacpp_bench import random_block, run, server\n"
        "block = random_block(np.random.default_rng(5), 60, 0.1, 120, 40)\n"
        "rows = run(server(LlamaCpp, {'n_parallel': 4, 'n_ctx': 1536, 'n_batch': 100, 'ctx_shift': True})[0], block)\n"
        "print(hashlib.sha256(b''.join(c.tobytes() for c in rows.values())).hexdigest())\n"
    )
    outputs = []
    for off in ("0", "1"):
        env = os.environ | {"NUMBA_DISABLE_JIT": off, "PYTHONPATH": str(ROOT)}
        done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
        outputs.append(done.stdout)
    assert outputs[0] == outputs[1]


def test_defaults_follow_the_server() -> None:
    site = Site(load_model("llama-3.1-8b", weights="q4_k_m"), load_accelerator("rtx-4090"))
    p = LlamaCpp.resolve(LlamaCppParams(), site)
    assert (p.n_parallel, p.kv_unified, p.n_batch, p.n_ubatch) == (4, True, 2048, 512)
    assert 4096 <= p.n_ctx <= 131072
    assert p.n_ctx % 256 == 0
    split = LlamaCpp.resolve(LlamaCppParams(n_parallel=3, n_ctx=4096), site)
    assert (split.slot_ctx, split.n_ctx) == (1536, 3 * 1536)
    assert LlamaCpp.memory_rule(split, site).n_ctx == 3 * 1536


@pytest.mark.parametrize(
    ("settings", "field"),
    [
        ({"n_cache_reuse": 256}, "n_cache_reuse"),
        ({"cont_batching": False}, "cont_batching"),
        ({"n_predict": 5}, "n_predict"),
    ],
)
def test_what_is_not_modelled_is_refused(settings: dict[str, Any], field: str) -> None:
    site = Site(load_model("llama-3.1-8b", weights="q4_k_m"), load_accelerator("rtx-4090"))
    with pytest.raises(NotModelledError, match=field):
        LlamaCpp.resolve(LlamaCppParams(**settings), site)


def _site(model: str, weights: str, accelerator: str = "rtx-4090", tp: int = 1) -> Site:
    return Site(load_model(model, weights=weights), load_accelerator(accelerator), tp)


@pytest.mark.parametrize(("weights", "nearest"), [("awq", "q4_k_m"), ("fp8", "q8_0"), ("gptq-int3", "q3_k_m")])
@pytest.mark.parametrize(("engine", "params"), [(LlamaCpp, LlamaCppParams()), (Ollama, OllamaParams())])
def test_weights_that_no_gguf_file_holds_are_refused(engine: Any, params: Any, weights: str, nearest: str) -> None:
    with pytest.raises(ConfigError, match=r"q4_k_m.*nearest in size is " + nearest) as refused:
        engine.resolve(params, _site("llama-3.1-8b", weights))
    assert refused.value.field == "model.weights"


def test_what_does_not_fit_on_the_card_is_placed_on_the_processor() -> None:
    site = _site("llama-3.1-70b", "q4_k_m")
    p = LlamaCpp.resolve(LlamaCppParams(n_parallel=1, n_ctx=8192), site)
    auto = placement(p, site)
    assert auto is not None and auto.host is not None
    assert 35 < auto.cpu_layers < 50
    assert (auto.cpu_experts, auto.head_on_cpu, auto.host.name) == (0, False, "cpu-desktop")
    forced = placement(LlamaCpp.resolve(LlamaCppParams(n_parallel=1, n_ctx=8192, n_gpu_layers=20), site), site)
    assert forced is not None
    assert forced.cpu_layers == 61  # the output is the twentieth
    rule = LlamaCpp.memory_rule(p, site)
    budget = memory_budget(site.model, site.accelerator, rule)
    assert budget.kv_tokens == 8192
    on_card = sum(rule.sizes(site.model).on_card(auto))
    assert on_card + rule.sizes(site.model).on_host(auto) == pytest.approx(
        rule.sizes(site.model).total + rule.sizes(site.model).input
    )
    assert budget.lines[0].bytes + budget.kv_bytes == pytest.approx(on_card)
    everything = placement(LlamaCpp.resolve(LlamaCppParams(n_gpu_layers=0, n_ctx=8192), site), site)
    assert everything is not None
    assert (everything.cpu_layers, everything.head_on_cpu) == (80, True)
    assert rule.sizes(site.model).on_card(everything) == (0.0, 0.0)


def test_of_a_model_with_experts_these_go_first() -> None:
    site = _site("qwen3-235b-a22b", "q4_k_m")
    p = LlamaCpp.resolve(LlamaCppParams(n_parallel=1, n_ctx=8192, host="cpu-server"), site)
    found = placement(p, site)
    assert found is not None
    assert found.cpu_layers == 0
    assert 80 < found.cpu_experts < 94
    named = placement(LlamaCpp.resolve(p.model_copy(update={"n_cpu_moe": 94}), site), site)
    assert named is not None
    assert (named.cpu_layers, named.cpu_experts) == (0, 94)


@pytest.mark.parametrize(
    ("site", "settings", "text"),
    [
        (_site("llama-3.1-70b", "bf16"), {}, "host.*fits neither"),
        (_site("llama-3.1-70b", "q4_k_m"), {"n_gpu_layers": 70, "n_ctx": 8192}, r"n_gpu_layers.*allowed: 0\.\.\d+"),
        (_site("llama-3.1-70b", "q4_k_m"), {"host": "rtx-4090"}, "is no processor"),
        (_site("llama-3.1-70b", "q4_k_m"), {"host": "cpu-desktp"}, "cpu-desktop"),
        (_site("llama-3.1-70b", "q4_k_m", "apple-m4-pro"), {"n_ctx": 131072}, "shares its memory"),
        (_site("llama-3.1-405b", "q4_k_m", "cpu-desktop"), {"n_ctx": 4096}, "does not fit"),
    ],
)
def test_what_fits_nowhere_is_refused(site: Site, settings: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError, match=text):
        p = LlamaCpp.resolve(LlamaCppParams(**settings), site)
        memory_budget(site.model, site.accelerator, LlamaCpp.memory_rule(p, site))
