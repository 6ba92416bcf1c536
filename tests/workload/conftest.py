"""What the workload tests share."""

from pathlib import Path

import pytest

from sim.workload import RequestBlock, build_traffic

TRACES = Path(__file__).parents[3] / "shared" / "data" / "traces"


@pytest.fixture
def traces():
    """Folder of public traces; tests that need it are skipped where it is absent."""
    if not TRACES.is_dir():
        pytest.skip("the public traces are not here")
    return TRACES


@pytest.fixture
def synthetic():
    """Make synthetic traffic from what matters to a test."""

    def make(seed=0, closed_loop=None, **settings):
        section = {"arrival": {"process": "poisson", "rate": "8/s"}, "lengths": FIXED, "requests": 1000} | settings
        return build_traffic({"synthetic": section, "closed_loop": closed_loop}, seed)

    return make


FIXED = {"kind": "fixed", "prompt_tokens": 100, "output_tokens": 20}


def whole(traffic, rows=16_384):
    """All requests of finite traffic as one valid block."""
    return RequestBlock.concat(list(traffic.blocks(rows))).validate()


def as_bytes(block):
    """Everything a block says, to compare runs bit for bit."""
    w = block.waits
    waits = () if w is None else (w.wait_s, w.awaited, w.off, w.key)
    return b"".join(x.tobytes() for x in (*block.columns, block.session, block.klass, block.tenant, *block.spans, *waits))


def tokens_of(block, row):
    """The prompt as a list of (content id, position), one by one."""
    off, ids, start, length = block.spans
    return [(int(ids[k]), int(start[k]) + i) for k in range(off[row], off[row + 1]) for i in range(length[k])]
