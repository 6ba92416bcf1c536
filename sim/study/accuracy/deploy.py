"""From an operating point to a planned deployment: names, settings, engine profile."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

from sim import registry
from sim.cost.extras import Extras
from sim.cost.machines import alike
from sim.cost.profile import EngineProfile, engine_profiles, load_engine_profile
from sim.cost.sampling import asked
from sim.errors import ConfigError, NotModelledError
from sim.fleet.build import Plan, engine_of, host, plan, step_costs
from sim.hardware import load_accelerator
from sim.model import load_model
from sim.study.accuracy import passes
from sim.study.accuracy.drafts import draft_settings
from sim.study.accuracy.launchers import assumed_settings
from sim.study.accuracy.lengths import longest
from sim.study.accuracy.point import Point
from sim.study.accuracy.versions import release

if TYPE_CHECKING:
    from sim.config.traffic import Traffic
    from sim.document import Json

Overrides = Mapping[tuple[str, str, str], Mapping[str, float]]
"""Figures to try instead of those of a profile: (engine, line, accelerator) → name → value; an empty accelerator means any."""

# Settings that change neither scheduling nor the cost that is modelled.
_WITHOUT_EFFECT = {
    "attention_backend", "cpu_kv_offload", "swap_space", "kv_cache_dtype", "enable_torch_compile", "device",
    "speculative_draft_model_path", "disaggregation_transfer_backend",
}  # fmt: skip


# Settings that the points name alike for all engines, in an engine's own spelling.
_OWN_NAMES = {
    "mindie": {
        "enable_prefix_caching": "enablePrefixCache",  # what the plugin prefix_cache sets
        "max_batch_size": "maxBatchSize",
        "max_prefill_batch_size": "maxPrefillBatchSize",
    }
}


def check(point: Point) -> None:
    """Raise `NotModelledError` for what cannot be simulated, before anything is built."""
    if point.traffic["kind"] == "static_batch" and point.engine in engine_profiles():
        return
    if point.engine not in registry.names("engine"):
        raise NotModelledError("engine", point.engine, "is not modelled", ", ".join(registry.names("engine")))
    if (told := point.settings.get("speculative")) is not None:
        draft_settings(point.engine, _mapping("speculative", told))


def _mapping(name: str, value: Json) -> Mapping[str, Json]:
    if not isinstance(value, Mapping):
        raise ConfigError(f"settings.{name}", value, "must be a mapping")
    return value


def profile_of(point: Point, overrides: Overrides | None = None) -> EngineProfile:
    """The engine profile of the point's version line, with overrides applied."""
    accelerator = load_accelerator(point.accelerator)
    at = accelerator.name
    if point.scenario is not None and point.scenario.deployment is not None:
        own = point.scenario.deployment
        scheduler, params = engine_of(own.engine, "deployment.engine")
        profile = load_engine_profile(
            own.profile or scheduler.profile or scheduler.name, getattr(params, "version", None), *alike(accelerator)
        )
    else:
        name = point.engine
        if name not in engine_profiles():
            name = registry.lookup("engine", name).profile or name
        profile = load_engine_profile(name, release(point.engine, point.version, point.assumed), *alike(accelerator))
    changes: dict[str, float] = {}
    for where in ("", at):
        changes |= (overrides or {}).get((profile.engine, profile.line, where), {})
    return profile.changed(changes)


def planned(point: Point, overrides: Overrides | None = None) -> Plan:
    """The point's one replica, the first of its pools. Raises `ConfigError` and its kin for what cannot be deployed or is not modelled."""
    return fleet(point, overrides)[0]


def fleet(point: Point, overrides: Overrides | None = None) -> list[Plan]:
    """The pools of a point: one replica, or prefill and decode replicas. Raises `ConfigError` and its kin."""
    from sim.config import settings
    from sim.config.scenario import Scenario

    if point.scenario is not None:
        made = plan(point.scenario)[0]
        chat = point.scenario.traffic.endpoint == "chat"
        own = host(made.scheduler, made.params, made.model, profile_of(point, overrides), chat)
        return [_with_profile(made, own, point.scenario.traffic)]
    given = _settings(point)
    pools = _pools(point, {"name": point.engine, **given})
    raw: dict[str, Json] = {
        "model": {"name": point.model, "weights": point.weights, "kv_cache": point.kv_cache},
        "traffic": {
            "endpoint": "chat" if point.chat else "completions",
            "synthetic": {
                "arrival": {"process": "constant", "rate": 1.0},
                "lengths": {"kind": "fixed", "prompt": 1, "output": 1},
            },
        },
    }
    raw |= {"pools": pools} if point.disaggregated else {"deployment": pools[0]}
    try:
        plans = plan(settings(Scenario, raw))
    except NotModelledError:
        raise
    except ConfigError as error:
        # a server started with the model's whole context would not have come up: take the traffic's
        limit = {"vllm": "max_model_len", "vllm-ascend": "max_model_len", "sglang": "context_length"}.get(point.engine)
        if limit is None or limit in given or not error.field.endswith(("max_model_len", "kv_blocks")):
            raise
        pools = _pools(point, {"name": point.engine, **given, limit: _longest(point)})
        raw |= {"pools": pools} if point.disaggregated else {"deployment": pools[0]}
        plans = plan(settings(Scenario, raw))
    out = []
    for made in plans:
        profile = host(made.scheduler, made.params, made.model, profile_of(point, overrides), point.chat)
        out.append(_with_profile(made, profile.engine_alone() if point.inside else profile))
    return out


def _pools(point: Point, engine: dict[str, Json]) -> list[dict[str, Json]]:
    """The pools as a scenario writes them."""
    widths = ("tp", "pp", "dp", "ep")
    if not point.disaggregated:
        one: dict[str, Json] = {"accelerator": point.accelerator, **{k: getattr(point, k) for k in widths}, "engine": engine}
        return [one | ({"kv_blocks": point.kv_blocks} if point.kv_blocks else {})]
    return [
        {
            "name": role, "role": role, "accelerator": point.accelerator, "engine": dict(engine), "replicas": int(side.get("instances") or 1),
            **{k: int(side.get(k) or 1) for k in widths},
        }
        for role, side in point.sides.items()
    ]  # fmt: skip


def _with_profile(made: Plan, profile: EngineProfile, traffic: Traffic | None = None) -> Plan:
    if profile == made.profile:
        return made
    tokens = made.scheduler.max_batch_tokens(made.params, made.site)
    extras = made.scheduler.extras(made.params, made.site) or Extras()
    if traffic is not None:
        extras = replace(extras, structured=traffic.structured_output, sampling=asked(traffic, profile, made.scheduler.name))
    layout = replace(made.layout, dp=made.site.dp)
    cost, shared, evidence = step_costs(made.model, made.accelerator, layout, profile, tokens, extras, made.ranks)
    return replace(made, profile=profile, cost=cost, shared=shared, evidence=evidence)


def _settings(point: Point) -> dict[str, Json]:
    version = release(point.engine, point.version, point.assumed)
    scheduler = registry.lookup("engine", point.engine).edition({} if version is None else {"version": version})
    known = set(scheduler.Params.model_fields)
    given: dict[str, Json] = {}
    own = _OWN_NAMES.get(point.engine, {})
    for setting, value in point.settings.items():
        name = own.get(setting, setting)
        if name in _WITHOUT_EFFECT:
            continue
        if name == "speculative":
            given |= draft_settings(point.engine, _mapping(name, value))
            continue
        if name in ("cudagraph_mode", "cudagraph_capture_sizes") and "compilation_config" in known:
            given["compilation_config"] = {**_mapping(name, given.get("compilation_config", {})), name: value}
            continue
        if name not in known:
            raise NotModelledError(f"settings.{name}", value, f"is not modelled for {point.engine}")
        given[name] = value
    if "version" in known and version is not None:
        given["version"] = ".".join(version.split(".")[:3])
    if "block_size" in known and point.block_size:
        given["block_size"] = point.block_size
    given = {**assumed_settings(point), **given}
    if "maxIterTimes" in known and "output_tokens" in point.traffic:  # measured answers were not cut off at the default of 512
        given.setdefault("maxIterTimes", longest(point.traffic["output_tokens"]))
        given.setdefault("maxSeqLen", max(scheduler.Params.model_fields["maxSeqLen"].default, _longest(point) + 1))
    if point.dp == 1:
        given.pop("enable_dp_attention", None)  # switched off by `ServerArgs._handle_data_parallelism` where dp_size is 1
    if "enable_dp_attention" in known and point.dp > 1 and load_model(point.model).is_moe:
        given.setdefault("enable_dp_attention", True)  # whole experts on every rank would not fit
    if "ignore_eos" in known:
        t = point.traffic
        given["ignore_eos"] = not isinstance(lengths := t.get("output_tokens"), Mapping) or "uniform" in lengths
    return given


def _longest(point: Point) -> int:
    t = point.traffic
    if t["kind"] == "trace":
        from sim.study.accuracy.traffic import traffic_of

        return int(traffic_of(point).max_tokens or 8192)
    if t["kind"] == "passes":
        return passes.longest(point.logs)
    return longest(t["prompt_tokens"]) + longest(t["output_tokens"])
