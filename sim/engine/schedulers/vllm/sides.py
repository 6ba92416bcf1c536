# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Prefill and decode side with KV that travels outside (`sim.engine.hand_over`): a pulling connector such as NIXL.

Workers report a finished pull or send with the output of a step, so both are seen at the end of the step under way or at the next poll.
*Source*: ``v1/core/sched/scheduler.py`` (``_update_from_kv_xfer_finished``), ``distributed/kv_transfer/kv_connector/v1/nixl``.
"""

from sim.engine.hand_over import tell_at


def release_kept_vllm(s, slot, t):
    """See `sim.engine.hand_over`."""
    for i in range(s.out_n):
        if s.out_slot[i] == slot:
            s.out_time[i] = t
    tell_at(s, t)


def kv_arrived_vllm(s, slot, t, delivered):
    """See `sim.engine.hand_over`; what P sampled is thrown away (``delivered`` 0)."""
    for i in range(s.in_n):
        if s.in_slot_x[i] == slot:
            s.in_time[i] = t
    tell_at(s, t)
