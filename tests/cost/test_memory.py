"""The memory budget: against blocks real servers logged, and its own laws."""

import json
import statistics
from pathlib import Path

import pytest

from sim.cost.ascend_memory import AscendRule
from sim.cost.memory import GIB, Budget, Rule, activation_bytes, memory_budget
from sim.cost.memory_rules import LlamaCppRule, MindieRule, SglangRule, TgiRule, VllmRule, capture_sizes
from sim.errors import ConfigError
from sim.hardware import load_accelerator
from sim.model import load_model

POINTS = Path(__file__).resolve().parents[3] / "shared" / "data" / "measured" / "points"
RULES: list[Rule] = [VllmRule(), SglangRule(), TgiRule(), MindieRule(), LlamaCppRule()]


def budget(model: str, accelerator: str, rule: Rule, weights: str = "auto", kv_cache: str = "auto", **cut: int) -> Budget:
    return memory_budget(load_model(model, weights, kv_cache), load_accelerator(accelerator), rule, **cut)


@pytest.mark.skipif(not POINTS.is_dir(), reason="the measured deployments are not beside this checkout")
def test_blocks_of_measured_servers_within_three_per_cent() -> None:
    errors = {}
    for file in POINTS.glob("*/points.jsonl"):
        point = json.loads(file.read_text().splitlines()[0])
        if not point.get("kv_blocks") or point["engine"]["name"] != "vllm":
            continue
        settings = point["engine"]["settings"]
        major, minor = (int(part) for part in point["engine"]["version"].split(".")[:2])
        names = ("gpu_memory_utilization", "max_num_batched_tokens", "max_num_seqs")
        if not set(names) <= set(settings):
            continue  # a log that does not say what the server was told
        rule = VllmRule(**{name: settings[name] for name in names}, block_size=point["block_size"], version=(major, minor))
        width = {k: point["parallelism"][k] for k in ("tp", "pp", "dp", "ep")}
        found = budget(point["model"], point["accelerator"], rule, point["weights"], point["kv_cache"], **width)
        errors[file.parent.name] = abs(found.kv_blocks / point["kv_blocks"] - 1)

    assert len(errors) >= 4
    assert statistics.median(errors.values()) < 0.005, errors
    assert max(errors.values()) < 0.03, errors


@pytest.mark.parametrize(
    ("model", "accelerator", "rule", "tokens"),
    [
        # public server logs: Ascend 910B 64 GB, and an 80 GB card (79.25 GiB)
        ("qwen3-0.6b", "ascend-910b3", VllmRule(0.92, 8192, 256), 514_688),
        ("llama-3.1-8b", "h100", VllmRule(0.92, 8192, 1024), 460_496),
    ],
)
def test_tokens_of_public_logs(model: str, accelerator: str, rule: Rule, tokens: int) -> None:
    assert budget(model, accelerator, rule).kv_tokens == pytest.approx(tokens, rel=0.01)


def test_prompts_of_32000_tokens_that_run_at_once_on_910b() -> None:
    """By the tail of TPOT of vllm-ascend 0.9.1 (V0, steps of 40,960 tokens): 7 of Qwen3 8B, 12 of Qwen3 30B-A3B on two cards."""
    v0 = AscendRule(0.9, 40960, 256, 128, by_free_memory=True)

    assert budget("qwen3-8b", "ascend-910b3", v0).kv_tokens // 32_100 == 7
    assert budget("qwen3-30b-a3b", "ascend-910b3", v0, tp=2).kv_tokens / 32_100 == pytest.approx(12, abs=1.9)
    assert budget("qwen3-8b", "ascend-910b3", AscendRule(0.9, 40960)).kv_tokens // 32_100 == 8


def test_sglang_tokens_of_a_public_log() -> None:
    found = budget("qwen3-235b-a22b", "h100", SglangRule(mem_fraction_static=0.93), weights="fp8", tp=4)

    assert found.kv_tokens == pytest.approx(367_404, rel=0.02)


@pytest.mark.parametrize(
    ("model", "tokens", "gib"), [("qwen2.5-1.5b", 32_768, 2.02), ("qwen2.5-7b", 32_768, 4.35), ("qwen3-0.6b", 8192, 0.22)]
)
def test_activation_peaks_of_public_logs(model: str, tokens: int, gib: float) -> None:
    assert activation_bytes(load_model(model), tokens) / GIB == pytest.approx(gib, rel=0.08)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.name)
def test_lines_add_up(rule: Rule) -> None:
    found = budget("qwen3-8b", "h100", rule)

    assert sum(line.bytes for line in found.lines) <= found.limit_bytes * (1 + 1e-9)
    assert found.kv_blocks * found.bytes_per_block <= found.kv_bytes < (found.kv_blocks + 1) * found.bytes_per_block
    assert found.rows()[-1][0] == "KV blocks"
    assert found.estimated
    assert all(line.evidence in ("measured", "fitted", "datasheet", "estimated") and line.source for line in found.lines)


@pytest.mark.parametrize("rule", RULES[:4], ids=lambda rule: rule.name)
def test_more_gpus_and_smaller_formats_leave_more(rule: Rule) -> None:
    one, two = budget("qwen3-8b", "h100", rule), budget("qwen3-8b", "h100", rule, tp=2)

    assert two.kv_tokens > 2 * one.kv_tokens
    assert budget("qwen3-8b", "h100", rule, weights="fp8").kv_tokens > one.kv_tokens
    assert budget("qwen3-8b", "h100", rule, kv_cache="fp8").kv_tokens == pytest.approx(2 * one.kv_tokens, rel=1e-3)


def test_a_window_makes_room_and_the_latent_is_not_cut() -> None:
    gemma = load_model("gemma-3-27b")
    short, long = (
        memory_budget(gemma, load_accelerator("h100"), VllmRule(), max_model_len=length).kv_tokens for length in (1024, 32_768)
    )

    assert long > 3 * short
    deepseek = budget("deepseek-v3", "h200", VllmRule(), tp=8)
    assert deepseek.bytes_per_block == 16 * 61 * 576 * 2


def test_a_model_that_does_not_fit_lists_the_lines() -> None:
    with pytest.raises(ConfigError, match="does not fit.*weights 131.42 GiB.*leaves -") as caught:
        budget("llama-3.1-70b", "h100", VllmRule())

    assert "use more GPUs" in str(caught.value)
    with pytest.raises(ConfigError, match="does not fit"):
        budget("llama-3-8b", "rtx-4090", LlamaCppRule(n_ctx=131_072))
    with pytest.raises(ConfigError, match="max_model_len: one such sequence does not fit"):
        budget("llama-3.1-8b", "rtx-3090", VllmRule(), max_model_len=131_072)
    with pytest.raises(ConfigError, match="gpu_memory_utilization: must be a fraction"):
        budget("qwen3-8b", "h100", VllmRule(gpu_memory_utilization=1.2))


def test_a_pinned_count_is_measured() -> None:
    pinned = budget("qwen3-8b", "h100", VllmRule()).pinned(1000)

    assert (pinned.kv_blocks, pinned.estimated) == (1000, False)
    assert pinned.kv_bytes == 1000 * pinned.bytes_per_block
    assert "more than" in pinned.pinned(10_000_000).warnings[0]
    with pytest.raises(ConfigError, match="kv_blocks"):
        pinned.pinned(0)


def test_settings_that_fix_the_cache() -> None:
    assert budget("qwen3-8b", "h100", VllmRule(kv_cache_memory_bytes=8 * GIB)).kv_bytes == 8 * GIB
    assert budget("qwen3-8b", "h100", SglangRule(max_total_tokens=1000)).kv_tokens == 1000
    assert budget("qwen3-8b", "ascend-910b3", MindieRule(npuMemSize=8)).kv_bytes == 8 * GIB
    assert budget("llama-3-8b", "rtx-4090", LlamaCppRule(n_ctx=8192), weights="q4_k_m").kv_tokens == 8192


def test_captured_sizes_are_those_of_the_engine() -> None:
    assert [capture_sizes(n, 8192) for n in (256, 1024, 16)] == [51, 51, 7]


def test_vllm_0_6_counts_what_the_device_holds_outside_torch() -> None:
    """Logs of vLLM pull request 10511: 1.79 GiB on one H100, 3.58 on two; 0.7 counts what came in profiling."""

    def runtime(version: tuple[int, int], accelerator: str, tp: int) -> float:
        found = budget("llama-3-8b", accelerator, VllmRule(version=version), tp=tp)
        return next(line.bytes for line in found.lines if line.name == "runtime") / GIB

    assert runtime((0, 6), "h100-sxm", 1) == pytest.approx(1.79)
    assert runtime((0, 6), "h100-sxm", 2) == pytest.approx(3.58)
    for version, accelerator in (((0, 7), "h100-sxm"), ((0, 6), "rtx-3090")):
        assert runtime(version, accelerator, 2) < 1.0


@pytest.mark.parametrize(
    ("model", "tp", "tokens", "sequences", "gib"),
    [
        # start-up logs of V0, "PyTorch activation peak memory": prompts in chunks of so many tokens, whatever the length
        ("qwen3-30b-a3b", 4, 2048, 256, 1.39),
        ("qwen3-8b", 4, 8192, 256, 1.45),
        ("llama-3.1-8b", 1, 512, 8, 0.06),  # vLLM issue 10517, 35,000 tokens on a 3090: no room for the sampling of more
    ],
)
def test_the_peak_of_a_pass_in_chunks_goes_with_the_sequences_that_are_sampled(
    model: str, tp: int, tokens: int, sequences: int, gib: float
) -> None:
    found = budget(model, "a100-sxm-80g", VllmRule(0.9, tokens, sequences, version=(0, 7)), tp=tp)
    assert next(line.bytes for line in found.lines if line.name == "activations") / GIB == pytest.approx(gib, rel=0.05, abs=0.005)


def test_a_length_that_does_not_fit_says_what_fewer_sequences_would_leave() -> None:
    """45,000 tokens of an 8B on a 3090: not with 256 sequences sampled at once, and with few of them."""

    def fits(sequences: int) -> Budget:
        return budget("llama-3.1-8b", "rtx-3090", VllmRule(0.9, 512, sequences, version=(0, 6)), max_model_len=45_000)

    with pytest.raises(ConfigError) as caught:
        fits(256)
    assert "1.08 GiB are the sampler's for max_num_seqs 256" in str(caught.value)
    assert fits(8).kv_blocks == pytest.approx(2980, rel=0.05)
    with pytest.raises(ConfigError) as caught:
        budget("llama-3.1-8b", "rtx-3090", VllmRule(0.9, 512, 8, version=(0, 6)), max_model_len=60_000)
    assert "sampler" not in str(caught.value)
