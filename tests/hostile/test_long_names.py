"""Keys and values as long as a file: the error says what is wrong and is no longer than a screen."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from sim.errors import DataError
from sim.hardware import load_accelerator
from sim.resources import path as resource

LONG = "k" * 100_000


@pytest.mark.parametrize(
    "text",
    [
        f"{LONG}: 1",
        f"name: x\nmemory: {{value: 1, evidence: [{LONG}]}}",
        f"{LONG}: 1\n{LONG}: 2",
        f"? [{LONG}]\n: 1",
        f"x: *{LONG}",
        f"x: !{LONG} 1",
    ],
)
def test_it_is_cut(text: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    file.write_text(text)
    with pytest.raises(DataError) as error:
        load_accelerator(str(file))
    assert "own.yaml" in str(error.value)
    assert len(str(error.value)) < 4000


@pytest.mark.parametrize("key", ["sm_count", "tdp_watts"])
def test_a_number_of_four_hundred_digits(key: str, tmp_path: Path) -> None:
    file = tmp_path / "own.yaml"
    found = yaml.safe_load(resource("profiles", "hardware", "h100-sxm.yaml").read_text(encoding="utf-8"))
    file.write_text(yaml.safe_dump(found | {key: 10**400}))
    with pytest.raises(DataError, match="own.yaml.*too large"):
        load_accelerator(str(file))
