"""SGLang as prefill and decode side: memory on the decode side first, chunks on the way, retraction to the host."""

import numpy as np
import pytest

import sim
from sim.engine.contract import Site
from sim.engine.schedulers.sglang import Sglang
from sim.engine.schedulers.sglang.params import SglangParams
from sim.errors import ConfigError, NotModelledError
from tests.fleet.test_disaggregation import run

BASE = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: {process: poisson, rate: 30/s}, lengths: {kind: azure-2023-conv}, requests: 200}}
pools:
  - {name: p, role: prefill, accelerator: h100-sxm, engine: {name: sglang, chunked_prefill_size: 512}}
  - {name: d, role: decode, accelerator: h100-sxm, engine: {name: sglang, num_reserved_decode_tokens: 0}}
transfer: {link: rdma-400g}
"""


@pytest.mark.parametrize("blocks", [200_000, 16_000])
def test_nothing_is_lost_and_strokes_change_nothing(blocks):
    s = sim.loads(BASE, [f"pools[1].kv_blocks={blocks}"])
    fast, record = run(s)
    slow, _ = run(s, multi_step=False)

    for name, values in slow.requests.items():
        assert values.tobytes() == fast.requests[name].tobytes(), name
    r = record.requests
    assert np.all(r["status"] == 0)
    assert np.all(r["first_token_s"] <= r["finish_s"])
    assert (r["preemptions"].sum() > 0) == (blocks < 100_000)  # the small pool retracts to the host and copies back


def test_what_is_not_modelled_on_a_side_is_refused():
    for settings in ({"speculative_algorithm": "EAGLE"}, {"enable_lora": True}):
        params = Sglang.as_side(SglangParams(**settings), "decode")
        with pytest.raises(NotModelledError, match=next(iter(settings))):
            Sglang.resolve(params, Site())
    with pytest.raises(ConfigError, match="contradicts role"):
        Sglang.as_side(SglangParams(disaggregation_mode="prefill"), "decode")
