"""Money, energy and carbon of a run."""

from __future__ import annotations

import pytest

import sim
from sim.errors import ConfigError

SMALL = ["traffic.synthetic.requests=400", "traffic.synthetic.arrival.rate=20/s"]


def section(*more: str) -> dict:
    return sim.run(sim.load("quickstart", [*SMALL, *more])).summary["economics"]


def test_no_section_no_money() -> None:
    assert "economics" not in sim.run(sim.load("quickstart", SMALL)).summary


def test_both_token_prices_pay_for_the_hour() -> None:
    result = sim.run(sim.load("quickstart", [*SMALL, "economics.accelerator_hour={h100: 3}"]))
    e, t = result.summary["economics"], result.summary["throughput"]
    hourly = 3600 * (
        t["prompt_tokens_per_s"] * e["per_million_input_tokens"] + t["output_tokens_per_s"] * e["per_million_output_tokens"]
    )
    assert hourly / 1e6 == pytest.approx(3.0)
    assert e["per_1000_requests"] == pytest.approx(3.0 / (3.6 * t["requests_per_s"]))
    assert e["lines"][0]["source"].startswith("given")


def test_an_empty_seat_in_a_server_is_paid_for() -> None:
    alone = section("economics.accelerator_hour={h100-sxm: 3}")
    whole = section("economics.accelerator_hour={h100-sxm: 3}", "economics.node=8")
    assert (alone["per_hour"], whole["per_hour"]) == (3.0, 24.0)
    assert (whole["accelerators"], whole["accelerators_paid"]) == (1, 8)
    assert whole["idle_share"] > 7 / 8 - 1e-9


def test_owned_hardware_is_amortised_and_pays_its_electricity() -> None:
    e = section("economics.purchase={h100-sxm: {price: 35040, years: 4, upkeep: 0.25}}", "economics.electricity=0.5")
    assert e["per_hour"] - e["electricity_per_hour"] == pytest.approx(2.0)  # 1 a year of use, 1 of upkeep
    assert e["electricity_per_hour"] == pytest.approx(e["kilowatts"] * 0.5)
    assert "on-premises" in e["pue_source"]


def test_energy_is_between_idle_and_the_limit_and_grows_with_load() -> None:
    idle = section("economics.accelerator_hour={h100-sxm: 3}", "traffic.synthetic.arrival.rate=0.5/s")
    busy = section("economics.accelerator_hour={h100-sxm: 3}", "economics.grid=100")
    for e in (idle, busy):
        assert 70 <= e["power"]["accelerator_watts"] <= 700
        assert e["power"]["watts"] == pytest.approx((e["power"]["accelerator_watts"] + 200) * e["power"]["pue"])
    assert idle["power"]["accelerator_watts"] < busy["power"]["accelerator_watts"]
    assert busy["g_co2e_per_hour"] == pytest.approx(100 * busy["kilowatts"])
    assert idle["g_co2e_per_hour"] is None


def test_currencies_are_exchanged_only_at_a_given_rate() -> None:
    listed = ["economics.provider=alibaba-ecs", "deployment.accelerator=a10", "deployment.engine.max_model_len=8192"]
    with pytest.raises(ConfigError, match=r"economics\.exchange\.CNY"):
        section(*listed)
    usd = section(*listed, "economics.exchange={CNY: 7}")
    cny = section(*listed, "economics.currency=CNY")
    assert usd["per_hour"] == pytest.approx(cny["per_hour"] / 7)


def test_missing_prices_are_asked_for_before_anything_runs() -> None:
    with pytest.raises(ConfigError, match=r"economics\.accelerator_hour=\{h100-sxm"):
        sim.run(sim.load("quickstart", ["economics.node=8"]), progress=lambda *_: pytest.fail("it ran"))
    with pytest.raises(ConfigError, match="unknown name"):
        section("economics.accelerator_hour={h1000: 3}")


def test_a_fleet_that_grows_pays_for_what_existed() -> None:
    result = sim.run(sim.load("pai-autoscale", ["economics.accelerator_hour={a10: 1}", "traffic.synthetic.requests=2000"]))
    e = result.summary["economics"]
    mean = result.summary["scaling"]["accelerator_hours"] * 3600 / result.summary["simulated_s"]
    assert e["accelerators_paid"] == pytest.approx(mean, rel=0.02)
    assert e["per_hour"] == pytest.approx(e["accelerators_paid"])
