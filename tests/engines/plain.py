"""A file of tests once more, without the compiler."""

from __future__ import annotations

import os
import subprocess
import sys


def passes(file: str) -> None:
    """Run its tests in plain Python, in a process of their own: the compiler is on or off for a whole process."""
    env = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", file], env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
