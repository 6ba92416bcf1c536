"""The package's own policies keep the laws that are shipped for plug-ins; plug-ins that break them are caught."""

import subprocess
import sys
from pathlib import Path
from typing import ClassVar

import pytest

from sim import registry
from sim.errors import PluginError
from sim.testing import AdmissionLaws, ClientLaws, FaultLaws, RouterLaws, ScalerLaws, SchedulerLaws, TraceLaws

PLAIN = Path(__file__).with_name("plain_schedulers.py")


def test_the_laws_need_pytest_only_when_they_run():
    code = "import sys; sys.modules['pytest'] = None; import sim.testing"
    subprocess.run([sys.executable, "-c", code], check=True)


class TestRoundRobin(RouterLaws):
    router = "round_robin"


class TestRandom(RouterLaws):
    router = "random"


class TestLeastOutstanding(RouterLaws):
    router = "least_outstanding"


class TestPowerOfTwo(RouterLaws):
    router = "power_of_two"


class TestLlumnixV0(RouterLaws):
    router = "llumnix_v0"
    runs = False


class TestLlumnix(RouterLaws):
    router = "llumnix"
    runs = False


class TestQueueLimit(AdmissionLaws):
    policy = "queue_limit"
    settings: ClassVar = {"max_concurrent_requests": 3, "queue_size": 20, "queue_timeout_secs": 5}


class TestTokenBucket(AdmissionLaws):
    policy = "token_bucket"
    settings: ClassVar = {"rate": "3/s", "burst": 2, "queue_size": 20, "queue_timeout": "5s"}


class TestTenantQuota(AdmissionLaws):
    policy = "tenant_quota"
    settings: ClassVar = {"rpm_limit": 20, "max_parallel_requests": 2}


class TestFlowControl(AdmissionLaws):
    policy = "flow_control"


class TestPriorityShedding(AdmissionLaws):
    policy = "priority_shedding"


class TestVtc(AdmissionLaws):
    policy = "vtc"
    settings: ClassVar = {"running_max_req_size": 2}


class TestOpenai(ClientLaws):
    client = "openai"


def _each(kind, laws, attribute, **how):
    """Every other built-in one, each a class of its own."""
    covered = {getattr(cls, attribute) for cls in laws.__subclasses__()}
    for name in registry.names(kind):
        if name not in covered and registry.lookup(kind, name).name == name:
            title = f"Test{kind.title()}" + name.title().replace("_", "").replace("-", "").replace(".", "")
            globals()[title] = type(title, (laws,), {attribute: name, "__module__": __name__, **how})


_each("router", RouterLaws, "router", runs=False)
_each("client", ClientLaws, "client", runs=False)
_each("fault", FaultLaws, "fault")


class TestEas(ScalerLaws):
    scaler = "eas"


class TestHpa(ScalerLaws):
    scaler = "hpa"


class TestCsv(TraceLaws):
    trace = "csv"
    example = "arrival_s,input_tokens,output_tokens\n10,100,5\n10.5,2000,50\n12,7,1\n"


class TestAzure(TraceLaws):
    trace = "azure-2023"
    example = (
        "TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:17:03.9799600,4808,10\n"
        "2023-11-16 18:17:04.0319600,3180,8\n2023-11-16 18:17:04.0319601,110,27\n"
    )


class TestMooncake(TraceLaws):
    trace = "mooncake"
    example = (
        '{"timestamp": 0, "input_length": 1025, "output_length": 5, "hash_ids": [0, 1, 2]}\n'
        '{"timestamp": 3000, "input_length": 1100, "output_length": 7, "hash_ids": [0, 1, 3]}\n'
        '{"timestamp": 3000, "input_length": 512, "output_length": 1, "hash_ids": [9]}\n'
    )


class TestStatic(SchedulerLaws):
    engine = "static"

    def settings(self, rng):
        return {"max_batch_size": int(rng.integers(1, 12)), "response": str(rng.choice(["with_batch", "when_done"]))}


class TestVllm(SchedulerLaws):
    engine = "vllm"

    def settings(self, rng):
        return {
            "max_num_seqs": int(rng.integers(1, 24)),
            "max_num_batched_tokens": int(rng.choice([64, 256, 2048])),
            "enable_prefix_caching": bool(rng.integers(2)),
            "async_scheduling": bool(rng.integers(2)),
            "max_model_len": 4096,
        }


class TestPlainStatic(SchedulerLaws):
    engine = f"{PLAIN}:PlainStatic"
    cases = 10

    def settings(self, rng):
        return {"max_batch_size": int(rng.integers(1, 12))}


class TestPlainVllm(SchedulerLaws):
    engine = f"{PLAIN}:PlainVllm"
    cases = 10

    def settings(self, rng):
        return {"max_num_seqs": int(rng.integers(1, 24)), "max_num_batched_tokens": int(rng.choice([64, 256, 2048]))}

    def kv_blocks(self, rng):
        return int(rng.integers(120, 200))


def _all(laws, *fixtures):
    for name in dir(laws):
        if name.startswith("test_"):
            method = getattr(laws(), name)
            method(*fixtures[: method.__code__.co_argcount - 1])


ROUTERS = {
    "out of range": "return self.replicas",
    "writes": "snapshot.outstanding[0] += 1; return 0",
    "own randomness": "import random; return random.randrange(self.replicas)",
}


@pytest.mark.parametrize("fault", ROUTERS)
def test_bad_routers_are_caught(tmp_path, fault):
    path = tmp_path / "bad.py"
    path.write_text(
        "from sim.policy.router import Router\nclass Bad(Router):\n    name = 'bad'\n"
        f"    def choose(self, snapshot, block, row):\n        {ROUTERS[fault]}\n"
    )

    class Laws(RouterLaws):
        router = f"{path}:Bad"
        runs = False

    with pytest.raises((AssertionError, PluginError)):
        _all(Laws)


def test_a_scaler_that_swings_is_caught(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "from sim.policy.scaler import Scaler\nclass Bad(Scaler):\n    name = 'bad'\n"
        "    def decide(self, now, current, metrics):\n        return 3 - current if current < 3 else 1\n"
    )

    class Laws(ScalerLaws):
        scaler = f"{path}:Bad"

    with pytest.raises(AssertionError, match="changing its mind"):
        _all(Laws)


def test_a_reader_that_crashes_on_broken_files_is_caught(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "from sim.workload.traces._base import Trace\nfrom sim.workload.table import RequestBlock\n"
        "class Bad(Trace):\n    name = 'bad'\n    def read(self, path):\n"
        "        rows = [line.split() for line in path.read_text().splitlines()]\n"
        "        return RequestBlock.of(*zip(*[[float(x) for x in row] for row in rows]))\n"
    )

    class Laws(TraceLaws):
        trace = f"{path}:Bad"
        example = "0 10 1\n1 10 1\n2 10 1\n"
        compressed = False

    with pytest.raises(AssertionError, match="not in a DataError"):
        _all(Laws, tmp_path)


def test_a_scheduler_that_forgets_a_request_is_caught(tmp_path):
    path = tmp_path / "bad.py"
    path.write_text(
        "from sim.engine.plain import PlainScheduler\nclass Bad(PlainScheduler):\n    name = 'bad'\n    profile = 'vllm'\n"
        "    def plan(self, waiting, running, kv):\n"
        "        return {r: r.left for r in (*running, *waiting) if r.prompt != 50 and (r.computed or kv.fits(r, r.prompt + 40))}\n"
    )

    class Laws(SchedulerLaws):
        engine = f"{path}:Bad"
        cases = 3

    with pytest.raises((AssertionError, PluginError)):
        _all(Laws)
