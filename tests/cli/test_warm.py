"""``servesim warm``, and what is told about compilation."""

import os

import pytest

from sim import jit, kept_code
from sim.errors import UnknownNameError
from sim.study.warm import engine_of, engines, listening, warm


def test_engines_are_named_once():
    assert {"vllm", "sglang", "static", "tgi", "mindie"} <= set(engines())
    assert "text-generation-inference" not in engines()


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_a_second_time_nothing_is_compiled():
    assert warm("static").name == "static"
    assert warm("static").compiled == 0


def test_unknown_engines_are_refused():
    with pytest.raises(UnknownNameError):
        warm("no_such_engine")


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_whoever_listens_hears_what_is_compiled():
    @jit.kernel(cache=False)
    def uncached(x):
        return x + 1

    @jit.kernel
    def fresh(x):
        return x + 2

    heard = []
    with listening(lambda function, signature: heard.append((function, signature))):
        assert uncached(1) == 2
        fresh._cache.disable()
        assert fresh(1) == 3
    assert [name.rpartition(".")[2] for name, _ in heard] == ["fresh"]
    assert not kept_code.listeners


def test_the_engine_of_a_signature():
    assert engine_of("(ListType[sim.engine.schedulers.vllm.state.VllmState], float64)") == "vllm"
    assert engine_of("(own_0123456789ab_mine.StaticState,)") == "mine"
    assert engine_of("(sim.engine.plain_state.PlainState,)") == "plain"
    assert engine_of("(int64,)") == ""
