"""Whether engines and traffic know of each other: settings that change nothing for these requests, requests that an engine cannot serve."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sim.engine.effect import idle_settings, traits_of
from sim.errors import ConfigError, did_you_mean
from sim.fleet.build import Plan
from sim.workload.base import Traffic
from sim.workload.labels import carried


def check_traffic(plans: Sequence[Plan], traffic: Traffic, chat: bool = False, more: Collection[str] = ()) -> list[str]:
    """Notes on settings that the user wrote and that have no effect here. Raises `ConfigError` where adapters are named and not served.

    ``chat``: clients call the chat endpoint; ``more``: what else there is (``faults``).
    """
    _models(plans, traffic)
    carries = carried(traffic) | set(more)
    notes = []
    for p in plans:
        if "adapters" in carries and p.scheduler.adapters(p.params) is None:
            names = "enable_lora" in type(p.params).model_fields
            raise ConfigError(
                "traffic.adapters",
                "set",
                f"{p.scheduler.name} serves no adapters under these settings"
                if names
                else f"adapters are not modelled for {p.scheduler.name}",
                hint=f"set {p.field}.engine.enable_lora"
                if names
                else "an engine that serves adapters: vllm, vllm-ascend, sglang",
            )
        kept = p.scheduler.beyond_context(p.params, p.site)
        if kept is not None and traffic.max_tokens is not None and traffic.max_tokens > kept[0]:
            notes.append(f"requests of up to {traffic.max_tokens:,} tokens meet a context of {kept[0]:,}: {kept[1]}")
        if chat and not (p.profile.client_chat or p.profile.client_chat_serial):
            version = f" {p.params.version}" if hasattr(p.params, "version") else ""
            notes.append(
                f"traffic.endpoint: chat requests take {p.scheduler.name}{version} no longer than completions, so it has no effect here"
            )
        notes += _longer_than_the_model(p)
        if p.given is not None:
            traits = traits_of(p.model.kinds, p.model.format.name, p.accelerator.generation)
            notes += idle_settings(p.given, carries | traits, f"{p.field}.engine.")
    return list(dict.fromkeys(notes))


def _models(plans: Sequence[Plan], traffic: Traffic) -> None:
    """Whether the models that classes name are there. Raises `ConfigError`."""
    models = list(dict.fromkeys(p.model.name for p in plans if p.apart))
    pools = [p.name for p in plans if p.several or p.apart]
    names = models or pools
    for c in traffic.classes:
        if c.model is not None and c.model not in (*models, *pools):
            why = (
                "is served by no pool"
                if models
                else "is no pool with a model of its own"
                if names
                else "all pools serve one model"
            )
            raise ConfigError(f"traffic.classes.{c.name}.model", c.model, why, ", ".join(names), did_you_mean(c.model, names))


def _longer_than_the_model(p: Plan) -> list[str]:
    most = p.model.max_position
    asked = {
        name: value for name in p.scheduler.cut_context if isinstance(value := getattr(p.given, name, None), int) and value > most
    }
    return [
        f"{p.field}.engine.{name} is {value:,}, but {p.model.name} has a context of {most:,}: it is cut to that"
        for name, value in asked.items()
    ]
