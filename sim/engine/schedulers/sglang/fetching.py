# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Where host memory and the storage behind it have a say: called only where they are, and replaced by what `hierarchy.py` and `storage.py` do."""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.state import SglangState


@outlined(SglangState)
def start_fetch(s, slot):
    """A request has joined the waiting queue."""
    return 0


@outlined(SglangState)
def fetch_again(s):
    """It is time to look anew for what requests in the queue have missed."""
    return 0


@outlined(SglangState)
def fetch_holds(s, slot):
    """1: a candidate is passed over, as its KV is still on its way from storage."""
    return 0


@outlined(SglangState)
def drop_fetch(s, slot):
    """A request leaves the waiting queue for good."""
    return 0


@outlined(SglangState)
def grow_fetches(s, n):
    """There is room for more requests."""
    return 0


@outlined(SglangState)
def note_tiers(s):
    """A decision has been taken."""
    return 0


HOOKS = frozenset({"start_fetch", "fetch_again", "fetch_holds", "drop_fetch", "grow_fetches", "note_tiers"})
