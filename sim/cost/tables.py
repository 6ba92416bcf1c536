"""The tables of a step cost."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sim.cost import step
from sim.cost.residual import Floats


@dataclass(frozen=True)
class Tables:
    """Arrays of a `step.StepCost` of kind 1, for the compiled cost and for its plain twin."""

    layers: Floats
    layers_prompt: Floats
    head: Floats
    decode: Floats
    prefill: Floats
    decode_window: Floats
    prefill_window: Floats
    constants: Floats
    stage_share: Floats

    def packed(self) -> tuple[Floats, int, int, int, int, int, Floats]:
        """Arguments of `step.new_table_cost`."""
        surfaces = (self.decode, self.prefill, self.decode_window, self.prefill_window)
        head = [self.constants, *surfaces, self.layers]
        prompt = step.LAYERS if self.layers_prompt is self.layers else step.LAYERS + self.layers.size
        if self.layers_prompt is not self.layers:
            head.append(self.layers_prompt)
        at = sum(a.size for a in head)
        data = np.concatenate([a.ravel() for a in (*head, self.head)])
        return data, step.LAYERS, prompt, self.layers.shape[0] - 1, at, self.head.shape[0] - 1, self.stage_share
