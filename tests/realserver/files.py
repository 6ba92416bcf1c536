"""The recorded files beside this module."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import sim
from sim.study.accuracy.step_log import read_step_log

HERE = Path(__file__).parent
RUNS = ("c1", "c4", "c16", "r1", "r2", "r3.5")


def bench(name):
    """What the client saved."""
    return json.loads(gzip.decompress((HERE / f"recorded/{name}.json.gz").read_bytes()))


def iterations(name):
    """What the server logged."""
    (log,) = read_step_log(HERE / f"recorded/{name}.iterations.csv.gz")
    return log


def server(*overrides):
    """The deployment, with the paths of its files made absolute."""
    own = [f"{key}={HERE / name}" for key, name in PATHS.items()]
    return sim.load(HERE / "server.yaml", overrides=(*own, *overrides))


PATHS = {"model.config": "model.json", "deployment.accelerator": "cpu.yaml"}
