"""Python's garbage collector during a run.

Its collections look at every object that is alive, and the trees of gateways have millions, of which none is garbage.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

_THRESHOLDS: Final = (200_000, 20, 100)
"""New objects before a collection, and collections of one generation before one of the next."""


@contextmanager
def rarely_collected() -> Iterator[None]:
    """Collections are rare within; as before afterwards."""
    before = gc.get_threshold()
    if before[0]:  # else they are switched off altogether
        gc.set_threshold(*_THRESHOLDS)
    try:
        yield
    finally:
        gc.set_threshold(*before)
