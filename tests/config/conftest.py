"""A small scenario, and a way to change it."""

import pytest

import sim.config as config

TEXT = """
model: llama-3.1-8b
traffic:
  synthetic:
    arrival: {process: poisson, rate: 8/s}
    lengths: {kind: fixed, prompt_tokens: 100, output_tokens: 20}
    requests: 50
deployment: {accelerator: h100-sxm, engine: static}
"""
POOLS = (
    TEXT.split("deployment")[0]
    + """
pools:
  - {name: a, accelerator: h100-sxm, engine: static}
  - {name: b, accelerator: a100-sxm-80g, engine: {name: static, max_batch_size: 4}, replicas: 2}
"""
)


@pytest.fixture
def scenario():
    """The small scenario with settings changed."""
    return lambda *overrides, text=TEXT: config.loads(text, overrides)
