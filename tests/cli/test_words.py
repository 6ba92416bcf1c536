"""What the first screens say is whole at every width, and said once."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Command


@pytest.mark.parametrize("width", [60, 80, 120])
def test_prices_do_not_break_words(servesim: Command, monkeypatch: pytest.MonkeyPatch, width: int) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    shown = servesim("prices", "h100-sxm").out
    assert shown.count("USD  ") > 10
    if width >= 80:
        assert "on-demand" in shown and "semianalysis-model" in shown
    assert ("eu-north1" in shown) == (width >= 120)
    assert all(len(line) <= width for line in shown.splitlines())


def test_memory_refuses_what_run_refuses(servesim: Command) -> None:
    said = {command: servesim(command, "quickstart", "-s", "model=llama-2-7b") for command in ("memory", "run")}
    assert said["memory"].code == said["run"].code == 2
    assert said["memory"].err == said["run"].err


def test_a_run_keeps_its_labels_where_the_terminal_is_narrow(servesim: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "60")
    shown = servesim("run", "quickstart", "-s", "traffic.synthetic.requests=100", "-s", "until=8s", "--no-save").out
    assert all(label in shown for label in ("TTFT", "TPOT", "ITL", "E2E", "Queue", "Throughput"))
    assert "…" not in shown
    assert shown.count("still in flight") == 1 and "still in the engines" not in shown


def test_a_name_that_nobody_knows_comes_before_its_price(servesim: Command) -> None:
    wrong = servesim("plan", "quickstart", "-c", "deployment.accelerator=a100-sxm-80g,h100-sxmm", "--no-save")
    assert wrong.code == 2 and "did you mean 'h100-sxm'" in wrong.err
    right = servesim("plan", "quickstart", "-c", "deployment.accelerator=a100-sxm-80g,h100-sxm", "--no-save")
    assert right.code == 2 and "what does an hour of each accelerator cost?" in right.err
