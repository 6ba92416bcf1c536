"""Random settings and loads against the executable reference model, round by round; laws of rounds where it has no answer."""

from __future__ import annotations

import types
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.conformance.mindie import DEFAULTS, replay
from tests.engines.mindie_bench import KINDS, LAWFUL, random_recording
from tests.fuzz import enough

REFERENCE = Path(__file__).resolve().parents[2] / ".." / "shared" / "reference" / "mindie.py"
KEYS = ("t", "mode", "batch", "recomputed", "waiting", "running", "swapped", "free", "empties")


# Where no recording decides, the upstream sources (8b4871ad) say otherwise than the reference:
CORRECTIONS = (
    # as many swapped requests as candidates are left are dequeued; those that stay are put back in order of their ids (`Dequeue`,
    # `BackfillConcurrentQueue`)
    ("            sw=0; swo=[]\n", "            sw=0; swo=[]; was=len(swapped); seen=min(was,2*nb-len(cand))\n"),
    ("                while swapped:\n", "                while was-len(swapped)<seen:\n"),
    (
        "            waiting.extend(pre); swapped.extend(swo)\n",
        (
            "            back=[swapped.popleft() for _ in range(seen-was+len(swapped))]\n"
            "            for x in sorted(back,key=lambda x:-x.id): swapped.appendleft(x)\n"
            "            waiting.extend(pre); swapped.extend(swo)\n"
        ),
    ),
    # `CanSwap` counts the newest token and placeholders; with fewer blocks than are held, or than look-ahead slots need, upstream stops
    ("c['maxPreemptCount'] and v.blk<=cpu:", "c['maxPreemptCount'] and max(cd(v.len+v.p,bs),v.blk)<=cpu:"),
    ("if cd(r.len,bs)>free or nrun+1>nb: break", "if max(cd(r.len+r.p+g,bs),r.sblk)>free or nrun+1>nb: break"),
)


@pytest.fixture(scope="module")
def reference() -> Any:
    if not REFERENCE.is_file():
        pytest.skip("the reference model is not here")
    text = REFERENCE.read_text()
    for theirs, upstream in CORRECTIONS:
        assert text.count(theirs) == 1
        text = text.replace(theirs, upstream)
    module = types.ModuleType("mindie_reference")
    module.__file__ = str(REFERENCE)
    exec(compile(text, REFERENCE, "exec"), module.__dict__)
    return module


def first_difference(reference: Any, settings: dict[str, Any], requests: list[dict[str, Any]]) -> tuple[int, str | None]:
    """Rounds compared, and the first difference."""
    c = DEFAULTS | settings
    theirs = (reference.chunked if c["enableChunkedPrefill"] else reference.plain)(c, requests)
    ours = []
    whole = True
    for row in replay(c, requests):
        if not row["batch"] and row["swaps"][0] > 0:
            whole = False  # the reference does not execute a batch that only swaps
            break
        row["batch"] = [b[:2] for b in row["batch"]]
        ours.append([row[k] for k in KEYS])
    for i, (a, b) in enumerate(zip(theirs, ours, strict=False)):
        if a != b:
            return i, f"round {i}\n reference {a}\n ours      {b}"
    if whole and len(theirs) != len(ours):
        return len(ours), f"{len(theirs)} rounds in the reference, {len(ours)} here"
    return len(ours), None


def shrink(reference: Any, settings: dict[str, Any], requests: list[dict[str, Any]]) -> str:
    """The smallest load, by leaving requests out, that still differs."""
    i = 0
    while i < len(requests):
        fewer = [r | {"id": k} for k, r in enumerate(requests[:i] + requests[i + 1 :])]
        if fewer and first_difference(reference, settings, fewer)[1]:
            requests = fewer
        else:
            i += 1
    return f"{settings}\n{requests}\n{first_difference(reference, settings, requests)[1]}"


def fuzz(reference: Any, seed: int, rounds: int) -> int:
    rng = np.random.default_rng(seed)
    done = scenarios = 0
    while done < rounds:
        settings, requests = random_recording(rng, int(rng.integers(3, 50)), KINDS[scenarios % len(KINDS)])
        count, difference = first_difference(reference, settings, requests)
        if difference:
            pytest.fail(f"seed {seed}, scenario {scenarios}\n{shrink(reference, settings, requests)}")
        done += count
        scenarios += 1
    return done


class Ledger:
    """Follows the rounds of one run and checks what must hold in each."""

    def __init__(self, settings: dict[str, Any], requests: list[dict[str, Any]]) -> None:
        self.c = DEFAULTS | settings
        self.need = {r["id"]: (r["input_len"], r["output_len"], r["arrive_us"]) for r in requests}
        self.made = dict.fromkeys(self.need, 0)
        self.computed = dict.fromkeys(self.need, 0)
        self.next = 0

    def round(self, row: dict[str, Any]) -> None:
        c, ids = self.c, [b[0] for b in row["batch"]]
        assert row["t"] == self.next + 1000 * row["empties"]
        self.next = row["t"] + row["us"]
        assert len(set(ids)) == len(ids)
        assert all(self.need[i][2] <= row["t"] for i in ids)
        assert 0 <= row["free"] <= c["npuBlockNum"]
        assert 0 <= row["after"][3] <= c["npuBlockNum"]
        most, prompts = row["limits"]
        assert most >= 1
        if not c["dynamicBatchSizeEnable"]:
            assert [most, prompts] == [c["maxBatchSize"], c["maxPrefillBatchSize"]]
        rows = [(i, tokens, hit) for i, tokens, hit in row["batch"]]
        if row["mode"] == "PREFILL":
            assert len(ids) <= prompts
            budget = max(c["maxSeqLen"], c["maxPrefillTokens"])
            assert sum(tokens - (hit or 0) * c["cacheBlockSize"] for _, tokens, hit in rows) <= budget
        elif c["maxPreemptCount"] == 0:
            assert len(ids) <= most
        for i, tokens, hit in rows:
            self._row(row["mode"], i, tokens, hit or 0)
        for i in row["recomputed"]:
            self.computed[i] = 0
            assert i not in ids

    def _row(self, mode: str, i: int, tokens: int, hit: int) -> None:
        known = self.need[i][0] + self.made[i]
        if mode == "PREFILL":
            assert tokens == known
            assert hit * self.c["cacheBlockSize"] <= tokens
        elif mode == "DECODE":
            assert tokens == 1
        elif self.computed[i] < known - 1:  # a chunk of the prompt
            self.computed[i] += tokens
            assert self.computed[i] <= known
            if self.computed[i] < known:
                return
        else:
            assert tokens == 1
            self.computed[i] += 1
        self.made[i] += 1
        assert self.made[i] <= self.need[i][1]

    def close(self) -> None:
        """The run is over: everybody has been served in full."""
        assert self.made == {i: n[1] for i, n in self.need.items()}


def obey(seed: int, rounds: int) -> int:
    rng = np.random.default_rng(seed)
    done = scenarios = 0
    while done < rounds:
        kind = LAWFUL[scenarios % len(LAWFUL)]
        settings, requests = random_recording(rng, int(rng.integers(3, 40)), kind)
        ledger = Ledger(settings | {"max_iters": 10**9}, requests)
        for row in replay(ledger.c, requests):
            ledger.round(row)
            done += 1
        ledger.close()
        scenarios += 1
    return done


def test_rounds_without_a_reference_obey_their_laws() -> None:
    assert obey(3, enough(20_000)) >= enough(20_000)


@pytest.mark.slow
def test_many_rounds_without_a_reference_obey_their_laws() -> None:
    assert obey(4, 1_000_000) >= 1_000_000


def test_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 1, enough(20_000)) >= enough(20_000)


@pytest.mark.slow
def test_many_random_loads_match_the_reference(reference: Any) -> None:
    assert fuzz(reference, 2, 2_000_000) >= 2_000_000
