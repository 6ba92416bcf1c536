"""Drafts of speculative decoding: how often they are right where nobody says, and what proposing them costs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

DraftMethod = Literal["none", "ngram", "eagle", "eagle3", "mtp", "medusa", "draft_model"]
EAGLE3_VOCABULARY = 32_000
"""Tokens that an EAGLE-3 head chooses from. *Source*: published heads for Llama 3 and Qwen3 (``draft_vocab_size``)."""


class _Guess(NamedTuple):
    """``first``: probability that the first draft is right; each further one is right ``decay`` times as often, given those before it."""

    first: float
    decay: float
    source: str


# Estimated: published figures are of chat at temperature 0 on the authors' models; code and quotations do better, high temperatures worse.
_GUESSES: dict[str, _Guess] = {
    "ngram": _Guess(0.30, 1.0, "prompt look-up on chat; several times as much where answers quote the prompt"),
    "eagle": _Guess(
        0.72, 0.97, "EAGLE paper (arXiv 2401.15077, table of n-alpha: 0.79 to 0.67 on MT-bench), less for other traffic"
    ),
    "eagle3": _Guess(0.78, 0.99, "EAGLE-3 paper (arXiv 2503.01840: acceptance nearly flat in depth), less for other traffic"),
    "mtp": _Guess(
        0.85, 0.85, "DeepSeek-V3 report (arXiv 2412.19437: 85 to 90 % of second tokens); one module used again for further ones"
    ),
    "medusa": _Guess(0.60, 0.75, "Medusa paper (arXiv 2401.10774: heads guess independently, so later ones are worse)"),
    "draft_model": _Guess(0.70, 1.0, "speculative decoding papers (arXiv 2211.17192: 0.5 to 0.9 by size of the draft)"),
}


def acceptance(method: str, depth: int, branches: float = 1.0) -> tuple[float, ...]:
    """Estimated probability that the draft at each position is right if those before it were; [depth].

    ``branches``: candidates per position in a tree of drafts: k of them fail 1/√k times as often as one (a power law as in Sequoia, arXiv
    2402.12374; the exponent gives EAGLE-2's 4 to 5 tokens a step with trees of 6 levels, arXiv 2406.16858).
    """
    guess = _GUESSES[method]
    one = [guess.first * guess.decay**k for k in range(depth)]
    return tuple(1.0 - (1.0 - p) / max(branches, 1.0) ** 0.5 for p in one)


def estimate_note(method: str, rates: Sequence[float]) -> str:
    """A sentence for the evidence of a run whose acceptance was not stated."""
    mean, right = 1.0, 1.0
    for rate in rates:
        right *= rate
        mean += right
    return (
        f"speculative decoding: acceptance not stated, estimated for {method}: {mean:.2f} tokens a step "
        f"({_GUESSES[method].source}); state the rate that the server logs"
    )
