"""Imports go downwards, and the first ones cost nothing."""

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from sim import registry

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("numba", "llvmlite", "pandas", "plotly", "scipy", "pyarrow", "simpy")


def python(code):
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, env=env, check=False)


def test_rooms_import_downwards_only():
    if find_spec("importlinter") is None:
        pytest.skip("import-linter is not installed")
    done = python("from importlinter.cli import lint_imports; raise SystemExit(lint_imports(no_cache=True))")

    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("module", ["sim", "sim.config", "sim.cli", "sim.metrics"])
def test_a_light_import(module):
    done = python(f"import sys, {module}; print(*(m for m in {HEAVY!r} if m in sys.modules))")

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_loading_a_scenario_is_light():
    done = python(f"import sys, sim; sim.load('quickstart'); print(*(m for m in {HEAVY!r} if m in sys.modules))")

    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stderr


def test_the_public_names_are_there():
    done = python(
        "import sim\nfor n in sim.__all__: assert getattr(sim, n) is not None, n\nassert set(sim.__all__) <= set(dir(sim))"
    )

    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("kind", registry.ROOMS)
def test_every_registered_class_says_what_it_is(kind):
    for name in registry.names(kind):
        cls = registry.lookup(kind, name)
        assert cls.__doc__, name
        if not hasattr(cls, "Params"):
            continue
        assert cls.Params.model_config["frozen"], name
        assert cls.Params.model_config["extra"] == "forbid", name
        assert all(f.description for f in cls.Params.model_fields.values()), name
