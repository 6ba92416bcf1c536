"""Rules of reading results: what follows from requests and totals, when they are sent again, which conversation they belong to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sim.study.bench._document import Document
from sim.study.bench._run import MAX_TOKENS, Requests, Run, of_aggregates, of_figures, of_requests
from sim.study.bench._sent import Sent, planned
from sim.study.bench._talks import talks_of
from tests.study.test_every_tool import write


def spec(**more: Any) -> Run:
    made = {
        "requests": 4,
        "prompt": 10.25,
        "output": (5, 7),
        "measured": {"ttft_s.mean": 0.1, "x": math.nan, "y": 1e10},
        "sent": Sent(rate=math.inf),
    }
    return of_aggregates("t", "n", **(made | more))


def test_runs_from_totals() -> None:
    run = spec()
    assert run.columns["prompt_tokens"].tolist() == [10, 11, 10, 10] and set(run.columns["output_tokens"].tolist()) <= {5, 6, 7}
    assert run.measured == {"ttft_s.mean": 0.1} and (run.columns["arrival_s"] == 0).all()
    assert run.notes == (
        "every prompt taken as long as the mean, 10.25 tokens: the file has no lists",
        "output lengths drawn uniformly from 5 to 7 tokens: the file has no lists",
    )
    many = spec(requests=3000)
    assert set(many.columns["output_tokens"].tolist()) == {5, 6, 7} and many.columns["prompt_tokens"].sum() == 30750
    assert spec(prompt=np.array([1, 2, 3, 4])).columns["prompt_tokens"].tolist() == [1, 2, 3, 4]
    assert spec(prompt=0.2).columns["prompt_tokens"].tolist() == [1] * 4
    assert spec(requests=0).refused.startswith("no request was served") and spec(failed=5).refused.startswith(
        "more requests failed"
    )
    assert not spec(failed=4).refused and spec(failed=4).notes[0] == "4 of 8 requests failed: they are not sent"
    assert (
        spec(prompt=MAX_TOKENS + 1.0).refused.startswith("4 requests with prompts of")
        and not spec(prompt=float(MAX_TOKENS)).refused
    )
    assert (
        spec(measured={"x": math.inf}).refused
        == "has no figure that can be compared"
        == of_figures("t", "n", {"x": 0.0}, ()).refused
    )
    assert spec(sent=Sent()).refused.startswith("does not say how requests were sent")


def served(**more: Any) -> Requests:
    n = 4
    made = {
        "prompt": np.full(n, 10.0),
        "output": np.full(n, 3.0),
        "ttft": np.full(n, 0.5),
        "e2e": np.full(n, 1.0),
        "ok": np.ones(n, bool),
    }
    return Requests(**(made | more))


def test_runs_from_requests() -> None:
    def of(r: Requests, **sent: Any) -> Run:
        return of_requests("t", "n", r, Sent(**(sent or {"start": np.arange(4.0) + 7})))

    def at(i: int, base: float, value: float) -> np.ndarray:
        made = np.full(4, base)
        made[i] = value
        return made

    for more, says in (
        ({"prompt": at(1, 10.0, 1.5)}, "request 2: prompt tokens must be a whole number in"),
        ({"output": at(2, 3.0, -1.0)}, "request 3: output tokens must be"),
        ({"prompt": at(0, 10.0, MAX_TOKENS + 1.0)}, "request 1: prompt tokens must be"),
        ({"ttft": at(3, 0.5, 2e8), "e2e": at(3, 1.0, 3e8)}, "request 4: TTFT is 2e+08 s"),
        ({"e2e": at(0, 1.0, 2e8)}, "request 1: E2E is 2e+08 s"),
        ({"e2e": at(1, 1.0, 0.498)}, "request 2: ends 0.498 s after it was sent"),
        ({"prompt": at(1, 10.0, 0.0)}, "a served request has no prompt tokens"),
        ({"ttft": np.full(4, np.nan), "e2e": np.full(4, np.nan)}, "has no latency of a served request"),
    ):
        assert of(served(**more)).refused.startswith(says), says
    assert not of(served(e2e=at(1, 1.0, 0.4995))).refused  # clocks of two processes may differ by a millisecond
    assert not of(served(ok=np.array([True, True, False, False]), prompt=at(2, 10.0, 1.5))).refused  # what failed is not judged
    half = of(served(ok=np.array([True, True, False, False]), errors=["", "", "boom\nlate", "boom\nlate"]))
    assert half.notes[0] == "2 of 4 requests failed ('late'): they are not sent, as what they cost the server is not known"
    assert half.columns["arrival_s"].tolist() == [0.0, 1.0] and half.measured["requests_per_s"] == pytest.approx(2 / 2.0)
    assert half.measured["output_tokens_per_s"] == pytest.approx(6 / 2.0)
    more_failed = of(served(ok=np.array([True, False, False, False]), errors=["", "a", "b", "a"]))
    assert (
        more_failed.refused == "more requests failed than were served: 3 of 4 ('a', 'b'); what they cost the server is not known"
    )
    cut = of(served(ok=np.array([True, True, True, False]), cancelled=np.array([False, False, False, True])))
    assert (
        cut.columns["counts"].tolist() == [True, True, True, False]
        and "1 of 4 requests were cut off by the end of the run" in cut.notes[0]
    )
    for zero in (False, True):
        silent = of(served(output=at(1, 3.0, 0.0), ttft=at(1, 0.5, 0.3), zero_ttft=zero))
        assert silent.columns["counts_ttft"].tolist() == [True, zero, True, True] and silent.columns["counts_tpot"].tolist() == [
            True,
            False,
            True,
            True,
        ]
        assert silent.measured["ttft_s.mean"] == pytest.approx(0.45 if zero else 0.5)
        assert silent.columns["ttft_told"][1] == 0.3 if zero else np.isnan(silent.columns["ttft_told"]).all()
        assert silent.notes[0].startswith("1 of 4 requests ended without a token: ")
    nothing = of(served(output=np.zeros(4)))
    assert nothing.refused == "no request was served: 0 of 4 failed, 4 ended without a token; that is no operating point"
    told = of_requests("t", "n", served(), Sent(rate=1e6), told={"requests_per_s": 9.0, "x": math.nan})
    assert told.measured["requests_per_s"] == 9.0 and "x" not in told.measured
    assert (
        of_requests("t", "n", served(), Sent(start=np.zeros(4)), told={"requests_per_s": 9.0}).measured["requests_per_s"] == 4.0
    )


def test_when_requests_are_sent_again() -> None:
    loop = planned(Sent(concurrency=3, rate=math.inf), 5)
    assert loop.traffic == {"kind": "closed_loop", "concurrency": 3} and loop.arrival_s.tolist() == [0.0] * 5
    assert planned(Sent(rate=math.inf), 5).arrival_s.tolist() == [0.0] * 5 and planned(Sent(rate=math.inf), 5).traffic == {
        "kind": "trace"
    }
    even = planned(Sent(rate=4.0, constant=True), 5)
    assert even.arrival_s.tolist() == [0.0, 0.25, 0.5, 0.75, 1.0] and even.notes == (
        "arrivals every 1/4 s: the file has no start times",
    )
    drawn = planned(Sent(rate=4.0), 800)
    gaps = np.diff(drawn.arrival_s)
    assert drawn.arrival_s[-1] == pytest.approx(200.0) and gaps.std() / gaps.mean() == pytest.approx(1.0, abs=0.1)
    bursty = np.diff(planned(Sent(rate=4.0, burstiness=0.25), 4000).arrival_s)
    assert bursty.std() / bursty.mean() == pytest.approx(2.0, abs=0.2)
    assert drawn.notes[0].startswith("Poisson arrivals drawn at 4/s") and planned(Sent(rate=4.0, burstiness=0.25), 9).notes[
        0
    ].startswith("gamma (burstiness 0.25)")
    paced = planned(Sent(rate=4.0, concurrency=3), 5)
    assert paced.traffic == {"kind": "closed_loop", "concurrency": 3, "paced": True} and paced.arrival_s == pytest.approx(
        planned(Sent(rate=4.0), 5).arrival_s
    )
    assert planned(Sent(rate=4.0, concurrency=5), 5).traffic == {"kind": "trace"}  # a limit that is never reached
    own = planned(Sent(start=np.array([3.0, 4.0]), rate=1.0, concurrency=2), 2)
    assert own.arrival_s.tolist() == [3.0, 4.0] and own.notes == (
        "requests are sent when the file says; its limit of 2 in flight is not applied again",
    )
    assert planned(Sent(start=np.array([3.0, 4.0])), 2).notes == ()
    linear = np.diff(planned(Sent(ramp=("linear", 1.0, 9.0), burstiness=1e4), 101).arrival_s)
    assert linear == pytest.approx(1 / (1 + 8 * np.arange(1, 101) / 100), rel=0.06)
    growing = np.diff(planned(Sent(ramp=("exponential", 1.0, 16.0), burstiness=1e4), 101).arrival_s)
    assert growing == pytest.approx(16.0 ** (-np.arange(1, 101) / 100), rel=0.06)
    assert planned(Sent(ramp=("linear", 1.0, 9.0), concurrency=2), 5).traffic == {
        "kind": "closed_loop",
        "concurrency": 2,
        "paced": True,
    }
    assert planned(Sent(ramp=("linear", 1.0, 9.0)), 1).arrival_s.size == 1
    for bad in (Sent(rate=0.0), Sent(rate=math.nan), Sent(ramp=("linear", 0.0, 1.0)), Sent(ramp=("linear", 1.0, 0.0))):
        assert planned(bad, 3).refused.endswith("requests/s is no rate")
    assert "concurrency" in planned(Sent(), 3).refused


def test_conversations_are_put_together() -> None:
    """Two of three and two turns, one alone, in no order; prompts hold all that was said."""
    names, turns = ["a", "b", "a", None, "b", "a"], [0, 0, 2, 0, 1, 1]
    start, end = np.array([0.0, 1.0, 9.0, 3.0, 5.0, 4.0]), np.array([2.0, 3.0, 10.0, 4.0, 6.0, 7.0])
    prompt, output = np.array([10, 20, 60, 7, 50, 30]), np.array([5, 6, 7, 8, 9, 10])
    found = talks_of(names, turns, start, end, prompt, output)
    assert found is not None
    assert (found.talk.tolist(), found.turn.tolist(), found.prompt.tolist()) == (
        [0, 1, 0, -1, 1, 0],
        [0, 0, 2, 0, 1, 1],
        prompt.tolist(),
    )
    assert found.wait_s[[2, 4, 5]].tolist() == [2.0, 2.0, 2.0] and np.isnan(found.wait_s[[0, 1, 3]]).all() and found.pauses
    assert found.notes == ("3 requests continue a conversation: their prompts begin with what was said before",)
    adds = talks_of(names, turns, start, end, np.array([10, 20, 3, 7, 4, 30]), output)
    assert adds is not None and adds.prompt.tolist() == [10, 20, 10 + 5 + 30 + 10 + 3, 7, 20 + 6 + 4, 10 + 5 + 30]
    assert adds.notes[0].startswith("67% of later turns are no longer than the turn before")
    quick = talks_of(names, [None] * 6, start, np.maximum(end, start + 10), prompt, output)
    assert quick is not None and quick.wait_s[quick.turn > 0].tolist() == [0.0, 0.0, 0.0] and not quick.pauses
    assert quick.turn.tolist() == [0, 0, 1, 0, 1, 2]  # without numbers: in the order of the file
    assert talks_of(["a", "b", None, None, "c", "d"], turns, start, end, prompt, output) is None


def test_documents_of_every_form(tmp_path: Path) -> None:
    assert Document(write(tmp_path, "a", '{"x": 1}\n{"x": 2}\n')).kind == "jsonl" and Document(tmp_path / "a").records == [
        {"x": 1},
        {"x": 2},
    ]
    assert Document(write(tmp_path, "b", ' [{"x": 1}, 3]')).records == [{"x": 1}] and Document(tmp_path / "b").kind == "json"
    assert Document(write(tmp_path, "c", "a,b\n1,2\n")).table() == [{"a": "1", "b": "2"}] and Document(tmp_path / "c").first == {}
    keys = Document(
        write(tmp_path, "d", {"n": "3", "z": 0, "none": None, "f": 2.5, "t": "", "l": [1, None], "r": "inf", "s": {"u": 1}})
    ).keys
    assert (keys.number("n"), keys.count("n"), keys.number("none", default=4.0), keys.number("gone")) == (3.0, 3, 4.0, None)
    assert (keys.rate("r"), keys.rate("f"), keys.text("t"), keys.text("n"), "none" in keys, "z" in keys) == (
        math.inf,
        2.5,
        None,
        "3",
        False,
        True,
    )
    assert (
        keys.column("l", holes=True).tolist()[0] == 1.0
        and math.isnan(keys.column("l", holes=True)[1])
        and keys.sub("s").count("u") == 1
    )
    for ask, says in (
        (lambda: keys.count("f"), "key 'f': must be a whole number"),
        (lambda: keys.number("z", low=1.0), "key 'z': must be at least 1"),
        (lambda: keys.rate("z"), "key 'z': must be more than 0"),
        (lambda: keys.column("l"), r"key 'l\[1\]': must be a finite number"),
        (lambda: keys.column("n"), "key 'n': must be a list"),
        (lambda: keys.needed("nn"), "key 'nn': is missing.*did you mean"),
        (lambda: keys.sub("f"), "key 'f': must be an object"),
    ):
        with pytest.raises(Exception, match=says):
            ask()  # type: ignore[no-untyped-call]
    for bad in ("1\n", "x", '{"x": 1}\n{"x": \n', "a\nb\n"):
        with pytest.raises(Exception, match="is no|is neither|line 2"):
            Document(write(tmp_path, "e", bad)).kind  # noqa: B018
