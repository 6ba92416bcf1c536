"""Accelerator profiles: complete, sourced, and plain about bad ones."""

import math
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.cost.build import build_tables
from sim.cost.layout import Layout
from sim.cost.profile import load_engine_profile
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware import accelerator_names, load_accelerator, parse_accelerator
from sim.hardware.accelerator import Accelerator
from sim.hardware.accelerator_file import AcceleratorFile
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
    raw["sustained_compute"]["value"] = 1.0
    free.write_text(yaml.safe_dump(raw))
    model, profile = load_model("llama-3.1-70b"), load_engine_profile("vllm")

    def step(card: Accelerator, tokens: int) -> float:
        tables, _ = build_tables(model, card, Layout(tp=4), profile, 8192)
        return float(tables.layers[tokens].sum())

    slower = {tokens: step(limited, tokens) / step(load_accelerator(str(free)), tokens) for tokens in (1, 8192)}

    assert 1.05 < slower[8192] <= 1 / limited.sustained_compute
    assert 1.0 <= slower[1] < 1.01


@pytest.mark.parametrize("name", ["h100-sxm", "h200-sxm", "h100-pcie", "a100-sxm-80g", "b300"])
def test_the_power_limit_tells_the_sustained_rate_where_it_was_measured(name: str) -> None:
    raw = yaml.safe_load(resource("profiles", "hardware", f"{name}.yaml").read_text(encoding="utf-8"))
    measured = raw.pop("sustained_compute")["value"]

    assert parse_accelerator(raw, name).sustained_compute == pytest.approx(measured, rel=0.05)
    weaker = parse_accelerator(raw | {"tdp_watts": raw["tdp_watts"]["value"] / 4}, name)
    assert weaker.sustained_compute == pytest.approx(measured / 2, rel=0.05)
    assert parse_accelerator(raw | {"tdp_watts": 3000}, name).sustained_compute == 1.0


def test_cards_with_power_to_spare_and_unknown_dies_keep_their_rate() -> None:
    assert {load_accelerator(n).sustained_compute for n in ("rtx-4090", "rtx-5090", "l40s", "ascend-910b3", "a40")} == {1.0}
    assert load_accelerator("l4").sustained_compute < 0.85  # 72 W


@pytest.mark.parametrize("value", [0.0, 1.2, -1, "much"])
def test_a_sustained_rate_is_a_share(value: object, tmp_path: Path) -> None:
    raw = yaml.safe_load(resource("profiles", "hardware", "h100-sxm.yaml").read_text())
    raw["sustained_compute"]["value"] = value
    file = tmp_path / "card.yaml"
    file.write_text(yaml.safe_dump(raw))

    with pytest.raises(DataError, match="sustained_compute"):
        load_accelerator(str(file))


MINIMAL = {
    "name": "mine", "vendor": "nvidia", "memory": "80GiB", "memory_bandwidth": "3000GB", "peak_tflops": {"bf16": 900}, "sm_count": 100,
    "tdp_watts": 600,
}  # fmt: skip


def own(tmp_path: Path, **changes: object) -> Accelerator:
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(MINIMAL | changes), encoding="utf-8")
    return load_accelerator(str(file))


def test_seven_lines_make_an_accelerator(tmp_path: Path) -> None:
    card = own(tmp_path)

    assert (card.title, card.kind, card.node_size, card.link.kind) == ("mine", "gpu", 8, "none")
    assert card.idle_watts == pytest.approx(90.0)
    assert {f.evidence for k, f in card.figures.items() if k not in ("link.bandwidth", "host_bandwidth")} == {"estimated"}


def test_everything_that_is_wrong_is_named_at_once(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        own(
            tmp_path,
            memory="much",
            sm_count=-1,
            link="pcie9",
            compute_capability=9.0,
            tdp="600",
            aliases=[["a"]],
            memory_bandwidth=0,
        )
    for part in (
        "7 things",
        "memory:",
        "sm_count",
        "unknown link 'pcie9'",
        "quote it",
        "'tdp'",
        "aliases[0]",
        "memory_bandwidth: must be above 0",
    ):
        assert part in str(caught.value), part


@pytest.mark.parametrize(
    ("figure", "value"),
    [
        ("memory", float("nan")), ("memory", -1), ("memory", 0), ("memory", True), ("memory", None), ("memory", {"source": "x"}),
        ("peak_tflops", {}), ("peak_tflops", {"bf17": 1}), ("peak_tflops", {"bf16": float("inf")}), ("peak_tflops", {"bf16": 0}),
        ("sm_count", 1.5), ("tdp_watts", "600"), ("idle_watts", 700), ("sustained_compute", 1.2), ("kind", "tpu"), ("memory_type", "sram"),
        ("name", ["x"]), ("name", ""), ("node", {"size": 0}), ("node", {"network": "tcp-26g"}), ("proxy", {"name": "h100-sxm"}),
        ("proxy", {"name": "", "reason": "x"}), ("compute_capability", "nine"), ("aliases", "a"), ("notes", {"a": 1}),
    ],
)  # fmt: skip
def test_figures_that_are_none_are_refused(figure: str, value: object, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=figure.split("_")[0]):
        own(tmp_path, **{figure: value})


def test_an_edited_profile_is_read_again(tmp_path: Path) -> None:
    assert [own(tmp_path, sm_count=n).sm_count for n in (10, 11)] == [10, 11]


KEYS = [*AcceleratorFile.model_fields, "x"]
VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.floats()
    | st.integers()
    | st.text(max_size=5)
    | st.sampled_from(["80GiB", "h100-sxm", "pcie4-x16", "9.0"]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["value", "source", "evidence", "bf16", "name"]), inner)
    ),
    max_leaves=5,
)


@given(st.dictionaries(st.sampled_from(KEYS), VALUES, max_size=4))
@settings(max_examples=200)
def test_whatever_a_profile_holds_is_an_error_or_finite(changes: dict[str, object]) -> None:
    try:
        card = parse_accelerator(MINIMAL | changes, "mine.yaml")
    except DataError:
        return
    assert all(0.0 < x < math.inf for x in (card.memory_bytes, card.memory_bandwidth, card.tdp_watts, *card.peak_flops.values()))
