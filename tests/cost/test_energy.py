"""Power between idle and the limit."""

from __future__ import annotations

import numpy as np
import pytest

from sim.cost.energy import ACTIVITY, energy, power
from sim.hardware import load_accelerator
from sim.ledger import N_PARTS, PART_ATTENTION_DECODE, PART_LINEAR_COMPUTE, PARTS


def test_every_part_has_an_activity():
    assert set(ACTIVITY) == set(PARTS)


def test_idle_run_draws_idle_power_and_a_compute_bound_one_the_limit():
    a = load_accelerator("h100-sxm")
    parts = np.zeros(N_PARTS)

    assert energy(a, parts, 10.0, 4).joules == pytest.approx(40 * a.idle_watts)
    parts[PART_LINEAR_COMPUTE] = 10.0
    assert energy(a, parts, 10.0).mean_watts == pytest.approx(a.tdp_watts)
    assert energy(a, np.zeros(N_PARTS), 0.0).joules == 0.0


def test_decoding_draws_less_than_computing_prompts():
    a = load_accelerator("a100-sxm-80g")
    prompt, decode = np.zeros(N_PARTS), np.zeros(N_PARTS)
    prompt[PART_LINEAR_COMPUTE] = decode[PART_ATTENTION_DECODE] = 1.0

    assert energy(a, decode, 1.0).joules < energy(a, prompt, 1.0).joules
    assert power(a, -1.0) == a.idle_watts
    assert power(a, 2.0) == a.tdp_watts
