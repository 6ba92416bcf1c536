"""What a run says first, of real runs."""

import pytest
from typer.testing import CliRunner

import sim
from sim.cli.main import application
from sim.report import terminal, words
from sim.study.headroom import could_serve
from sim.study.single import Prepared, _cards

SMALL = ["traffic.synthetic.requests=1500"]


def test_the_load_is_a_share_of_what_an_overloaded_run_serves():
    """What could be served is told without an overload; an overloaded run serves as much."""
    over = Prepared(sim.load("overload", ["traffic.synthetic.requests=4000"]))
    quiet = Prepared(sim.load("quickstart"))

    most = could_serve(quiet.plans, quiet.traffic, 0)

    assert over.run().summary["steady"]["requests_per_s"] == pytest.approx(most, rel=0.05)


def test_few_requests_say_what_could_be_served_as_many_do():
    few, many = (Prepared(sim.load("quickstart", [f"traffic.synthetic.requests={n}"])) for n in (200, 4000))

    assert could_serve(few.plans, few.traffic, 0) == pytest.approx(could_serve(many.plans, many.traffic, 0), rel=0.08)


def test_load_scales_with_replicas():
    one, four = (Prepared(sim.load("quickstart", [f"deployment.replicas={n}", *SMALL])) for n in (1, 4))

    assert could_serve(four.plans, four.traffic, 0) == pytest.approx(4 * could_serve(one.plans, one.traffic, 0))


def test_waiting_clients_have_no_load_of_their_own():
    prepared = Prepared(sim.load("closed-loop"))

    assert could_serve(prepared.plans, prepared.traffic, 0) is None


def test_a_spike_is_judged_by_itself():
    stages = "[{rate: 8/s, duration: 2min}, {rate: 60/s, duration: 20s}, {rate: 8/s, duration: 5min}]"
    result = sim.run(
        sim.load(
            "quickstart", [f"traffic.synthetic.arrival={{process: stages, stages: {stages}}}", "traffic.synthetic.requests=4400"]
        )
    )
    screen = " ".join(terminal.text(result).split())

    assert result.summary["slo"]["met"] is False
    assert "Nothing is saturated" not in screen
    assert "Bad from 1" in screen
    assert "at its peak" in screen
    assert result.summary["spell"]["met_outside"] > 0.99
    assert words.spell(result.summary) in result.html()


@pytest.mark.parametrize(
    ("changes", "shown"),
    [
        ((), "1 × NVIDIA H100 SXM5 80GB"),
        (("replicas=3",), "3 replicas = 3 × NVIDIA H100 SXM5 80GB"),
        (("replicas=2", "tp=4"), "2 replicas × 4 = 8 × NVIDIA H100 SXM5 80GB"),
        (("tp=2", "pp=2"), "4 × NVIDIA H100 SXM5 80GB"),
    ],
)
def test_accelerators_are_counted_as_cards(changes, shown):
    (plan,) = Prepared(sim.load("quickstart", [f"deployment.{c}" for c in changes])).plans

    assert _cards(plan) == shown


def test_rejections_have_a_reason():
    trace = ["traffic.synthetic.requests=600", "traffic.synthetic.arrival.rate=400/s"]
    result = sim.run(sim.load("quickstart-tgi", trace))

    (why,) = [w for w in result.warnings if "counted as misses" in w]
    assert "answered 429: more than max_concurrent_requests at once" in why
    assert why.startswith(f"tgi: {result.summary['requests']['rejected']:,} requests rejected")


def test_version():
    told = CliRunner().invoke(application(), ["--version"])

    assert (told.exit_code, told.output) == (0, f"servesim {sim.__version__}\n")


@pytest.mark.parametrize(("tpot", "gate", "code"), [("1s", "--gate", 0), ("1ms", "--gate", 3), ("1ms", "--quiet", 0)])
def test_the_gate(tpot, gate, code):
    told = CliRunner().invoke(
        application(), ["run", "quickstart", "--no-save", gate, "-s", SMALL[0], "-s", f"slo.tpot={tpot}", "-s", "expect={}"]
    )

    assert told.exit_code == code
