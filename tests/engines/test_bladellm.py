"""BladeLLM and vllm-ascend: settings, limits, and the vLLM scheduler underneath."""

import pytest

import sim
from sim.errors import ConfigError, NotModelledError
from sim.study.single import Prepared

BASE = ("traffic.synthetic.requests=60", "model=qwen2.5-7b")


def study(*overrides):
    return Prepared(sim.load("quickstart", overrides=(*BASE, *overrides)))


def test_bladellm_decides_as_vllm_with_the_same_settings():
    blade = study(
        "deployment.engine={name: bladellm, ragged_flash_max_batch_tokens: 2048, max_batch_size: 64}",
        "deployment.kv_blocks=4000",
        "deployment.engine.max_model_len=16000",
    )
    vllm = study(
        "deployment.engine={name: vllm, max_num_batched_tokens: 2048, max_num_seqs: 64, async_scheduling: false, max_model_len: 16000}",
        "deployment.kv_blocks=4000",
    )
    (a,), (b,) = blade.plans, vllm.plans
    assert a.site.kv_blocks == b.site.kv_blocks
    assert blade.run().summary["steps"] > 0
    assert a.scheduler.max_batch_tokens(a.params, a.site) == b.scheduler.max_batch_tokens(b.params, b.site)


@pytest.mark.parametrize(
    ("overrides", "error", "says"),
    [
        (("deployment.engine={name: bladellm, preempt_strategy: SWAP}",), NotModelledError, "swapping"),
        (("deployment.engine={name: bladellm, decode_algo: look_ahead}",), NotModelledError, "acceptance"),
        (("deployment.engine={name: bladellm, max_queue_time: 3s}",), NotModelledError, "max_queue_time"),
        (("deployment.engine={name: bladellm, attention_dp_size: 2}",), NotModelledError, "attention_dp_size"),
        (("deployment.engine={name: bladellm, tensor_parallel_size: 2}",), ConfigError, "differs"),
        (("deployment.engine=bladellm", "deployment.accelerator=v100-sxm-32g"), ConfigError, "does not run on it"),
        (("deployment.engine=bladellm", "model=gemma-2-9b"), ConfigError, "Qwen and Llama"),
        (("deployment.engine=bladellm", "model=qwen2.5-14b", "deployment.accelerator=l20"), ConfigError, "too little memory"),
        (
            ("deployment.engine={name: vllm-ascend, additional_config: {scheduler_config: {enable_balance_scheduling: true}}}",),
            ConfigError,
            "enable_balance_scheduling",
        ),
        (("deployment.engine={name: vllm-ascend, version: '0.33'}",), NotModelledError, "not known"),
    ],
)
def test_what_cannot_be_is_refused(overrides, error, says):
    with pytest.raises(error, match=says):
        study(*overrides)


def test_vllm_ascend_has_its_own_blocks_and_graphs():
    (plan,) = study("deployment.engine={name: vllm-ascend, max_num_seqs: 64}", "deployment.accelerator=ascend-910b3").plans
    assert plan.params.block_size == 128
    assert plan.params.gpu_memory_utilization == 0.9
    assert plan.budget.block_size == 128
    assert plan.profile.graph_sizes[-1] == 64


def test_drafts_of_a_small_model_cost_and_save_steps():
    drafting = study("deployment.engine={name: bladellm, decode_algo: sps, gamma: 4, draft_model: qwen2.5-0.5b}").run().summary
    plain = study("deployment.engine=bladellm").run().summary

    assert drafting["steps"] < 0.7 * plain["steps"]


def test_drafts_need_a_model():
    with pytest.raises(ConfigError, match="only with it"):
        study("deployment.engine={name: bladellm, decode_algo: sps}")
