"""The ``economics`` section: what an hour of an accelerator costs, how it is powered, and by which grid. Without it no money is reported."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from sim.config.base import Count, Section, Share

Amount = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class Purchase(Section):
    """Hardware that is owned: its price is spread over the hours in which it is there, busy or not."""

    price: Amount = Field(description="price of one accelerator with its share of the server, in `economics.currency`")
    years: Amount = Field(4.0, le=20, description="years of use; nothing is left at the end")
    upkeep: Share = Field(0.0, description="maintenance, space and staff a year, as a share of the price")


class Economics(Section):
    """Money, energy and carbon. Prices are looked for in this order: `accelerator_hour`, `purchase`, the file `prices`, the public list."""

    accelerator_hour: dict[str, Amount] = Field(
        default_factory=dict, description="your own price of an accelerator hour by accelerator name, in `currency`"
    )
    purchase: dict[str, Purchase] = Field(default_factory=dict, description="owned hardware by accelerator name, amortised")
    prices: str | None = Field(None, description="a price list of your own (CSV; columns of profiles/prices/hourly.csv)")
    provider: str | None = Field(None, description="provider in the public list, such as aws; see `servesim prices`")
    region: str | None = Field(None, description="region of the provider; null: its cheapest one for the accelerator")
    kind: str = Field("on-demand", min_length=1, description="on-demand, spot, reserved-1y … as the list has it")
    currency: str = Field("USD", pattern=r"^[A-Z]{3}$", description="currency of every amount")
    exchange: dict[str, Amount] = Field(
        default_factory=dict, description="what one unit of `currency` is in others: {CNY: 7.1} when `currency` is USD"
    )
    node: Count | None = Field(
        None, description="accelerators per server, bought whole, for `accelerator_hour` and `purchase`; null: bought one by one"
    )
    electricity: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="price of a kWh in `currency`, for owned hardware (rent includes it)"
    )
    pue: float | None = Field(
        None,
        ge=1,
        le=3,
        description="power usage effectiveness; null: the provider's published average, else an industry average",
    )
    host_watts: float = Field(
        200.0,
        ge=0,
        le=2000,
        allow_inf_nan=False,
        description="power of CPUs, memory, network and fans per accelerator (estimated)",
    )
    output_to_input: Amount = Field(
        3.5, description="an output token is priced as so many input tokens (3.5: median of 69 public API prices of 2026)"
    )
    grid: Amount | str | None = Field(
        None,
        description="zone of the electricity (a country code such as FRA, aws/us-east-1 …), or gCO2e per kWh; null: no carbon",
    )

    @model_validator(mode="after")
    def _some_price(self) -> Economics:
        both = sorted(set(self.accelerator_hour) & set(self.purchase))
        if both:
            raise ValueError(f"{both[0]} has both an hourly price and a purchase price")
        if self.region is not None and self.provider is None and self.prices is None:
            raise ValueError("region needs a provider")
        return self
