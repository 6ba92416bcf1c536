# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Where a pool beside that of full KV has a say: called only where there is one, and then replaced by what that pool does.

`window.py` and `recurrent.py` say by name what takes the place of what (`INSTEAD`); a model of full layers compiles none of it.
"""

from sim.engine.outline import outlined
from sim.engine.schedulers.sglang.state import SglangState


@outlined(SglangState)
def state_of_hit(s, slot):
    """A candidate has been matched."""
    return 0


@outlined(SglangState)
def before_extend(s):
    """The admitted requests are about to get memory."""
    return 0


@outlined(SglangState)
def track_prompts(s):
    """The admitted requests have got memory."""
    return 0


@outlined(SglangState)
def track_results(s, p):
    """The decode batch in place ``p`` has finished."""
    return 0


@outlined(SglangState)
def pass_by(s, k):
    """``k`` unchanged decode steps are about to be taken."""
    return 0


@outlined(SglangState)
def quiet_steps(s):
    """Decode steps before something happens in the second pool."""
    return 0


HOOKS = frozenset({"state_of_hit", "before_extend", "track_prompts", "track_results", "pass_by", "quiet_steps", "grow_second"})
