"""What the answers of routers and scalers must look like, told as the end of a sentence that begins with the method's name."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

import numpy as np

from sim.errors import brief
from sim.policy.requests import Requests

if TYPE_CHECKING:
    from sim.policy.router import Router, Snapshot


def is_number(value: object) -> TypeGuard[int]:
    """Whether a value is a whole number, NumPy's included; ``True`` is none."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def one_replica(router: Router, answer: object) -> str:
    """Of `Router.choose`: −1 or the number of a replica."""
    most = router.replicas - 1
    if is_number(answer) and -1 <= answer <= most:
        return ""
    return f"answered {_shown(answer)}; allowed: 0 to {most}, or -1 for none"


def two_replicas(router: Router, answer: object) -> str:
    """Of `Router.choose_pair`."""
    most = router.replicas - 1
    if isinstance(answer, tuple) and len(answer) == 2 and all(is_number(a) and -1 <= a <= most for a in answer):
        return ""
    return f"answered {_shown(answer)}; allowed: two numbers, each 0 to {most}, or (-1, -1) for none"


def moves(router: Router, answer: object) -> str:
    """Of `Router.poll`: relocations between two different replicas."""
    if isinstance(answer, list | tuple):
        for move in answer:
            places: list[object] = [getattr(move, "source", None), getattr(move, "destination", None)]
            if not all(is_number(p) and 0 <= p < router.replicas for p in places) or places[0] == places[1]:
                return f"answered with the relocation {_shown(move)}; allowed: from one replica to another, 0 to {router.replicas - 1}"
            if not is_number(getattr(move, "request", None)):
                return f"answered with the relocation {_shown(move)}, which names no request"
        return ""
    return f"answered {_shown(answer)}; allowed: a list of Relocation"


def rows(router: Router, answer: object) -> str:
    """Of `Router.route`, without regard to the length of the block."""
    most = router.replicas - 1
    if not (isinstance(answer, np.ndarray) and answer.dtype == np.int32 and answer.ndim == 1):
        return f"answered {_shown(answer)}; allowed: an array of int32, one number for each row"
    if len(answer) and not (answer.min() >= 0 and answer.max() <= most):
        at = int(np.argmax((answer < 0) | (answer > most)))
        return f"answered {answer[at]} for row {at}; allowed: 0 to {most}"
    return ""


def how_many(scaler: object, answer: object) -> str:
    """Of `Scaler.decide`: what is outside ``min`` to ``max`` is cut by the fleet."""
    if is_number(answer) and answer >= 0:
        return ""
    return f"answered {_shown(answer)}; allowed: a whole number of replicas, 0 or more"


def row_of(snapshot: Snapshot | None, block: Requests, row: int, *_: object) -> str:
    """The request that a router was asked about."""
    now = f"at {float(snapshot.now):.6g} s: " if snapshot is not None else ""
    prompt, output = int(block.prompt_tokens[row]), int(block.output_tokens[row])
    return f"{now}the request sent at {float(block.arrival_s[row]):.6g} s with {prompt} prompt and {output} output tokens"


def block_of(block: Requests) -> str:
    """The block that a stateless router was asked about."""
    return f"block of {len(block)} requests from {float(block.arrival_s[0]):.6g} s on" if len(block) else "empty block"


def seconds(client: object, answer: object) -> str:
    """Of `Client.delay`: a time, 0 or more."""
    ok = isinstance(answer, int | float | np.floating | np.integer) and not isinstance(answer, bool) and 0 <= answer < 1e9
    return "" if ok else f"answered {_shown(answer)}; allowed: seconds, 0 or more"


def yes_or_no(policy: object, answer: object) -> str:
    """Of `Admission.offer`, `Client.retries`."""
    return "" if isinstance(answer, bool | np.bool_) else f"answered {_shown(answer)}; allowed: True or False"


def numbers(policy: object, answer: object) -> str:
    """Of `Admission.release` and `expired`: whether each waits is seen by the fleet."""
    if isinstance(answer, list | tuple) and all(is_number(n) for n in answer):
        return ""
    return f"answered {_shown(answer)}; allowed: a list of the numbers of waiting requests"


def _shown(value: object) -> str:
    return brief(repr(value)) + ("" if value is None else f" ({type(value).__name__})")
