"""Pieces of the comparison with measurements, each where its answer is known."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sim.config.slo import Slo as _Slo  # noqa: F401 - the settings that candidates carry
from sim.cost import features as f
from sim.errors import ConfigError, NotModelledError
from sim.ledger import FINISHED, IN_FLIGHT
from sim.metrics.slo import Slo
from sim.study import fitting
from sim.study.accuracy import AccuracyReport, Outcome, batch
from sim.study.accuracy import traffic as traffic_module
from sim.study.accuracy.deploy import _longest, _pools, _settings, check
from sim.study.accuracy.errors import family, rows, source, title
from sim.study.accuracy.left_out import without_source
from sim.study.accuracy.lengths import draw, longest
from sim.study.accuracy.point import parse
from sim.study.accuracy.population import counted, counted_output, counted_requests
from sim.study.accuracy.predict import _throughput, _window
from sim.study.accuracy.reading import _other_layout, _other_model
from sim.study.accuracy.report import chosen
from sim.study.accuracy.saturation import at_equal_load, capacities, paced, stretched
from sim.study.accuracy.step_log import Kinds, StepLog, gap, kinds, summary
from sim.study.accuracy.traffic import stage_starts, traffic_of
from sim.study.bench import Run
from sim.study.plan import bound as bound_module
from sim.study.plan.bound import Demand, bound
from tests.study.test_accuracy import BATCH, LOOP, point

# ---- static batches, from a step cost that is a formula


class Linear:
    """A step takes 1 ms, and 1 µs a token, 1 ns a pair of tokens of prompts, 10 ns a token of decoded context."""

    client_request, client_first_token = 0.25, 0.5

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.most: list[int] = []
        self.steps: list[np.ndarray] = []

        def build(*given: Any) -> tuple[None, None]:
            self.most.append(given[4])
            return None, None

        def step(_: object, feat: np.ndarray) -> tuple[float, None]:
            self.steps.append(feat)
            return 1e-3 + 1e-6 * feat[f.TOKENS] + 1e-9 * feat[f.PREFILL_WORK] + 1e-8 * feat[f.DECODE_CTX], None

        patch.setattr(batch, "build_tables", build)
        patch.setattr(batch, "plain_step_time", step)


@pytest.mark.parametrize(("engine", "chunk"), [("vllm", 8 * 512), ("sglang", 8192), ("llama.cpp", 512)])
def test_a_static_batch_is_the_sum_of_its_steps(engine: str, chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    cost = Linear(monkeypatch)
    made = point(engine=engine, traffic=BATCH | {"prompt_tokens": 1000, "output_tokens": 12}, measured={"ttft_s.mean": 1.0})
    found = batch.static_batch(made, cost)  # type: ignore[arg-type]
    n, p, o = 8, 1000, 12
    chunk = max(n * p, 1) if engine == "vllm" else chunk
    per = max(1, min(n, chunk // p))  # whole prompts in a step
    prefill = 0.0
    for rows_ in [min(per, n - i) if per > 1 else 1 for i in range(0, n, per)]:
        for at in range(0, p, chunk):
            new = min(chunk, p - at)
            prefill += 1e-3 + 1e-6 * rows_ * new + 1e-9 * rows_ * new * (at + new / 2)
    start = 1 if engine == "llama.cpp" else p + 1
    decode = 1e-3 + 1e-6 * n + 1e-8 * n * (start + (o - 2) / 2)
    assert found["step_s.prefill"] == pytest.approx(prefill) and found["step_s.decode"] == found["tpot_s.mean"] == pytest.approx(
        decode
    )
    e2e = prefill + decode * (o - 1) + 0.75
    assert found["ttft_s.mean"] == pytest.approx(prefill + 0.75) and found["e2e_s.mean"] == pytest.approx(e2e)
    assert found["output_tokens_per_s"] == pytest.approx(n * o / e2e) and found["input_tokens_per_s"] == pytest.approx(
        n * p / prefill
    )
    assert cost.most == [max(min(n * p, chunk), n, 1)]
    pre = [s for s in cost.steps if s[f.PREFILL_ROWS]]
    assert sum(s[f.PREFILL_TOKENS] for s in pre) == n * p and sum(s[f.SAMPLED] for s in pre) == n
    assert all(s[f.ROWS] == s[f.PREFILL_ROWS] and s[f.TOKENS] == s[f.PREFILL_TOKENS] for s in pre)
    assert max(s[f.PREFILL_CTX] / s[f.PREFILL_ROWS] for s in pre) == p
    assert all(
        (s[f.ROWS], s[f.SAMPLED], s[f.DECODE_ROWS], s[f.DECODE_TOKENS], s[f.TOKENS]) == (n,) * 5
        for s in cost.steps
        if s[f.DECODE_ROWS]
    )
    inside = batch.static_batch(replace(made, inside=True), cost)  # type: ignore[arg-type]
    timed = batch.static_batch(replace(made, measured={"step_s.decode": 1.0}), cost)  # type: ignore[arg-type]
    assert inside["ttft_s.mean"] == timed["ttft_s.mean"] == pytest.approx(prefill)
    with pytest.raises(NotModelledError, match="fixed lengths"):
        batch.static_batch(replace(made, traffic=BATCH | {"prompt_tokens": {"uniform": [1, 2]}}), cost)  # type: ignore[arg-type]


# ---- the bound of a plan


def test_what_a_replica_can_do_at_best(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step takes 2 ms + 10 µs a row + 1 µs a token of prompt, and 1 ns a token of the context of each row."""
    asked: list[dict[str, Any]] = []

    def time(_: object, *, decode_rows: int = 0, context: float = 0.0, prompt: int = 0, before: int = 0) -> float:
        asked.append({"rows": decode_rows, "context": context, "prompt": prompt, "before": before})
        return 2e-3 + 1e-5 * decode_rows + 1e-9 * decode_rows * context + 1e-6 * prompt + 1e-9 * prompt * before

    monkeypatch.setattr(bound_module, "_time", time)

    def plan(drafts: int = 0, kv: int | None = 110_000, pp: int = 1, ranks: int = 1) -> Any:
        extras = SimpleNamespace(draft_tokens=drafts) if drafts else None
        scheduler = SimpleNamespace(max_batch_tokens=lambda *_: 512, extras=lambda *_: extras)
        budget = None if kv is None else SimpleNamespace(kv_tokens=kv, shared=None)
        return SimpleNamespace(
            scheduler=scheduler, params=None, site=None, budget=budget, layout=SimpleNamespace(pp=pp), rank_count=ranks
        )

    need = Demand(1000.0, 200.0, 1800.0, False)
    per_row = 1e-5 + 1e-9 * 1100
    rows_ = 100.0  # of the 110,000 tokens that fit
    step = 2e-3 + per_row * rows_
    per_token = 2e-3 / 512 + 1e-6
    found = bound(plan(), need, Slo(e2e=1000.0))
    assert found.rate == pytest.approx(1 / max(200 * step / rows_, per_token * 1200), rel=1e-9)
    assert found.guess == pytest.approx(1 / (200 * step / rows_ + per_token * 1000), rel=1e-9)
    assert {a["context"] for a in asked if a["rows"]} == {1100.0} and max(a["rows"] for a in asked) == 100
    chunks = [(a["prompt"], a["before"]) for a in asked if a["prompt"]][:4]
    assert chunks == [(512, 0), (512, 512), (512, 1024), (264, 1536)]  # the prompt that 99 % do not exceed
    first = sum(2e-3 + 1e-6 * n + 1e-9 * n * b for n, b in chunks)
    assert not bound(plan(), need, Slo(ttft=first)).hopeless
    told = bound(plan(), need, Slo(ttft=first * 0.99))
    assert told.hopeless.startswith("a prompt of 1,800 tokens takes") and told.rate == told.guess == 0.0
    assert not bound(plan(), replace(need, prefixes=True), Slo(ttft=1e-9)).hopeless  # it may be cached
    alone = 2e-3 + per_row
    assert bound(plan(), need, Slo(tpot=alone * 0.99)).hopeless.startswith(
        f"a token takes {alone * 1e3:.1f} ms in an empty engine"
    )
    assert (
        not bound(plan(drafts=1), need, Slo(tpot=alone * 0.51)).hopeless
        and bound(plan(drafts=1), need, Slo(tpot=alone * 0.49)).hopeless
    )
    assert not bound(plan(), replace(need, output=1.0), Slo(tpot=1e-9 + alone)).hopeless
    # a TPOT target bounds the batch: 2 ms + 60 rows fit into 2.67 ms
    tight = bound(plan(), need, Slo(tpot=2e-3 + per_row * 60))
    assert 1 / found.rate < 1 / tight.rate and tight.rate <= 1 / (200 * (2e-3 + per_row * 60) / 60) * (1 + 1e-9)
    twice = bound(plan(pp=2, ranks=3), need, Slo(e2e=1000.0))
    assert twice.rate == pytest.approx(6 * found.rate) and twice.guess == pytest.approx(6 * found.guess)
    drafted = bound(plan(drafts=3), need, Slo(e2e=1000.0))
    assert drafted.rate == pytest.approx(1 / max(200 * step / rows_ / 4, per_token * (1000 + 50)))
    assert drafted.guess == pytest.approx(1 / (200 * step / rows_ / 2 + per_token * 1000))
    cached = bound(plan(), replace(need, prefixes=True), Slo(e2e=1000.0))
    all_rows = 512.0
    assert cached.rate == pytest.approx(1 / max(200 * (2e-3 + per_row * all_rows) / all_rows, per_token * 200))
    assert bound(plan(kv=None), need, Slo(e2e=1000.0)).rate == pytest.approx(
        1 / max(200 * (2e-3 + per_row * 512) / 512, per_token * 1200)
    )


# ---- logs of steps


def log(steps: list[tuple[int, int, int, int]], elapsed: float = 0.1, between: float = 0.0, clock: bool = True) -> StepLog:
    columns = np.array(steps).T
    took = np.full(len(steps), elapsed)
    at = np.cumsum(took) + between * np.arange(len(steps)) if clock else np.full(len(steps), np.nan)
    return StepLog(at, *columns, took)


def test_kinds_of_logged_steps() -> None:
    steps = [(1, 60, 0, 0), (0, 0, 1, 1), (0, 0, 1, 1), (2, 100, 1, 1)]
    made = log(steps, clock=False)
    found = kinds([made])
    assert found.count.tolist() == [2, 1, 1] and found.seconds == pytest.approx([0.1] * 3) and found.spread == 0.0
    by = {tuple(int(row[i]) for i in (f.PREFILL_ROWS, f.PREFILL_TOKENS, f.DECODE_ROWS, f.TOKENS)): row for row in found.features}
    assert set(by) == {(0, 0, 1, 1), (1, 60, 0, 60), (2, 100, 1, 101)}
    assert by[0, 0, 1, 1][f.DECODE_CTX] == pytest.approx((61 + 62) / 2)  # contexts of 60 and 61, and the token itself
    assert by[2, 100, 1, 101][f.DECODE_CTX] == 63.0 and by[2, 100, 1, 101][f.PREFILL_WORK] == 100 * 100 / 4
    assert by[2, 100, 1, 101][f.ROWS] == by[2, 100, 1, 101][f.SAMPLED] == 3 and by[1, 60, 0, 60][f.PREFILL_CTX] == 60
    assert found.prompt.tolist() == [False, True, True]
    uneven = kinds([replace(made, elapsed_s=np.array([0.1, 0.1, 0.4, 0.1]))])
    assert uneven.seconds.tolist() == pytest.approx([0.25, 0.1, 0.1])
    assert uneven.spread == pytest.approx(np.sqrt((np.log(0.4) ** 2 + np.log(1.6) ** 2) / 2))
    weighted = summary(Kinds(found.features, np.array([2, 1, 3]), found.seconds, 0.0), np.array([1.0, 2.0, 4.0]))
    assert weighted == {"step_s.decode": 1.0, "step_s.prefill": 3.5}
    assert summary(Kinds(found.features[:1], np.array([1]), found.seconds[:1], 0.0), np.array([1.0])) == {"step_s.decode": 1.0}


def test_the_gap_is_how_far_the_clock_runs_ahead() -> None:
    busy = [(1, 60, 0, 0)] + [(0, 0, 1, 1)] * 4000
    assert gap([log(busy, 0.01, 0.004)]) == pytest.approx(0.004)
    assert gap([log(busy, 0.01, 0.004), log(busy, 0.01, 0.002)]) == pytest.approx(0.003)
    assert gap([log(busy, 0.01, -0.004)]) == 0.0 and gap([log(busy, 0.01, 0.004, clock=False)]) == 0.0
    assert gap([log(busy[:30], 0.01, 0.004)]) == 0.0  # too few to tell it from whole seconds
    paused = log([*busy[:7], *busy[:8], *busy[:9]])
    assert paused.without_pause() == [slice(7, 15), slice(15, 24)]


# ---- traffic and populations


def test_lengths_are_drawn_as_they_are_told() -> None:
    rng = np.random.default_rng(1)
    assert draw(7, 3, rng, "prompt").tolist() == [7, 7, 7] and longest(7) == 7
    even = draw({"uniform": [3, 5]}, 300, rng, "prompt")
    assert set(even.tolist()) == {3, 4, 5} and longest({"uniform": [3, 5]}) == 5
    assert longest({"trace": "gsm8k", "mean": 5.0}) == 4096 and longest({"trace": "x"}) == 1024
    for name, role, most in (("sharegpt", "output", 1024), ("gsm8k", "prompt", 512)):
        found = draw({"trace": name, "mean": 100.0}, 20_000, rng, role)
        assert found.min() >= 4 and found.max() <= most and found.mean() == pytest.approx(100.0, rel=0.01)
    words = draw({"trace": "gsm8k", "mean": 100.0}, 20_000, rng, "prompt")
    assert np.log(words).std() == pytest.approx(0.4, abs=0.02)
    with pytest.raises(NotModelledError):
        draw({"trace": "gsm8k"}, 3, rng, "prompt")


def test_requests_of_every_kind_of_traffic() -> None:
    stages = {
        "kind": "stages",
        "stages": [{"rate": 2.0, "duration": 5.0}, {"rate": 4.0, "duration": 2.5}],
        "prompt_tokens": 9,
        "output_tokens": 3,
    }
    (block,) = traffic_of(point(traffic=stages)).blocks()
    assert block.arrival_s.tolist() == [*(0.5 * k for k in range(10)), *(5.0 + 0.25 * k for k in range(10))]
    assert stage_starts(stages) == [0.0, 5.0, 7.5]  # type: ignore[arg-type]
    (few,) = traffic_of(point(traffic=stages | {"num_requests": 4})).blocks()
    assert len(few) == 4 and set(few.prompt_tokens.tolist()) == {9} and set(few.output_tokens.tolist()) == {3}
    wild = stages | {"arrival": "poisson", "stages": [{"rate": 50.0, "duration": 40.0}, {"rate": 5.0, "duration": 10.0}]}
    (drawn,) = traffic_of(point(traffic=wild)).blocks()
    at = drawn.arrival_s
    assert (
        at[0] == 0.0
        and at.max() < 50.0
        and (at < 40).sum() == pytest.approx(2000, rel=0.1)
        and np.diff(at[at < 40]).std() == pytest.approx(0.02, rel=0.15)
    )
    burst = traffic_of(point(traffic={"kind": "burst", "num_requests": 5, "prompt_tokens": 9, "output_tokens": 3}))
    assert next(iter(burst.blocks())).arrival_s.tolist() == [0.0] * 5
    loop = traffic_of(point(traffic=LOOP))
    assert (
        loop.closed_loop is not None and (loop.closed_loop.concurrency, loop.closed_loop.paced) == (4, False) and loop.total == 16
    )
    rated = traffic_of(point(traffic=LOOP | {"max_rate": 10.0, "num_requests": 400}))
    assert rated.closed_loop is not None and rated.closed_loop.paced
    assert next(iter(rated.blocks())).arrival_s[-1] == pytest.approx(40.0, rel=0.2)
    shared = traffic_of(point(traffic=stages | {"unique_prompts": 15, "prefix_tokens": 4}))
    (b,) = shared.blocks()
    assert (
        (b.span_off == 2 * np.arange(21)).all() and set(b.span_len[::2].tolist()) == {4} and set(b.span_len[1::2].tolist()) == {5}
    )
    assert b.span_id[0] == b.span_id[20] == b.span_id[30] and b.span_id[0] != b.span_id[2]  # ten groups; 15 prompts come again
    assert b.span_id[1] == b.span_id[31] and len(set(b.span_id[1::2].tolist())) == 15
    one = traffic_of(point(traffic=stages | {"prefix_tokens": 40}))
    (c,) = one.blocks()
    assert (
        set(c.span_len[::2].tolist()) == {8}
        and len(set(c.span_id[::2].tolist())) == 1
        and len(set(c.span_id[1::2].tolist())) == 20
    )
    with pytest.raises(Exception, match="unknown kind of traffic 'other'"):
        traffic_of(point(traffic={"kind": "other"}))
    columns = {"arrival_s": np.array([5.0, 4.0]), "prompt_tokens": np.array([7, 8]), "output_tokens": np.array([0, 2])}
    (own,) = traffic_of(point(traffic={"kind": "trace"}, columns=columns)).blocks()
    assert (own.arrival_s.tolist(), own.prompt_tokens.tolist(), own.output_tokens.tolist()) == ([0.0, 1.0], [8, 7], [2, 1])
    ids = columns | {"prompt_id": np.array([3, -1]), "prefix_id": np.array([1, -1]), "prefix_tokens": np.array([4, -1])}
    (told,) = traffic_of(point(traffic={"kind": "trace"}, columns=ids)).blocks()
    assert told.span_off.tolist() == [0, 1, 3] and told.span_len.tolist() == [8, 4, 3]
    assert traffic_module.read_requests.__doc__


def test_the_window_and_the_throughput_of_it() -> None:
    requests = {
        "arrival_s": np.array([0.0, 3.0, 1.0, 6.0, 5.0]),
        "finish_s": np.array([2.0, 9.0, 4.0, 30.0, 11.0]),
        "prompt_tokens": np.full(5, 10),
    }
    requests |= {
        "output_tokens": np.array([1, 2, 3, 4, 5]),
        "status": np.array([FINISHED, FINISHED, FINISHED, IN_FLIGHT, FINISHED]),
    }
    assert _throughput(requests) == pytest.approx(
        {"requests_per_s": 4 / 11, "output_tokens_per_s": 1.0, "input_tokens_per_s": 40 / 11, "makespan_s": 11.0}
    )
    stages = {"kind": "stages", "stages": [{"rate": 1.0, "duration": 3.0}, {"rate": 1.0, "duration": 3.0}]}

    def kept(**window: Any) -> list[bool]:
        return _window(point(traffic=stages, window=window), requests).tolist()  # type: ignore[no-any-return]

    assert (
        kept() == [True] * 5
        and kept(stage=0) == [True, False, True, False, False]
        and kept(stage=1) == [False, True, False, False, True]
    )
    assert kept(after_s=1.0) == [False, True, True, True, True] and kept(before_s=5.0) == [True, True, True, False, True]
    assert kept(skip_first=2) == [False, True, False, True, True] and kept(skip_first=1, before_s=3.0) == [
        False,
        True,
        True,
        False,
        False,
    ]


def test_only_what_the_tool_counts_is_counted() -> None:
    """Arrivals 2, 1, 3: rows 1, 0, 2 of the file by their place in time."""
    mask = np.array([True, False, True])
    columns = {
        "arrival_s": np.array([2.0, 1.0, 3.0]),
        "output_tokens": np.array([5, 6, 0]),
        "counts": np.array([True, True, False]),
    }
    columns |= {
        "counts_ttft": mask,
        "counts_tpot": ~mask,
        "counts_e2e": np.ones(3, bool),
        "ttft_told": np.array([np.nan, np.nan, 9.0]),
    }
    requests = {"id": np.array([0, 1, 2]), "output_tokens": np.array([6, 5, 1]), "x": np.array([1, 2, 3])}
    samples = {k: np.array([1.0, 2.0, 3.0]) for k in ("ttft_s", "tpot_s", "e2e_s", "itl_s")}
    found = counted(point(columns=columns), requests, samples)
    assert found["ttft_s"][1:].tolist() == [2.0, 9.0] and np.isnan(found["ttft_s"][0])
    assert (
        found["tpot_s"][0] == 1.0
        and np.isnan(found["tpot_s"][1:]).all()
        and found["e2e_s"].tolist() == found["itl_s"].tolist() == [1.0, 2.0, 3.0]
    )
    assert counted_output(point(columns=columns), requests).tolist() == [6, 5, 0]
    kept = counted_requests(point(columns=columns), requests)
    assert kept["x"].tolist() == [1, 2] and kept["output_tokens"].tolist() == [6, 5]
    every = {k: v for k, v in columns.items() if k != "counts"}
    assert counted_requests(point(columns=every), requests)["x"].tolist() == [1, 2, 3]
    for p, r in (
        (point(), requests),
        (point(columns={"arrival_s": columns["arrival_s"]}), requests),
        (point(columns=columns), requests | {"id": np.array([0, 1, 3])}),
    ):
        assert counted_requests(p, r)["x"].tolist() == [1, 2, 3] and counted(p, r, samples)["ttft_s"].tolist() == [1.0, 2.0, 3.0]
    talks = columns | {"talk": np.zeros(3)}
    assert counted(point(columns=talks), requests | {"tenant": np.array([3, 1, 2])}, samples)["ttft_s"][:2].tolist() == [9.0, 2.0]
    assert counted(point(columns=talks), requests, samples)["ttft_s"].tolist() == [1.0, 2.0, 3.0]


# ---- errors, groups and what stands beside them


def off(name: str, ratio: float, metric: str = "tpot_s.mean", **more: Any) -> Outcome:
    return Outcome(point(id=f"{name}/0", measured={metric: 2.0}, **more), {metric: 2.0 * ratio})


def test_rows_of_errors() -> None:
    found = rows([off("a", 1.1), off("a", 0.7), off("a", 1.0), off("b", 1.5), off("b", 2.0, "zzz")], "deployment")
    assert [(r.group, r.metric, r.points) for r in found] == [("a", "tpot_s.mean", 3), ("b", "tpot_s.mean", 1), ("b", "zzz", 1)]
    assert (found[0].median, found[0].p90, found[0].bias) == pytest.approx((0.1, 0.26, 0.0))
    assert [r.group for r in rows([off("a", 1.1), off("b", 1.2)])] == ["all"]
    assert [r.metric for r in rows([off("a", 1.1), off("b", 2.0, "zzz")], None, ("zzz",))] == ["zzz"]
    assert (
        off("a", 1.5).errors() == {"tpot_s.mean": pytest.approx(0.5)}
        and Outcome(point(measured={"x": 0.0}), {"x": 1.0, "y": 2.0}).errors() == {}
    )
    assert (title("ttft_s.p99"), title("kv_blocks"), title("x.mean")) == ("TTFT p99", "KV blocks", "x mean")
    assert family("meta-llama/Meta-Llama-3.1-8B") == "llama-3" and family("org/Other-7B") == "other-7b"
    assert source(point(id="azure-x/0")) == "azure" and source(point(launcher="me/it")) == "me/it"


def test_a_report_of_known_errors() -> None:
    bad = Outcome(point(id="c/0", engine="tgi"), {}, "not modelled")
    report = AccuracyReport((off("a", 1.04), off("b", 1.02, "ttft_s.mean"), bad, bad))
    assert (
        report.sentence()
        == "2 of 4 operating points simulated: the median prediction is off by TPOT mean 4.0 %, TTFT mean 2.0 %."
    )
    assert report.verdict is True and report.answered and report.reasons() == [("tgi", "not modelled", 2)]
    assert AccuracyReport((off("a", 1.06),)).verdict is False and AccuracyReport((off("a", 1.05),)).targets()[0][1] == 0.05
    assert AccuracyReport((off("a", 1.5, "zzz"),)).verdict is None
    assert AccuracyReport((off("a", 1.5, "zzz"),)).sentence().endswith("simulated: nothing was measured that has an aim.")
    assert (
        AccuracyReport((bad,)).sentence() == "None of 1 operating points could be simulated."
        and not AccuracyReport((bad,)).answered
    )
    worst = AccuracyReport((off("a", 1.2), off("b", 0.5), off("c", 1.3), off("d", 9.0, "zzz"))).worst(2)
    assert [(o.point.id, round(e, 6)) for o, _, e in worst] == [("b/0", -0.5), ("c/0", 0.3)]
    again = AccuracyReport((off("a", 1.2), off("b", 1.4)), unmeasured=(off("a", 1.5), Outcome(point(id="b/0"), {}, "no")))
    told = [(r.group, r.points, round(r.median, 6)) for r in again.left_out() if "accel" in r.group or "these" in r.group]
    assert told == [("these points", 1, 0.2), ("accelerator left out", 1, 0.5)]


def test_points_that_are_chosen() -> None:
    points = [
        point(id=f"d{i}/0", quality=q, overload=o, engine=e)
        for i, (q, o, e) in enumerate([("good", False, "vllm"), ("weak", False, "vllm"), ("fair", True, "tgi")])
    ]

    def ids(**more: Any) -> tuple[list[str], int]:
        made = {"engine": None, "accelerator": None, "model": None, "qualities": ("good", "fair"), "overload": False, "on": {}}
        kept, skipped = chosen(points, *(made | more).values())  # type: ignore[arg-type]
        return [p.id for p in kept], skipped

    assert ids() == (["d0/0"], 2) and ids(overload=True) == (["d0/0", "d2/0"], 1) and ids(qualities=("weak",)) == (["d1/0"], 2)
    assert (
        ids(engine="tgi", overload=True) == (["d2/0"], 0)
        and ids(model="LLAMA_3", accelerator="H100") == (["d0/0"], 2)
        and ids(model="qwen") == ([], 0)
    )
    moved, _ = chosen(points, None, "h200", None, ("good",), False, {"d0": "h200-sxm"})
    assert [p.accelerator for p in moved] == ["h200-sxm"]
    with pytest.raises(ConfigError, match="is no quality"):
        ids(qualities=("goood",))
    with pytest.raises(ConfigError, match="is in no deployment's name"):
        ids(on={"zzz": "h100-sxm"})


def test_capacities_and_equal_loads() -> None:
    def loop(n: int, measured: float, predicted: float, **more: Any) -> Outcome:
        return Outcome(
            point(traffic=LOOP | {"concurrency": n}, measured={"output_tokens_per_s": measured}, **more),
            {"output_tokens_per_s": predicted},
        )

    for n, then, saturated in ((15, 104.9, True), (15, 105.1, False), (14, 100.0, False)):
        assert bool(capacities([loop(10, 100.0, 90.0), loop(n, then, 80.0)])) is saturated
    (found,) = capacities([loop(10, 100.0, 90.0), loop(20, 90.0, 80.0)])
    assert (found.measured, found.predicted, found.points, found.error) == (100.0, 90.0, 2, pytest.approx(-0.1))
    assert (
        capacities([loop(10, 100.0, 90.0), loop(20, 90.0, 80.0, tp=2)]) == []
        and len(capacities([loop(1, 5.0, 4.0, overload=True)])) == 1
    )
    assert capacities([Outcome(loop(1, 5.0, 4.0, overload=True).point, {}, "not simulated")]) == []
    pace = Outcome(point(measured={"tpot_s.mean": 0.0, "itl_s.p50": 2.0}), {"tpot_s.mean": 1.0, "itl_s.p50": 3.0})
    assert paced(pace) == 1.5 and paced(Outcome(point(measured={"tpot_s.mean": 1.0}), {})) is None
    stages = {"kind": "stages", "stages": [{"rate": 8.0, "duration": 60.0}]}
    for factor, there in ((2.9, 1), (3.0, 0), (0.34, 1), (1 / 3, 0)):
        assert len(at_equal_load([off("a", factor, traffic=stages)])) == there
    assert at_equal_load([off("a", 1.2, traffic=LOOP)]) == []
    moved = stretched(point(traffic=stages, window={"before_s": 3.0, "stage": 0}), 2.0)
    assert moved.traffic["stages"] == [{"rate": 4.0, "duration": 120.0}] and moved.window == {"before_s": 6.0, "stage": 0}


def test_a_source_left_out_is_moved_by_the_median_of_the_others() -> None:
    def of(name: str, ratio: float) -> Outcome:
        return Outcome(point(id=f"{name}/0", measured={"tpot_s.mean": 0.01 * ratio}), {"tpot_s.mean": 0.01})

    ratios = {"mine-1": 1.0, "b-1": 1.1, "c-1": 1.3, "d-1": 2.0}
    found = {o.point.id: o.predicted["tpot_s.mean"] for o in without_source(of(k, v) for k, v in ratios.items())}
    assert found["mine-1/0"] == pytest.approx(0.013) and found["d-1/0"] == pytest.approx(0.011)
    assert without_source([of("a-1", 1.0), of("b-1", 1.0), of("c-1", 1.0)])[0].predicted == {}


def test_what_a_point_becomes_in_settings() -> None:
    def given(**more: Any) -> dict[str, Any]:
        return _settings(point(**more))

    plain = given(
        settings={"max_num_seqs": 64, "attention_backend": "x", "cudagraph_mode": "FULL", "cudagraph_capture_sizes": [1]},
        block_size=32,
    )
    assert (plain["max_num_seqs"], plain["version"], plain["block_size"]) == (
        64,
        "0.15.1",
        32,
    ) and "attention_backend" not in plain
    assert plain["compilation_config"] == {"cudagraph_mode": "FULL", "cudagraph_capture_sizes": [1]}
    with pytest.raises(NotModelledError, match="is not modelled for vllm"):
        given(settings={"no_such": 1})
    with pytest.raises(ConfigError, match="must be a mapping"):
        check(point(settings={"speculative": 3}, traffic=LOOP))
    mindie = given(
        engine="mindie",
        version=None,
        accelerator="ascend-910b",
        settings={"max_batch_size": 7},
        traffic=LOOP | {"output_tokens": 9000},
    )
    assert (mindie["maxBatchSize"], mindie["maxIterTimes"], mindie["maxSeqLen"]) == (7, 9000, 512 + 9000 + 1)
    assert given(engine="mindie", version=None, traffic=LOOP)["maxSeqLen"] >= 2560
    assert _longest(point(traffic=LOOP)) == 576
    assert (
        _pools(point(tp=2, kv_blocks=9), {"name": "vllm"})[0]["kv_blocks"] == 9
        and "kv_blocks" not in _pools(point(), {"name": "vllm"})[0]
    )
    sides = _pools(point(sides={"prefill": {"tp": 8, "instances": 2}, "decode": {"dp": 4}}), {"name": "sglang"})
    assert [(p["role"], p["replicas"], p["tp"], p["dp"], p["ep"]) for p in sides] == [
        ("prefill", 2, 8, 1, 1),
        ("decode", 1, 1, 4, 1),
    ]


def test_notes_on_what_file_and_scenario_say_apart() -> None:
    run = Run(
        "t",
        "n",
        {},
        {"kind": "trace"},
        {},
        {"model": "org/Other", "tp": 2, "engine": "vllm-x", "accelerator": "h100", "ep": None},
    )
    deployed: Any = SimpleNamespace(tp=1, pp=1, ep=1, engine=SimpleNamespace(name="vllm"), accelerator="h100-sxm")
    assert _other_layout(run, deployed) == ["the file says tp 2, the scenario has 1"]
    assert _other_layout(replace(run, said={"engine": "sglang", "accelerator": "h2"}), deployed) == [
        "the file says engine sglang, the scenario has vllm", "the file says accelerator h2, the scenario has h100-sxm",
    ]  # fmt: skip
    assert _other_model(run, "llama-3.1-8b") == ["the file names the model 'org/Other', the scenario deploys 'llama-3.1-8b'"]
    for name in ("meta-llama/Meta-Llama-3.1-8B-Instruct", "x/llama-3.1-8b", "", "Llama_3.1_70B/"):
        assert _other_model(replace(run, said={"model": name}), "llama-3.1-8b") == []


def test_a_point_as_it_is_written(tmp_path: Any) -> None:
    raw = {
        "id": "d/1",
        "model": "m",
        "engine": {"name": "vllm"},
        "accelerator": "h100",
        "traffic": LOOP,
        "measured": {"ttft_s": {"mean": 1, "p99": None}, "x": 2, "y": None},
    }
    found = parse(raw, tmp_path)
    assert found.measured == {"ttft_s.mean": 1.0, "x": 2.0} and (
        found.tp,
        found.nodes,
        found.kv_cache,
        found.quality,
        found.overload,
    ) == (1, 1, "auto", "fair", False)
    full = parse(
        raw | {"kv_blocks": 7, "kv_cache": "fp8", "overload": 1, "nodes": 2, "parallelism": {"tp": 2, "pp": 3, "dp": 4, "ep": 5}},
        tmp_path,
    )
    assert full.measured["kv_blocks"] == 7.0 and (
        full.tp,
        full.pp,
        full.dp,
        full.ep,
        full.nodes,
        full.kv_cache,
        full.overload,
    ) == (2, 3, 4, 5, 2, "fp8", True)


# ---- fits of a problem that is linear


def problem(monkeypatch: pytest.MonkeyPatch, truth: dict[str, float], n: int = 12, noise: float = 0.0) -> fitting.Problem:
    """A time per token of 10 ms × gemm_scale × (1 + load) and a TTFT of host_step × 100 × load: what is measured is of ``truth``."""
    start = {"gemm_scale": 1.0, "host_step": 1e-3, "comms_scale": 1.0, "expert_token": 0.0}
    profile: Any = SimpleNamespace(**start, client_serial=0.0)

    def said(figures: Any, load: int) -> dict[str, float]:
        return {"tpot_s.mean": 0.01 * figures["gemm_scale"] * (1 + load), "ttft_s.mean": 100 * figures["host_step"] * load}

    rng = np.random.default_rng(1)
    points = [
        point(id=f"d{i % 4}/{i}", traffic=LOOP | {"concurrency": i + 1}, model=("llama-3.1-8b", "qwen3-32b")[i % 2],
              measured={k: v * float(np.exp(noise * rng.normal())) for k, v in said(start | truth, i + 1).items()})
        for i in range(n)
    ]  # fmt: skip
    seen: list[int] = []

    def outcome(p: Any, override: Any, seed: int) -> Outcome:
        seen.append(seed)
        return Outcome(p, said(start | dict(override["vllm", "0.12", "h100"]), p.traffic["concurrency"]))

    monkeypatch.setattr(fitting, "outcome", outcome)
    return fitting.Problem(
        ("vllm", "0.12", "h100"), points, ("gemm_scale", "host_step", "comms_scale", "expert_token"), profile, 5
    )


def test_a_fit_finds_what_was_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    found = problem(monkeypatch, {"gemm_scale": 1.2, "host_step": 1.3e-3}).fit()
    assert found.figures == pytest.approx({"gemm_scale": 1.2, "host_step": 1.3e-3}, rel=0.01) and found.unmoved == (
        "comms_scale",
        "expert_token",
    )
    assert found.before == pytest.approx({"tpot_s.mean": 1 - 1 / 1.2, "ttft_s.mean": 1 - 1 / 1.3})
    assert max(found.after.values()) < 0.01 and max(found.held_out.values()) < 0.02 and found.folds == "model"
    assert {k: len(v) for k, v in found.left.items()} == {"tpot_s.mean": 12, "ttft_s.mean": 12}
    assert all(abs(x) < 0.02 for v in found.left.values() for x in v)
    far = problem(monkeypatch, {"gemm_scale": 1.1, "host_step": 50e-3}).fit()
    assert far.figures["host_step"] == pytest.approx(50e-3, rel=0.05)


def test_residuals_are_logarithms_over_what_is_expected(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(monkeypatch, {"gemm_scale": 2.0}, 3)
    x = np.zeros(4)
    assert (
        p.residuals(x) == pytest.approx([np.log(0.5) / 0.05, 0.0] * 3)
        and [m for m, _ in p.labels] == ["tpot_s.mean", "ttft_s.mean"] * 3
    )
    assert p.figures(np.array([np.log(3), 0, 0, np.log(2)])) == pytest.approx(
        {"gemm_scale": 3.0, "host_step": 1e-3, "comms_scale": 1.0, "expert_token": 1e-8}
    )
    assert p.low.tolist() == pytest.approx([-np.log(1e4)] * 3 + [0.0]) and p.high.tolist() == pytest.approx([np.log(1e4)] * 4)
    assert fitting.medians(
        np.array([np.log(1.1) / 0.05, 0.0, np.log(0.8) / 0.05]), [("a", p.loads[0])] * 3, np.full(3, 0.05)
    ) == {"a": pytest.approx(0.1)}
    r = p.residuals(x)
    rest = np.concatenate([r, x / p.prior]) / 2
    assert p.loss(x) == pytest.approx(float(np.sum(np.sqrt(1 + rest**2) - 1)))
    slope = fitting._slopes(p)(x)
    assert slope[::2, 0] == pytest.approx(1 / 0.05) and slope[1::2, 1] == pytest.approx(1 / WEIGHT) and not slope[:, 2:].any()
    assert len(problem(monkeypatch, {}, 100).loads) == 36
    kept = problem(monkeypatch, {}, 100).loads
    assert (kept[0].id, kept[-1].id) == ("d0/0", "d3/99")
    serial = fitting.Problem(
        ("vllm", "0.12", "h100"), kept, ("client_request",), SimpleNamespace(client_request=4e-3, client_serial=1e-3)
    )  # type: ignore[arg-type]
    assert serial.low == pytest.approx([np.log(0.25)])


WEIGHT = fitting.WEIGHTS["ttft_s.mean"]


def test_folds_are_models_then_deployments_then_points(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem(monkeypatch, {"gemm_scale": 1.2}, 8, noise=0.05)
    assert p.fit().folds == "model"
    p.loads = [replace(x, model="llama-3.1-8b") for x in p.loads]
    assert p.fit().folds == "deployment"
    p.loads = [replace(x, id="d/0") for x in p.loads]
    assert p.fit().folds == "point"
