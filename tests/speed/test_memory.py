"""What a large run needs of memory, in a process of its own: `pytest -m speed -s tests/speed/test_memory.py`."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

pytestmark = pytest.mark.speed
ROOT = Path(__file__).resolve().parents[2]

RUN = """
import resource, sys, time
import sim
text, out = sys.argv[1:]
began = time.process_time()
result = sim.run(sim.loads(text))
result.save(out)
count = result.summary["requests"]
assert count["injected"] == count["finished"] + count["rejected"] + count["failed"], count
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
print(count["injected"], round(peak, 3), round(time.process_time() - began))
"""
ENGINE = "{name: vllm, max_model_len: 16384}"
LARGE = f"""
model: llama-3.1-8b
traffic: {{synthetic: {{arrival: {{process: poisson, rate: 18/s}}, lengths: {{kind: azure-2023-conv}}, requests: 10000000}}}}
deployment: {{accelerator: h100-sxm, engine: {ENGINE}}}
"""
WIDE = f"""
model: llama-3.1-8b
traffic: {{synthetic: {{arrival: {{process: poisson, rate: 9000/s}}, lengths: {{kind: azure-2023-conv}}, requests: 1000000}}}}
deployment: {{accelerator: h100-sxm, replicas: 1000, engine: {ENGINE}}}
router: least_outstanding
faults: [{{name: crash, mtbf: 2h, for: 20s}}, {{name: slow, mtbf: 4h, for: 30s}}]
"""


@pytest.mark.parametrize(("text", "most"), [(LARGE, 1.5), (WIDE, 4.0)], ids=["10,000,000 requests", "1,000 replicas that fail"])
def test_a_large_run_stays_below_its_bound(text: str, most: float, tmp_path: Path) -> None:
    """GiB of the whole process, from the scenario to the saved result."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(RUN), text, str(tmp_path / "out")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    requests, peak, seconds = done.stdout.split()
    print(f"\n{int(requests):,} requests: {peak} GiB, {seconds} CPU s")
    assert float(peak) < most
