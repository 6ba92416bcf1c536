"""What two stages of a campaign say together."""

from __future__ import annotations

import json
from pathlib import Path

from tests.mutation.__main__ import _key, drawn, kept, lines_of, score, survivors


def test_the_second_stage_tries_what_survived_and_the_score_counts_each_mutant_once(tmp_path: Path) -> None:
    first = [{"key": k, "verdict": v} for k, v in {"a": "noticed", "b": "survived", "c": "late", "d": "unreached"}.items()]
    (tmp_path / "first.jsonl").write_text("".join(json.dumps(line) + "\n" for line in first), encoding="utf-8")
    read = lines_of(str(tmp_path / "first.jsonl"))
    assert survivors(read) == {"b", "d"}
    assert score(read) == "2 (2) of 4 noticed (50%): late 1, noticed 1, survived 1, unreached 1"
    second = [{"key": "b", "verdict": "noticed"}, {"key": "d", "verdict": "survived"}]
    assert score(read, second) == "3 (2 + 1) of 4 noticed (75%): late 1, noticed 2, survived 1"
    assert lines_of(str(tmp_path / "none.jsonl")) == [] and score([]) == "0 (0) of 0 noticed (0%): "


def test_a_mutant_is_found_again_by_its_key() -> None:
    sample = drawn("study/selection", 5, 7)
    keys = {_key(*x) for x in sample}
    found = kept("study/selection", keys | {"sim/study/selection/gone.py:1: 0 → (1)"})
    assert {_key(*x) for x in found} == keys and len(found) == len(keys)
