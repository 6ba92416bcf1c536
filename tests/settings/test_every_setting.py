"""A setting that is accepted changes something in a scenario where it should, or is listed as without effect on time."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from rich.console import Console

import sim
from sim import registry
from sim.config.reading import loads
from sim.config.traffic import Traffic
from sim.cost.profile import engine_lines, load_engine_profile
from sim.engine.effect import every_setting, idle_settings, without_effect
from sim.errors import DataError
from sim.report.engine_page import show_engine
from sim.resources import path as resource
from sim.study.engine_page import engine_page
from sim.study.idle import check_traffic
from sim.study.single import Prepared

ROOT = Path(__file__).resolve().parents[2]
ENGINES = sorted({registry.lookup("engine", name, "engine").name for name in registry.names("engine")})


@pytest.mark.parametrize("engine", ENGINES)
def test_every_setting_changes_something_or_is_listed(engine: str) -> None:
    walk = subprocess.run(
        [sys.executable, "-m", "tests.settings.walk", engine],
        cwd=ROOT,
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert walk.returncode == 0, walk.stderr
    verdicts = json.loads(walk.stdout)
    params = registry.lookup("engine", engine, "engine").Params
    assert sorted(verdicts) == sorted(name for name, _, _ in every_setting(params))
    assert {k: v for k, v in verdicts.items() if v not in ("changed", "inert")} == {}
    assert sorted(k for k, v in verdicts.items() if v == "inert") == sorted(without_effect(params))


@pytest.mark.parametrize("engine", ENGINES)
def test_the_page_of_an_engine_lists_its_settings_and_those_without_effect(engine: str) -> None:
    page = engine_page(engine)
    params = registry.lookup("engine", engine, "engine").Params
    assert [s.name for s in page.settings] == [name for name, _, _ in every_setting(params)]
    assert [s.name for s in page.settings if s.note == "no effect on time"] == list(page.idle) == list(without_effect(params))
    out = io.StringIO()
    show_engine(page, Console(file=out, width=200))
    for setting in page.settings:
        assert setting.name in out.getvalue()
    for name, why in page.idle.items():
        assert f"{name}: {why}" in out.getvalue()


def scenario(engine: str, traffic: str = "") -> str:
    return f"""
model: llama-3.1-8b
traffic:
  synthetic: {{arrival: {{process: burst}}, lengths: {{kind: fixed, prompt_tokens: 50, output_tokens: 4}}, requests: 8}}
  {traffic}
deployment: {{accelerator: h100-sxm, engine: {engine}}}
"""


@pytest.mark.parametrize(
    ("engine", "traffic", "words"),
    [
        (
            "{name: vllm, scheduling_policy: priority}",
            "",
            ["scheduling_policy has no effect here: no request of this traffic has a priority"],
        ),
        ("{name: vllm, scheduling_policy: priority}", "priorities: {0: 1, 1: 1}", []),
        ("{name: vllm, scheduling_policy: fcfs}", "", []),
        ("{name: vllm, enable_expert_parallel: true}", "", ["enable_expert_parallel has no effect on time: deployment.ep"]),
        (
            "{name: vllm, VLLM_MXFP4_USE_MARLIN: true}",
            "",
            ["VLLM_MXFP4_USE_MARLIN has no effect here: only mxfp4 experts on Hopper"],
        ),
        ("{name: vllm, max_loras: 2}", "", ["max_loras has no effect here: no request of this traffic names an adapter"]),
        ("{name: vllm, max_loras: 2}", "adapters: {count: 2}", []),
        (
            "{name: sglang, schedule_policy: lpm}",
            "",
            ["schedule_policy has no effect here: no prompts of this traffic share a prefix"],
        ),
        ("{name: sglang, schedule_policy: lof}", "", []),
        ("{name: sglang, num_continuous_decode_steps: 3}", "", ["num_continuous_decode_steps has no effect on time"]),
        ("vllm", "endpoint: chat", ["chat requests take vllm 0.33 no longer than completions, so it has no effect here"]),
        ("{name: vllm, version: '0.11'}", "endpoint: chat", []),
    ],
)
def test_settings_without_effect_are_named(engine: str, traffic: str, words: list[str]) -> None:
    made = Prepared(loads(scenario(engine, traffic)))
    assert len(made.notes) == len(words)
    for note, word in zip(made.notes, words, strict=True):
        assert word in note


def test_the_servers_to_which_chat_requests_cost_time_are_those_that_the_setting_names() -> None:
    costly = []
    for file in sorted(resource("profiles", "engines").glob("*.yaml")):
        for line in engine_lines(file.stem):
            made = load_engine_profile(file.stem, line, "h100-sxm")
            if made.client_chat or made.client_chat_serial:
                assert (made.client_chat, made.client_chat_serial) == (37e-3, 12e-3)
                costly.append(f"{file.stem} {line}")
    assert costly == ["vllm-ascend 0.9", "vllm-ascend 0.9.2", "vllm 0.10", "vllm 0.11"]
    assert "vLLM 0.10 and 0.11 and vllm-ascend 0.9 and 0.10 37 ms" in str(Traffic.model_fields["endpoint"].description)


def test_a_context_that_is_shifted_is_named() -> None:
    made = Prepared(loads(scenario("{name: ollama, num_ctx: 64}").replace("prompt_tokens: 50", "prompt_tokens: 500")))
    (note,) = made.notes
    assert "requests of up to 504 tokens meet a context of 256: prompts are shortened to it" in note


def test_shared_prefixes_and_sessions_count_as_shared() -> None:
    text = scenario("{name: sglang, schedule_policy: lpm}")
    for more in ("prefixes: {groups: 2, shared_tokens: 10}", "sessions: {turns: 2}"):
        made = Prepared(loads(text.replace("requests: 8}", f"requests: 8, {more}}}")))
        assert made.notes == []


def test_only_what_the_user_wrote_is_named() -> None:
    params = registry.lookup("engine", "vllm", "engine").Params
    assert idle_settings(params(), ()) == []
    assert check_traffic([], Prepared(loads(scenario("vllm"))).traffic) == []


@pytest.mark.parametrize("engine", [e for e in ENGINES if registry.lookup("engine", e, "engine").context_setting])
def test_of_a_request_that_is_too_long_the_setting_to_raise_is_named(engine: str) -> None:
    scheduler = registry.lookup("engine", engine, "engine")
    setting = scheduler.context_setting
    assert setting in scheduler.Params.model_fields
    if scheduler.name == "ollama":  # shifts and truncates what is too long, unless told not to
        engine = f"{{name: {engine}, context_shift: false, truncate: false, {setting}: 4096}}"
    else:
        engine = f"{{name: {engine}, {setting}: 4096}}"
    accelerator = "ascend-910b3" if scheduler.name in ("mindie", "vllm-ascend") else "h100-sxm"
    told = loads(
        f"""
model: llama-3.1-8b
traffic: {{synthetic: {{arrival: {{process: poisson, rate: 1/s}}, lengths: {{kind: fixed, prompt_tokens: 5000, output_tokens: 9}}, requests: 3}}}}
deployment: {{accelerator: {accelerator}, engine: {engine}}}
"""
    )
    with pytest.raises(
        DataError,
        match=rf"request 0 has 5000 prompt .* accepts 4096 .*raise the {setting} of the engine, or traffic.too_long=skip",
    ):
        sim.run(told)
