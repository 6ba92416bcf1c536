"""Every module can be imported: names that one room takes from another exist, also where the type checker does not look."""

import pkgutil
import subprocess
import sys

import sim

SCRIPT = """
import importlib, sys
bad = []
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ModuleNotFoundError as error:  # an extra that is not installed
        if (error.name or "").partition(".")[0] == "sim":
            bad.append(f"{name}: {error}")
    except Exception as error:
        bad.append(f"{name}: {type(error).__name__}: {error}")
print("\\n".join(bad))
"""


def test_every_module_can_be_imported():
    names = [m.name for m in pkgutil.walk_packages(sim.__path__, "sim.") if not m.name.endswith("__main__")]
    assert len(names) > 300
    done = subprocess.run([sys.executable, "-c", SCRIPT, *names], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == ""
