"""Ollama: unit rows, both generations of runners, several models on one host."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.engine.contract import Site
from sim.engine.schedulers.ollama import Ollama, OllamaParams
from sim.engine.schedulers.ollama.context import lower_tier, truncated
from sim.engine.schedulers.ollama.layout import create_layout
from sim.engine.schedulers.ollama.params import placement
from sim.engine.schedulers.ollama.placement import Gpu
from sim.engine.schedulers.ollama.residency import (
    Action,
    Residency,
    Runner,
    find_runner_to_unload,
    keep_alive,
    max_loaded_models,
    needs_reload,
    ready_after,
    recovery_wait,
)
from sim.errors import ConfigError, DataError
from sim.hardware import load_accelerator
from sim.ledger import FINISHED, REJECTED
from sim.model import load_model
from sim.study.conformance.ollama import check
from sim.workload.table import RequestBlock
from tests.engines.llamacpp_bench import random_block, run, server

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "ollama"


def test_unit_rows_are_matched() -> None:
    cases = list(check(GOLDEN / "unit_rows.json.gz"))
    assert [c.difference for c in cases if c.difference] == []
    assert sum(c.matched for c in cases) == sum(c.steps for c in cases) == 29


@pytest.mark.parametrize("text", ["", "nonsense", '{"a": 1}', "[1]", '{"fit_gpu": 3}'])
def test_a_file_that_holds_no_unit_rows_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "bad.json").write_text(text)
    with pytest.raises(DataError, match="bad.json"):
        list(check(tmp_path / "bad.json"))


RUNNERS: tuple[dict[str, Any], ...] = (
    {"runner": "llama-server", "OLLAMA_NUM_PARALLEL": 4, "num_ctx": 512, "num_batch": 128},
    {"runner": "llama-server", "OLLAMA_NUM_PARALLEL": 2, "num_ctx": 256, "context_shift": False},
    {"runner": "ollamarunner", "OLLAMA_NUM_PARALLEL": 4, "num_ctx": 300, "num_batch": 64},
    {"runner": "ollamarunner", "OLLAMA_NUM_PARALLEL": 3, "num_ctx": 200, "num_batch": 2, "OLLAMA_MULTIUSER_CACHE": True},
    {"runner": "llamarunner", "OLLAMA_NUM_PARALLEL": 4, "num_ctx": 256, "num_batch": 32, "OLLAMA_MULTIUSER_CACHE": True},
    {"runner": "llamarunner", "OLLAMA_NUM_PARALLEL": 1, "num_ctx": 256, "truncate": False, "context_shift": False},
)


@pytest.mark.parametrize("settings", RUNNERS)
def test_one_stroke_and_step_by_step_give_the_same_bytes(settings: dict[str, Any]) -> None:
    for seed in range(40):
        rng = np.random.default_rng([seed, 8])
        block = random_block(rng, 40, float(rng.choice([0.01, 0.2, 2.0])), 120, 80)
        fast, slow = (run(server(Ollama, settings)[0], block, on) for on in (True, False))
        for name in fast:
            assert fast[name].tobytes() == slow[name].tobytes(), (seed, name)


@pytest.mark.parametrize("settings", RUNNERS)
def test_requests_and_tokens_are_conserved(settings: dict[str, Any]) -> None:
    block = random_block(np.random.default_rng(3), 300, 0.05, 120, 80)
    group, s = server(Ollama, settings)
    rows = run(group, block)
    assert rows["id"].tolist() == list(range(300))
    done = rows["status"] == FINISHED
    assert np.all(np.isin(rows["status"], (FINISHED, REJECTED)))
    assert np.all((rows["output_tokens"] == block.output_tokens)[done]) or not settings.get("context_shift", True)
    assert s.live == 0
    lists = s.lists
    for a in s.c_list:
        assert lists.len[lists.l_off[a] :][: lists.l_n[a]].sum() == lists.l_tok[a] <= s.ctx
    if settings.get("context_shift", True):
        assert done.all()


@pytest.mark.parametrize("runner", ["llama-server", "ollamarunner", "llamarunner"])
def test_others_wait_first_in_first_out(runner: str) -> None:
    block = RequestBlock.of([0.0, 0.001, 0.002, 0.003], [10, 10, 10, 10], [5, 5, 5, 5])
    rows = run(server(Ollama, {"runner": runner, "num_ctx": 512})[0], block)
    assert (np.diff(rows["first_scheduled_s"]) > 0).all()
    assert rows["first_scheduled_s"][1:].tolist() == rows["finish_s"][:-1].tolist()


def test_a_long_prompt_takes_ollamarunners_batch_but_not_llamarunners() -> None:
    """In the shared batch the generating sequence waits for a turn; with room for each sequence it never does."""
    block = RequestBlock.of([0.0, 0.1], [10, 600], [100, 2])
    times = {}
    for runner in ("ollamarunner", "llamarunner"):
        settings = {"runner": runner, "OLLAMA_NUM_PARALLEL": 2, "num_ctx": 1024, "num_batch": 64}
        times[runner] = run(server(Ollama, settings)[0], block)
    assert times["ollamarunner"]["first_token_s"][1] > times["llamarunner"]["first_token_s"][1]


def test_defaults_follow_memory() -> None:
    model = load_model("llama-3.1-8b", weights="q4_k_m")
    p = Ollama.resolve(OllamaParams(), Site(model, load_accelerator("rtx-4090")))
    assert (p.OLLAMA_NUM_PARALLEL, p.num_ctx, p.num_batch) == (1, 32768, 1024)
    small = Ollama.resolve(OllamaParams(), Site(model, load_accelerator("rtx-4000-ada")))
    assert (small.num_ctx, small.num_batch) == (4096, 512)
    assert Ollama.resolve(OllamaParams(runner="ollamarunner"), Site(model, load_accelerator("rtx-4090"))).num_batch == 512
    assert Ollama.memory_rule(small, Site(model)).n_ctx == 4096


@pytest.mark.parametrize(
    ("settings", "error", "text"),
    [
        ({"OLLAMA_KV_CACHE_TYPE": "q8_0"}, ConfigError, "model.kv_cache"),
        ({"OLLAMA_MULTIUSER_CACHE": True}, ConfigError, "OLLAMA_MULTIUSER_CACHE"),
        ({"num_gpu": 20, "num_ctx": 262144, "OLLAMA_NUM_PARALLEL": 8}, ConfigError, "num_gpu"),
    ],
)
def test_what_cannot_be_run_is_refused(settings: dict[str, Any], error: type[Exception], text: str) -> None:
    site = Site(load_model("llama-3.1-8b", weights="q4_k_m"), load_accelerator("rtx-4090"))
    with pytest.raises(error, match=text):
        Ollama.resolve(OllamaParams(**settings), site)


def test_layers_on_the_card_follow_the_generation() -> None:
    site = Site(load_model("llama-3.3-70b", weights="q4_k_m"), load_accelerator("rtx-4090"))
    cpu = {}
    for runner in ("llama-server", "ollamarunner", "llamarunner"):
        found = placement(Ollama.resolve(OllamaParams(runner=runner, num_ctx=8192), site), site)
        assert found is not None
        cpu[runner] = found.cpu_layers
        assert found.host is not None
    assert 30 < cpu["ollamarunner"] < cpu["llamarunner"]
    alone = placement(Ollama.resolve(OllamaParams(runner="ollamarunner", num_ctx=8192, num_gpu=0), site), site)
    assert alone is not None
    assert (alone.cpu_layers, alone.head_on_cpu, alone.op_offload) == (80, True, False)


def test_prompts_keep_their_beginning_and_their_newest_tokens() -> None:
    assert truncated(100, 4096, 4) == (100, 0)
    keep, last = truncated(5000, 4096, 4)
    assert (keep, keep + last) == (5, 4096 - (4096 - 5) // 2)
    assert [lower_tier(n) for n in (262144, 32768, 4096)] == [32768, 4096, None]


# ---- several models


def _host(fits: int, max_queue: int = 512, max_loaded: int = 3) -> Residency:
    return Residency(lambda key, others: len(others) < fits, max_loaded, max_queue)


def _load(host: Residency, key: str, session: float = 300.0) -> None:
    assert host.submit(key, key, session) == "wait"
    assert host.next_action() == Action("load", key)
    host.loaded(key, 1.0, 0.0)
    assert host.next_action() == Action("use", key)
    assert host.take_head() == key


def test_a_loaded_model_is_used_at_once_past_the_queue() -> None:
    host = _host(1, max_queue=1)
    _load(host, "a")
    assert host.submit("b", 1) == "wait"  # at the head, waits for `a` to end
    assert host.next_action() == Action("evict", "a")
    assert host.submit("c", 2) == "wait"
    assert host.submit("c", 3) == "busy"
    assert not host.idle_evictee()
    assert host.finished("a", 5.0)
    host.unloaded("a")
    assert host.next_action() == Action("load", "b")
    assert host.submit("b", 4) == "wait"  # at the lock of the model that is loading: not in the queue
    host.loaded("b", 1.0, 9.0)
    assert host.next_action() == Action("use", "b")
    assert host.take_head() == 1
    assert host.take_waiting("b") == [4]
    assert host.runners["b"].references == 2
    assert host.submit("b", 5) == "use"
    assert host.next_action() == Action("evict", "b")  # for `c`


def test_the_shortest_keep_alive_goes_first_not_the_least_recently_used() -> None:
    host = _host(3)
    for key, session in (("b", 100.0), ("a", 200.0), ("c", 50.0)):
        _load(host, key, session)
        assert not host.finished(key, 1.0)
    host.submit("d", 1)
    assert host.next_action() == Action("evict", "c")
    assert host.idle_evictee()
    busy = [Runner("x", references=1, session=1.0), Runner("y", references=0, session=inf)]
    found = find_runner_to_unload(busy)
    assert found is not None
    assert found.key == "y"
    assert find_runner_to_unload([]) is None


def test_keep_alive_runs_from_the_last_request() -> None:
    host = _host(3)
    _load(host, "a", 10.0)
    assert host.submit("a", 2, 20.0) == "use"
    assert not host.finished("a", 5.0)
    assert host.expired(1e9) == []  # one request is still served
    assert not host.finished("a", 7.0)
    assert host.expired(26.9) == []
    assert host.expired(27.0) == ["a"]
    _load(host, "b", 0.0)
    assert host.finished("b", 30.0)
    assert keep_alive(-1.0) == inf
    assert (max_loaded_models(0, 2), max_loaded_models(0, 0), max_loaded_models(4, 1)) == (6, 3, 4)


def test_other_options_reload_the_model() -> None:
    loaded = {"num_ctx": 4096, "num_batch": 512, "num_gpu": 10}
    assert not needs_reload(loaded, {"num_ctx": None, "num_gpu": -1}, 8192)
    assert needs_reload(loaded, {"num_ctx": 8192}, 8192)
    assert not needs_reload(loaded, {"num_ctx": 8192}, 4096)
    host = _host(3)
    _load(host, "a")
    host.finished("a", 1.0)
    assert host.submit("a", 2, options={"num_ctx": 64}) == "wait"
    assert host.next_action() == Action("evict", "a")
    host.unloaded("a")
    assert host.next_action() == Action("load", "a")
    assert host.submit("a", 3, options={"num_ctx": 64}) == "wait"
    assert host.failed() == 2
    assert host.next_action() == Action("load", "a")  # the other one tries for itself


def test_polls_round_times_up() -> None:
    assert [ready_after(t) for t in (0.1, 0.25, 3.0, 3.01)] == [0.25, 0.25, 3.0, 3.25]
    assert recovery_wait(lambda t: 8.0 * t, 8.0) == 0.75
    assert recovery_wait(lambda t: 0.0, 8.0) == 5.0
    assert recovery_wait(lambda t: 0.0, 8.0, discrete=False) == 0.0


def test_far_too_small_a_gpu_ends_the_search_when_layers_are_forced() -> None:
    shards = create_layout([100_000_000] * 30, [Gpu("0", 90_000_000)], 30, False, 0)
    assert [len(s.layers) for s in shards] == [30]
