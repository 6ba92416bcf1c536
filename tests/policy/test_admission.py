"""Policies at the door of a fleet: closed forms, bounds, order, and what they do to tenants in a run."""

from __future__ import annotations

from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import sim
from sim import registry
from sim.config import settings as made_of
from sim.errors import ConfigError, NotModelledError, UnknownNameError
from sim.metrics.sections.fairness import jain, section
from sim.policy.admission.token_bucket import Bucket
from sim.policy.admitting import Admission, Ticket
from sim.study.single import Prepared
from sim.workload.recorded import RecordedTraffic
from sim.workload.table import RequestBlock

BASE = """
model: llama-3.1-8b
traffic: {synthetic: {arrival: burst, lengths: {kind: fixed, prompt_tokens: 10, output_tokens: 2}, requests: 1}}
deployment: {accelerator: h100-sxm, replicas: 2, engine: {name: vllm, max_model_len: 4096, max_num_seqs: 64}}
router: least_outstanding
"""


class Replicas:
    """What a policy sees, as the test says."""

    def __init__(self, n: int = 2) -> None:
        self.now = 0.0
        self.outstanding = np.zeros(n, np.int64)
        self.waiting = np.zeros(n)

    def gauges(self) -> Any:
        n = len(self.waiting)
        return np.stack([np.zeros(n), self.waiting, np.zeros(n), np.full(n, 100.0), np.full(n, inf)])


def policy(name: str, **given: Any) -> Any:
    cls = registry.lookup("admission", name)
    return cls(made_of(cls.Params, given, "admission"), 2, np.random.default_rng(0))


def ticket(number: int, came: float = 0.0, tenant: int = 0, priority: int = 0, prompt: int = 100, most: int = 10) -> Ticket:
    return Ticket(number, tenant, priority, prompt, most, came)


def drive(made: Admission, tickets: list[Ticket], seen: Replicas | None = None, until: float = 1e9) -> dict[int, float]:
    """When each of the tickets goes on, by number; nobody ends."""
    seen = seen or Replicas()
    out: dict[int, float] = {}
    coming = list(tickets)
    while True:
        time = min(coming[0].came if coming else inf, max(made.wake(seen.now), seen.now))
        if time > until or time == inf:
            return out
        seen.now = time
        if coming and coming[0].came == time:
            made.offer(coming.pop(0), seen)
        made.expired(time)
        while gone := made.release(seen):
            out |= dict.fromkeys(gone, time)


@settings(max_examples=60)
@given(
    st.lists(st.floats(0.0, 3.0), min_size=1, max_size=25),
    st.floats(0.2, 5.0),
    st.integers(1, 5),
)
def test_a_token_bucket_with_a_queue_in_closed_form(gaps: list[float], rate: float, burst: int) -> None:
    """In any window from a release on no more go than burst + rate · time, and nobody waits longer than for that."""
    came = np.cumsum(gaps).tolist()
    found = drive(
        policy("token_bucket", rate=rate, burst=burst, queue_size=10**6, queue_timeout=1e8),
        [ticket(i, t) for i, t in enumerate(came)],
    )
    expected: list[float] = []
    for i, t in enumerate(came):
        bounds = [expected[j] + (i - j + 1 - burst) / rate for j in range(i)]
        expected.append(max([t, *expected[-1:], (i + 1 - burst) / rate, *bounds]))
    assert [found[i] for i in range(len(came))] == pytest.approx(expected, abs=1e-6)


def test_a_bucket_of_one_lets_poisson_arrivals_through_as_a_counter_with_dead_time_does() -> None:
    """Of arrivals at rate λ one is admitted every 1/r + 1/λ."""
    rng, rate = np.random.default_rng(7), 2.0
    came = np.cumsum(rng.exponential(1 / 3.0, 40_000))
    bucket = Bucket(rate, 1.0)
    admitted = sum(bucket.take(t, 1.0) for t in came.tolist())
    assert admitted / came[-1] == pytest.approx(1 / (1 / rate + 1 / 3.0), rel=0.01)


def test_a_bucket_that_is_filled_in_portions() -> None:
    bucket = Bucket(10.0, 20.0, 0.5)
    assert bucket.take(0.1, 20.0)
    assert not bucket.take(0.49, 1.0)
    assert bucket.enough_at(0.49, 5.0) == 0.5
    assert bucket.enough_at(0.49, 6.0) == 1.0
    assert bucket.take(0.5, 5.0)
    assert bucket.enough_at(0.6, 21.0) == inf


def test_what_takes_more_than_a_full_bucket_is_refused_and_so_is_who_finds_the_queue_full() -> None:
    made, seen = policy("token_bucket", rate=10.0, burst=100, cost="total_tokens", queue_size=1, queue_timeout=3.0), Replicas()
    assert not made.offer(ticket(0, prompt=91, most=10), seen)
    assert [made.offer(ticket(i, prompt=50, most=10), seen) for i in (1, 2, 3)] == [True, False, False]
    assert made.release(seen) == [1]
    assert made.offer(ticket(4, prompt=50, most=10), seen)
    assert made.release(seen) == []
    assert made.wake(0.0) == pytest.approx(2.0)
    assert made.expired(3.0) == [4]
    assert made.wake(3.0) == inf


def test_each_tenant_has_a_bucket_of_its_own() -> None:
    found = drive(policy("token_bucket", rate=1.0, per="tenant", queue_size=9), [ticket(i, tenant=i % 2) for i in range(4)])
    assert found == {0: 0.0, 1: 0.0, 2: pytest.approx(1.0), 3: pytest.approx(1.0)}


def test_quotas_of_a_window_and_at_once() -> None:
    made, seen = policy("tenant_quota", rpm_limit=3, max_parallel_requests=2, tenants={1: 0.5}), Replicas()
    assert [made.offer(ticket(i), seen) for i in range(3)] == [True, True, False]  # two at once
    made.ended(ticket(0), 1.0, 5)
    assert [made.offer(ticket(i), seen) for i in (3, 4)] == [True, False]  # at once again, and three in this minute
    assert [made.offer(ticket(i, tenant=1), seen) for i in (5, 6)] == [True, False]
    made.ended(ticket(1), 2.0, 5)
    assert not made.offer(ticket(7), seen)
    seen.now = 60.0
    assert made.offer(ticket(8), seen)
    assert made.release(seen) == [0, 1, 3, 5, 8]


def test_tokens_per_minute_count_when_an_answer_ends_or_when_it_is_promised() -> None:
    seen = Replicas()
    late, early = (policy("tenant_quota", tpm_limit=200, count=c) for c in ("at_end", "at_admission"))
    assert [late.offer(ticket(i), seen) for i in range(3)] == [True] * 3
    assert [early.offer(ticket(i), seen) for i in range(3)] == [True, False, False]
    for i in range(2):
        late.ended(ticket(i), 5.0, 10)
    assert not late.offer(ticket(9), seen)
    with pytest.raises(ConfigError, match="needs at least one of rpm_limit"):
        policy("tenant_quota")


def test_shedding_spares_what_is_important() -> None:
    made, seen = policy("priority_shedding"), Replicas()
    assert made.offer(ticket(0, priority=-1), seen)
    seen.waiting[:] = 5
    assert made.offer(ticket(1, priority=-1), seen)  # the last scrape says that nobody waits
    seen.now = 0.05
    assert not made.offer(ticket(2, priority=-1), seen)
    assert made.offer(ticket(3, priority=0), seen)


def test_flow_control_sends_one_in_a_cycle_the_high_band_first() -> None:
    seen = Replicas()
    made = policy("flow_control", detector="concurrency-detector", max_concurrency=2)
    tickets = [ticket(i, 0.0001 * i, tenant=i % 2, priority=int(i == 7)) for i in range(8)]
    found = drive(made, tickets, seen, 1.0)
    assert [n for n, _ in sorted(found.items(), key=lambda x: x[1])] == [0, 1, 2, 3]
    seen.now = 1.0
    for number in (0, 1):
        made.ended(tickets[number], 1.0, 10)
    assert made.release(seen) == [7]
    assert made.release(seen) == []
    seen.now = made.wake(1.0)
    assert seen.now == pytest.approx(1.001)
    assert made.release(seen) == [4]


def test_flow_control_in_turn_and_its_patience() -> None:
    seen = Replicas(1)
    made = policy("flow_control", fairness="round-robin-fairness-policy", default_request_ttl=2.0)
    seen.waiting[:] = 100
    for i in range(8):
        assert made.offer(ticket(i, tenant=0 if i < 6 else 1), seen)
        assert made.release(seen) == []
    seen.waiting[:] = 0
    assert made.wake(0.0) == pytest.approx(0.05)
    found = drive(made, [], seen)
    assert [n for n, _ in sorted(found.items(), key=lambda x: x[1])] == [0, 6, 1, 7, 2, 3, 4, 5]
    seen.waiting[:] = 100
    seen.now = 10.3
    made.offer(ticket(20, 10.3), seen)
    assert made.release(seen) == []
    assert made.wake(10.3) == pytest.approx(10.35)
    assert made.expired(12.9) == []
    assert made.expired(13.0) == [20]


def two_tenants(n: int = 300, flood: int = 5, seed: int = 3) -> RequestBlock:
    """Tenant 0 sends ``flood`` times as much as tenant 1, all within a short time."""
    rng = np.random.default_rng(seed)
    klass = (rng.random(n) < 1 / (1 + flood)).astype(np.int32)
    return RequestBlock.of(
        np.sort(rng.uniform(0, 3, n)), rng.integers(200, 600, n), rng.integers(50, 150, n), klass=klass, priority=-klass
    )


def run(admission: str, block: RequestBlock, *more: str) -> Any:
    made = Prepared(sim.loads(BASE, [f"admission={admission}", *more]))
    made.traffic = RecordedTraffic(block)
    return made.run()


def served(result: Any, tenant: int) -> float:
    rows = result.requests[result.requests["klass"] == tenant]
    return float(np.nanmedian(rows["ttft_s"]))


def test_counters_let_a_small_tenant_through_a_flood() -> None:
    block = two_tenants()
    open_door, fifo = (
        run("[]", block),
        run("{name: queue_limit, max_concurrent_requests: 16, rate_limit_tokens_per_second: 0, queue_size: 1000}", block),
    )
    fair = run("{name: vtc, running_max_req_size: 8}", block)
    for result in (open_door, fifo, fair):
        assert result.summary["requests"]["finished"] == 300
        assert result.summary["fairness"]["tenants"] == 2
    assert served(fair, 1) < 0.2 * served(fifo, 1)
    assert served(fair, 0) > served(fifo, 0)
    assert fair.summary["fairness"]["worst_tenant"]["tenant"] == 0
    again = run("{name: vtc, running_max_req_size: 8}", block)
    for name in fair.requests:
        assert fair.requests[name].to_numpy().tobytes() == again.requests[name].to_numpy().tobytes()


def test_a_fleet_without_replicas_is_asked_for_one() -> None:
    """An autoscaler that has let all go sees nobody whom the door keeps."""
    startup = "startup: {provision: 300ms, image: 0s, load_bandwidth: 10TB, warmup: 100ms}"
    scaling = f"scaling={{name: keda, min: 0, max: 3, threshold: 1, polling_interval: 1s, scrape_interval: 1s, {startup}}}"
    s = run("{name: vtc, running_max_req_size: 3}", two_tenants(30), scaling).summary
    assert s["requests"]["finished"] == 30
    assert s["scaling"]["started"] > 0 and s["simulated_s"] < 60


@pytest.mark.parametrize("charge", ["streamed", "finished"])
def test_service_of_two_backlogged_tenants_stays_within_the_bound(charge: str) -> None:
    """|W_f − W_g| ≤ 2 max(w_p L_input, w_q M) while both have requests waiting (arXiv 2401.00588, theorem 4.4), M: tokens in the batch."""
    n = 400
    rng = np.random.default_rng(1)
    tenant = (np.arange(n) % 2).astype(np.int32)
    prompt, output = np.where(tenant, 900, 100), np.where(tenant, 20, 160)
    block = RequestBlock.of(np.sort(rng.uniform(0, 0.01, n)), prompt, output, klass=tenant)
    result = run(f"{{name: vtc, running_max_req_size: 8, charge: {charge}}}", block)
    r = result.requests.sort_values("first_token_s")
    end = min(r["first_token_s"][r["klass"] == k].max() for k in (0, 1))  # until then both have requests waiting
    batch = 16 * 160 if charge == "streamed" else 16 * 160 * 2
    bound = 2 * max(900, 2 * batch)
    for t in np.linspace(0.1, end, 40):
        service = []
        for k in (0, 1):
            mine = r[(r["klass"] == k) & (r["first_token_s"] <= t)]
            share = np.clip((t - mine["first_token_s"]) / (mine["finish_s"] - mine["first_token_s"]), 0, 1)
            service.append(float((mine["prompt_tokens"] + 2 * share * mine["output_tokens"]).sum()))
        assert abs(service[0] - service[1]) <= bound


def test_no_more_in_flight_than_the_limit_says_first_come_first_served() -> None:
    block = two_tenants()
    result = run(
        "{name: queue_limit, max_concurrent_requests: 7, rate_limit_tokens_per_second: 0, queue_size: 50, queue_timeout_secs: 2}",
        block,
    )
    s = result.summary
    r = result.requests[result.requests["status"] == 0]
    times = np.concatenate([r["first_scheduled_s"], r["finish_s"]])
    step = np.concatenate([np.ones(len(r)), -np.ones(len(r))])
    order = np.lexsort((step, times))
    assert np.cumsum(step[order]).max() <= 7
    assert s["requests"]["rejected"] == s["fleet"]["queue_limit_refused"] + s["fleet"]["queue_limit_timed_out"] > 0
    assert any(w.startswith("queue_limit: ") and "refused at the door" in w for w in s["warnings"])
    by_id = r.sort_values("id")
    assert (np.diff(by_id["first_scheduled_s"]) >= 0).all()


def test_only_low_priorities_are_shed() -> None:
    result = run("{name: priority_shedding, detector: concurrency-detector, max_concurrency: 10}", two_tenants())
    lost = result.requests[result.requests["status"] == 1]
    assert len(lost) > 0
    assert set(lost["klass"]) == {1}


def test_policies_one_after_the_other_and_in_front_of_sides() -> None:
    block = two_tenants(120)
    chain = "[{name: token_bucket, rate: 20/s, burst: 10}, {name: vtc, running_max_req_size: 4}, {name: token_bucket, rate: 1000/s, burst: 99}]"
    result = run(chain, block)
    s = result.summary
    assert s["fleet"]["token_bucket_refused"] == s["requests"]["rejected"] > 0
    assert s["fleet"]["token_bucket_2_refused"] == 0
    assert s["fleet"]["vtc_waited"] > 0
    engine = "{name: vllm, max_model_len: 4096}"
    pools = ", ".join(f"{{name: {r}, role: {r}, accelerator: h100-sxm, engine: {engine}}}" for r in ("prefill", "decode"))
    sides = run("{name: vtc, running_max_req_size: 4}", block, "deployment=null", f"pools=[{pools}]")
    assert sides.summary["requests"]["finished"] == 120
    assert sides.summary["fleet"]["vtc_waited"] > 0


def test_what_is_wrong_is_said_before_the_run() -> None:
    with pytest.raises(UnknownNameError, match="token_bucket"):
        Prepared(sim.loads(BASE, ["admission=token_buckt"]))
    with pytest.raises(ConfigError, match=r"admission\[1\].*rate"):
        Prepared(sim.loads(BASE, ["admission=[flow_control, token_bucket]"]))
    scaled = (
        "deployment=null",
        "pools=[{name: p, role: prefill, accelerator: h100-sxm, engine: vllm}, {name: d, role: decode, accelerator: h100-sxm, engine: vllm}]",
        "scaling={name: eas, max: 2, targets: {qps: 1/s}}",
    )
    with pytest.raises(NotModelledError, match="two whose members change"):
        Prepared(sim.loads(BASE, ["admission=flow_control", *scaled]))


def test_jains_index_and_the_worst_tenant() -> None:
    assert jain(np.array([1.0, 1.0, 1.0])) == 1.0
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == 0.25
    assert jain(np.zeros(3)) is None
    columns = {
        "status": np.array([0, 0, 0, 1]), "prompt_tokens": np.array([10, 10, 10, 10]), "output_tokens": np.array([5, 5, 5, 0]),
        "ttft_s": np.array([1.0, 2.0, 3.0, np.nan]),
    }  # fmt: skip
    found = section(columns, np.array([0, 0, 2, 2]), ("a", "b", "c"), None, np.ones(4, bool))
    assert found is not None
    assert found["worst_tenant"] == {
        "tenant": 2, "name": "c", "served_share": 0.5, "attainment": None, "service_share": pytest.approx(1 / 3),
        "ttft_p50_s": 3.0, "ttft_p99_s": 3.0,
    }  # fmt: skip
    assert found["jain_service"] == pytest.approx(0.9)
    assert section(columns, np.zeros(4, np.int64), (), None, np.ones(4, bool)) is None


def test_a_policy_of_ones_own_is_watched(tmp_path: Path) -> None:
    file = tmp_path / "mine.py"
    body = (
        "from sim.policy.admitting import Admission\n"
        "class Mine(Admission):\n"
        "    name = 'mine'\n"
        "    def offer(self, ticket, snapshot):\n"
        "        self.last = ticket.number\n"
        "        return {answer}\n"
        "    def release(self, snapshot):\n"
        "        last, self.last = getattr(self, 'last', None), None\n"
        "        return [] if last is None else [last]\n"
    )
    file.write_text(body.format(answer="True"))
    assert run(f"{file}:Mine", two_tenants(30)).summary["requests"]["finished"] == 30
    file.write_text(body.format(answer="'yes'"))
    with pytest.raises(sim.ServesimError, match=r"mine\.py.*allowed: True or False"):
        run(f"{file}:Mine", two_tenants(30))
