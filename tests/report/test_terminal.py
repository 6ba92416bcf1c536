"""What is printed fits the screen and says what the numbers say."""

import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

import sim
from sim.metrics.model_error import Spread
from sim.metrics.result import Result
from sim.metrics.slo import Slo
from sim.report import capacity, compare, confidence, terminal, words
from sim.report.fitting import kept
from sim.study.questions.capacity import CapacityAnswer, Probe
from sim.study.statistics.interval import Interval
from sim.study.statistics.worth import Worth
from sim.units import show_number, show_seconds
from tests.report.comparing import compared

Maker = Callable[..., Result]


@pytest.mark.parametrize("width", [80, 100])
def test_one_screen(wave: Result, width: int) -> None:
    lines = terminal.text(wave, width).splitlines()

    assert len(lines) <= 24
    assert max(map(len, lines)) <= width


def test_a_large_fleet_fits_as_well(make_result: Maker) -> None:
    lines = terminal.text(make_result(5000, 1000, 50, load=2.0), 100).splitlines()

    assert len(lines) <= 26


def test_warnings_are_never_cut(make_result: Maker) -> None:
    many = make_result(500, warnings=[f"warning {i}: " + "a long sentence " * 20 + f"that ends in {i}." for i in range(5)])
    screen = " ".join(terminal.text(many, 80).split())

    assert all(f"that ends in {i}." in screen for i in range(5))
    assert "…" not in screen


@pytest.mark.parametrize("width", [40, 50, 60, 64, 70, 80, 120])
@pytest.mark.parametrize("targets", [Slo(), Slo(ttft=1.0, tpot=0.05, e2e=30.0)])
def test_every_row_keeps_its_label(make_result: Maker, width: int, targets: Slo) -> None:
    screen = terminal.text(make_result(1000, slo=targets), width)

    for label in ("TTFT ms", "TPOT ms", "ITL ms", "E2E s", "Queue ms", "Ingress"):
        assert any(line.startswith(label) for line in screen.splitlines()), label
    for column in ("p50", "p99"):
        assert column in screen
    assert max(map(len, screen.splitlines())) <= width or width < 60


def test_numbers_and_units(wave: Result) -> None:
    screen = terminal.text(wave)
    ttft = wave.summary["latency"]["ttft_s"]

    assert "Holds its SLO: 99.62% of requests meet TTFT ≤ 1 s, TPOT ≤ 50 ms and E2E ≤ 30 s" in screen
    assert re.search(rf"TTFT ms +{1e3 * ttft['mean']:.1f} ", screen)
    assert "E2E s" in screen


def test_without_slo(make_result: Maker) -> None:
    screen = terminal.text(make_result(1000, slo=Slo()))

    assert "No SLO was set" in screen
    assert "Goodput" not in screen


@pytest.mark.parametrize(
    ("value", "text"), [(None, "–"), (0.99999, "99.9%"), (1.0, "100.0%"), (0.1234, "12.3%"), (float("nan"), "–"), (0.0, "0.0%")]
)
def test_percent_never_rounds_up_to_all(value: float | None, text: str) -> None:
    assert words.percent(value) == text


@pytest.mark.parametrize(("value", "text"), [(1234.5, "1,234"), (12.345, "12.3"), (0.01234, "0.0123"), (0, "0"), (None, "–")])
def test_numbers_without_exponents(value: float | None, text: str) -> None:
    assert words.number(value) == text


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (8.0, 3, "8"),
        (12.30, 3, "12.3"),
        (1440.4, 3, "1,440"),
        (123456.0, 4, "123,456"),
        (0.0, 3, "0"),
        (1e-7, 3, "0.0000001"),
        (9.999, 3, "10"),
    ],
)
def test_numbers_in_sentences(value: float, digits: int, text: str) -> None:
    assert show_number(value, digits) == text


def test_long_times_and_slow_rates_have_no_exponents() -> None:
    assert show_seconds(3600.0 * 24 * 365) == "8,760 h"


def test_no_report_prints_figures_with_an_exponent() -> None:
    """``.3g`` makes ``1.44e+03`` of what a large cluster serves or stores; percentages stay below a thousand, and ``hover`` is a format of Plotly's."""
    form = re.compile(r"\{[^{}]*:,?\.[2-5]g\}")
    found = [
        f"{file.name}: {line.strip()}"
        for folder in (
            "report",
            "metrics",
            "study/questions",
            "study/statistics",
            "study/stress",
            "study/plan",
            "workload/arrivals",
            "cli",
        )
        for file in sorted((Path(sim.__file__).parent / folder).rglob("*.py"))
        for line in file.read_text(encoding="utf-8").splitlines()
        if form.search(line) and "hover" not in line and "float(f" not in line and "100 *" not in line
    ]
    assert found == []


def test_evidence_by_time(make_result: Maker) -> None:
    rows = [
        {"name": "GEMM", "part": "linear_compute", "grade": "measured", "source": "grid"},
        {"name": "GEMM", "part": "linear_memory", "grade": "measured", "source": "grid"},
        {"name": "host", "part": "host", "grade": "estimated", "source": "guess"},
    ]
    s = make_result(500, evidence=rows).summary

    assert s["evidence_shares"] == pytest.approx({"measured": 0.63 / 0.73, "estimated": 0.1 / 0.73})
    assert words.evidence_line(s) == "86% measured, 14% estimated of the step time"


def test_comparison_says_who_is_better_and_marks_the_best(make_result: Maker, tmp_path: Path) -> None:
    answer = compared(make_result, {"small": 1.3, "large": 0.8})
    screen = terminal.as_text(compare.screen(answer), 100)

    assert next(line for line in screen.splitlines() if line.startswith("TTFT p99")).count("★") == 1
    assert "large against small" in screen
    assert re.search(r"lowers p99 TTFT by \d+ % ± ", " ".join(screen.split()))
    many = terminal.as_text(compare.screen(compared(make_result, {f"run-{i}": 1.0 for i in range(6)})), 100)
    assert "★ 1" not in many  # all alike
    compare.files(answer, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"compare.csv", "report.html", "summary.json"}


def _answer(make_result: Maker, answer: float | None = 16.0) -> CapacityAnswer:
    probes = [Probe(16 * load, make_result(1500, load=load).summary) for load in (2.0, 0.5, 1.0, 1.2)]
    return CapacityAnswer("quickstart", "rate", answer, probes, "1 replica", 0.02, ("KV blocks are an estimate",))


def test_what_breaks_first_is_said_of_a_load_beyond_the_answer(make_result: Maker) -> None:
    plain = _answer(make_result)
    lower = [replace(p, value=10.0, replication=1) for p in plain.probes if not p.held]
    assert lower
    assert replace(plain, probes=[*lower, *plain.probes]).limit() == plain.limit()
    assert "at 10 requests/s" in replace(plain, answer=9.0, probes=lower).limit()


def test_capacity_prints_rates_without_start_and_drain(make_result: Maker) -> None:
    answer = _answer(make_result)
    probe = next(p for p in answer.probes if p.held)
    inner = replace(probe.summary.steady, requests_per_s=7.77, goodput_requests_per_s=6.66)
    shown = replace(answer, probes=[replace(probe, summary=replace(probe.summary, steady=inner))])
    assert "6.66" in terminal.as_text(capacity.screen(shown), 90)


def test_capacity_screen(make_result: Maker, tmp_path: Path) -> None:
    answer = _answer(make_result)
    lines = terminal.as_text(capacity.screen(answer), 90).splitlines()

    assert lines[0] == "quickstart holds its SLO up to 16 requests/s with 1 replica."
    assert [line.split()[1] for line in lines[5:9]] == ["✔", "✔", "✘", "✘"]
    assert len(lines) <= 24
    capacity.files(answer, tmp_path)
    assert {p.name for p in tmp_path.iterdir()} == {"probes.csv", "report.html", "summary.json"}


def test_capacity_without_an_answer(make_result: Maker) -> None:
    answer = _answer(make_result, None)

    assert "does not hold its SLO with 1 replica at any probed rate" in answer.sentence()
    assert "misses" in capacity.render(answer)


def test_replicas_question(make_result: Maker) -> None:
    answer = CapacityAnswer("big", "replicas", 3.0, _answer(make_result).probes, "24 requests/s")

    assert answer.sentence() == "big needs 3 replicas for 24 requests/s."
    sure = replace(answer, answer=4.0, found=(3.0, 4.0, 3.0), cards=(2, "H100"))
    assert (
        sure.sentence() == "big needs 4 replicas (8 × H100) for 24 requests/s to hold in all 3 repetitions; 3 hold in 2 of them."
    )
    assert replace(sure, found=(4.0, 4.0)).sentence().endswith("for 24 requests/s: so say all 2 repetitions.")


def test_a_rate_comes_with_its_interval(make_result: Maker) -> None:
    answer = replace(_answer(make_result), found=(15.0, 16.0, 17.0), low=13.5, high=18.5)

    assert "up to 16 requests/s with 1 replica; 95% interval 13.5 to 18.5, from 3 repetitions. Every one" in answer.sentence()
    assert answer.safe == 15.0
    assert "another seed may give another answer" in replace(answer, found=(16.0,), low=None).sentence()


def test_only_what_holds_in_every_repetition_holds(make_result: Maker) -> None:
    answer = compared(make_result, {"a": 0.5, "b": 0.5})
    first, last = answer.deployments
    for d, shares in ((first, [1.0] * 4), (last, [1.0, 1.0, 0.7, 1.0])):
        d.summary = replace(d.summary, slo=replace(d.summary.slo, met=True))
        d.values["slo.attainment.joint"] = d.effective = shares

    assert compare.slo_line(answer).startswith("a holds the SLO")
    assert answer.held(last) is False
    assert answer.verdict is False


@pytest.mark.parametrize("width", [50, 60, 80, 120])
def test_a_narrow_screen_loses_columns_and_no_digits(make_result: Maker, width: int) -> None:
    with_many = replace(_answer(make_result), found=(16.0, 15.0), low=14.0, high=18.0)
    screen = terminal.as_text(capacity.screen(with_many), width)

    assert "…" not in screen
    assert "SLO" in screen and "TTFT" in screen
    assert "first repetition" in screen


def test_replicas_show_every_size_with_its_worst_repetition(make_result: Maker) -> None:
    good, bad = make_result(1500, load=0.5).summary, make_result(1500, load=2.0).summary
    assert good.slo.met and not bad.slo.met
    probes = [Probe(2.0, good, 0), Probe(2.0, bad, 1), Probe(3.0, good, 1)]
    answer = CapacityAnswer("x", "replicas", 3.0, probes, "9 requests/s", found=(2.0, 3.0))

    assert [(p.value, p.held) for p in capacity.nearest(answer)] == [(2.0, False), (3.0, True)]
    screen = terminal.as_text(capacity.screen(answer), 100)
    assert "✘ 1 of 2" in screen
    assert "at 2 replicas" in answer.limit()


def test_columns_go_in_order_until_the_rest_fits() -> None:
    widths = {"a": 10, "b": 10, "c": 10}

    assert kept(widths, ("b", "c"), 34) == ["a", "b", "c"]
    assert kept(widths, ("b", "c"), 33) == ["a", "c"]
    assert kept(widths, ("b", "c"), 5) == ["a"]


def test_pools_are_told_by_name_and_once_where_they_are_alike(make_result: Maker) -> None:
    s = make_result(500).summary
    of = {
        f"{what} ({pool})": text
        for pool in ("prefill", "decode")
        for what, text in (("deployment", "2 × H100"), ("engine", "vllm"))
    }
    wire = {"KV transfer": "KV over rdma-400g"}

    alike = words.subtitle(replace(s, context={"model": "m", **of, **wire}))
    assert alike.startswith("m · prefill, decode each: 2 × H100 · vllm · KV over rdma-400g · ")
    unlike = words.subtitle(replace(s, context={"model": "m", **of, "deployment (decode)": "4 × H100", **wire}))
    assert unlike.startswith("m · prefill: 2 × H100 · vllm · decode: 4 × H100 · vllm · KV over rdma-400g · ")


def test_no_wait_at_all_is_zero_and_a_short_one_is_not() -> None:
    assert [words.in_unit(x, 1e-3, 2) for x in (0.0, 0.000004, 0.0012, None)] == ["0", "0.00", "1.20", "–"]


def test_both_ends_of_a_band_have_one_unit_and_lie_outside() -> None:
    band = SimpleNamespace(low=0.85444, high=132.01)
    assert words.between(band) == "854 ms to 2.21 min" and words.course(0.85444, 132.01) == "854 ms to 2.2 min"
    assert words.between(SimpleNamespace(low=0.0, high=150.0)) == words.course(0.0, 150.0) == "0 to 2.5 min"
    assert words.between(band, ("s", 1.0)) == "0.854 to 133 s"
    assert words.between(SimpleNamespace(low=0.3, high=0.9)) == "300 to 900 ms"


def test_a_share_that_misses_by_a_little_does_not_look_as_if_it_held() -> None:
    assert [words.met_share(x) for x in (0.98996, 0.99, 1.0, 0.0, 2e-5, 0.29)] == [
        "98.99%", "99.00%", "100.00%", "none", "less than 0.01%", "29.00%"
    ]  # fmt: skip
    assert [words.met_cell(x) for x in (None, 0.0, 0.98996)] == ["–", "0.00%", "98.99%"]


def test_the_band_of_the_throughput_is_about_the_rate_that_is_printed(make_result: Maker) -> None:
    s = make_result(800, load=2.0).summary
    whole = s.throughput.output_tokens_per_s
    assert whole is not None
    band = Spread(0.9 * whole, 1.1 * whole, "vllm on h100", 21)
    s = replace(s, model_error={"ttft_s.p50": Spread(0.1, 0.2, "vllm on h100", 21), "output_tokens_per_s": band}, load=None)

    def told(busy: float, rate: float) -> str:
        steady = replace(s.steady, requests_per_s=1.0, output_tokens_per_s=rate)
        return words.model_error(replace(s, steady=steady, utilisation=replace(s.utilisation, busy=busy)))

    assert "output tokens/s 899 to 1,100 (" in told(0.99, 1000.0) or "output tokens/s 900 to 1,100 (" in told(0.99, 1000.0)
    assert "output tokens/s" not in told(0.4, 1000.0)  # clients that think decide how much there is to do


def test_a_run_that_does_not_settle_says_nothing_of_how_sure_it_is(make_result: Maker) -> None:
    summary = make_result(500).summary
    some = {"level": 0.95, "method": "order statistics", "n": 500}
    intervals = {"latency.ttft_s.p99": Interval(0.2, 0.1, 0.3, **some), "latency.e2e_s.p99": Interval(3.0, 2.0, math.inf, **some)}
    sure, grows, few = Worth(0.95, "", None, intervals), Worth(0.95, "the queue grew", None, intervals), Worth(0.95, "", None, {})

    assert [t.plain[:8] for t in confidence.one_run(sure, summary)] == ["One run,", "* Too fe"]
    assert "a run that is not stationary cannot tell" in confidence.one_run(grows, summary)[0].plain
    assert "at least 100 are needed" in confidence.one_run(few, summary)[0].plain
    starred = [sum(words.STAR in str(r) for r in words.latency_rows(summary, w)) for w in (sure, grows)]
    assert starred == [1, 0]
