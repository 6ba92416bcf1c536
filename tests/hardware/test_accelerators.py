"""Accelerator profiles: complete, sourced, and plain about bad ones."""

from pathlib import Path

import pytest
import yaml

from sim.cost.build import build_tables
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware import accelerator_names, load_accelerator
from sim.hardware.accelerator import Accelerator
from sim.model import load_model
from sim.resources import path as resource


@pytest.mark.parametrize("name", accelerator_names())
def test_every_figure_has_a_source_and_a_grade(name: str) -> None:
    card = load_accelerator(name)

    assert card.name == name
    for figure in card.figures.values():
        assert figure.source
        assert figure.evidence in ("measured", "fitted", "datasheet", "estimated")
    assert {"memory_bytes", "memory_bandwidth", "sm_count", "tdp_watts", "idle_watts", "link.bandwidth"} <= set(card.figures)
    assert 5e9 < card.memory_bytes < 300e9
    assert 50e9 < card.memory_bandwidth < 10e12
    assert 0 < card.idle_watts < card.tdp_watts
    assert card.peak(card.compute_dtype("bf16")) > 1e12 or card.vendor == "generic"


@pytest.mark.parametrize("name", accelerator_names())
def test_stand_ins_lead_to_a_card_that_needs_none(name: str) -> None:
    card, steps = load_accelerator(name), 0
    while card.proxy:
        assert card.proxy.reason
        card, steps = load_accelerator(card.proxy.name), steps + 1

    assert steps <= 2


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("h100", "h100-sxm"), ("H100_SXM", "h100-sxm"), ("a100", "a100-sxm-80g"), ("a800_sxm_80g", "a800-sxm-80g"), ("rtx4090", "rtx-4090"),
        ("ascend_910c_die", "ascend-910c-die"), ("910b4", "ascend-910b4"), ("rtx3080_ti", "rtx-3080-ti"), ("ppu", "ppu-810e"),
    ],
)  # fmt: skip
def test_aliases(said: str, name: str) -> None:
    assert load_accelerator(said).name == name


def test_no_two_profiles_share_a_name() -> None:
    names: list[str] = []
    for file in resource("profiles", "hardware").glob("*.yaml"):
        raw = yaml.safe_load(file.read_text())
        names += [raw["name"], *raw.get("aliases", ())]
        assert raw["name"] == file.stem

    assert len(names) == len(set(names))


def test_known_figures() -> None:
    h100 = load_accelerator("h100")

    assert h100.peak("bf16") == 989.4e12
    assert h100.memory_bandwidth == 3.35e12
    assert h100.memory_gib == pytest.approx(79.18)
    assert h100.link.bandwidth == 450e9 and h100.link.switched
    assert h100.supports("fp8") and not load_accelerator("a100").supports("fp8")
    assert load_accelerator("a100").compute_dtype("fp8") == "bf16"
    assert load_accelerator("t4").compute_dtype("bf16") == "fp16"


def test_a_mesh_uses_only_the_lanes_to_members() -> None:
    link = load_accelerator("ascend-910b3").link

    assert [link.group_bandwidth(n) / 1e9 for n in (2, 4, 8)] == [28, 84, 196]


def test_unknown_names_offer_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'h100-sxm'"):
        load_accelerator("h100-sxmm")
    with pytest.raises(ConfigError, match="no fp8 matrix units"):
        load_accelerator("a100").peak("fp8")


def test_a_profile_of_ones_own(tmp_path: Path) -> None:
    mine = tmp_path / "mine.yaml"
    text = resource("profiles", "hardware", "l4.yaml").read_text().replace("name: l4", "name: mine")
    mine.write_text(text)

    assert load_accelerator(str(mine)).name == "mine"
    for broken, problem in (
        (text.replace("link: pcie4-x16", "link: pcie9"), "unknown link 'pcie9'"),
        (text.replace("memory_bandwidth:", "memory_bandwith:"), "unknown key 'memory_bandwith'"),
        (text.replace("evidence: datasheet", "evidence: rumour"), "evidence 'rumour' is none of"),
        (text.replace("22.03GiB", "22.03 pounds"), "unknown unit 'pounds'"),
        (text.replace("value: 72,", "value: -72,"), "must not be negative"),
        ("- 1", "one mapping"),
    ):
        mine.write_text(broken)
        with pytest.raises(DataError, match=problem):
            load_accelerator(str(mine))
    with pytest.raises(DataError, match="no such file"):
        load_accelerator(str(tmp_path / "absent.yaml"))


def test_the_power_limit_slows_long_prompts_and_leaves_single_tokens_alone(tmp_path: Path) -> None:
    raw = yaml.safe_load(resource("profiles", "hardware", "h100-sxm.yaml").read_text())
    limited, free = load_accelerator("h100-sxm"), tmp_path / "free.yaml"
    del raw["sustained_compute"]
    free.write_text(yaml.safe_dump(raw))
    model, profile = load_model("llama-3.1-70b"), load_engine_profile("vllm")

    def step(card: Accelerator, tokens: int) -> float:
        tables, _ = build_tables(model, card, Layout(tp=4), profile, 8192)
        return float(tables.layers[tokens].sum())

    slower = {tokens: step(limited, tokens) / step(load_accelerator(str(free)), tokens) for tokens in (1, 8192)}

    assert 1.05 < slower[8192] <= 1 / limited.sustained_compute
    assert 1.0 <= slower[1] < 1.01


@pytest.mark.parametrize("value", [0.0, 1.2, -1, "much"])
def test_a_sustained_rate_is_a_share(value: object, tmp_path: Path) -> None:
    raw = yaml.safe_load(resource("profiles", "hardware", "h100-sxm.yaml").read_text())
    raw["sustained_compute"]["value"] = value
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(raw))

    with pytest.raises(DataError, match="sustained_compute"):
        load_accelerator(str(file))
