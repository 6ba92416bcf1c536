"""Engine profiles: every file loads, lines follow versions, figures carry grades."""

from __future__ import annotations

import pytest

from sim.cost.profile import engine_profiles, load_engine_profile
from sim.errors import ConfigError, UnknownNameError


@pytest.mark.parametrize("name", engine_profiles())
def test_every_profile_loads_with_sources(name):
    profile = load_engine_profile(name)

    assert profile.host_step >= 0.0
    assert profile.graph_sizes == tuple(sorted(profile.graph_sizes))
    for key, figure in profile.figures.items():
        assert figure.evidence in ("measured", "fitted", "datasheet", "estimated"), key
        assert figure.source, key


def test_a_version_picks_its_line():
    assert load_engine_profile("vllm", "0.15.1").overlap
    assert not load_engine_profile("vllm", "0.12.0").overlap
    assert load_engine_profile("vllm", "0.5.4").line == "0.2.7"
    assert load_engine_profile("vllm", "0.0.1").line == "0.1"
    assert load_engine_profile("vllm") == load_engine_profile("vllm", "99")


def test_bad_names_and_versions_are_refused():
    with pytest.raises(UnknownNameError, match="did you mean 'vllm'"):
        load_engine_profile("vlm")
    with pytest.raises(ConfigError, match="is not a version"):
        load_engine_profile("vllm", "newest")


def test_batches_are_padded_to_the_next_captured_size():
    profile = load_engine_profile("tgi")

    assert [profile.padded(n) for n in (1, 3, 9, 32, 33)] == [1, 4, 16, 32, 33]


def test_settings_of_an_engine_change_its_profile():
    profile = load_engine_profile("vllm", "0.12")

    assert profile.adapted(overlap=True).overlap
    assert profile.adapted() == profile
    assert profile.adapted(graphs=False).graph_sizes == ()
    assert profile.adapted(graph_sizes=(8, 4)).graph_sizes == (4, 8)
