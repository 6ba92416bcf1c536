"""The rules of Llumnix beyond the recordings: cache-aware dispatch, ledger, filters, rescheduling, SLO."""

import numpy as np
import pytest

from sim.policy.llumnix import v0_dispatch, v0_migration, v1_dispatch, v1_reschedule, v1_slo
from sim.policy.llumnix.prefix import PrefixIndex, chunk_keys
from sim.policy.llumnix.v0_load import METRICS, InstanceInfo
from sim.policy.llumnix.v0_migration import Candidate
from sim.policy.llumnix.v1_predict import Profile
from sim.policy.llumnix.v1_status import METRICS as V1
from sim.policy.llumnix.v1_status import Account, Status


def account(i, **counters):
    return Account(Status(i, **({"num_total_tokens": 1000.0} | counters)))


def first(n):
    return 0


def test_chunks_of_equal_tokens_have_equal_keys_however_they_are_cut():
    whole = chunk_keys([(7, 0, 600), (9, 0, 200)], 256)
    assert len(whole) == 3
    assert whole[:2] == chunk_keys([(7, 0, 512)], 256)
    assert whole[2] == chunk_keys([(7, 0, 600), (9, 0, 168)], 256)[2]
    assert whole[1] != chunk_keys([(7, 0, 511), (9, 0, 1)], 256)[1]


def test_an_index_forgets_what_was_used_longest_ago():
    index = PrefixIndex(2, 2)
    index.store(0, [1, 2])
    index.store(0, [1, 3])
    assert [index.has(0, k) for k in (1, 2, 3)] == [True, False, True]
    assert index.consecutive(0, [1, 3, 2]) == 2
    assert index.consecutive(1, [1]) == 0


def test_v1_counts_a_prefix_from_its_first_hit_even_in_the_middle():
    index = PrefixIndex(3, 10)
    index.store(0, [1, 2])
    index.store(1, [2, 3, 5])
    assert index.longest_from_first_hit([1, 2, 3, 4, 5], 3) == {0: 2, 1: 2}


def test_v0_cache_aware_prefers_hits_then_load_and_assumes_a_transfer_for_a_much_longer_hit():
    metric = METRICS["remaining_steps"]
    full = InstanceInfo("a", 100, 100, 10)
    free = InstanceInfo("b", 100, 10, 2)
    assert v0_dispatch.cacheaware([full, free], {}, metric).instance_id == "b"
    near = v0_dispatch.cacheaware([full, free], {"a": 5, "b": 2}, metric)
    assert (near.instance_id, near.hit_length, near.transfer_penalty) == ("b", 512, 1.0)
    far = v0_dispatch.cacheaware([full, free], {"a": 6, "b": 2}, metric)
    assert (far.instance_id, far.hit_length, far.transfer_penalty) == ("b", 1536, 0.7)


def test_v0_round_robin_goes_by_sorted_id():
    instances = [InstanceInfo(n, 1) for n in ("c", "a", "b")]
    assert [v0_dispatch.rr(instances, t) for t in range(4)] == ["a", "b", "c", "a"]


def test_v0_choice_of_the_request():
    running = [Candidate(1, 50, 0.0), Candidate(2, 10, 1.0), Candidate(3, 30, 2.0)]
    waiting = [Candidate(4, 5, 4.0, True), Candidate(5, 5, 3.0, True)]
    assert [v0_migration.choose(p, running, waiting).request for p in ("LCR", "SR", "LR")] == [3, 2, 1]
    assert v0_migration.choose("FCW", running, waiting) is None
    assert v0_migration.choose("FCWSR", running, waiting).request == 2
    assert v0_migration.choose("FCW", running, waiting[::-1]).request == 5
    assert v0_migration.choose("LCR", [], []) is None


def test_the_ledger_counts_a_request_until_the_engine_shows_it_or_ten_seconds_have_passed():
    a = account(0)
    a.dispatch(1, 1.0, 100)
    a.dispatch(2, 2.0, 50, hit=20)
    assert V1["all_prefills_tokens_num"](a) == 130
    assert V1["num_requests"](a) == 2
    a.update(Status(0, time=2.5, seen_until=1.5))
    assert V1["all_prefills_tokens_num"](a) == 30
    a.update(Status(0, time=12.5, seen_until=1.5))
    assert a.ledger == {}


def test_without_memory_the_ratio_is_the_largest_float():
    assert V1["kv_cache_usage_ratio_projected"](account(0, num_total_tokens=0.0)) == pytest.approx(3.4e38, rel=0.01)


def test_the_load_filter_is_strict_and_dropped_in_the_fall_back():
    rule = v1_dispatch.rule("neutral")
    at, below = account(0, waiting_prefill_tokens=8192.0), account(1, waiting_prefill_tokens=8191.0)
    assert v1_dispatch.load_balance([at, below], 0.0, rule, first).status.instance == 1
    assert v1_dispatch.load_balance([at], 0.0, rule, first).status.instance == 0


def test_stale_unhealthy_and_failed_units_are_filtered():
    rule = v1_dispatch.rule("neutral")
    accounts = [account(0, time=0.0), account(1, healthy=False, unit=3, time=50.0), account(2, unit=3, time=50.0)]
    assert v1_dispatch.load_balance(accounts, 60.0, rule, first).status.instance == 0
    assert v1_dispatch.load_balance(accounts, 60.1, rule, first) is None


def test_ties_are_drawn_among_the_equals_only():
    rule = v1_dispatch.rule("neutral")
    accounts = [account(0), account(1, running_prefill_tokens=5.0), account(2)]
    assert {v1_dispatch.load_balance(accounts, 0.0, rule, lambda n, k=k: k % n).status.instance for k in (0, 1)} == {0, 2}


def test_an_instance_without_any_hit_looks_better_than_one_with_a_part():
    rule = v1_dispatch.rule("neutral", "cache_aware_all_prefills_tokens_num")
    part, none = account(0), account(1)
    part.prefix_miss_tokens = 512.0
    assert v1_dispatch.load_balance([part, none], 0.0, rule, first).status.instance == 1


def test_a_prefill_is_reverted_when_no_instance_can_decode():
    p, d = account(0, infer_type="prefill"), account(1, infer_type="decode", schedulable=False)
    assert v1_dispatch.dispatch_pd([p, d], 0.0, 1, 100, first) is None
    assert p.ledger == {}
    d.status.schedulable = True
    assert v1_dispatch.dispatch_pd([p, d], 0.0, 1, 100, first).decode is d
    assert V1["kv_cache_usage_ratio_projected"](d) == pytest.approx(0.1)


def test_rescheduling_pairs_high_with_low_only_when_far_apart():
    full, half, empty = (account(i, num_used_tokens=u) for i, u in enumerate((1100.0, 500.0, 300.0)))
    moves = v1_reschedule.decode_load([full, half, empty])
    assert [(m.source, m.destination) for m in moves] == [(0, 2)]
    assert v1_reschedule.decode_load([full, half]) == []


def test_failover_moves_everything_in_turn():
    accounts = [account(0, healthy=False), account(1), account(2, healthy=False), account(3), account(4, healthy=False)]
    assert [(m.source, m.destination, m.tokens) for m in v1_reschedule.failover(accounts)] == [(0, 1, -1), (2, 3, -1), (4, 1, -1)]


def test_the_slo_policy_chooses_the_quickest_below_the_slo_and_may_reject():
    accounts = [account(i) for i in range(3)]
    for a, t in zip(accounts, (5000.0, 4000.0, 4500.0), strict=True):
        a.predicted_ttft = t
    assert v1_slo.slo(accounts, 0.0, "prefill", first) is accounts[1]
    for a, tpot in zip(accounts, (40.0, 42.5, 42.4), strict=True):
        a.predicted_tpot = tpot
    assert v1_slo.slo(accounts, 0.0, "decode", first) is accounts[0]
    assert v1_slo.slo(accounts, 0.0, "neutral", first) is accounts[2]  # 42.5 is 0.85 × 50, no more below it
    for a in accounts:
        a.predicted_ttft = 5100.0
    assert v1_slo.slo(accounts, 0.0, "prefill", first) is None


def test_profiles_are_interpolated_and_tokens_floored():
    p = Profile([0, 1000], [10, 110], [1, 11], [8, 108], np.array([[10.0, 20.0], [20.0, 30.0]]))
    assert p.prefill(500) == pytest.approx(60)
    assert p.tpot(5, 0.0) == pytest.approx(15.0)
    assert p.ttft(1500, 1000, 1, 8) == pytest.approx(110 + 60 + 20)
