"""What clients ask of sampling, and what it costs: drawing greedily, penalties, log-probabilities.

Drawing with top-k or top-p, as servers do where a model's ``generation_config`` says so, is part of what an engine line's ``sampler_row`` was fitted to.
Engines differ most here: vLLM sorts the whole vocabulary on the device, llama.cpp walks through it on the host. What is not known of an engine line
is refused by name, not taken for free.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

from sim.cost.profile import EngineProfile
from sim.cost.residual import Floats
from sim.errors import NotModelledError

VOCABULARY: Final = 131072
"""Size of the vocabulary that times per row are given for; they grow in proportion."""


class Sampling(NamedTuple):
    """``greedy``: no top-k, no top-p; ``penalties`` and ``logprobs``: shares of rows that ask for them."""

    greedy: bool = False
    penalties: float = 0.0
    logprobs: float = 0.0


PLAIN: Final = Sampling()


def asked(traffic: Any, profile: EngineProfile, engine: str) -> Sampling:
    """What the clients of a scenario ask for. Raises `NotModelledError` where its cost is not known of this engine."""
    for name, given, known in (
        ("sampling", traffic.sampling == "greedy", profile.filter_row > 0.0),
        ("penalties", traffic.penalties, profile.penalty_step > 0.0 or profile.penalty_row > 0.0),
        ("logprobs", traffic.logprobs, profile.logprob_row > 0.0),
        ("n", traffic.n > 1, False),
    ):
        if given and not known:
            value = getattr(traffic, name)
            why = (
                "several answers to one request are not modelled"
                if name == "n"
                else f"is not modelled for {engine} {profile.line}"
            )
            instead = "as many requests with one prompt (prefixes)" if name == "n" else type(traffic).model_fields[name].default
            raise NotModelledError(f"traffic.{name}", value, why, str(instead))
    return Sampling(traffic.sampling == "greedy", traffic.penalties, traffic.logprobs)


def row_seconds(s: Sampling, profile: EngineProfile, vocabulary: int) -> tuple[float, float]:
    """Seconds that are added to a step, and for each sampled row (below 0: saved)."""
    size = vocabulary / VOCABULARY
    row = s.penalties * profile.penalty_row * size + s.logprobs * profile.logprob_row
    if s.greedy:
        row -= min(profile.filter_row * size, profile.sampler_row)
    return (profile.penalty_step if s.penalties else 0.0), row


def add_sampling(s: Sampling, profile: EngineProfile, vocabulary: int, small: Floats) -> list[str]:
    """Add what ``s`` takes to ``small``, the other seconds by sampled rows; notes for the evidence."""
    step, row = row_seconds(s, profile, vocabulary)
    rows = range(small.size)
    small += [step * (n > 0) + row * n for n in rows]
    notes = []
    if s.greedy:
        notes.append("greedy sampling: without sorting the vocabulary for top-k and top-p")
    if s.penalties:
        notes.append("penalties: a mean time per row; it grows with the answer, which is left out")
    if s.logprobs:
        notes.append("log-probabilities: a time per row for a few of them")
    return notes
