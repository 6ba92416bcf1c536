"""Reports of studies: the decision first, drawn in a browser, tables that sort and filter."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.report import repeat, sweep, terminal
from tests.report.browser import browser, look
from tests.report.test_html import _clean


@pytest.fixture(scope="module")
def swept() -> Any:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=120", "record.timeseries=false"])
    return sim.sweep(
        scenario,
        over={"deployment.tp": [1, 2, 3], "traffic.synthetic.arrival.rate": ["4/s", "30/s"], "router": ["random", "round_robin"]},
        jobs=1,
    )


def test_a_sweep_fits_the_screen_and_names_its_failures(swept: Any) -> None:
    lines = terminal.as_text(sweep.screen(swept), 80).splitlines()
    assert max(map(len, lines)) <= 80
    assert "12 runs over tp, rate, router, 4 failed" in " ".join(lines[:2])
    assert any("4 failed" in line and "deployment.tp" in line for line in lines[3:])


@pytest.mark.browser
@pytest.mark.parametrize("width", [1400, 420])
def test_a_sweep_in_a_browser(swept: Any, tmp_path: Path, width: int) -> None:
    html = sweep.page(swept).html()
    assert html.index("hold the SLO") < html.index("Every run")
    assert 'type="search"' in html
    _clean(look(html, tmp_path, width), plots=2)


@pytest.mark.browser
def test_a_table_sorts_by_number_and_filters(swept: Any, tmp_path: Path) -> None:
    probe = """<script>
    const table = document.querySelector("table.sortable"), head = table.tHead.rows[0].cells[1];
    head.click(); head.click();
    const first = table.tBodies[0].rows[0].cells[1].textContent;
    const filter = document.querySelector("input.filter");
    filter.value = "random 30/s"; filter.dispatchEvent(new Event("input"));
    document.title = first + "," + [...table.tBodies[0].rows].filter(r => !r.hidden).length;
    </script>"""
    path = tmp_path / "page.html"
    path.write_text(sweep.page(swept).html().replace("</body>", probe + "</body>"))
    command = [
        browser(),
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        f"--user-data-dir={tmp_path / 'p'}",
        "--dump-dom",
        path.as_uri(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert "<title>30/s,3</title>" in done.stdout


def test_what_a_report_is_named_cannot_break_it(tmp_path: Path) -> None:
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=100", "record.timeseries=false", "name='<script>x'"])
    answer = sim.repeat(scenario, replications=2, jobs=1)
    repeat.files(answer, tmp_path)
    html = (tmp_path / "report.html").read_text()
    assert "<script>x" not in html
    assert "2 runs under other random numbers" in html
    assert "Requests within all targets" in terminal.as_text(repeat.screen(answer), 80)


def test_sensitivity_finds_the_setting_that_matters(tmp_path: Path) -> None:
    pytest.importorskip("SALib", reason="servesim[search] is not installed")
    scenario = sim.load("quickstart", ["traffic.synthetic.requests=100", "record.timeseries=false"])
    over = {
        "traffic.synthetic.arrival.rate": {"from": "2/s", "to": "60/s"},
        "record.max_points": {"from": 100, "to": 200, "whole": True},
    }
    answer = sim.sweep(scenario, over=over, sample="latin-hypercube", n=64, sensitivity=True, jobs=1)
    of = answer.indices["latency.tpot_s.p99"]
    assert of["traffic.synthetic.arrival.rate"]["S1"] > 0.5 > of["record.max_points"]["S1"]
    assert "delta" in sweep.page(answer).html()
