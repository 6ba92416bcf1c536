"""A server's log of its steps, as text and as a table."""

import gzip

import numpy as np
import pytest

from sim.cost import features as f
from sim.errors import ConfigError, DataError
from sim.study.accuracy import accuracy, read_points
from sim.study.accuracy.step_log import gap, kinds, read_step_log
from tests.study.test_calibrate import scenario

LINE = (
    "(EngineCore pid=7) INFO 11-29 {clock} [core.py:417] Iteration({i}): {p} context requests, {t} context tokens, {d} generation requests, "
    "{n} generation tokens, iteration elapsed time: {ms:.2f} ms, GPU KV cache usage: 2.6%"
)


def clock(seconds):
    s = int(seconds)
    return f"{s // 3600 % 24:02d}:{s // 60 % 60:02d}:{s % 60:02d}"


def text(steps, start=0.0, between=0.0, ms=40.0):
    lines = ["INFO 11-29 18:10:00 [api_server.py:1] Starting vLLM server"]
    now = start
    for i, (p, t, d, n) in enumerate(steps):
        now += ms / 1e3 + between
        lines.append(LINE.format(clock=clock(now), i=i, p=p, t=t, d=d, n=n, ms=ms))
    return "\n".join(lines)


STEPS = [(1, 60, 0, 0), (2, 80, 1, 1), (0, 0, 3, 3), (0, 0, 3, 3), (0, 0, 2, 2)]


def test_text_and_table_say_the_same(tmp_path):
    (tmp_path / "server.log").write_text(text(STEPS))
    rows = ["time,iteration,prompt_requests,prompt_tokens,decode_requests,decode_tokens,elapsed_ms,kv_percent"]
    rows += [f"00:00:00,{i},{p},{t},{d},{n},40,2.6" for i, (p, t, d, n) in enumerate(STEPS)]
    (tmp_path / "a.iterations.csv.gz").write_bytes(gzip.compress("\n".join(rows).encode()))

    (log,), (table,) = read_step_log(tmp_path / "server.log"), read_step_log(tmp_path / "a.iterations.csv.gz")

    assert [tuple(r) for r in log.steps.tolist()] == STEPS
    assert (log.steps == table.steps).all()
    assert log.elapsed_s.tolist() == table.elapsed_s.tolist() == [0.04] * 5


def test_the_older_line_without_kv_usage_and_what_is_no_step(tmp_path):
    old = LINE.replace(", GPU KV cache usage: 2.6%", "").format(clock="10:00:00", i=1, p=0, t=0, d=2, n=2, ms=8.5)
    dummy = LINE.split(", GPU")[0].format(clock="10:00:00", i=2, p=0, t=0, d=0, n=0, ms=3.0) + " (dummy)"
    (tmp_path / "server.log").write_text("\n".join([old, dummy, 'INFO 127.0.0.1 - "POST /v1/completions HTTP/1.1" 200 OK']))

    (log,) = read_step_log(tmp_path / "server.log")

    assert log.steps.tolist() == [[0, 0, 2, 2]]
    assert log.elapsed_s.tolist() == [0.0085]


def test_every_data_parallel_rank_has_steps_of_its_own(tmp_path):
    lines = [text([(1, 10 * r, 0, 0)]).splitlines()[1].replace("EngineCore", f"EngineCore_DP{r}") for r in (1, 2)]
    (tmp_path / "server.log").write_text("\n".join(lines))

    assert [log.prompt_tokens.tolist() for log in read_step_log(tmp_path / "server.log")] == [[10], [20]]


@pytest.mark.parametrize("start", [0.0, 86390.0])
def test_the_gap_between_steps_is_read_off_the_clock(tmp_path, start):
    """Over midnight too; the clock has whole seconds."""
    (tmp_path / "server.log").write_text(text([(1, 64, 0, 0)] + [(0, 0, 1, 1)] * 600, start, between=0.003))

    assert gap(read_step_log(tmp_path / "server.log")) == pytest.approx(0.003, abs=5e-4)


def test_a_short_log_does_not_tell_the_gap(tmp_path):
    (tmp_path / "server.log").write_text(text([(1, 64, 0, 0)] + [(0, 0, 1, 1)] * 20, between=0.003))

    assert gap(read_step_log(tmp_path / "server.log")) == 0.0


def test_idle_time_is_no_gap(tmp_path):
    busy = [(1, 64, 0, 0)] + [(0, 0, 1, 1)] * 400
    (tmp_path / "server.log").write_text(text(busy) + "\n" + text(busy, start=3600.0))

    assert gap(read_step_log(tmp_path / "server.log")) == pytest.approx(0.0, abs=5e-4)


def test_contexts_are_kept_as_an_account(tmp_path):
    (tmp_path / "server.log").write_text(text(STEPS))
    (log,) = read_step_log(tmp_path / "server.log")

    contexts, cut = log.contexts()

    # 60; then 60 + 1 of one and 80 of two; a token each; one of the three leaves
    assert contexts.tolist() == pytest.approx([0, 60, 141 / 3, 144 / 3, 147 / 3])
    assert not cut.any()


def test_a_prompt_that_goes_on_is_not_sampled(tmp_path):
    (tmp_path / "server.log").write_text(text([(1, 512, 0, 0), (1, 512, 0, 0), (1, 100, 0, 0), (0, 0, 1, 1)]))
    (log,) = read_step_log(tmp_path / "server.log")

    contexts, cut = log.contexts()

    assert cut.tolist() == [True, True, False, False]
    assert contexts[3] == 1124.0
    assert kinds([log]).features[:, f.SAMPLED].max() == 1.0


@pytest.mark.parametrize(
    ("content", "why"),
    [
        ("nothing here", "holds no logged step"),
        (text(STEPS, ms=0.03), "asynchronously"),
        ("prompt_requests,prompt_tokens,decode_requests,decode_tokens\n1,2,3,4", "elapsed_ms"),
        ("prompt_requests,prompt_tokens,decode_requests,decode_tokens,elapsed_ms\n1,2,x,4,5", ":2"),
        ("prompt_requests,prompt_tokens,decode_requests,decode_tokens,elapsed_ms\n1,2,3,4,-5", "negative"),
        ("prompt_requests,prompt_tokens,decode_requests,decode_tokens,elapsed_ms\n1,2,3,4,nan", "above zero"),
    ],
)
def test_what_is_no_log_of_steps_says_why(tmp_path, content, why):
    (tmp_path / "server.log").write_text(content)

    with pytest.raises(DataError, match=why):
        read_step_log(tmp_path / "server.log")


def test_accuracy_takes_a_log(tmp_path):
    (tmp_path / "server.log").write_text(text(STEPS * 10, ms=10.0))

    report = accuracy([tmp_path / "server.log"], scenario=scenario(engine={"name": "vllm", "version": "0.12"}))

    (outcome,) = report.outcomes
    assert outcome.reason == ""
    assert outcome.point.measured == pytest.approx({"step_s.prefill": 0.010, "step_s.decode": 0.010})
    assert 0 < outcome.predicted["step_s.decode"] < outcome.predicted["step_s.prefill"]


@pytest.mark.parametrize(
    ("engine", "why"),
    [
        ({"version": "0.33"}, "logs waits"),
        ({"version": "0.12", "max_num_batched_tokens": 64, "max_num_seqs": 8}, "tokens in a logged step"),
    ],
)
def test_a_log_of_another_server_than_the_scenario_says(tmp_path, engine, why):
    (tmp_path / "server.log").write_text(text(STEPS))

    (outcome,) = accuracy([tmp_path / "server.log"], scenario=scenario(engine={"name": "vllm"} | engine)).outcomes

    assert why in outcome.reason


def test_what_a_point_of_steps_needs(tmp_path):
    (tmp_path / "server.log").write_text(text(STEPS))

    with pytest.raises(ConfigError, match="does not say what was deployed"):
        list(read_points([tmp_path / "server.log"]))
    (read,) = read_points([tmp_path / "server.log"], scenario())
    assert np.isfinite(read.measured["step_s.decode"])
