"""Keys and values as long as a file: the error says what is wrong and is no longer than a screen."""

from __future__ import annotations

from pathlib import Path

import pytest

from sim.errors import DataError
from sim.hardware import load_accelerator

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
