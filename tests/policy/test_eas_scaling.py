"""Autoscaling of EAS by its documented rule."""

import pytest

from sim.policy.scaling.eas import EasScaler, EasScalerParams, PoolSplit, burst, desired


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
    scaler = EasScaler(EasScalerParams(targets={"qps": 10.0}, scale_out_delay=5.0))
    assert [scaler.decide(t, 1, {"qps": q}) for t, q in ((0.0, 20.0), (3.0, 10.0), (4.0, 20.0), (8.0, 20.0), (9.0, 20.0))] == [
        1,
        1,
        1,
        1,
        2,
    ]


def test_zero_only_where_it_is_allowed():
    for least in (0, 1):
        scaler = EasScaler(EasScalerParams(targets={"qps": 10.0}, min=least, scale_in_stabilization=0.0))
        assert scaler.decide(1.0, 2, {"qps": 0.0}) == least


def test_public_replicas_come_last_and_go_first():
    assert [burst(n, 3) for n in (2, 5, 3)] == [PoolSplit(2, 0), PoolSplit(3, 2), PoolSplit(3, 0)]
    assert burst(5, 3, burstable=False) == PoolSplit(3, 0)


@pytest.mark.parametrize("bad", [{"targets": {}}, {"targets": {"qps": 0.0}}, {"targets": {"qps": 1.0}, "min": 3, "max": 2}])
def test_what_cannot_be_is_refused(bad):
    with pytest.raises(ValueError):
        EasScalerParams(**bad)
