"""The laws that are shipped for schedulers of one's own, kept by those of the package."""

from sim.testing import SchedulerLaws


class TestSglang(SchedulerLaws):
    engine = "sglang"
    cases = 10
    keeps_kv = True

    def settings(self, rng):
        return {
            "max_running_requests": int(rng.integers(1, 24)),
            "chunked_prefill_size": int(rng.choice([-1, 128, 2048])),
            "disable_overlap_schedule": bool(rng.integers(2)),
            "disable_radix_cache": bool(rng.integers(2)),
            "context_length": 4096,
        }

    def kv_blocks(self, rng):
        return int(rng.integers(4200, 9000))


class TestTgi(SchedulerLaws):
    engine = "tgi"
    cases = 10
    keeps_kv = True

    def settings(self, rng):
        return {"max_concurrent_requests": int(rng.integers(40, 200))}

    def kv_blocks(self, rng):
        return int(rng.integers(5000, 9000))
