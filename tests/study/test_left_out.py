"""What accuracy says of accelerators and families that nothing was fitted to, and how it reads launchers, drafts and pools."""

import pytest

from sim.errors import NotModelledError
from sim.hardware import load_accelerator
from sim.study.accuracy import Outcome
from sim.study.accuracy.drafts import chance, draft_settings
from sim.study.accuracy.launchers import as_measured, assumed_settings
from sim.study.accuracy.left_out import nearest, without_accelerator, without_family
from sim.study.accuracy.point import parse
from tests.study.test_accuracy import point


def test_an_accelerator_left_out_takes_the_kernels_of_the_nearest_other_one():
    assert nearest("h100-sxm", "h100-sxm") == "h200-sxm"
    assert nearest("h200-sxm", "h200-sxm") == "h100-sxm"
    assert nearest("ascend-910b2", "ascend-910b") == ""  # no other of its vendor


def test_an_accelerator_left_out_has_nothing_that_was_fitted_to_it():
    seen = []

    def predict(p):
        seen.append(load_accelerator(p.accelerator))
        return Outcome(p, {"tpot_s.mean": 0.01})

    first = point(accelerator="h100-sxm", measured={"tpot_s.mean": 0.01})
    (outcome,) = without_accelerator([first], predict)

    assert outcome.point == first
    assert seen[0].name == "unmeasured-h100-sxm"
    assert seen[0].proxy.name == "h200-sxm"
    assert seen[0].memory_bandwidth == load_accelerator("h100-sxm").memory_bandwidth
    assert seen[0].figures["sustained_compute"].evidence == "estimated"  # by its power limit
    assert load_accelerator("h100-sxm").figures["sustained_compute"].evidence == "fitted"


def test_a_family_left_out_is_moved_by_what_the_others_are_off():
    def off(model, ratio, n):
        p = point(id=f"d-{model}-{n}/0", model=model, measured={"tpot_s.mean": 0.01 * ratio})
        return Outcome(p, {"tpot_s.mean": 0.01})

    of_llama = [off("llama-3.1-8b", 1.1, 0), off("llama-3.1-70b", 1.1, 1), off("llama-3.1-8b", 1.1, 2)]
    moved = without_family([off("qwen3-32b", 1.2, n) for n in range(3)] + of_llama)

    assert [round(o.predicted["tpot_s.mean"], 6) for o in moved] == [0.011] * 3 + [0.012] * 3
    few, *_ = without_family([off("qwen3-32b", 1.2, 0), *of_llama[:2]])
    assert few.predicted == {}  # nobody fits anything to two others


@pytest.mark.parametrize(("accepted", "n", "right"), [(0.7, 1, 0.7), (3.0, 3, 1.0), (0.0, 3, 0.0), (1.5, 2, 0.823)])
def test_chance_of_a_draft(accepted, n, right):
    assert chance(accepted, n) == pytest.approx(right, abs=1e-3)


def test_drafts_in_the_settings_of_the_engines():
    told = {"method": "eagle3", "num_speculative_tokens": 2, "accept_length": 2.5}

    assert draft_settings("sglang", told)["speculative_algorithm"] == "EAGLE3"
    assert draft_settings("vllm", told)["speculative_config"]["acceptance_rate"] == pytest.approx(0.823, abs=1e-3)
    with pytest.raises(NotModelledError, match="accepted drafts"):
        draft_settings("vllm", {"method": "mtp"})
    with pytest.raises(NotModelledError, match="tgi"):
        draft_settings("tgi", told)


def test_flags_of_a_known_launcher_count_only_where_none_were_recorded():
    unknown = {"engine": "sglang", "version": "0.5.6.post2", "launcher": "ai-dynamo/aiconfigurator"}
    silent = ("engine launch flags not recorded",)

    assert assumed_settings(point(**unknown, assumed=silent)) == {"enable_mixed_chunk": True}
    assert assumed_settings(point(**unknown | {"version": "0.5.8"}, assumed=silent))["mem_fraction_static"] == 0.8
    assert assumed_settings(point(**unknown | {"version": "0.5.1"}, assumed=silent)) == {}
    assert assumed_settings(point(**unknown | {"launcher": "me/mine"}, assumed=silent)) == {}
    assert assumed_settings(point(**unknown)) == {}
    assert assumed_settings(point(engine="vllm", assumed=silent)) == {}
    of_inferencex = {"engine": "vllm", "launcher": "SemiAnalysisAI/InferenceX", "weights": "mxfp4"}
    assert assumed_settings(point(**of_inferencex, version="0.18.0")) == {"VLLM_MXFP4_USE_MARLIN": True}
    assert assumed_settings(point(**of_inferencex, version="0.11.2")) == {}
    nightly = {"engine": "vllm-ascend", "assumed": ("baseline figure of a nightly performance test",)}
    assert assumed_settings(point(**nightly)) == {"compilation_config": {"cudagraph_mode": "FULL_DECODE_ONLY"}}
    assert assumed_settings(point(**nightly, settings={"enforce_eager": True})) == {}
    page = {"engine": "sglang", "settings": {"device": "npu"}, "traffic": {"kind": "closed_loop", "concurrency": 80}}
    given = assumed_settings(point(**page, tp=4, dp=4))
    assert (given["max_running_requests"], given["cuda_graph_max_bs"], given["mem_fraction_static"]) == (80, 20, 0.72)
    assert given["disable_radix_cache"] is True
    assert assumed_settings(point(**page, tp=2))["mem_fraction_static"] == 0.86
    assert assumed_settings(point(**page | {"settings": {}})) == {}


def test_a_source_that_is_known_to_have_used_another_board_says_so():
    lab = {"accelerator": "h100_sxm", "launcher": "gpustack/gpustack", "traffic": {"kind": "burst"}}

    moved = as_measured(point(**lab))

    assert moved.accelerator == "h100-pcie"
    assert "h100-pcie" in moved.notes[-1]
    for other in ({"launcher": "me/mine"}, {"accelerator": "a100-sxm-80g"}, {"traffic": {"kind": "closed_loop"}}):
        same = point(**lab | other)
        assert as_measured(same) == same


def test_sides_and_checkpoints_of_a_point(tmp_path):
    raw = {
        "id": "d/0", "model": "llama-3.1-405b", "checkpoint": "meta-llama/Llama-3.1-405B-FP8", "weights": "fp8", "accelerator": "h100-sxm",
        "engine": {"name": "sglang"}, "traffic": {"kind": "burst"}, "measured": {"tpot_s": {"mean": 0.02}},
        "parallelism": {"pd": {"prefill": {"tp": 8, "instances": 2}, "decode": {"tp": 8}}},
    }  # fmt: skip

    read = parse(raw, tmp_path)

    assert read.weights == "fbgemm-fp8"
    assert read.disaggregated
    assert read.sides["prefill"]["instances"] == 2
    assert not parse(raw | {"parallelism": {"tp": 8}}, tmp_path).disaggregated


def test_a_row_that_names_another_model_than_its_page_is_of_the_page():
    page = {"id": "gpustack-gpt-oss-20b-h100/4", "accelerator": "a100-sxm-80g", "launcher": "gpustack/gpustack"}

    moved = as_measured(point(**page, model="openai/gpt-oss-120b"))

    assert moved.model == "openai/gpt-oss-20b"
    assert "openai/gpt-oss-120b" in moved.notes[-1]
    for other in ({"id": "gpustack-gpt-oss-120b-h100/4"}, {"launcher": "me/mine"}):
        same = point(**{**page, **other}, model="openai/gpt-oss-120b")
        assert as_measured(same) == same


def test_a_step_of_a_generated_vllm_has_room_for_one_prompt_and_all_clients():
    told = {"engine": "vllm", "launcher": "ai-dynamo/aiconfigurator", "assumed": ("engine launch flags not recorded",)}
    loop = {"kind": "closed_loop", "concurrency": 64, "prompt_tokens": 4096, "output_tokens": 128}

    assert assumed_settings(point(**told, model="qwen3-32b", traffic=loop)) == {"max_num_batched_tokens": 4160}
    assert assumed_settings(point(**told, model="qwen3-32b", traffic={"kind": "burst"})) == {}


def test_experts_that_were_launched_without_graphs():
    told = {
        "launcher": "ai-dynamo/aiconfigurator",
        "engine": "vllm",
        "version": "0.12.0",
        "assumed": ("engine launch flags not recorded",),
    }

    assert assumed_settings(point(**told, model="qwen3-235b-a22b"))["enforce_eager"]
    assert "enforce_eager" not in assumed_settings(point(**told, model="qwen3-32b"))
    assert "enforce_eager" not in assumed_settings(point(**told | {"launcher": "me/mine"}, model="qwen3-235b-a22b"))
