# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""What replays of recordings need beside the scheduler: its log."""

from sim.jit import kernel


@kernel
def start_log(s):
    """Note preemptions and swaps from now on."""
    s.log_on = True


@kernel
def clear_log(s):
    """Forget what was noted."""
    s.log_n = 0
