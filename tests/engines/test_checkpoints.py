"""Models whose layers forget under llama-server: what is reused, against a plain reading of ``update_slots``."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from sim.engine.contract import Site
from sim.engine.schedulers.llamacpp import LlamaCpp, LlamaCppParams
from sim.engine.schedulers.ollama import Ollama, OllamaParams
from sim.errors import NotModelledError
from sim.hardware import load_accelerator
from sim.ledger import FINISHED, REJECTED
from sim.model import load_model
from sim.workload.table import RequestBlock
from tests.engines.llamacpp_bench import random_block, run, server

WINDOW = 64
SITE = Site(replace(load_model("gemma-3-1b"), window=WINDOW))
STATES = Site(load_model("qwen3.5-9b"))
SITES = (SITE, STATES)
SETTINGS: tuple[dict[str, Any], ...] = (
    {"n_parallel": 1, "n_ctx": 2048, "n_batch": 100, "n_ubatch": 100, "cache_ram_mib": 0},
    {"n_parallel": 3, "n_ctx": 3072, "n_batch": 64, "n_ubatch": 32, "n_ctx_checkpoints": 3},
    {"n_parallel": 4, "n_ctx": 2048, "n_batch": 300, "n_ubatch": 64, "kv_unified": True, "cache_ram_mib": 1},
    {"n_parallel": 2, "n_ctx": 512, "n_batch": 32, "n_ubatch": 16, "cache_ram_mib": -1, "n_ctx_checkpoints": 0},
)


@pytest.mark.parametrize("site", SITES, ids=("windows", "states"))
@pytest.mark.parametrize("settings", SETTINGS)
def test_one_stroke_and_step_by_step_give_the_same_bytes(settings: dict[str, Any], site: Site) -> None:
    for seed in range(8):
        rng = np.random.default_rng([seed, 9])
        block = random_block(rng, 40, float(rng.choice([0.01, 0.2, 2.0])), 120, 80)
        fast, slow = (run(server(LlamaCpp, settings, site=site)[0], block, on) for on in (True, False))
        for name in fast:
            assert fast[name].tobytes() == slow[name].tobytes(), (seed, name)


@pytest.mark.parametrize("site", SITES, ids=("windows", "states"))
@pytest.mark.parametrize("settings", SETTINGS)
def test_requests_are_conserved_and_checkpoints_belong_to_what_is_cached(settings: dict[str, Any], site: Site) -> None:
    block = random_block(np.random.default_rng(3), 300, 0.05, 120, 80)
    group, s = server(LlamaCpp, settings, site=site)
    rows = run(group, block)
    assert rows["id"].tolist() == list(range(300))
    assert np.all(np.isin(rows["status"], (FINISHED, REJECTED)) | bool(settings.get("kv_unified")))
    assert np.all(rows["cached_tokens"] < rows["prompt_tokens"])
    for a in [*s.c_list, *s.e_list[: s.n_entries]]:
        tokens = s.k_tok[a * s.max_ckpt : a * s.max_ckpt + s.k_n[a]]
        assert s.k_n[a] <= max(s.max_ckpt, 0)
        assert np.all(tokens < s.lists.l_tok[a])
        assert np.all(s.k_low[a * s.max_ckpt :][: s.k_n[a]] <= tokens)


class _Slot:
    """One slot of the server, token by token."""

    def __init__(self, n_batch: int, n_ubatch: int, cells: int, window: int) -> None:
        self.n_batch, self.n_ubatch, self.cells, self.window = n_batch, n_ubatch, cells, window
        self.tokens: list[Any] = []
        self.low = 0
        self.kept: list[tuple[int, int, int, int]] = []  # task, tokens, pos_min, pos_max

    def _pos_min(self) -> int:
        return max(self.low, len(self.tokens) - self.cells)

    def start(self, prompt: list[Any]) -> int:
        past = 0
        while past < min(len(self.tokens), len(prompt)) and self.tokens[past] == prompt[past]:
            past += 1
        pos_next = past
        threshold = max(0, pos_next - self.window - (0 if past < len(prompt) else 1))
        low = self._pos_min()
        if past > 0 and low >= threshold:
            found = next((k for k in reversed(self.kept) if k[3] <= pos_next and (k[2] < threshold or k[2] == 0)), None)
            if found is None:
                past = pos_next = 0
            else:
                pos_next = min(pos_next, max(found[2] + 1, found[3]))
                past = min(pos_next, found[1])
                low = max(found[1] - max(self.window, 1), 0)
        self.low = low if past else 0
        self.kept = [k for k in self.kept if k[3] <= pos_next]
        if past == len(prompt):
            past -= 1
        self.tokens = self.tokens[:past]
        return past

    def compute(self, task: int, prompt: list[Any]) -> int:
        steps = 0
        while len(self.tokens) < len(prompt):
            begin = len(self.tokens)
            room = self.n_batch
            while len(self.tokens) < len(prompt) and room:
                self.tokens.append(prompt[len(self.tokens)])
                room -= 1
                if len(prompt) - len(self.tokens) in (min(self.n_batch, 4 + self.n_ubatch), min(self.n_batch, 4)):
                    break
            steps += 1
            if begin and len(prompt) < len(self.tokens) + self.n_ubatch:
                kept = [k for k in self.kept[-31:] if k[1] != begin]
                self.kept = [*kept, (task, begin, max(self.low, begin - self.cells), begin - 1)]
        return steps


@pytest.mark.parametrize(("site", "window", "cells"), [(SITE, WINDOW, 256), (STATES, 0, 1)], ids=("windows", "states"))
def test_what_is_reused_is_what_update_slots_reuses(site: Site, window: int, cells: int) -> None:
    """One slot, its requests one after the other: cached tokens of every request, and steps of all."""
    settings = SETTINGS[0]
    for seed in range(30):
        block = random_block(np.random.default_rng([seed, 10]), 40, 1000.0, 250, 120)
        block = replace(block, lora=np.zeros(40, np.int32), arrival_s=np.arange(40) * 1000.0)
        group, _ = server(LlamaCpp, settings, site=site)
        rows = run(group, block, multi_step=False)
        slot, steps = _Slot(100, 100, cells, window), 0
        for i in range(40):
            spans = range(int(block.span_off[i]), int(block.span_off[i + 1]))
            prompt = [
                (int(block.span_id[j]), k)
                for j in spans
                for k in range(int(block.span_start[j]), int(block.span_start[j] + block.span_len[j]))
            ]
            prompt = prompt or [(-i, k) for k in range(int(block.prompt_tokens[i]))]
            assert rows["cached_tokens"][i] == slot.start(prompt), (seed, i)
            steps += slot.compute(i, prompt) + int(block.output_tokens[i]) - 1
            slot.tokens += [(int(block.out_content[i]), k) for k in range(int(block.output_tokens[i]) - 1)]
        assert group.totals()["steps"] == steps, seed


def test_a_prompt_that_goes_back_further_than_the_window_starts_at_a_checkpoint() -> None:
    """800 tokens and 300 generated, then a question that shares all but the last 3 of the 800, then one that shares only 300."""
    off, ids, start, length = [0, 1, 3, 5], [7, 7, 8, 7, 9], [0, 0, 0, 0, 0], [800, 797, 50, 300, 50]
    block = RequestBlock.of([0.0, 100.0, 200.0], [800, 847, 350], [300, 1, 1], spans=(off, ids, start, length))
    rows = run(server(LlamaCpp, SETTINGS[0], site=SITE)[0], block)
    assert rows["cached_tokens"].tolist() == [0, 795, 0]
    plain = run(server(LlamaCpp, SETTINGS[0])[0], block)
    assert plain["cached_tokens"].tolist() == [0, 797, 300]


def test_a_state_serves_only_the_prompt_that_continues_it() -> None:
    """800 tokens and 300 generated; all of that and more; what shares 797 of the 800; what shares 600; that again."""
    off, ids = [0, 1, 4, 6, 8, 10], [7, 7, 1_000_000, 5, 7, 8, 7, 9, 7, 9]
    length = [800, 800, 299, 50, 797, 50, 600, 50, 600, 50]
    block = RequestBlock.of(
        np.arange(5) * 100.0,
        [800, 1149, 847, 650, 650],
        [300, 1, 1, 1, 1],
        out_content=1_000_000 + np.arange(5),
        spans=(off, ids, [0] * 10, length),
    )
    rows = run(server(LlamaCpp, SETTINGS[0], site=STATES)[0], block)
    # the state; the checkpoint 4 before the end of the first; none lies so far back; the checkpoint 4 before the end
    assert rows["cached_tokens"].tolist() == [0, 1099, 796, 0, 646]


def test_windows_end_contexts_instead_of_shifting_them() -> None:
    site = Site(load_model("gemma-3-12b", "q4_k_m"), load_accelerator("rtx-4090"))
    block = RequestBlock.of([0.0], [7000], [3000])
    for engine, settings in ((Ollama, {"num_ctx": 8192}), (LlamaCpp, {"n_parallel": 1, "n_ctx": 8192, "ctx_shift": True})):
        rows = run(server(engine, settings, site=site)[0], block)
        assert rows["output_tokens"].tolist() == [8192 - 7000]
    assert Ollama.memory_rule(Ollama.resolve(OllamaParams(num_ctx=8192), site), site).n_ctx == 8192


@pytest.mark.parametrize(
    ("model", "settings", "field"),
    [
        ("gemma-3-12b", {"swa_full": True}, "swa_full"),
        ("mistral-7b-v0.1", {}, "model"),
        ("llama-4-scout", {}, "model"),
    ],
)
def test_other_caches_are_refused(model: str, settings: dict[str, Any], field: str) -> None:
    with pytest.raises(NotModelledError, match=field):
        LlamaCpp.resolve(LlamaCppParams(n_ctx=4096, **settings), Site(load_model(model)))


@pytest.mark.parametrize(
    ("model", "settings"), [("gemma-3-12b", {"runner": "ollamarunner"}), ("qwen3-next-80b-a3b", {"runner": "ollamarunner"})]
)
def test_ollama_refuses_them_too(model: str, settings: dict[str, Any]) -> None:
    with pytest.raises(NotModelledError):
        Ollama.resolve(OllamaParams(**settings), Site(load_model(model)))
