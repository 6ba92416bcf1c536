"""Classes of clients: each keeps its own requests whatever the others do, and together they are what they are apart."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sim.errors import ConfigError, ServesimError
from sim.workload import RequestBlock, build_traffic
from sim.workload.labels import carried
from sim.workload.mixed import merged
from tests.workload.conftest import FIXED, as_bytes, whole

CHAT = {"synthetic": {"arrival": {"process": "poisson", "rate": 6}, "lengths": {"kind": "azure-2023-conv"}}, "tenant": "acme"}
CODE = {
    "synthetic": {"arrival": {"process": "gamma", "rate": 2, "cv": 3}, "lengths": {"kind": "azure-2023-code"}},
    "priority": 5,
    "adapter": 3,
}
TALK = {
    "synthetic": {
        "arrival": {"process": "poisson", "rate": 4},
        "lengths": FIXED,
        "sessions": {"turns": [2, 5], "think_time": 5},
        "prefixes": {"shared_tokens": 50, "groups": 2},
    },
    "tenant": "acme",
}
SPIKE = {
    "synthetic": {
        "arrival": {"process": "spike", "rate": 2, "factor": 5, "before": 20, "duration": 20, "after": 20},
        "lengths": FIXED,
    }
}


def mix(seed=0, requests=None, duration=None, **classes):
    return build_traffic({"classes": classes, "requests": requests, "duration": duration}, seed)


def of_class(block, k):
    return block.where(block.klass == k)


def test_a_class_keeps_its_requests_whatever_the_others_do():
    alone = whole(mix(chat=CHAT, duration=100))
    for others in ({"code": CODE}, {"code": CODE, "talk": TALK, "peak": SPIKE}):
        traffic = mix(**others, chat=CHAT, duration=100)
        mine = of_class(whole(traffic), len(others))
        assert (mine.tenant == 1 + traffic.tenants.index("acme")).all()
        mine.klass = np.zeros(len(mine), np.int32)  # numbers of class and tenant are places in a list, longer with others
        mine.tenant = np.ones(len(mine), np.int32)
        assert as_bytes(mine) == as_bytes(alone)


def test_it_is_in_order_and_the_same_in_any_block_size():
    traffic = mix(chat=CHAT, code=CODE, talk=TALK, peak=SPIKE, requests=20_000)
    block = whole(traffic)

    assert len(block) == traffic.total == 20_000
    for rows in (777, 65_536):
        assert as_bytes(whole(traffic, rows)) == as_bytes(block)
    assert (block.priority[block.klass == 1] == 5).all()
    assert (block.lora[block.klass == 1] == 3).all()
    assert not block.lora[block.klass != 1].any()
    assert (block.session[block.klass == 2] >= 0).all()
    assert len(np.unique(block.out_content)) == len(block)
    share = np.bincount(block.klass, minlength=4)[:3] / (block.klass < 3).sum()
    assert share == pytest.approx([6 / 12, 2 / 12, 4 / 12], abs=0.05)
    assert carried(traffic) == {"adapters", "priorities", "shared prefixes"}


def test_when_a_mix_ends():
    assert whole(mix(chat=CHAT, duration="50s")).arrival_s[-1] < 50
    assert mix(chat=CHAT, code=CODE).total == 10_000
    until_spike = mix(chat=CHAT, peak=SPIKE)
    block = whole(until_spike)
    assert 55 < of_class(block, 1).arrival_s[-1] == block.arrival_s[-1] < 60
    assert until_spike.mean_rate == pytest.approx(len(block) / block.arrival_s[-1])
    longer = mix(chat=CHAT, peak=SPIKE, duration=300)
    assert len(longer.notes) == 1
    assert longer.notes[0].startswith("class peak ends after")
    assert longer.notes[0].endswith("the traffic goes on until 300 s")
    few = {"synthetic": CHAT["synthetic"] | {"requests": 50}}
    assert mix(few=few, peak=SPIKE).total == 50 + mix(peak=SPIKE).total


def test_another_rate_is_another_rate_of_each():
    traffic = mix(chat=CHAT, code=CODE, requests=5000)
    twice = traffic.with_rate(16.0)

    assert twice.mean_rate == pytest.approx(16)
    assert as_bytes(whole(traffic.with_rate(8.0))) == as_bytes(whole(traffic))
    np.testing.assert_allclose(whole(twice).arrival_s * 2, whole(traffic).arrival_s, rtol=1e-9)
    more_code = whole(traffic.scaled({"code": 6.0}))
    assert (more_code.klass == 1).mean() == pytest.approx(12 / 18, abs=0.06)
    n = min((more_code.klass == 0).sum(), (whole(traffic).klass == 0).sum())
    assert as_bytes(of_class(more_code, 0)[:n]) == as_bytes(of_class(whole(traffic), 0)[:n])


def test_system_prompts_are_shared_between_classes_that_say_so():
    def shared(name):
        prefixes = {"shared_tokens": 40} | ({"name": name} if name else {})
        return {"synthetic": {"arrival": {"process": "poisson", "rate": 1}, "lengths": FIXED, "prefixes": prefixes}}

    def first_ids(**names):
        block = whole(mix(requests=200, **{k: shared(v) for k, v in names.items()}))
        return [set(of_class(block, k).span_id[::2].tolist()) for k in range(2)]

    a, b = first_ids(a="desk", b="desk")
    assert a == b
    a, b = first_ids(a=None, b=None)
    assert not a & b
    block = whole(mix(requests=2000, a=TALK, b={"synthetic": TALK["synthetic"]}))
    assert not set(of_class(block, 0).span_id.tolist()) & set(of_class(block, 1).span_id.tolist())
    assert not set(of_class(block, 0).session.tolist()) & set(of_class(block, 1).session.tolist())


def test_a_trace_is_a_class_like_any_other(tmp_path):
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens\n" + "".join(f"{i},{100 + i},{5}\n" for i in range(50)))
    block = whole(mix(old={"trace": {"format": "csv", "path": str(path)}}, chat=CHAT))

    assert of_class(block, 0).prompt_tokens.tolist() == [100 + i for i in range(50)]
    assert block.arrival_s[-1] == 49


@settings(max_examples=40)
@given(st.lists(st.lists(st.integers(0, 30), max_size=40), min_size=1, max_size=5), st.integers(1, 9))
def test_merging_loses_nothing(streams, size):
    def blocks(k, times):
        at = np.sort(np.array(times, float))
        for lo in range(0, len(at), size):
            part = at[lo : lo + size]
            yield RequestBlock.of(part, np.full(len(part), k + 1), np.ones(len(part)), first=1000 * k + lo)

    out = RequestBlock.concat(list(merged([blocks(k, t) for k, t in enumerate(streams)])))
    every = sorted((t, k) for k, times in enumerate(streams) for t in times)

    assert (np.diff(out.arrival_s) >= 0).all()
    assert sorted(zip(out.arrival_s.tolist(), (out.prompt_tokens - 1).tolist(), strict=True)) == every
    for k in range(len(streams)):
        assert (np.diff(out.out_content[out.prompt_tokens == k + 1]) > 0).all()
    assert len(np.unique(out.out_content)) == len(out)


POOL = {"arrival": {"process": "poisson", "rate": 50}, "lengths": FIXED}


def test_a_pool_sends_by_popularity_and_in_bursts():
    section = {"synthetic": POOL | {"clients": {"count": 8, "zipf": 1, "cv": 3, "tenants": True}, "requests": 60_000}}
    block = whole(build_traffic(section))
    weights = 1 / np.arange(1, 9)

    assert np.bincount(block.tenant)[1:] / 60_000 == pytest.approx(weights / weights.sum(), rel=0.2)
    gaps = np.diff(block.arrival_s[block.tenant == 1])
    assert gaps.std() / gaps.mean() == pytest.approx(3, rel=0.12)
    assert 60_000 / block.arrival_s[-1] == pytest.approx(50, rel=0.1)
    assert as_bytes(whole(build_traffic(section), 777)) == as_bytes(block)


def test_clients_of_a_pool_are_unlike_in_length():
    pool = {"count": 50, "zipf": 0, "lengths_cv": 0.6, "tenants": True}
    lengths = {"kind": "fixed", "prompt_tokens": 10_000, "output_tokens": 5000}
    block = whole(build_traffic({"synthetic": POOL | {"lengths": lengths, "clients": pool, "requests": 5000}}))
    by_client = np.array([block.prompt_tokens[block.tenant == k].mean() for k in range(1, 51)])

    assert all(np.ptp(block.prompt_tokens[block.tenant == k]) == 0 for k in range(1, 51))
    assert by_client.std() / by_client.mean() == pytest.approx(0.6, rel=0.4)
    short = build_traffic({"synthetic": POOL | {"lengths": lengths, "clients": pool, "requests": 5000}}).up_to(20_000)
    cut = whole(short)
    assert (cut.prompt_tokens + cut.output_tokens).max() <= 20_000
    assert any("shortened" in n for n in short.notes)


@pytest.mark.parametrize(
    ("traffic", "wrong"),
    [
        ({"classes": {"a": {"tenant": "x"}}}, "exactly one source"),
        ({"classes": {"a": CHAT | {"priority": 1, "priorities": {1: 1}}}}, "give one"),
        ({"classes": {"a.b": CHAT}}, "classes"),
        ({"classes": {"a": CHAT}, "requests": 5, "duration": 5}, "give one"),
        ({"classes": {"a": CHAT}, "priorities": {1: 1}}, "belongs to a class"),
        ({"synthetic": CHAT["synthetic"], "requests": 10}, "synthetic.requests"),
        ({"classes": {"a": CHAT | {"tenants": 3}}}, "did you mean 'tenant'"),
        ({"classes": {"a": {"synthetic": CHAT["synthetic"] | {"arrival": "burst"}}}}, "requests"),
        ({"classes": {"a": {"synthetic": POOL | {"clients": {"count": 3}, "sessions": {"turns": 2}}}}}, "sessions"),
        ({"classes": {"a": CHAT | {"slo": {"ttft": "3s", "e2e": "2s"}}}}, "before the end"),
    ],
)
def test_what_makes_no_sense_is_refused(traffic, wrong):
    import sim

    text = {"model": "llama-3.1-8b", "deployment": {"accelerator": "h100-sxm", "engine": "vllm"}, "traffic": traffic}
    with pytest.raises(ServesimError, match=wrong):
        build_traffic(sim.config.settings(sim.Scenario, text).traffic)


def test_a_class_without_a_rate_cannot_be_scaled():
    burst = {"synthetic": {"arrival": "burst", "lengths": FIXED, "requests": 10}}
    with pytest.raises(ConfigError, match="rate"):
        mix(chat=CHAT, all=burst).with_rate(3.0)


@pytest.mark.parametrize("where", ["traffic", "class", "synthetic"])
def test_sound_is_refused_by_name(where):
    import sim

    source = {"synthetic": dict(CHAT["synthetic"]) | ({"audio": {"share": 0.1}} if where == "synthetic" else {})}
    traffic = source | ({"audio": 1} if where == "traffic" else {})
    if where == "class":
        traffic = {"classes": {"a": source | {"audio": 1}}}
    text = {"model": "llama-3.1-8b", "deployment": {"accelerator": "h100-sxm", "engine": "vllm"}, "traffic": traffic}
    with pytest.raises(ConfigError, match="audio of requests are not modelled"):
        sim.config.settings(sim.Scenario, text)
