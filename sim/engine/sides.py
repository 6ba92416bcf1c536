"""The two sides of a disaggregated deployment, and what a fleet must know of an engine's protocol between them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Role = Literal["prefill", "decode"]


@dataclass(frozen=True)
class HandOver:
    """How a request goes from the engine that computes its prompt (P) to the one that decodes (D).

    ``first``: the side that gets the request first. ``prefill``: D gets it when P has finished. ``decode``: D gets it at arrival, P when D has
    memory for its KV.
    ``first_token``: who gives the client the token that P has sampled. ``prefill``: P, at once, and a request of one token ends there.
    ``with_kv``: D, when it takes the request in. ``decode``: nobody, it is thrown away and D samples the first token itself.
    ``sends``: KV goes when the whole prompt is computed, or chunk by chunk (needs ``first`` = ``decode``: P must know where to).
    ``pair``: P and D are chosen together at arrival; else as the router likes.
    ``returns``: D may send a request back to be prefilled again (`sim.engine.state.RETURNED`).
    ``alone``: D also takes requests whose prompts it computes itself.
    ``orphan_s``: seconds for which P keeps KV that a decode replica which has died will never read.
    """

    first: Literal["prefill", "decode"] = "prefill"
    first_token: Literal["prefill", "with_kv", "decode"] = "decode"
    sends: Literal["whole", "chunks"] = "whole"
    pair: bool = False
    returns: bool = False
    alone: bool = False
    orphan_s: float = 0.0

    @property
    def delivered(self) -> int:
        """Tokens of the output that come with the KV."""
        return 0 if self.first_token == "decode" else 1
