"""Built-in models against the parameter counts their publishers state."""

import pytest

from sim.errors import UnknownNameError
from sim.model import load_model, model_names, model_profile

# Total of the safetensors index of each repository (the language part where the model is multimodal).
PUBLISHED = {
    "llama-2-7b": 6_738_415_616,
    "llama-2-70b": 68_976_648_192,
    "llama-3.1-8b": 8_030_261_248,
    "llama-3.1-405b": 405_853_388_800,
    "llama-3.2-1b": 1_235_814_400,
    "codellama-34b": 33_743_970_304,
    "mistral-7b": 7_248_023_552,
    "mixtral-8x7b": 46_702_792_704,
    "qwen1.5-7b": 7_721_324_544,
    "qwen1.5-14b": 14_167_290_880,
    "qwen2.5-7b": 7_615_616_512,
    "qwen2.5-72b": 72_706_203_648,
    "qwen3-8b": 8_190_735_360,
    "qwen3-30b-a3b": 30_532_122_624,
    "qwen3-235b-a22b": 235_093_634_560,
    "qwen3-coder-480b": 480_154_875_392,
    "qwen3-next-80b-a3b": 79_674_391_296,
    "opt-13b": 12_853_473_280,
    "bloom-176b": 176_247_271_424,
    "deepseek-v2-lite": 15_706_484_224,
    "deepseek-v3": 671_026_419_200,
    "gpt-oss-20b": 20_914_757_184,
    "gpt-oss-120b": 116_829_156_672,
    "gemma-2-27b": 27_227_128_320,
    "gemma-3-1b": 999_885_952,
    "phi-4": 14_659_507_200,
    "kimi-k2": 1_026_408_225_792,
}


@pytest.mark.parametrize(("name", "count"), PUBLISHED.items())
def test_parameters_are_those_of_the_checkpoint(name: str, count: int) -> None:
    assert load_model(name).param_count() == pytest.approx(count, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "billions"), [("mixtral-8x7b", 12.9), ("qwen3-30b-a3b", 3.3), ("deepseek-v3", 37.5), ("gpt-oss-120b", 5.7)]
)
def test_active_parameters_are_those_of_the_model_card(name: str, billions: float) -> None:
    assert load_model(name).active_param_count() / 1e9 == pytest.approx(billions, rel=0.03)


@pytest.mark.parametrize("name", model_names())
def test_every_built_in_model_is_consistent(name: str) -> None:
    model = load_model(name)
    model.check_parallelism(tp=1)

    assert model.warnings == ()
    halves = model.weight_bytes(pp=2, stage=0) + model.weight_bytes(pp=2, stage=1)  # tied embeddings are on both
    assert model.weight_bytes() <= halves <= 1.4 * model.weight_bytes()
    assert 0 < model.kv_bytes_per_token() < 2**24
    assert model_profile(name).source


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("Llama-3.1-8B", "llama-3.1-8b"),
        ("QWEN3-8B", "qwen3-8b"),
        ("qwen3_8b", "qwen3-8b"),
        ("deepseek-ai/DeepSeek-R1", "deepseek-r1"),
        ("deepseek-ai/DeepSeek-R1-Distill-Qwen-14B", "qwen2.5-14b"),
    ],
)
def test_models_go_by_name_and_by_hub_id(said: str, name: str) -> None:
    assert load_model(said).name == name


@pytest.mark.parametrize(
    ("typo", "meant"), [("llama-3.1-8bb", "llama-3.1-8b"), ("Qwen/Qwen3-8", "qwen3-8b"), ("mixtral8x7b", "mixtral-8x7b")]
)
def test_an_unknown_name_offers_the_nearest(typo: str, meant: str) -> None:
    with pytest.raises(UnknownNameError, match="model.name") as caught:
        load_model(typo)

    assert f"did you mean {meant!r}?" in str(caught.value)


def test_the_checkpoint_decides_the_format_unless_told() -> None:
    assert load_model("deepseek-v3").weights == "fp8"
    assert load_model("gpt-oss-20b").weights == "mxfp4"
    assert load_model("opt-13b").weights == load_model("opt-13b").kv_dtype == "fp16"
    assert load_model("deepseek-v3", weights="int8").weights == "w8a8"
    assert load_model("kimi-k2-thinking", weights="int4").weights == "int4-experts"
    assert load_model("llama-3-8b", weights="q4_k_m").kv_dtype == "fp16"


def test_published_file_sizes_of_quantised_checkpoints() -> None:
    gib = 2**30

    assert load_model("gpt-oss-120b").weight_bytes() / gib == pytest.approx(60.8, rel=0.01)  # model card: 60.8 GiB
    assert load_model("llama-3-8b", "q4_k_m").weight_bytes() / gib == pytest.approx(4.58, rel=0.01)  # llama-bench: 4.58 GiB
    assert load_model("llama-3-8b", "q8_0").weight_bytes() / gib == pytest.approx(7.95, rel=0.01)  # llama-bench: 7.95 GiB
    assert load_model("llama-3.3-70b", "fp8").weight_bytes() / gib == pytest.approx(67.7, rel=0.01)  # vLLM log
    assert load_model("qwen3-0.6b").weight_bytes() / gib == pytest.approx(1.12, rel=0.02)  # vLLM log 1.14 with RoPE tables
