"""What is known of sources beyond what their points say: settings of servers that a program launched, boards that were labelled wrongly,
answers that end by themselves.

None is a parameter of the model: they say what was measured. Where a label is taken for another, the point says so in its notes.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sim.cost.engine_figures import version_of
from sim.model import load_model
from sim.study.accuracy.lengths import longest
from sim.study.accuracy.point import Lengths, Point

if TYPE_CHECKING:
    from sim.document import Json

_AICONFIGURATOR = "ai-dynamo/aiconfigurator"

# `generator/rule_plugin/sglang.rule` of aiconfigurator: `agg enable_mixed_chunk = true`, with the command lines for SGLang from 0.5.6 on.
_MIXED = {"enable_mixed_chunk": True}

# Qwen3 32B in 16 bits on one H100 keeps some 6,500 tokens there with 0.5.8 (5 requests of 1,200 tokens run at once): what 0.8 leaves, not SGLang's 0.84.
_FRACTION = {"mem_fraction_static": 0.8}


# Experts under vLLM 0.12 there (Qwen3 235B-A22B in fp8 on two H200): 51 to 59 ms a token whether 4 or 20 requests run, 0.53 ms a layer. Reading the
# experts of so many would take 5 to 15 ms: the steps were launched kernel by kernel. Dense models of the same runs replay graphs.
_EAGER = {"enforce_eager": True}

# `benchmarks/*/gptoss_fp4_h*.sh` of InferenceX export it since they run vLLM 0.13.
_MARLIN = {"VLLM_MXFP4_USE_MARLIN": True}

# Every case of vllm-ascend's nightly tests sets FULL_DECODE_ONLY or FULL_AND_PIECEWISE (tests/e2e/nightly/single_node/models/configs).
_NIGHTLY = {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}

# Commands of SGLang's page of best practice on Ascend (docs/platforms/ascend/ascend_npu_best_practice.md): all let as many requests run as the benchmark
# sends, without a radix cache, with 0.68 to 0.86 of the memory (mostly 0.72, on a single card 0.86) and prompts in one piece: 24,000 tokens and more a step.
_NPU = {"disable_radix_cache": True, "chunked_prefill_size": 28672, "max_prefill_tokens": 32768}


# Throughput pages of GPUStack's performance lab say "NVIDIA H100 GPUs" and in one place SXM. Whatever the engine (vLLM, SGLang, TensorRT-LLM)
# and the model (Qwen3 14B and 32B, gpt-oss-20b), weights and KV are read there at 1.6 to 1.7 TB/s (Qwen3 32B: 73 GB in 43.4 ms a token with four
# requests) and prompts computed at 310 to 440 TFLOP/s: 83 % and 58 % of a PCIe board's figures, half and a third of an SXM board's. The
# latency page of the same lab is of an SXM board (16.4 GB in 7.3 ms, more than a PCIe board can read).
_BOARDS = {("gpustack/gpustack", "h100-sxm", "burst"): "h100-pcie"}


# One row of GPUStack's page on gpt-oss-20b names gpt-oss-120b in its command. It serves 9,027 tokens/s of ShareGPT where the rows beside it serve
# 9,064, with as many tokens an answer, and 120b would not start there with those 16,384 tokens a step.
_MODELS = {("gpustack/gpustack", "gpustack-gpt-oss-20b-h100", "openai/gpt-oss-120b"): "openai/gpt-oss-20b"}


# Points of answers that nobody forced to a length have the mean for all of them; in reality the longest of a burst says when it is through. Answers
# "up to 150 tokens" are to prompts of one kind: bursts of 4 to 256 (TGI, Llama 3.1 405B) took as long as the longest being 1.2 to 1.4 times the mean.
# Where prompts are random tokens (P/D ratios on H200), answers are as unlike as may be, up to one of the limits that
# `comparison/pd_ratio/scripts` and its tables ask for.
_NATURAL = re.compile(r"answers end naturally(?: \(up to (\d+) tokens\))?")
_ALIKE = 0.13
_LIMITS = {"dstackai/benchmarks": (128, 2048, 16384)}


def as_measured(point: Point) -> Point:
    """The point with the board, the model and the lengths that its source really used."""
    return _natural_lengths(_known_board(_known_model(point)))


def _natural_lengths(point: Point) -> Point:
    told = next((found for a in point.assumed if (found := _NATURAL.match(a))), None)
    mean = point.traffic.get("output_tokens")
    if told is None or not isinstance(mean, int | float) or point.traffic["kind"] == "static_batch":
        return point
    limits = (int(told[1]),) if told[1] else _LIMITS.get(point.launcher, ())
    most = next((limit for limit in limits if limit >= mean), None)
    if most is None:
        return point
    lengths: Lengths = {"mean": float(mean), "most": most}
    if told[1]:
        lengths["spread"] = _ALIKE
    return replace(point, traffic={**point.traffic, "output_tokens": lengths})


def _known_model(point: Point) -> Point:
    model = _MODELS.get((point.launcher, point.deployment, point.model))
    if model is None:
        return point
    return replace(point, model=model, notes=(*point.notes, f"{point.launcher}: {point.model} on the page of {model} is {model}"))


def _known_board(point: Point) -> Point:
    label = point.accelerator.replace("_", "-")
    board = _BOARDS.get((point.launcher, label, str(point.traffic.get("kind"))))
    if board is None:
        return point
    return replace(point, accelerator=board, notes=(*point.notes, f"{point.launcher}: {label} in the source behaves as {board}"))


def assumed_settings(point: Point) -> Mapping[str, Json]:
    """Settings to take where the point gives none; empty where flags were recorded or nothing is known of who launched the server."""
    if point.engine == "vllm-ascend" and any("baseline" in a for a in point.assumed) and not point.settings.get("enforce_eager"):
        return _NIGHTLY
    if point.launcher == "SemiAnalysisAI/InferenceX" and (point.engine, point.weights) == ("vllm", "mxfp4"):
        return _MARLIN if version_of(point.version or "0") >= (0, 13) else {}
    if point.engine == "sglang" and point.settings.get("device") == "npu" and "concurrency" in point.traffic:
        clients = int(point.traffic["concurrency"])
        limits = {"max_running_requests": clients, "cuda_graph_max_bs": max(clients // point.dp, 1)}
        card = point.tp * point.dp <= 2 and not point.disaggregated
        return {**_NPU, "mem_fraction_static": 0.86 if card else 0.72, **limits}
    if not any("launch flags not recorded" in a for a in point.assumed):
        return {}
    if point.launcher != _AICONFIGURATOR:
        return {}
    if point.engine == "vllm":
        return _generated(point)
    if point.engine == "sglang" and version_of(point.version or "0") >= (0, 5, 6):
        return _MIXED | (_FRACTION if version_of(point.version or "0") >= (0, 5, 8) else {})
    return {}


def _generated(point: Point) -> dict[str, Json]:
    """Settings of vLLM that aiconfigurator writes for so many clients: a step has room for one prompt and for all that decode.

    Its rules (`generator/rule_plugin/vllm.rule`) take ``max_num_tokens`` from the batch and the prompt, later ones with 1,500 tokens more. 4,096-token
    prompts of 128 clients (TTFT 1.4 s, 158 ms a token) leave no room for less, and TTFT of 90 points is a number of prompts' times whatever their
    length: 5 % with one prompt a step, 16 % with steps of 2,048 tokens, 22 % with 1,500 tokens more, 64 % with the server's 8,192.
    ``max_num_seqs`` is the server's own: where Qwen3 32B fills two H100, waits for KV blocks are 15 % too short with what the sampler then takes,
    48 % with half as many sequences and 70 % with as many as there are clients.
    """
    t = point.traffic
    graphless = version_of(point.version or "0")[:2] == (0, 12) and load_model(point.model).is_moe
    eager: dict[str, Json] = dict(_EAGER) if graphless else {}
    if "concurrency" not in t:
        return eager
    clients = int(t["concurrency"])
    return {"max_num_batched_tokens": longest(t["prompt_tokens"]) + clients} | eager
