"""Autoscaling of EAS by its documented rule."""

import pytest

from sim.policy.scaling.eas import EasScaler, EasScalerParams, PoolSplit, burst, desired
from sim.policy.scaling.hpa import Hpa, HpaParams
from sim.policy.startup import Startup


@pytest.mark.parametrize(
    ("current", "value", "expected"),
    [
        (4, 10.0, 4),
        (4, 11.0, 4),
        (4, 9.0, 4),
        (4, 11.5, 5),
        (4, 20.0, 8),
        (4, 5.0, 2),
        (4, 0.0, 0),
        (10, 12.0, 12),
        (0, 0.0, 0),
        (0, 3.0, 1),
    ],
)
def test_the_formula_and_its_tolerance(current, value, expected):
    assert desired(current, {"qps": value}, {"qps": 10.0}) == expected


def test_the_largest_of_several_metrics_decides():
    assert desired(4, {"qps": 5.0, "gpu": 0.9}, {"qps": 10.0, "gpu": 0.6}) == 6
    assert desired(4, {}, {"qps": 10.0}) == 4


def test_out_at_once_and_in_after_the_window():
    scaler = EasScaler(EasScalerParams(targets={"qps": 10.0}, max=6))
    assert scaler.decide(0.0, 2, {"qps": 20.0}) == 4
    assert scaler.decide(10.0, 4, {"qps": 90.0}) == 6
    assert scaler.decide(20.0, 6, {"qps": 3.0}) == 6
    assert scaler.decide(309.0, 6, {"qps": 5.0}) == 6
    assert scaler.decide(320.1, 6, {"qps": 3.0}) == 3


def test_a_delay_of_scaling_out_must_last():
    scaler = EasScaler(EasScalerParams(max=1000, targets={"qps": 10.0}, scale_out_delay=5.0))
    assert [scaler.decide(t, 1, {"qps": q}) for t, q in ((0.0, 20.0), (3.0, 10.0), (4.0, 20.0), (8.0, 20.0), (9.0, 20.0))] == [
        1,
        1,
        1,
        1,
        2,
    ]


def test_zero_only_where_it_is_allowed():
    for least in (0, 1):
        scaler = EasScaler(
            EasScalerParams(max=9, targets={"qps": 10.0}, min=least, scale_in_stabilization=0.0, scale_to_zero_grace=0.0)
        )
        assert scaler.decide(1.0, 2, {"qps": 0.0}) == least


def test_to_zero_only_after_the_grace_and_from_zero_as_many_as_asked_for():
    scaler = EasScaler(EasScalerParams(max=9, min=0, targets={"qps": 10.0}, scale_in_stabilization=30.0, from_zero=3))
    times = (0.0, 10.0, 40.0, 100.0, 599.0, 601.0)
    assert [scaler.decide(t, 2, {"qps": 1.0 if t == 0.0 else 0.0}) for t in times] == [2, 2, 1, 1, 1, 0]
    assert [scaler.decide(t, 0, {"qps": q}) for t, q in ((700.0, 0.0), (710.0, 0.1))] == [0, 3]


def test_kubernetes_adds_four_or_doubles():
    hpa = Hpa(HpaParams(max=100, targets={"qps": 10.0}))
    assert [hpa.decide(15.0 * i, n, {"qps": 900.0 / n}) for i, n in enumerate((1, 5, 10, 20, 40, 80))] == [5, 10, 20, 40, 80, 90]
    assert hpa.decide(90.0, 80, {"qps": 0.0}) == 80
    assert hpa.decide(391.0, 80, {"qps": 0.0}) == 1
    with pytest.raises(ValueError, match="at least 1"):
        HpaParams(max=5, min=0, targets={"qps": 10.0})


def test_the_phases_of_a_cold_start_say_what_they_rest_on():
    phases = Startup(provision=5.0).phases(18e9)
    assert [(p.name, p.seconds, p.grade) for p in phases] == [
        ("machine", 5.0, "given"),
        ("image", 30.0, "estimated"),
        ("weights", 20.0, "measured"),
        ("warm-up", 64.0, "measured"),
    ]
    other = Startup(load_bandwidth=1e9).phases(18e9, "mindie")
    assert [(p.seconds, p.grade) for p in other[2:]] == [(18.0, "given"), (64.0, "estimated")]
    assert "want of figures of mindie" in other[3].source


def test_public_replicas_come_last_and_go_first():
    assert [burst(n, 3) for n in (2, 5, 3)] == [PoolSplit(2, 0), PoolSplit(3, 2), PoolSplit(3, 0)]
    assert burst(5, 3, burstable=False) == PoolSplit(3, 0)


@pytest.mark.parametrize(
    "bad",
    [
        {"targets": {}},
        {"targets": {"qps": 0.0}},
        {"targets": {"cpu": 0.5}},
        {"targets": {"gpu": 70}},
        {"targets": {"qps": 1.0}, "min": 3, "max": 2},
        {"resource_burstable": True},
        {"dedicated": 4},
        {"scale_out_delay": -1},
    ],
)
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(ValueError):
        EasScalerParams(**({"targets": {"qps": 1.0}, "max": 9} | bad))
