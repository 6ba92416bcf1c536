"""The choice of an engine: figures decide, facts exclude, both languages say the same."""

from __future__ import annotations

from typing import Any

import pytest

import sim
from sim.errors import ConfigError
from sim.study.selection.advice import SITUATIONS, TITLES, Row, advice, best
from sim.study.selection.facts import SHOWN, facts
from sim.study.selection.tries import defaults, longest, tries
from sim.study.variants import repeated

FEW: dict[str, Any] = {"screen": 200, "jobs": 1, "tp": "1"}


def row(engine: str, cards: int, holds: bool = True, cost: float | None = None) -> Row:
    return Row(engine, engine, "h100-sxm", 1, holds, cards, cards, cost, {}, 0.995, 0.99)


def test_every_engine_of_the_guide_has_facts_with_a_source() -> None:
    for engine in defaults():
        known = facts(engine)
        assert {"licence", "maturity", "hardware", "api_openai"} <= set(known) | (
            {"api_openai"} if engine == "vllm-ascend" else set()
        )
        assert all(f.value and f.source and f.confidence for f in known.values())
        assert engine in TITLES
    assert facts("no-such-engine") == {}
    assert "archived" in facts("tgi")["maturity"].value
    assert len(SHOWN) == len(set(SHOWN))


def test_the_cheapest_maintained_one_is_recommended() -> None:
    rows = [row("tgi", 1), row("vllm", 2), row("sglang", 2), row("ollama", 40), row("bladellm", 1)]
    assert best(rows).engine == "vllm"  # type: ignore[union-attr]
    english, chinese = advice(rows, "", 8.0)
    assert "vLLM" in english[0]
    assert "vLLM" in chinese[0]
    assert len(english) == len(chinese)
    assert any("archived" in line for line in english)
    assert any("Ollama" in line for line in english[1:])
    priced = [row("vllm", 2, cost=10.0), row("sglang", 3, cost=6.0)]
    assert best(priced).engine == "sglang"  # type: ignore[union-attr]
    assert best([row("vllm", 1, holds=False)]) is None
    assert "No engine" in advice([row("vllm", 1, holds=False)], "", 8.0)[0][0]
    assert "ended before" in advice([row("vllm", 1, holds=False)], "", 8.0, stopped=True)[0][0]
    assert best([row("tgi", 1)]).engine == "tgi"  # type: ignore[union-attr]


def test_the_error_of_the_model_is_said_in_both_languages() -> None:
    from dataclasses import replace

    from sim.metrics.model_error import OWN
    from sim.study.plan.model_band import ModelBand

    wide = replace(row("vllm", 4), size=2, model=ModelBand(1, None, (0.7, 1.4), 21, "vllm on h100"))
    assert wide.within() == "2 to > 8"
    english, chinese = advice([wide], "", 8.0)
    assert "Model error: 2 to > 8 accelerators, as 80% of 21 measured deployments (vllm on h100) would have it." in english[0]
    assert "模型误差：按 21 个实测部署（vllm on h100）中 80% 的偏差，需要 2 至 > 8 张卡。" in chinese[0]

    own = replace(wide, model=ModelBand(1, None, (0.96, 1.04), 9, OWN))
    english, chinese = advice([own], "", 8.0)
    assert "Model error: 2 to > 8 accelerators, as 80% of 9 points of your own measurements would have it." in english[0]
    assert "模型误差：按 9 个您自己的测量点中 80% 的偏差，需要 2 至 > 8 张卡。" in chinese[0]


def test_settings_follow_the_traffic_and_the_hardware_the_engine() -> None:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=2000"])
    choices = tries(scenario, [], [], [1])
    by = {c.engine: c for c in choices}
    assert set(by) == set(defaults())
    assert by["mindie"].accelerator.startswith("ascend")
    assert by["mindie"].point["deployment.engine"]["maxSeqLen"] == longest(scenario)
    assert by["vllm"].accelerator == "h100-sxm"
    assert longest(scenario) % 1024 == 0


def test_settings_serve_the_requests_of_every_replication() -> None:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=4"])
    several = max(longest(repeated(scenario, r)) for r in range(6))
    assert several > longest(scenario)
    (mindie,) = tries(scenario, ["mindie"], [], [1], 6)
    assert mindie.settings["maxSeqLen"] == several


def test_under_a_load_one_replica_holds_the_engines_are_told_apart() -> None:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=300", "economics={accelerator_hour: {h100-sxm: 2.5}}"])
    found = sim.select(scenario, engines="vllm,ollama", max_replicas=4, **FEW)
    vllm, ollama = found.rows
    assert vllm.holds
    assert vllm.size == 1
    assert vllm.cost == 2.5
    assert not ollama.holds
    assert ollama.why
    assert found.verdict
    data = found.as_dict()
    assert data["facts"]["vllm"]["licence"]["value"] == "Apache-2.0"
    assert data["advice"]["zh"][0].startswith("在该流量下")


def test_what_cannot_be_asked() -> None:
    with pytest.raises(ConfigError, match="did you mean 'vllm'"):
        sim.select(sim.load("quickstart"), engines="vlm", **FEW)
    with pytest.raises(ConfigError, match="slo"):
        sim.select(sim.load("quickstart", ["slo={}"]), **FEW)
    with pytest.raises(ConfigError, match="pools"):
        sim.select(sim.load("pd-vllm"), **FEW)


def test_situations_are_said_in_both_languages() -> None:
    for where, what, wo, was in SITUATIONS:
        assert where.isascii()
        assert what.isascii()
        assert not wo.isascii()
        assert was


def test_a_study_stopped_before_any_engine_claims_nothing_about_hardware():
    from sim.study.selection.advice import advice

    english, chinese = advice([], "", 8.0)
    assert "No engine was judged" in english[0]
    assert "未能评估" in chinese[0]
