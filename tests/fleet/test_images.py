"""Requests with images: their encoder delays the step that computes their tokens, in engines that have it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import sim
from sim.cost import step
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import plan
from sim.model import spec_from_config
from sim.workload import RequestBlock, content
from sim.workload.images import with_images

QWEN = {
    "model_type": "qwen2_5_vl", "hidden_size": 3584, "intermediate_size": 18944, "num_hidden_layers": 28, "num_attention_heads": 28,
    "num_key_value_heads": 4, "vocab_size": 152064, "tie_word_embeddings": False, "max_position_embeddings": 128000,
    "vision_config": {
        "depth": 32, "hidden_act": "silu", "hidden_size": 1280, "intermediate_size": 3420, "num_heads": 16, "out_hidden_size": 3584,
        "patch_size": 14, "spatial_merge_size": 2, "window_size": 112, "fullatt_block_indexes": [7, 15, 23, 31],
    },
}  # fmt: skip
TOKENS = 700


@pytest.fixture
def scenario(tmp_path):
    """A scenario of one request of ``prompt`` text tokens to Qwen2.5-VL-7B."""
    (tmp_path / "config.json").write_text(json.dumps(QWEN))

    def load(prompt=300, engine="{name: vllm, enable_prefix_caching: false}", images=None, model=None, n=1):
        lengths = f"{{kind: fixed, prompt_tokens: {prompt}, output_tokens: 5}}"
        traffic = f"traffic={{synthetic: {{arrival: {{process: constant, rate: 0.01/s}}, lengths: {lengths}, requests: {n}}}}}"
        given = [f"model={model or {'config': str(tmp_path / 'config.json')}}", f"deployment.engine={engine}", traffic]
        return sim.load("quickstart", [*given, *([f"traffic.images={images}"] if images else [])])

    return load


def test_nobody_with_images_is_as_no_images_for_a_text_model_too(scenario):
    some, none = (scenario(images=images, model="llama-3.1-8b", n=3) for images in ("{tokens: 700, share: 0}", None))
    assert sim.run(some).requests.equals(sim.run(none).requests)


@pytest.mark.parametrize(
    "engine",
    [
        "{name: vllm, enable_prefix_caching: false}",
        "{name: vllm, enable_prefix_caching: false, max_num_batched_tokens: 256}",
        "{name: sglang, disable_radix_cache: true}",
    ],
)
def test_an_image_costs_its_tokens_and_its_encoder(scenario, engine):
    k = plan(scenario(engine=engine))[0].cost.data
    encoder = k[step.ENCODER_TOKEN] * TOKENS + k[step.ENCODER_PAIR] * TOKENS**2
    text = sim.run(scenario(300 + TOKENS, engine)).requests["ttft_s"][0]
    result = sim.run(scenario(300, engine, f"{{tokens: {TOKENS}}}"))
    seen = result.requests["ttft_s"][0]

    assert any("encoder budget of 256 tokens" in w for w in result.warnings) == ("max_num_batched_tokens: 256" in engine)
    assert encoder > 5e-3
    assert seen - text == pytest.approx(encoder, rel=0.01)  # but for what the host does meanwhile


def test_some_requests_have_some_images(scenario):
    result = sim.run(scenario(300, images=f"{{tokens: {TOKENS}, share: 0.4, count: 2}}", n=300))
    prompts = result.requests["prompt_tokens"]

    assert set(prompts) == {300, 300 + 2 * TOKENS}
    assert 0.3 < (prompts > 300).mean() < 0.5
    assert result.requests["ttft_s"][prompts > 300].min() > result.requests["ttft_s"][prompts == 300].max()


@pytest.mark.parametrize(
    ("engine", "model", "message"),
    [
        ("{name: tgi}", None, r"traffic.images: encoders are not modelled in this engine \(got 'tgi'\).*sglang, vllm"),
        ("{name: vllm}", "{name: llama-3.1-8b}", "model: has no encoder of images whose size is known"),
    ],
)
def test_what_cannot_see_images_refuses_them(scenario, engine, model, message):
    with pytest.raises((ConfigError, NotModelledError), match=message):
        sim.run(scenario(engine=engine, images="{tokens: 100}", model=model))


@pytest.mark.parametrize(
    ("config", "patches", "attention", "span"),
    [
        ({}, 4, 4 * 1280, 0),
        ({"vision_config": {**QWEN["vision_config"], "window_size": None}}, 4, 32 * 1280, 0),
        ({"vision_config": {"hidden_size": 1152, "intermediate_size": 4304, "num_hidden_layers": 27, "patch_size": 14, "image_size": 896},
          "mm_tokens_per_image": 256}, 16, 27 * 1152, 256),
        ({"vision_config": {"hidden_size": 1024, "num_hidden_layers": 24, "patch_size": [14, 14], "image_size": [448, 448]},
          "downsample_ratio": 0.5}, 4, 24 * 1024, 256),
    ],
)  # fmt: skip
def test_what_a_tower_does_for_a_token(config, patches, attention, span):
    found = spec_from_config({**QWEN, **config}, "mine").images

    assert (found.patches, found.attention, found.span) == (patches, attention, span)
    assert found.params > 1e8


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 3), st.integers(0, 20)), min_size=1, max_size=12), st.integers(1, 9))
def test_images_stand_before_the_last_piece_of_a_prompt(rows, tokens):
    own, images, shared = (np.array(x) for x in zip(*rows, strict=True))
    count = np.where(shared > 0, 2, 0)  # prompts with a shared beginning have two pieces, others none
    off = np.concatenate([[0], np.cumsum(count)])
    ids, length = np.zeros(off[-1], np.int64), np.zeros(off[-1], np.int64)
    some = shared > 0
    ids[off[:-1][some]], length[off[:-1][some]] = content.SHARED, shared[some]
    ids[off[1:][some] - 1], length[off[1:][some] - 1] = content.PROMPT + np.flatnonzero(some), own[some]
    block = RequestBlock.of(
        np.arange(len(rows)), own + shared, np.ones(len(rows)), spans=(off, ids, np.zeros(off[-1], np.int64), length)
    )
    made = with_images(block.validate(), images, tokens).validate()

    assert made.prompt_tokens.tolist() == (own + shared + images * tokens).tolist()
    seen = made.span_id >= content.IMAGE
    assert np.unique(made.span_id[seen]).size == images.sum()  # nobody shares one
    for row, n in enumerate(images):
        pieces = made.span_id[made.span_off[row] : made.span_off[row + 1]]
        assert (pieces >= content.IMAGE).tolist() == ([False] * bool(shared[row]) + [True] * n + [False] if len(pieces) else [])
