"""Acceptance of drafts where nobody states it."""

from __future__ import annotations

import pytest

from sim.cost.drafts import acceptance, estimate_note
from sim.cost.profile import load_engine_profile
from sim.engine.contract import Site
from sim.engine.schedulers.mindie.params import PluginParams
from sim.engine.schedulers.sglang import Sglang, SglangParams
from sim.engine.schedulers.sglang.drafting import drafting
from sim.errors import ConfigError

METHODS = ("ngram", "eagle", "eagle3", "mtp", "medusa", "draft_model")


def tokens(rates):
    """Expected tokens of a step."""
    total, right = 1.0, 1.0
    for rate in rates:
        right *= rate
        total += right
    return total


@pytest.mark.parametrize("method", METHODS)
def test_more_drafts_and_more_branches_give_more_tokens_but_no_more_than_there_are(method):
    for depth in range(1, 8):
        rates = acceptance(method, depth)
        assert len(rates) == depth
        assert all(0 < rate < 1 for rate in rates)
        assert list(rates) == sorted(rates, reverse=True)
        assert 1 < tokens(rates) < tokens(acceptance(method, depth + 1)) < depth + 2
        assert tokens(rates) < tokens(acceptance(method, depth, 4)) < tokens(acceptance(method, depth, 8)) < depth + 1


def test_published_acceptance_lengths():
    assert 1.7 < tokens(acceptance("mtp", 1)) < 1.95  # DeepSeek-V3: 85 to 90 % of second tokens
    assert 3.0 < tokens(acceptance("eagle", 6, 4)) < 5.0  # EAGLE-2 on MT-bench: about 4 with trees
    assert tokens(acceptance("ngram", 4)) < 1.6


def test_the_note_says_how_many_tokens_and_for_what():
    assert "1.85 tokens a step" in estimate_note("mtp", acceptance("mtp", 1))


def speculative(**settings):
    return drafting(Sglang.resolve(SglangParams(**settings), Site()))


def test_sglang_drafts_by_algorithm_depth_and_tree():
    chain = speculative(speculative_algorithm="EAGLE", speculative_num_steps=5)
    assert (chain.method, chain.passes, chain.proposed, len(chain.right)) == ("eagle", 5, 5, 5)
    tree = speculative(
        speculative_algorithm="EAGLE3", speculative_num_steps=5, speculative_eagle_topk=4, speculative_num_draft_tokens=21
    )
    assert (tree.method, tree.passes, tree.proposed, len(tree.right)) == ("eagle3", 5, 17, 5)
    assert tokens(tree.right) > tokens(speculative(speculative_algorithm="EAGLE3", speculative_num_steps=5).right)
    grams = speculative(speculative_algorithm="NGRAM", speculative_num_draft_tokens=12)
    assert (grams.method, grams.passes, len(grams.right)) == ("ngram", 0, 11)
    stated = speculative(speculative_algorithm="NEXTN", speculative_num_steps=2, speculative_accept_rate=0.5)
    assert stated.right == (0.5, 0.5)


def test_sglang_needs_a_draft_model_for_standalone_only():
    with pytest.raises(ConfigError, match="speculative_draft_model_path"):
        speculative(speculative_algorithm="STANDALONE")
    with pytest.raises(ConfigError, match="speculative_draft_model_path"):
        speculative(speculative_algorithm="EAGLE", speculative_draft_model_path="llama-3.2-1b")


def test_the_host_of_a_server_that_speculates_has_more_to_do():
    profile = load_engine_profile("sglang", "0.5.3", "h100-sxm")
    alone, drafts = (
        Sglang.host(Sglang.resolve(SglangParams(version="0.5.3", speculative_algorithm=a), Site()), profile)
        for a in (None, "EAGLE3")
    )
    assert drafts.host_step - alone.host_step == pytest.approx(profile.draft_step) and profile.draft_step > 0.0
    assert drafts.host_row - alone.host_row == pytest.approx(profile.draft_row) and profile.draft_row > 0.0
    assert alone.overlap and not drafts.overlap


def test_look_ahead_accepts_at_most_one_n_gram():
    assert len(PluginParams(plugin_type="la", level=4, acceptance_rate=0.5).right) == 3
    assert len(PluginParams(plugin_type="mtp", num_speculative_tokens=2).right) == 2
    assert PluginParams(plugin_type="prefix_cache").right == ()
