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
    told = [line for line in shown.splitlines() if "USD  " in line]
    assert len(set(told)) == len(told), "two lines are the same"
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


@pytest.mark.parametrize(
    ("settings", "says", "never"),
    [
        (
            ("admission={name: token_bucket, rate: 0.001/s}",),
            ("only 0.50% of requests meet", "199 got no answer", "not by those that were served"),
            ("Steps are too long", "missed most", "1 requests"),
        ),
        (("traffic.synthetic.requests=1",), ("Only 1 request finished",), ("1 requests",)),
        (("slo.ttft=1us",), ("no request meets", "of their time"), ("Nothing is saturated", "0.00% of requests")),
    ],
    ids=["turned away", "one request", "missed by all"],
)
def test_the_reason_is_the_reason(
    servesim: Command, settings: tuple[str, ...], says: tuple[str, ...], never: tuple[str, ...]
) -> None:
    given = [word for setting in ("traffic.synthetic.requests=200", *settings) for word in ("-s", setting)]
    shown = " ".join(servesim("run", "quickstart", *given, "--no-save").out.split())
    assert all(text in shown for text in says), shown
    assert not any(text in shown for text in never), shown
