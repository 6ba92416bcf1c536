"""What cannot be combined, in one table, and why."""

from __future__ import annotations

from typing import Final, NamedTuple


class Refused(NamedTuple):
    """Two features that do not go together: the second is the one that the error names."""

    one: str
    other: str
    why: str
    allowed: str


BREAKS: Final = {
    "process": "broken replicas",
    "speed": "slow replicas",
    "gateway": "a gateway that is out",
    "router": "a router that restarts",
}
"""What a fault touches → the feature below."""
REFUSED: Final = (
    Refused("several models", "faults", "faults of hosts with several models are not modelled", "none"),
    Refused("migration", "faults", "faults while requests move between engines are not modelled", "none"),
    Refused("ranks", "slow replicas", "slow accelerators of engines with data-parallel ranks are not modelled", "crash, rank"),
    Refused("clients", "token times", "of several attempts at a request it is not recorded which tokens its client saw", "false"),
    Refused(
        "broken replicas", "token times", "tokens that a broken replica had sent are not told from those sent again", "false"
    ),
    Refused("a coordinator", "a router that restarts", "it keeps the queue of requests, which would be lost", "none"),
    Refused("several models", "clients", "withdrawing a request that waits for an Ollama server's model is not modelled", "none"),
    Refused("migration", "clients", "withdrawing a request that moves between engines is not modelled", "none"),
    Refused(
        "scaling", "a router of a fixed fleet", "routes among a fixed set of replicas and cannot be used with scaling", "elastic"
    ),
    Refused(
        "several models",
        "scaling",
        "Ollama loads and unloads models on the cards it has; nothing upstream starts servers by load",
        "none",
    ),
    Refused("models apart", "migration", "a router that moves running requests is one for all replicas", "migration off"),
    Refused("models apart", "a coordinator", "keeps one queue for replicas of one model", "round_robin"),
    Refused("several models", "migration", "a runner of Ollama cannot give a running request to another server", "migration off"),
    Refused("several models", "a coordinator", "keeps the queue of MindIE servers and does not speak to Ollama", "round_robin"),
    Refused(
        "ranks",
        "layer-wise transfers",
        "the rank that decodes is chosen when its server has the request, after KV would have left layer by layer",
        "false",
    ),
    Refused(
        "roles", "migration", "a request whose KV is handed over from engine to engine cannot be moved besides", "no migration"
    ),
    Refused(
        "scaled roles",
        "a saturation detector",
        "sees one set of replicas, not two whose members change",
        "queue_limit, token_bucket",
    ),
    Refused(
        "ranks",
        "migration",
        "moving requests of engines with data-parallel ranks is not modelled: the balancer counts them by rank",
        "migration off",
    ),
)
"""All pairs that are refused. What one engine cannot do by itself it refuses itself (`Scheduler`, `sim.engine.inside`)."""
