"""How fast matrix units run in long steps where nobody measured it: the power limit lowers the clock."""

from __future__ import annotations

from sim.hardware.accelerator_file import AcceleratorFile
from sim.profile_files import Graded

# Watts for a dense TFLOP/s in 16 bits at the clock of short bursts, by the major compute capability (the process the dies are made in). Power goes
# with about the square of the clock, so the rate with the root of the limit. Fitted to what long prompts reach on H100 SXM and H200 (0.71 W for a
# TFLOP/s of the datasheet: 0.87 of the burst), H100 PCIe (0.46 W: 0.70), B300 (0.49 W: 0.74) and A100 (1.28 W: 0.87); Volta and Turing are estimated.
_WATTS = {"7": 3.3, "8.0": 1.7, "8.6": 1.7, "8": 0.93, "9": 0.93, "10": 0.93, "11": 0.93, "12": 0.93}


def sustained_by_power(f: AcceleratorFile) -> Graded[float]:
    """`Accelerator.sustained_compute` from the power limit and the peak; 1 where the generation is not known."""
    capability = f.compute_capability
    needed = _WATTS.get(capability, _WATTS.get(capability.partition(".")[0], 0.0))
    peak = next((f.peak_tflops[d].value for d in ("bf16", "fp16") if d in f.peak_tflops), 0.0)
    if not (needed and peak):
        return Graded[float](value=1.0, source="not known", evidence="estimated")
    share = min(1.0, (f.tdp_watts.value / peak / needed) ** 0.5)
    return Graded[float](value=share, source="power limit over peak, sim/hardware/power.py", evidence="estimated")
