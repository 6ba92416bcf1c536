"""``servesim prices``."""

from __future__ import annotations

import json

import pytest

from sim.errors import ConfigError
from sim.report.prices import rows


def test_rows_are_sorted_and_carry_their_source() -> None:
    found = rows("h100", None, "on-demand")
    usd = [r["accelerator_hour"] for r in found if r["currency"] == "USD"]
    assert usd == sorted(usd)
    assert len(usd) > 20
    assert all(r["source"] and r["date"] for r in found)
    assert json.loads(json.dumps(found)) == found


def test_the_overview_names_every_priced_accelerator() -> None:
    overview = {r["accelerator"]: r for r in rows(None, None, None)}
    assert overview["h100-sxm"]["lowest"] < overview["h100-sxm"]["median"] < overview["h100-sxm"]["highest"]


@pytest.mark.parametrize(
    ("ask", "says"),
    [
        (("h1000", None, None), "unknown"),
        (("ascend-910b2", None, None), "economics.purchase"),
        (("h100", "awz", None), "did you mean"),
        (("h100", None, "spt"), "did you mean"),
    ],
)
def test_what_is_not_there(ask: tuple, says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        rows(*ask)
