"""What kind of deployment a pool is, as the record of the model's errors tells them apart (`sim.metrics.model_error`)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.cost.machines import choose
from sim.cost.profile import EngineProfile
from sim.hardware.accelerator import Accelerator
from sim.metrics.model_error import Kind
from sim.model.quant import EXPERT, MLP
from sim.model.spec import ModelSpec

if TYPE_CHECKING:
    from sim.fleet.build import Plan


def kind_of(engine: str, model: ModelSpec, accelerator: Accelerator, profile: EngineProfile) -> Kind:
    """Of a model under an engine on an accelerator."""
    recurrent = any(b.kind == "linear" for b in model.blocks)
    bits = 8.0 * min(model.format.bytes_of(MLP), model.format.bytes_of(EXPERT) if model.is_moe else 4.0)
    return Kind(
        engine,
        accelerator.name,
        profile.line,
        "recurrent" if recurrent else "experts" if model.is_moe else "dense",
        4 if bits < 6.0 else 8 if bits < 12.0 else 16,
        "other" if choose(accelerator, profile.kernels).reason else "own",
    )


def kind_of_plan(plan: Plan) -> Kind:
    """Of a planned pool (`sim.fleet.build.Plan`)."""
    return kind_of(plan.scheduler.name, plan.model, plan.accelerator, plan.profile)
