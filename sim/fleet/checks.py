"""What pools that belong together must agree upon. What cannot be combined at all is the table in `refused`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from sim.errors import ConfigError, NotModelledError

if TYPE_CHECKING:
    from sim.fleet.build import Plan

_SHARED = ("runner", "OLLAMA_MAX_QUEUE", "OLLAMA_MAX_LOADED_MODELS", "OLLAMA_GPU_OVERHEAD")  # settings of the one server


def check_host(plans: Sequence[Plan]) -> None:
    """Whether the pools can be the models of one Ollama. Raises `ConfigError`, `NotModelledError`."""
    first = plans[0]
    for p in plans:
        if p.scheduler.name != "ollama":
            raise NotModelledError(
                f"{p.field}.model",
                p.model.name,
                f"several models in one fleet are not modelled under {p.scheduler.name}",
                "ollama",
            )
        if p.layout.tp > 1:
            raise NotModelledError(f"{p.field}.tp", p.layout.tp, "several models share the one accelerator of each host", "1")
        if p.replicas != first.replicas:
            why = "is the number of hosts, each of which has all models"
            raise ConfigError(f"{p.field}.replicas", p.replicas, why, str(first.replicas))
        if p.accelerator.name != first.accelerator.name:
            raise ConfigError(
                f"{p.field}.accelerator", p.accelerator.name, "all models share one accelerator", first.accelerator.name
            )
        for name in _SHARED:
            if getattr(p.params, name) != getattr(first.params, name):
                here, there = getattr(p.params, name), getattr(first.params, name)
                raise ConfigError(f"{p.field}.engine.{name}", here, "is a setting of the server, one for all models", str(there))


def check_apart(plans: Sequence[Plan]) -> None:
    """Whether the pools can serve several models side by side. Raises `ConfigError`, `NotModelledError`."""
    for p in plans:
        if p.scheduler.name == "ollama":
            raise NotModelledError(
                f"{p.field}.engine.name", "ollama", "has several models on one accelerator, and no other engine beside it", "vllm"
            )


def check_sides(plans: Sequence[Plan]) -> None:
    """Whether the pools of each model can hand requests over. Raises `ConfigError`, `NotModelledError`."""
    for name in dict.fromkeys(p.model.name for p in plans):
        _check_pair([p for p in plans if p.model.name == name])
    first = plans[0]
    for p in plans:
        if p.scheduler.name != first.scheduler.name:
            why = "all pools with roles are of one kind of engine, also those of several models"
            raise NotModelledError(f"{p.field}.engine.name", p.scheduler.name, why, first.scheduler.name)
        if _in_step(p) != _in_step(first):
            why = "data-parallel ranks that step together are modelled on all pools with roles or on none"
            raise NotModelledError(f"{p.field}.dp", p.layout.dp, why, f"as in {first.field}: {first.layout.dp}")


def _in_step(plan: Plan) -> bool:
    return plan.ranks is not None and plan.ranks.together


def _check_pair(plans: Sequence[Plan]) -> None:
    first = plans[0]
    if first.scheduler.hands_over is None:
        raise NotModelledError(
            f"{first.field}.role", first.role, f"prefill and decode sides of {first.scheduler.name} are not modelled", "vllm"
        )
    for p in plans:
        if p.scheduler.name != first.scheduler.name:
            why = "KV is handed over between engines of one kind only"
            raise ConfigError(f"{p.field}.engine.name", p.scheduler.name, why, first.scheduler.name)
        if p.model.kv_bytes_per_token(1, 1) != first.model.kv_bytes_per_token(1, 1):
            raise ConfigError(f"{p.field}.model", p.model.name, "has KV in another format than the other side", first.field)
        if p.budget is not None and first.budget is not None and p.budget.block_size != first.budget.block_size:
            size = first.budget.block_size
            raise ConfigError(f"{p.field}.engine.block_size", p.budget.block_size, "KV is handed over block by block", str(size))
    for role in ("prefill", "decode"):
        if not any(p.role == role for p in plans):
            allowed = ", ".join(dict.fromkeys(p.model.name for p in plans))
            raise ConfigError(
                f"{first.field}.role", first.role, f"{first.model.name} has no {role} pool", f"a {role} pool of {allowed}"
            )
