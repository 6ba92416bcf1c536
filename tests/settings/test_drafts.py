"""Drafts take time in every engine, by method, depth and tree, and give tokens as often as they are right."""

from __future__ import annotations

from typing import Any

import pytest

from sim.config.scenario import Scenario
from sim.study.single import Prepared

TRAFFIC = {
    "synthetic": {
        "arrival": {"process": "burst"},
        "lengths": {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 60},
        "requests": 8,
    }
}


def run(engine: dict[str, Any], accelerator: str = "h100-sxm", model: str = "llama-3.1-8b") -> Any:
    made = Prepared(
        Scenario.model_validate(
            {"model": model, "traffic": TRAFFIC, "deployment": {"accelerator": accelerator, "engine": engine}}
        )
    )
    return made.run()


def last(engine: dict[str, Any], **where: str) -> float:
    return float(run(engine, **where).requests["finish_s"].max())


VLLM = {"name": "vllm", "max_model_len": 2048}
SGLANG = {"name": "sglang"}
TGI = {"name": "tgi"}


def vllm(method: str, rate: float | None, **more: Any) -> dict[str, Any]:
    return VLLM | {"speculative_config": {"method": method, "num_speculative_tokens": 3, "acceptance_rate": rate, **more}}


def sglang(algorithm: str, rate: float | None, **more: Any) -> dict[str, Any]:
    return SGLANG | {"speculative_algorithm": algorithm, "speculative_accept_rate": rate} | more


DRAFTS = [
    (VLLM, vllm("ngram", 0.0), vllm("ngram", 1.0)),
    (VLLM, vllm("eagle", 0.0), vllm("eagle", 1.0)),
    (SGLANG, sglang("EAGLE", 0.0), sglang("EAGLE", 1.0)),
    (SGLANG, sglang("NGRAM", 0.0), sglang("NGRAM", 1.0)),
    (TGI | {"prefill_chunking": False}, TGI | {"speculate": 3, "acceptance": 0.0}, TGI | {"speculate": 3, "acceptance": 1.0}),
]


@pytest.mark.parametrize(("plain", "wrong", "right"), DRAFTS)
def test_drafts_that_are_never_right_cost_and_those_that_always_are_pay(
    plain: dict[str, Any], wrong: dict[str, Any], right: dict[str, Any]
) -> None:
    assert last(right) < last(plain) < last(wrong)


def test_every_method_has_its_price() -> None:
    small = "llama-3.2-1b"
    algorithms = {"EAGLE": {}, "EAGLE3": {}, "NGRAM": {}, "STANDALONE": {"speculative_draft_model_path": small}}
    times = {name: last(sglang(name, 0.5, **more)) for name, more in algorithms.items()}
    assert len(set(times.values())) == len(times)
    assert times["NGRAM"] < times["EAGLE3"] < times["EAGLE"] < times["STANDALONE"]
    assert last(TGI | {"speculate": 3, "acceptance": 0.5}) < last(
        TGI | {"speculate": 3, "acceptance": 0.5, "speculator": "medusa"}
    )


def test_depth_and_tree_cost() -> None:
    shallow, deep = (last(sglang("EAGLE", 0.0, speculative_num_steps=n)) for n in (2, 8))
    assert shallow < deep
    narrow, wide = (
        last(sglang("EAGLE", 0.5, speculative_num_steps=4, speculative_eagle_topk=k, speculative_num_draft_tokens=n))
        for k, n in ((2, 8), (8, 32))
    )
    assert narrow < wide


@pytest.mark.parametrize("engine", [vllm("eagle", None), sglang("EAGLE", None), TGI | {"speculate": 2}])
def test_acceptance_that_nobody_stated_is_said_to_be_estimated(engine: dict[str, Any]) -> None:
    (note,) = [w for w in run(engine).warnings if "acceptance not stated" in w]
    assert "tokens a step" in note


@pytest.mark.parametrize("engine", [vllm("eagle", 0.6), sglang("EAGLE", 0.6), TGI | {"speculate": 2, "acceptance": 0.6}, VLLM])
def test_acceptance_that_was_stated_is_not(engine: dict[str, Any]) -> None:
    assert not [w for w in run(engine).warnings if "acceptance not stated" in w]
