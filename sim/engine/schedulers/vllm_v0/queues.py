# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc, valid-type"
"""Orders of the queues: by arrival (``core/policy.py``, to 0.5.4), by priority and arrival (``_get_priority``); adapters of a step."""

from sim.jit import inline


@inline
def after(s, a, b, urgent):
    """Whether ``a`` comes after ``b``."""
    if urgent and s.r_priority[a] != s.r_priority[b]:
        return s.r_priority[a] > s.r_priority[b]
    return s.r_arrival[a] > s.r_arrival[b]


@inline
def sort_slots(s, a, n, urgent):
    """Sort the first ``n`` slots, equal ones in their order. They are nearly sorted, so by insertion."""
    for i in range(1, n):
        slot = a[i]
        j = i
        while j > 0 and after(s, a[j - 1], slot, urgent):
            a[j] = a[j - 1]
            j -= 1
        a[j] = slot


@inline
def sort_waiting(s):
    """The same in the ring of waiting requests."""
    a, head, size = s.w_slot, s.w_head, s.w_slot.size
    for i in range(1, s.w_len):
        slot = a[(head + i) % size]
        j = i
        while j > 0 and after(s, a[(head + j - 1) % size], slot, True):
            a[(head + j) % size] = a[(head + j - 1) % size]
            j -= 1
        a[(head + j) % size] = slot


@inline
def has_adapter(s, lora):
    for i in range(s.n_loras):
        if s.loras[i] == lora:
            return True
    return False


@inline
def adapter_fits(s, slot):
    """Whether its adapter is among those of the step, or one more may be."""
    lora = s.r_lora[slot]
    return s.max_loras == 0 or lora == 0 or s.n_loras < s.max_loras or has_adapter(s, lora)


@inline
def add_adapter(s, slot):
    lora = s.r_lora[slot]
    if s.max_loras > 0 and lora > 0 and not has_adapter(s, lora):
        s.loras[s.n_loras] = lora
        s.n_loras += 1


@inline
def remove_adapter(s, slot):
    """As upstream does when a running request finds no block: also if others use it."""
    lora = s.r_lora[slot]
    if s.max_loras > 0 and lora > 0:
        for i in range(s.n_loras):
            if s.loras[i] == lora:
                s.n_loras -= 1
                s.loras[i] = s.loras[s.n_loras]
                return
