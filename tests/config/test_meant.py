"""What somebody meant: the nearest name, the word of another tool, a file that is no scenario, the file of several that is wrong."""

from pathlib import Path

import pytest
import yaml

import sim
import sim.config
from sim.config.validate import ELSEWHERE
from sim.errors import ConfigError, DataError, did_you_mean
from sim.hardware import load_accelerator


@pytest.mark.parametrize("name", sorted(ELSEWHERE))
def test_words_of_other_tools_lead_to_settings(name: str) -> None:
    section = {"deployment": "deployment", "traffic": "traffic.synthetic", "model": "model"}[ELSEWHERE[name].split(".")[0]]
    with pytest.raises(ConfigError, match=rf"did you mean '{ELSEWHERE[name]}'"):
        sim.load("quickstart", [f"{section}.{name}=2"])


@pytest.mark.parametrize("path", sorted(set(ELSEWHERE.values())))
def test_and_those_settings_exist(path: str) -> None:
    value = {
        "deployment.accelerator": "a100-sxm-80g",
        "traffic.synthetic.arrival.rate": "3/s",
        "model.kv_cache": "fp8",
        "model.weights": "fp8",
    }.get(path, "2")
    if path == "deployment.ep":
        sim.load("moe-dp", [f"{path}=4"])
    elif "closed_loop" in path:
        sim.load("closed-loop", [f"{path}={value}"])
    else:
        sim.load("quickstart", [f"{path}={value}"])


def test_a_setting_in_the_wrong_section_is_told_where_it_belongs() -> None:
    data = {
        "traffic": {"arrival": {"process": "poisson", "rate": "6/s"}, "lengths": "azure-2023-conv"},
        "deployment": {"engine": "vllm", "model": "llama-3.1-8b", "accelerator": "h100-sxm", "tensor_parallel": 2},
    }
    with pytest.raises(ConfigError) as error:
        sim.config.loads(yaml.safe_dump(data))
    for field, place in (
        ("traffic.arrival", "it belongs at 'traffic.synthetic.arrival'"),
        ("also traffic.lengths", "it belongs at 'traffic.synthetic.lengths'"),
        ("also deployment.model", "it belongs at 'model'"),
        ("also deployment.tensor_parallel", "did you mean 'deployment.tp'"),
    ):
        assert place in str(error.value).partition(field + ":")[2].partition("; also")[0]


def test_a_name_that_is_required_lists_what_there_is_and_the_engine_has_settings_of_its_own() -> None:
    with pytest.raises(ConfigError, match=r"lengths\.kind: is required .*allowed: .*azure-2023-conv.*lognormal"):
        sim.load("quickstart", ["traffic.synthetic.lengths={prompt_tokens: 3}"])
    with pytest.raises(
        ConfigError, match=r"deployment\.max_num_seqs: unknown .*; settings of the engine itself belong under 'engine'"
    ):
        sim.load("quickstart", ["deployment.max_num_seqs=4"])
    with pytest.raises(ConfigError, match=r"also clients\.name: is required, allowed"):
        sim.load("quickstart", ["clients={timeout: 3s}", "colour=red"])


def test_clients_that_wait_need_no_arrival_times() -> None:
    text = """
model: llama-3.1-8b
traffic: {synthetic: {lengths: {kind: fixed, prompt_tokens: 9, output_tokens: 9}, requests: 4}, closed_loop: {concurrency: 2}}
deployment: {accelerator: h100-sxm, engine: vllm}
"""
    assert sim.config.loads(text).traffic.synthetic.arrival.process == "constant"
    for without in (
        text.replace("concurrency: 2", "concurrency: 2, paced: true"),
        text.replace(", closed_loop: {concurrency: 2}", ""),
    ):
        with pytest.raises(ConfigError, match=r"arrival: is required"):
            sim.config.loads(without)


def test_a_policy_of_a_router_is_told_whose_it_is() -> None:
    with pytest.raises(
        ConfigError, match=r"policy=cache_aware is a setting of sglang_router; policy=cache_aware is a setting of vllm_router"
    ):
        sim.run(sim.load("quickstart", ["router=cache_aware", "deployment.replicas=2"]))


def test_what_begins_with_the_number_of_a_model_is_one_of_it() -> None:
    with pytest.raises(ConfigError, match="did you mean 'h100-sxm'"):
        load_accelerator("H100-SXM5-80GB")
    assert did_you_mean("h100-ultra-wide-9000gb", ["a100-sxm", "h100-nvl"]) == "did you mean 'h100-nvl'?"
    assert did_you_mean("h100-sxm", ["a100-sxm"]) == "did you mean 'a100-sxm'?"
    assert did_you_mean("zzz", ["a100-sxm"]) == ""


def test_a_file_of_another_tool_is_no_scenario(tmp_path: Path) -> None:
    file = tmp_path / "compose.yaml"
    file.write_text("version: '3'\nservices: {web: {image: nginx}}\n", encoding="utf-8")
    with pytest.raises(DataError, match=r"compose\.yaml: is no scenario: it has version, services"):
        sim.load(file)


def test_of_several_files_the_wrong_one_is_named(tmp_path: Path) -> None:
    from sim.study.files import gather

    file = tmp_path / "b.yaml"
    file.write_text("model: llama-3.1-8b\ntrafic: {}\ndeployment: {accelerator: h100-sxm, engine: vllm}\n", encoding="utf-8")
    with pytest.raises(ConfigError, match=r"b\.yaml: trafic: unknown setting") as error:
        gather("compare", ["quickstart", str(file)])
    assert error.value.field == "trafic"
    with pytest.raises(ConfigError, match=r"^trafic: unknown setting"):
        gather("capacity", [str(file)])
