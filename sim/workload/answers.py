"""What the answers of trace readers, arrival processes and lengths must look like, told as the end of a sentence that begins with the method's name."""

from __future__ import annotations

from typing import TypeGuard

import numpy as np
from numpy.typing import NDArray

from sim.errors import DataError, brief
from sim.workload.table import MAX_TOKENS, RequestBlock


def one_block(reader: object, answer: object) -> str:
    """Of `Trace.read`, and each of `Trace.pieces`: requests that keep what a `RequestBlock` promises."""
    if not isinstance(answer, RequestBlock):
        return f"answered {_shown(answer)}; allowed: a RequestBlock"
    try:
        answer.validate("requests")
    except DataError as error:
        return f"answered with requests that cannot be: {str(error).removeprefix('requests: ')}"
    return ""


def times(process: object, answer: object) -> str:
    """Each of `Arrival.times`: times in order."""
    if not _numbers(answer) or not len(answer):
        return f"answered {_shown(answer)}; allowed: an array of times in seconds"
    if not (np.isfinite(answer).all() and (answer >= 0).all()):
        return f"answered with {answer[int(np.argmin(np.isfinite(answer) & (answer >= 0)))].item()!r}; allowed: finite times of at least 0"
    back = np.flatnonzero(np.diff(answer) < 0)
    return f"answered with times that run backwards after {answer[back[0]].item()!r}" if back.size else ""


def gaps(process: object, answer: object) -> str:
    """Of `Renewal.gaps`: times between arrivals."""
    if not _numbers(answer):
        return f"answered {_shown(answer)}; allowed: an array of times in seconds"
    good = np.isfinite(answer) & (answer >= 0)
    return "" if good.all() else f"answered with {answer[int(np.argmin(good))].item()!r}; allowed: finite times of at least 0"


def pairs(lengths: object, answer: object) -> str:
    """Of `Length.draw`: prompt and output tokens of the same requests."""
    if not (isinstance(answer, tuple) and len(answer) == 2 and all(_numbers(a) for a in answer)):
        return f"answered {_shown(answer)}; allowed: two arrays, prompt and output tokens"
    if len(answer[0]) != len(answer[1]):
        return f"answered with {len(answer[0])} prompts and {len(answer[1])} outputs; allowed: as many of either"
    for name, x in zip(("prompt", "output"), answer, strict=True):
        good = (x >= 1) & (x <= MAX_TOKENS) & (x == np.floor(x))
        if not good.all():
            return (
                f"answered with {x[int(np.argmin(good))].item()!r} {name} tokens; allowed: whole numbers from 1 to {MAX_TOKENS}"
            )
    return ""


def _numbers(answer: object) -> TypeGuard[NDArray[np.float64]]:
    return isinstance(answer, np.ndarray) and answer.ndim == 1 and answer.dtype.kind in "iuf"


def _shown(answer: object) -> str:
    return brief(repr(answer)) + ("" if answer is None else f" ({type(answer).__name__})")
