"""Results say whose request each one was: class, tenant, session, model."""

import json

import numpy as np
import pytest

import sim
from sim.errors import ConfigError
from sim.study.single import Prepared

CLASSES = {
    "chat": {"synthetic": {"arrival": {"process": "poisson", "rate": 3}, "lengths": "azure-2023-conv"}, "tenant": "a"},
    "talk": {
        "synthetic": {
            "arrival": {"process": "poisson", "rate": 3},
            "lengths": {"kind": "fixed", "prompt_tokens": 50, "output_tokens": 10},
            "sessions": {"turns": 3, "think_time": 2},
        },
        "tenant": "b",
    },
}


def raw(scenario):
    from sim.fleet.run import execute
    from sim.metrics.histogram import ITL_BINS, ITL_LO, ITL_SCALE

    p = Prepared(scenario)
    return execute(p.plans, p.traffic, scenario.router, 0, bins=0, histogram=(ITL_BINS, ITL_LO, ITL_SCALE)).requests


@pytest.mark.parametrize("router", ["round_robin", "least_outstanding"])
def test_the_columns_are_those_of_the_traffic(router):
    scenario = sim.load("fleet", [f"traffic={json.dumps({'classes': CLASSES, 'requests': 400})}", f"router={router}"])
    rows = raw(scenario)
    sent = list(Prepared(scenario).traffic.blocks())
    for name in ("klass", "tenant", "session", "prompt_tokens"):
        assert (rows[name] == np.concatenate([getattr(b, name) for b in sent])).all()
    assert set(rows["tenant"].tolist()) == {1, 2}
    assert "tenant" not in raw(sim.load("quickstart", ["traffic.synthetic.requests=20"]))


def test_a_class_asks_for_its_model():
    synthetic = {
        "arrival": {"process": "poisson", "rate": 0.2},
        "lengths": {"kind": "fixed", "prompt_tokens": 50, "output_tokens": 10},
    }
    base = sim.load("ollama-three-models")
    names = [p.name for p in base.pools]
    classes = {f"c{k}": {"synthetic": synthetic, "model": n} for k, n in enumerate(names[:2])} | {"any": {"synthetic": synthetic}}
    scenario = sim.load("ollama-three-models", [f"traffic={json.dumps({'classes': classes, 'requests': 90})}"])
    rows = raw(scenario)
    assert set(rows["replica"][rows["klass"] == 0].tolist()) == {0}
    assert set(rows["replica"][rows["klass"] == 1].tolist()) == {1}
    assert len(set(rows["replica"][rows["klass"] == 2].tolist())) == 3

    classes["c0"]["model"] = "nothing"
    with pytest.raises(ConfigError, match=r"traffic\.classes\.c0\.model"):
        Prepared(sim.load("ollama-three-models", [f"traffic={json.dumps({'classes': classes})}"]))
