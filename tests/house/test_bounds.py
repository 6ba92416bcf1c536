"""Every model is complete, and what its fields say of their bounds holds: none is lost to the bounds of its type."""

import subprocess
import sys

SCRIPT = """
import importlib, pkgutil, typing
import pydantic
import sim

found = [m.name for m in pkgutil.walk_packages(sim.__path__, "sim.") if not m.name.endswith("__main__")]
for name in found:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:  # an extra that is not installed
        pass

def beyond(bound, key):
    step = 1 if isinstance(bound, int) else max(1e-9, abs(bound) * 1e-3)
    return {"ge": bound - step, "le": bound + step, "gt": bound, "lt": bound}[key]

def models(base):
    for model in base.__subclasses__():
        yield model
        yield from models(model)

checked = 0
for model in dict.fromkeys(models(pydantic.BaseModel)):
    if not (model.__pydantic_complete__ or model.__pydantic_generic_metadata__["parameters"]):
        print(f"{model.__module__}.{model.__name__} names a type that is not there when it runs")
        continue
    for name, field in model.model_fields.items():
        bounds = [(key, getattr(m, key)) for m in field.metadata for key in ("ge", "gt", "le", "lt") if hasattr(m, key)]
        if not bounds:
            continue
        adapter = pydantic.TypeAdapter(typing.Annotated[(field.annotation, *field.metadata)])
        for key, bound in bounds:
            if bound is None:
                continue
            checked += 1
            try:
                adapter.validate_python(beyond(bound, key))
            except pydantic.ValidationError:
                continue
            print(f"{model.__module__}.{model.__name__}.{name} takes {beyond(bound, key)}: {key}={bound}")
assert checked > 1000, checked
"""


def test_models_are_complete_and_every_bound_holds():
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout == ""
