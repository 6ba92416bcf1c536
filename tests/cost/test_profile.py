"""Engine profiles: every file loads, lines follow versions, figures carry grades."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.cost import launches, step
from sim.cost.build import build_tables
from sim.cost.engine_figures import LineFigures
from sim.cost.features import DECODE_CTX, DECODE_ROWS, DECODE_TOKENS, N_FEATURES, SAMPLED, TOKENS
from sim.cost.layout import Layout
from sim.cost.plain import plain_step_time
from sim.cost.profile import engine_profiles, load_engine_profile
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware import load_accelerator
from sim.model import load_model


@pytest.mark.parametrize("name", engine_profiles())
def test_every_profile_loads_with_sources(name):
    profile = load_engine_profile(name)

    assert profile.host_step >= 0.0
    assert profile.graph_sizes == tuple(sorted(profile.graph_sizes))
    for key, figure in profile.figures.items():
        assert figure.evidence in ("measured", "fitted", "datasheet", "estimated"), key
        assert figure.source, key


def test_a_version_picks_its_line():
    assert load_engine_profile("vllm", "0.15.1").overlap
    assert not load_engine_profile("vllm", "0.12.0").overlap
    assert load_engine_profile("vllm", "0.5.4").line == "0.2.7"
    assert load_engine_profile("vllm", "0.0.1").line == "0.1"
    assert load_engine_profile("vllm") == load_engine_profile("vllm", "99")


def test_bad_names_and_versions_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'vllm'"):
        load_engine_profile("vlm")
    with pytest.raises(ConfigError, match="is not a version"):
        load_engine_profile("vllm", "newest")


def test_batches_are_padded_to_the_next_captured_size():
    profile = load_engine_profile("tgi")

    assert [profile.padded(n) for n in (1, 3, 9, 32, 33)] == [1, 4, 16, 32, 33]


def test_graphs_of_pieces_leave_attention_to_be_launched_layer_by_layer():
    host = load_engine_profile("vllm", "0.12", "a100-sxm-80g")
    model, card = load_model("qwen3-0.6b"), load_accelerator("a100-sxm-80g")
    pieces = host.adapted(graph_mode="PIECEWISE", graph_sizes=(1, 2, 4))
    assert launches.piecewise(host, model, card) == launches.piecewise(host.adapted(graph_mode="FULL"), model, card) == 0.0
    assert launches.piecewise(pieces, model, card) == pytest.approx(host.piecewise_layer * model.layers)
    assert load_engine_profile("vllm", "0.9", "a100-sxm-80g").decode_graph == "piecewise"
    assert [host.adapted(graph_mode=m, graph_sizes=(1, 2)).graph_prefill for m in ("FULL_DECODE_ONLY", "PIECEWISE")] == [
        False,
        True,
    ]
    assert host.adapted(graph_mode="NONE", graph_sizes=(1, 2)).graph_sizes == ()


def test_ranks_of_v0_are_told_every_step_and_every_row():
    host, later = (load_engine_profile("vllm", v, "a100-sxm-80g") for v in ("0.6.3", "0.8"))
    assert host.host_row_ranks > 0.0 == later.host_row_ranks
    assert load_engine_profile("vllm", "0.6.3", "mi300x").host_scale_tp == 0.0  # within what was fitted to its eight ranks
    model, card = load_model("llama-3.1-70b"), load_accelerator("a100-sxm-80g")

    def host_seconds(tp: int, rows: int) -> float:
        k = build_tables(model, card, Layout(tp=tp), host, 512)[0].constants
        return float(k[step.HOST_STEP] + rows * k[step.HOST_ROW])

    assert host_seconds(8, 1) - host_seconds(4, 1) == pytest.approx(4 * host.host_scale_tp)
    assert host_seconds(4, 64) - host_seconds(1, 64) == pytest.approx(3 * host.host_scale_tp + 64 * host.host_row_ranks)


def test_vllm_ascend_launches_decode_steps_in_pieces_until_it_captures_them_whole():
    modes = {v: load_engine_profile("vllm-ascend", v, "ascend-910b3").decode_graph for v in ("0.9.2", "0.13", "0.18", "0.24")}
    assert modes == {"0.9.2": "piecewise", "0.13": "piecewise", "0.18": "piecewise", "0.24": "full"}


def test_the_device_works_behind_all_that_the_host_does_where_outputs_are_processed_between_launches():
    """Qwen3 8B on a 910B with vllm-ascend 0.9.1: 47 ms at 4 rows, 56 at 57 with 4,100 tokens each, 82 at 256: 0.14 ms a row (measured)."""
    host = load_engine_profile("vllm-ascend", "0.9.1", "ascend-910b3")
    tables, _ = build_tables(load_model("qwen3-8b"), load_accelerator("ascend-910b3"), Layout(), host, 512)

    def seconds(rows: int, context: int) -> float:
        feat = np.zeros(N_FEATURES)
        feat[[TOKENS, DECODE_ROWS, DECODE_TOKENS, SAMPLED]] = rows
        feat[DECODE_CTX] = rows * context
        return plain_step_time(tables, feat)[0]

    assert [seconds(4, 340), seconds(57, 4100), seconds(256, 200)] == pytest.approx([0.0473, 0.0558, 0.083], rel=0.03)
    assert load_engine_profile("vllm-ascend", "0.9.2", "ascend-910b3").host_ahead is False


def test_inputs_of_8_bit_products_are_quantised_by_kernels_of_their_own_on_ascend():
    """Qwen3 32B in W8A8 on four dies of a 910C: four more small kernels a layer."""
    model, card = load_model("qwen3-32b", "w8a8"), load_accelerator("ascend-910c-die")
    host = load_engine_profile("vllm-ascend", "0.19", "ascend-910c-die")
    with_them, without = (
        build_tables(model, card, Layout(tp=4), replace(host, quantise_inputs=on), 64)[0].layers.reshape(-1, 5)
        for on in (True, False)
    )

    assert (with_them - without)[1, step.SMALL] == pytest.approx(4 * 64 * host.small_kernel, rel=0.01)
    assert launches.quantised_inputs(host, load_model("qwen3-32b"), 4) == (0.0, 0.0)


def test_settings_of_an_engine_change_its_profile():
    profile = load_engine_profile("vllm", "0.12")

    assert profile.adapted(overlap=True).overlap
    assert profile.adapted() == profile
    assert profile.adapted(graphs=False).graph_sizes == ()
    assert profile.adapted(graphs=False).eager_expert_layer == profile.eager_expert_few < profile.eager_expert_layer
    assert profile.adapted(graph_sizes=(8, 4)).graph_sizes == (4, 8)


def written(file: Path, figures: dict[str, object]) -> str:
    file.write_text(yaml.safe_dump({"base": "vllm", "lines": [{"from": "0.14", **figures}]}), encoding="utf-8")
    return str(file)


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("gemm_scale", math.nan), ("gemm_scale", -0.5), ("gemm_scale", 0.0), ("attention_scale", math.inf), ("client_request", -0.5),
        ("host_step", math.nan), ("host_step", "soon"), ("host_step", None), ("host_step", [1]), ("host_step", {"seconds": 1}),
        ("host_step", True), ("host_step", 1e9), ("overlap", "yes"), ("overlap", 1), ("small_kernels_per_layer", "4"), ("kernels", 3),
        ("graph_sizes", [0]), ("graph_sizes", ["8"]), ("graph_sizes", [{"from": 8, "to": 16}]), ("all_to_all", "ring"), ("hots_step", 1.0),
        ("host_step", {"value": 1.0, "evidence": "rumour"}), ("host_step", {"value": 1.0, "source": ""}), ("accelerators", ["h100"]),
        ("accelerators", {"h100": {"host_step": -1}}), ("accelerators", {"h100": {"from": "0.1"}}),
    ],
)  # fmt: skip
def test_figures_that_are_none_are_refused(tmp_path: Path, figure: str, value: object) -> None:
    with pytest.raises(DataError, match=figure):
        load_engine_profile(written(tmp_path / "own.yaml", {figure: value}), "0.14")


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    wrong = {"gemm_scale": math.nan, "client_request": -0.5, "host_stp": 1.0, "accelerators": {"h100": {"overlap": "x"}}}

    with pytest.raises(DataError) as caught:
        load_engine_profile(written(tmp_path / "own.yaml", wrong))
    for part in (
        "4 things",
        "lines[0].gemm_scale",
        "lines[0].client_request",
        "'host_stp'",
        "lines[0].accelerators.h100.overlap",
    ):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "lines: []",
        "lines: [{}]",
        "lines: [{from: new}]",
        "{lines: [{from: '1'}], lines: []}",
        "a: [",
        "\x00",
        "? [1]\n: 2",
    ],
)
def test_files_that_hold_no_profile_are_refused(tmp_path: Path, text: str) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text, encoding="utf-8")

    with pytest.raises(DataError, match=r"own\.yaml"):
        load_engine_profile(str(file))


def test_a_base_must_not_go_round(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"base": str(file), "lines": [{"from": "1"}]}), encoding="utf-8")

    with pytest.raises(DataError, match="circle"):
        load_engine_profile(str(file))


def test_what_no_base_gives_must_be_there(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text("lines: [{from: '1', host_step: 1ms}]", encoding="utf-8")

    with pytest.raises(DataError, match=r"lacks kernels, host_row"):
        load_engine_profile(str(file))


def test_an_edited_file_is_read_again(tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"

    assert load_engine_profile(written(file, {"host_step": 0.052})).host_step == 0.052
    assert load_engine_profile(written(file, {"host_step": 0.500})).host_step == 0.5


def test_times_may_have_units_and_bare_figures_count_as_estimated(tmp_path: Path) -> None:
    profile = load_engine_profile(written(tmp_path / "own.yaml", {"host_step": "2.5ms"}), "0.14")

    assert profile.host_step == pytest.approx(0.0025)
    assert profile.overlap  # of the base


def test_figures_for_an_accelerator_hold_for_its_variants_only(tmp_path: Path) -> None:
    own = written(
        tmp_path / "own.yaml", {"host_step": 1.0, "accelerators": {"h20": {"host_step": 2.0}, "ascend-910b": {"host_step": 3.0}}}
    )

    found = {a: load_engine_profile(own, "0.14", a).host_step for a in ("h20", "h20-141g", "h200-sxm", "ascend-910b4", "")}
    assert found == {"h20": 2.0, "h20-141g": 2.0, "h200-sxm": 1.0, "ascend-910b4": 3.0, "": 1.0}


@given(
    st.dictionaries(
        st.sampled_from([*LineFigures.model_fields, "from", "accelerators", "x"]),
        st.recursive(
            st.none() | st.booleans() | st.floats() | st.integers() | st.text(max_size=6),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "source", "evidence", "from"]), inner)
            ),
            max_leaves=6,
        ),
        max_size=5,
    )
)
@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whatever_a_file_holds_is_an_error_or_a_profile_of_finite_figures(tmp_path: Path, figures: dict[str, Any]) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(yaml.safe_dump({"base": "vllm", "lines": [{"from": "0.14"} | figures]}), encoding="utf-8")
    try:
        profile = load_engine_profile(str(file))
    except DataError:
        return
    times = [getattr(profile, f.name) for f in fields(profile) if f.type == "float"]
    assert all(math.isfinite(t) and t >= 0.0 for t in times)


@pytest.mark.parametrize("engine", ["vllm", "sglang"])
def test_latent_attention_launches_more_small_kernels(engine: str) -> None:
    profile, latent, plain = load_engine_profile(engine), load_model("deepseek-v3"), load_model("qwen3-235b-a22b")
    without = replace(profile, latent_kernels=0.0)

    assert launches.small_kernels(profile, latent) == launches.small_kernels(without, latent) + 61 * profile.latent_kernels
    assert launches.small_kernels(profile, plain) == launches.small_kernels(without, plain)
    card, layout = load_accelerator("h200-sxm"), Layout(tp=8)
    more, _ = build_tables(latent, card, layout, profile, 64)
    less, _ = build_tables(latent, card, layout, without, 64)
    added = (more.layers - less.layers)[1:, step.SMALL]
    assert added == pytest.approx(61 * profile.latent_kernels * profile.small_kernel)
