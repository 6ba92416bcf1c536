"""What Ollama takes a model to need, when it evicts another one, and how long it waits for its memory."""

from __future__ import annotations

from math import inf

import pytest

from sim.engine.schedulers.ollama.placement import GIB, MIB, Gpu, available_memory, batch_surcharge, must_evict, predicted_vram
from sim.engine.schedulers.ollama.residency import (
    Runner,
    find_runner_to_unload,
    keep_alive,
    max_loaded_models,
    needs_reload,
    ready_after,
    recovery_wait,
)


def test_the_file_and_two_bytes_of_keys_and_values_for_each_slot():
    assert predicted_vram(1000, 3, 5, 7, 11, 13, 4096) == 1000 + 3 * 5 * 7 * 11 * 13 * 2 * 2
    assert predicted_vram(1000, 3, 5, 7, 4096, 2, 11) == 1000 + 3 * 5 * 7 * 11 * 2 * 2 * 2
    assert predicted_vram(0, 1, 0, 1, 1, 1, 1) == 4  # heads of a cache that the file does not name


def test_another_model_goes_where_four_fifths_do_not_hold_prediction_and_batch():
    assert [batch_surcharge(n) for n in (512, 1023, 1024, 2047, 2048)] == [0, 0, 768 * MIB, 768 * MIB, 2 * GIB]
    assert not must_evict(8 * GIB, 512, 10 * GIB)
    assert must_evict(8 * GIB + 1, 512, 10 * GIB)
    assert must_evict(8 * GIB - 1, 1024, 10 * GIB)
    assert not must_evict(6 * GIB, 2048, 10 * GIB)


def test_integrated_gpus_have_no_more_than_the_system():
    gpus = [Gpu("a", 10), Gpu("b", 20, integrated=True), Gpu("c", 5, integrated=True)]
    assert available_memory(gpus, 24) == (34, 35, True)
    assert available_memory(gpus, 25) == (35, 35, False)
    assert available_memory(gpus, 0) == (35, 35, False)


@pytest.mark.parametrize(("seconds", "seen"), [(0.0, 0.0), (0.01, 0.25), (0.25, 0.25), (0.26, 0.5), (3.0, 3.0)])
def test_a_runner_is_ready_at_the_next_look(seconds, seen):
    assert ready_after(seconds) == seen


def test_the_next_load_waits_until_three_quarters_of_the_memory_are_back():
    def slowly(t):
        return 100.0 * t

    assert recovery_wait(slowly, 100.0) == 0.75
    assert recovery_wait(slowly, 101.0) == 1.0
    assert recovery_wait(slowly, 1e9) == 5.0
    assert (
        recovery_wait(slowly, 100.0, discrete=False)
        == recovery_wait(slowly, 100.0, metal=True)
        == recovery_wait(slowly, 0.0)
        == 0.0
    )


def test_who_stays_how_long_and_who_goes():
    assert (keep_alive(-1.0), keep_alive(0.0), keep_alive(300.0)) == (inf, 0.0, 300.0)
    assert [max_loaded_models(n, gpus) for n, gpus in ((0, 0), (0, 2), (5, 2))] == [3, 6, 5]
    served, short, named = Runner("b", references=1, session=1.0), Runner("z", session=60.0), Runner("a", session=60.0)
    assert find_runner_to_unload([short, served, named]) is named
    assert find_runner_to_unload([served]) is served
    assert find_runner_to_unload([]) is None


def test_only_options_that_a_runner_is_started_with_load_it_again():
    loaded = {"num_ctx": 4096, "num_batch": 512, "num_gpu": 20}
    assert not needs_reload(loaded, {"num_ctx": None, "num_gpu": -1}, 8192)
    assert not needs_reload(loaded, {"num_ctx": 8192, "num_batch": 512}, 4096)
    assert needs_reload(loaded, {"num_ctx": 8192}, 8192)
    assert needs_reload(loaded, {"num_gpu": 0, "num_batch": 512}, 8192)
