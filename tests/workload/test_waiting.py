import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sim.workload.traces._waiting import WaitingRows

maybe = st.one_of(st.none(), st.integers(0, 50).map(float))
row = st.tuples(maybe, maybe, st.integers(-1, 3))


@given(st.lists(st.lists(row, min_size=1, max_size=8), min_size=1, max_size=4))
def test_pieces_wait_as_rows_do_one_by_one(pieces):
    alone, together = WaitingRows(), WaitingRows()
    for piece in pieces:
        at, wait, session = (np.array([np.nan if x is None else x for x in column]) for column in zip(*piece, strict=True))
        wrong, problem = together.add_all(at, wait, session.astype(np.int64))
        for k, (a, w, s) in enumerate(piece):
            said = alone.add(a, w, s)
            if said:
                assert (wrong, problem) == (k, said)
                return
        assert wrong == -1
    for name in ("starts", "waits", "counts", "parents"):
        np.testing.assert_array_equal(np.array(getattr(alone, name)), np.array(getattr(together, name)))
    assert alone._last == together._last
