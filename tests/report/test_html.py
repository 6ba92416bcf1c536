"""The HTML reports: one file each, drawn without an error in a real browser, nothing fetched."""

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from sim.metrics.result import Result, load_result
from sim.report import capacity, compare, html
from sim.report.figures import run_figures, time_axis
from sim.study.questions.capacity import CapacityAnswer, Probe
from tests.metrics.records import four_requests
from tests.report.browser import Seen, look
from tests.report.comparing import compared

Maker = Callable[..., Result]


def _without_plotly(page: str) -> str:
    return re.sub(r"<script>.*?</script>", "", page, flags=re.S)


def _clean(seen: Seen, plots: int) -> None:
    assert (seen.plots, seen.errors, seen.console, seen.fetched) == (plots, "", [], "")
    assert seen.overflow <= 0


@pytest.mark.browser
@pytest.mark.parametrize("width", [1240, 420])
def test_report_in_a_browser(wave: Result, tmp_path: Path, width: int) -> None:
    _clean(look(html.render(wave), tmp_path, width), plots=8)


@pytest.mark.browser
def test_a_thousand_replicas_in_a_browser(make_result: Maker, tmp_path: Path) -> None:
    page = html.render(make_result(20_000, 1000, 100))

    assert len(page.encode()) < 6e6
    assert "10 slowest of 1,000 replicas" in page
    _clean(look(page, tmp_path), plots=11)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 420])
def test_comparison_in_a_browser(make_result: Maker, tmp_path: Path, width: int) -> None:
    answer = compared(make_result, {"a": 1.0, "b": 1.3})

    _clean(look(compare.page_of(answer).html(), tmp_path, width), plots=3)


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 420])
def test_capacity_in_a_browser(make_result: Maker, tmp_path: Path, width: int) -> None:
    probes = [Probe(16 * load, make_result(1500, load=load).summary, r) for load in (0.5, 1.0, 2.0) for r in (0, 1)]

    _clean(look(capacity.render(CapacityAnswer("x", "rate", 16.0, probes)), tmp_path, width), plots=4)


def test_answer_comes_first_and_all_sections_are_there(wave: Result) -> None:
    page = _without_plotly(html.render(wave))

    assert page.index("Holds its SLO") < page.index("TTFT, p99") < page.index("<h2>Latency")
    for text in (
        "Where the time went",
        "Through the run",
        "Request classes",
        "Definitions of every metric",
        "chat",
        "pin kv_blocks",
    ):
        assert text in page
    assert "no measurement &lt;of this&gt; version" in page


def test_nothing_points_outside(wave: Result) -> None:
    page = _without_plotly(html.render(wave))

    assert not re.search(r"""(src|href|url)\s*[=(]\s*["']?(https?:)?//""", page)
    assert "default-src 'none'" in page


def test_a_name_cannot_break_the_page(make_result: Maker) -> None:
    page = _without_plotly(html.render(make_result(200, name="</script><b>x")))

    assert "</script><b>x" not in page


def test_missed_slo_is_said_first(make_result: Maker) -> None:
    page = _without_plotly(html.render(make_result(1000, load=2.5)))

    assert "Misses its SLO:" in page
    assert "is missed most" in page


def test_a_loaded_result_gives_the_same_report(wave: Result, tmp_path: Path) -> None:
    wave.save(tmp_path / "out")

    assert load_result(tmp_path / "out").html() == wave.html() == (tmp_path / "out" / "report.html").read_text(encoding="utf-8")


@pytest.mark.parametrize("changes", [{}, {"series": {}}, {"kv_total": None}, {"complete": False}])
def test_thin_results_render(make_result: Maker, changes: dict[str, object]) -> None:
    assert "<h2>Latency" in html.render(make_result(50, **changes))


def test_no_request_at_all_renders() -> None:
    from sim.metrics.result import summarise

    record = four_requests(series={})
    record.requests = {k: v[:0] for k, v in record.requests.items()}
    record.totals, record.itl_hist = {}, np.zeros(10)

    assert "No request finished" in html.render(summarise(record))


@pytest.mark.parametrize(("low", "high"), [(0.011, 0.025), (0.02, 5.0), (1e-4, 900.0), (0.0, 0.0), (3.0, 3.0)])
def test_ticks_of_time_axes_are_few_and_inside(low: float, high: float) -> None:
    axis = time_axis(low, high)
    ends = axis["range"] if axis["type"] == "linear" else [10**v for v in axis["range"]]

    assert 1 <= len(axis["tickvals"]) <= 14
    assert all(ends[0] * 0.89 <= t <= ends[1] * 1.11 for t in axis["tickvals"])


def test_every_figure_has_data(make_result: Maker) -> None:
    figures = [f for group in run_figures(make_result(2000, 3)).values() for f in group]

    assert len(figures) == 9
    assert all(f.spec["data"] and f.caption for f in figures)
