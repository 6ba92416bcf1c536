"""Random settings and loads against the executable reference models."""

from sim.jit import JIT


def enough(number: int) -> int:
    """So many steps, and half of them where the kernels are plain Python."""
    return number if JIT else number // 2
