# mypy: disable-error-code="no-untyped-def, no-untyped-call"
"""Hash tables with open addressing and linear probing: a table of numbers, whose hashes lie in another column."""

from sim.jit import inline


@inline
def close_gap(table, hashes, i, empty):
    """Place ``i`` becomes ``empty``; later entries of its probe sequence move up, so that all are still found."""
    mask = table.size - 1
    j = i
    while True:
        j = (j + 1) & mask
        other = table[j]
        if other == empty:
            break
        home = int(hashes[other]) & mask
        if ((j - home) & mask) >= ((j - i) & mask):
            table[i] = other
            i = j
    table[i] = empty
