"""Price lists, whole servers, grids."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sim.errors import ConfigError, DataError
from sim.hardware.grids import find_grid, find_pue
from sim.hardware.prices import Offer, bill, nodes_needed, offers, public_prices, read_prices


def offer(count: int, price: float) -> Offer:
    return Offer("p", "r", f"x{count}", "h100-sxm", count, price, "USD", "on-demand", "2026", "here", "high")


def test_every_public_price_has_a_date_and_a_source_in_words() -> None:
    rows = public_prices()
    assert len(rows) > 2000
    assert all(o.date and len(o.source) > 5 and o.confidence in ("high", "medium", "low") for o in rows)


def test_servers_are_bought_whole_and_not_too_small_for_a_replica() -> None:
    found = bill([2] * 5, [offer(1, 1.0), offer(8, 9.0)], {"USD": 1.0})  # a tp 2 replica does not fit into servers of one
    assert (found.nodes, found.price_hour, found.accelerators, found.used) == (2, 18.0, 16, 10)
    assert bill([1] * 3, [offer(1, 1.0), offer(8, 9.0)], {"USD": 1.0}).price_hour == 3.0
    assert bill([16], [offer(1, 1.0), offer(8, 9.0)], {"USD": 1.0}).nodes == 2


@given(st.lists(st.integers(1, 24), min_size=1, max_size=30), st.sampled_from([1, 2, 4, 8]))
def test_packing_is_between_its_bounds(widths: list[int], count: int) -> None:
    n = nodes_needed(widths, count)
    assert sum(widths) <= n * count
    assert n <= sum(-(-w // count) for w in widths)  # never worse than servers of its own for each
    if all(w == widths[0] for w in widths) and widths[0] <= count:
        assert n == -(-len(widths) // (count // widths[0]))


def test_what_is_missing_is_named() -> None:
    rows = public_prices()
    usd = {"provider": None, "region": None, "kind": "on-demand", "currencies": ["USD"]}
    with pytest.raises(ConfigError, match=r"no price of this accelerator is known.*accelerator_hour=\{ascend-910b2"):
        offers(rows, "ascend-910b2", **usd)
    with pytest.raises(ConfigError, match="did you mean 'aws'"):
        offers(rows, "h100-sxm", **usd | {"provider": "awss"})
    with pytest.raises(ConfigError, match="no such price of b200 is known"):
        offers(rows, "b200", **usd | {"provider": "alibaba-ecs"})
    with pytest.raises(ConfigError, match=r"economics.exchange.CNY: is needed"):
        offers(rows, "a10", **usd | {"provider": "alibaba-ecs"})


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("accelerator,count,currency\n", "column 'price_hour' is missing"),
        ("accelerator,count,price_hour,currency,cuont\nh100-sxm,1,2,USD,1\n", "did you mean 'count'"),
        ("accelerator,count,price_hour,currency\nh100-sxm,1,nan,USD\n", "row 2, column price_hour"),
        ("accelerator,count,price_hour,currency\nh100-sxm,1,0,USD\n", "above 0"),
        ("accelerator,count,price_hour,currency\nh100-sxm,1.5,1,USD\n", "whole number"),
        ("accelerator,count,price_hour,currency\n", "holds no prices"),
    ],
)
def test_a_list_of_ones_own_that_is_wrong(tmp_path: Path, text: str, says: str) -> None:
    file = tmp_path / "prices.csv"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=says):
        read_prices(file)


def test_a_list_of_ones_own(tmp_path: Path) -> None:
    file = tmp_path / "prices.csv"
    file.write_text("\ufeffaccelerator,count,price_hour,currency\r\nh100-sxm,8,20,EUR\r\n", encoding="utf-8")
    (row,) = read_prices(file)
    assert (row.count, row.price_hour, row.currency, row.kind, row.source) == (8, 20.0, "EUR", "on-demand", str(file))


def test_grids_know_countries_states_and_cloud_regions() -> None:
    assert find_grid("FRA").g_per_kwh == pytest.approx(56, abs=1)
    assert find_grid("US-CA").g_per_kwh < find_grid("US-WY").g_per_kwh
    assert find_grid("gcp/europe-west4").source.startswith("GoogleCloudPlatform")
    assert find_grid("alibaba/cn-hangzhou").zone == "CN-ZJ"  # no figure of its own: its province
    with pytest.raises(ConfigError, match="did you mean 'FRA'"):
        find_grid("FRAX")
    assert find_pue("aws", False).value == 1.14
    assert find_pue(None, True).value > find_pue(None, False).value
