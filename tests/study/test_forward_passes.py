"""Forward passes that a server logged one by one: what is compared of them, and with what."""

from dataclasses import replace

import numpy as np
import pytest

from sim.cost import features as f
from sim.errors import ConfigError, DataError
from sim.study.accuracy import accuracy, read_points
from sim.study.accuracy.passes import features, longest
from tests.study.test_calibrate import scenario

HEAD = "phase,workload_segment,counter_id,ctx_tokens,ctx_requests,ctx_kv_tokens,decode_requests,decode_kv_tokens,latency_ms"
NAME = "h100-sxm-vllm-0.15.1-llama-3.1-8b-tp{tp}_ep1.csv"


def passes(decodes=12, ms=8.0, scale=1.0):
    """A prompt of 1,000 tokens beside three rows, in the middle of passes that only decode; its time was written to its neighbour."""
    rows = [(0, 0, 0, 3, 3 * (500 + i), ms) for i in range(decodes)]
    rows += [(1000, 1, 0, 3, 3 * (500 + decodes), 9.0), (0, 0, 0, 4, 2600, 40.0)]
    rows += [(0, 0, 0, 4, 2604 + 4 * i, ms) for i in range(decodes)]
    return [(100 + i, *row[:-1], scale * row[-1]) for i, row in enumerate(rows)]


def write(file, rows):
    lines = [HEAD, *(",".join(map(str, ("mixed" if r[1] else "decode", "real", *r))) for r in rows)]
    file.write_text("\n".join(lines) + "\n")
    return file


def test_decode_passes_are_compared_by_rows_and_context_and_prompts_in_runs(tmp_path):
    points = list(read_points([write(tmp_path / NAME.format(tp=1), passes())]))

    told = {p.id.rpartition("/")[2]: (p.measured, len(p.logs[0])) for p in points}
    # ten passes with three rows before the run, two passes of it and six from its prompt on, then eight with four rows
    assert told == {
        "prompts-110": ({"step_s.prefill": pytest.approx((6 * 8.0 + 9.0 + 40.0) / 8 / 1e3)}, 8),
        "decode-3x504": ({"step_s.decode": pytest.approx(0.008)}, 10),
        "decode-4x658": ({"step_s.decode": pytest.approx(0.008)}, 8),
    }
    assert {p.deployment for p in points} == {NAME.format(tp=1).removesuffix(".csv")}


def test_rows_may_come_in_any_order(tmp_path):
    there, back = (write(tmp_path / f"{i}-{NAME.format(tp=1)}", rows) for i, rows in enumerate((passes(), passes()[::-1])))

    said = scenario()
    assert [p.measured for p in read_points([there], said)] == [p.measured for p in read_points([back], said)]


def test_the_name_says_what_was_deployed_or_a_scenario_does(tmp_path):
    (point, *_) = read_points([write(tmp_path / NAME.format(tp=2), passes())])
    assert (point.accelerator, point.engine, point.version, point.model, point.tp, point.ep) == (
        "h100-sxm", "vllm", "0.15.1", "llama-3.1-8b", 2, 1,
    )  # fmt: skip
    assert "the file's name says what was deployed" in point.notes

    with pytest.raises(ConfigError, match="does not say what was deployed"):
        list(read_points([write(tmp_path / "passes.csv", passes())]))
    (point, *_) = read_points([tmp_path / "passes.csv"], scenario())
    assert point.scenario is not None


def test_a_name_that_says_what_nobody_knows_is_refused_with_the_reason(tmp_path):
    report = accuracy([write(tmp_path / NAME.format(tp=1).replace("llama-3.1-8b", "no-such-model"), passes())])

    assert "no-such-model" in report.outcomes[0].reason


@pytest.mark.parametrize(
    ("column", "value", "why"),
    [(6, "0", "above zero"), (6, "nan", "above zero"), (1, "-1", "negative"), (4, "2.5", "whole"), (0, "x", "no number")],
)
def test_what_is_no_log_of_passes_says_why(tmp_path, column, value, why):
    rows = [list(map(str, r)) for r in passes()]
    rows[3][column] = value

    with pytest.raises(DataError, match=why):
        list(read_points([write(tmp_path / NAME.format(tp=1), rows)]))


def test_a_missing_column_is_named(tmp_path):
    file = write(tmp_path / NAME.format(tp=1), passes())
    file.write_text(file.read_text().replace("ctx_kv_tokens", "cached"))

    with pytest.raises(DataError, match="ctx_kv_tokens"):
        list(read_points([file]))


def test_what_a_pass_computes_is_what_was_logged(tmp_path):
    (run, *_) = read_points([write(tmp_path / NAME.format(tp=1), [*passes(), (200, 600, 2, 400, 5, 5000, 9.0)])])
    log = run.logs[0]
    prompt = features(log)[2]  # of one request, beside three rows

    assert prompt[[f.TOKENS, f.PREFILL_ROWS, f.PREFILL_TOKENS, f.PREFILL_WORK, f.PREFILL_CTX]].tolist() == [
        1003,
        1,
        1000,
        5e5,
        1000,
    ]
    assert prompt[[f.DECODE_ROWS, f.DECODE_CTX, f.SAMPLED, f.ROWS]].tolist() == [3, 3 * 512 + 3, 4, 4]
    assert longest([log]) == 1001  # the prompt; rows of the run have at most 652 tokens

    several = replace(log, **{k: np.array([v]) for k, v in {
        "prompt_requests": 2, "prompt_tokens": 600, "decode_requests": 5, "decode_tokens": 5, "elapsed_s": 0.009,
        "prompt_cached": 400.0, "decode_cached": 5000.0,
    }.items()})  # fmt: skip
    assert features(several)[0][[f.PREFILL_WORK, f.PREFILL_CTX]].tolist() == [2 * 300 * (200 + 150), 1000]


@pytest.fixture(scope="module")
def slower(tmp_path_factory):
    """Four layouts whose passes all take a fifth longer than predicted."""
    folder = tmp_path_factory.mktemp("passes")
    for tp in (1, 2, 4, 8):
        file = write(folder / NAME.format(tp=tp), passes())
        predicted = {o.point.id.rpartition("-")[2]: o.predicted for o in accuracy([file]).outcomes}
        decode = {n: next(v["step_s.decode"] for k, v in predicted.items() if k.startswith(f"{n}x")) for n in (3, 4)}
        run = 8 * predicted["110"]["step_s.prefill"]
        rows = [(*r[:-1], 1.2e3 * decode[r[4]]) for r in passes()]
        at = next(i for i, r in enumerate(rows) if r[1])
        rest = sum(r[-1] for r in rows[at - 2 : at + 6]) - rows[at][-1]
        rows[at] = (*rows[at][:-1], 1.2e3 * run - rest)
        write(file, rows)
    return accuracy([folder])


def test_passes_are_predicted_whatever_the_server_schedules_ahead(slower):
    """vLLM 0.15 schedules a step ahead; the time of a pass is the pass's own."""
    assert not slower.refused
    for o in slower.simulated:
        assert set(o.errors()) <= {"step_s.decode", "step_s.prefill"}
        assert list(o.errors().values()) == pytest.approx([1 / 1.2 - 1], rel=0.01)


def test_other_layouts_say_what_a_layout_is_off(slower):
    rows = {r.metric: r for r in slower.left_out() if r.group == "layout left out"}

    assert {m: r.points for m, r in rows.items()} == {"step_s.decode": 8, "step_s.prefill": 4}
    assert max(r.median for r in rows.values()) < 0.01
    few = replace(slower, outcomes=tuple(o for o in slower.outcomes if o.point.tp < 8))
    assert few.left_out() == []  # two others are too few to fit anything to


def test_errors_by_layout_are_printed(slower):
    from rich.console import Console

    from sim.report.accuracy import screen

    console = Console(width=140, record=True)
    console.print(screen(replace(slower, by=("deployment",))))
    text = console.export_text()

    assert "decode step" in text
    assert NAME.format(tp=4).removesuffix(".csv") in text
