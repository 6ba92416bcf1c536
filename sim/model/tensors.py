"""The smallest pieces of a model: tensors with the rule by which they are cut, matrix products, and what is kept per sequence."""

from __future__ import annotations

from typing import Literal, NamedTuple

AttentionKind = Literal["full", "sliding", "chunked", "compressed", "linear", "cross", "none"]

# How a tensor is cut over the tensor-parallel group.
CUT, KV, COPY, EXPERTS = "cut", "kv", "copy", "experts"


class Tensor(NamedTuple):
    """``elements`` of the uncut tensor; ``rule`` says how a GPU's part follows from it.

    ``parts``: pieces it can be cut into (key/value heads of `KV`, experts of `EXPERTS`). ``modules``: what the checkpoint calls it
    inside its layer; lists of modules that stay in 16 bits name these.
    """

    name: str
    role: str
    elements: int
    rule: str = CUT
    parts: int = 0
    modules: tuple[str, ...] = ()


class Product(NamedTuple):
    """A matrix product of a layer on one GPU: ``tokens × k`` times ``k × n``. ``tensor``: the tensor whose number format it runs in."""

    name: str
    n: int
    k: int
    tensor: str
    quantised: bool = True
    all_reduce: bool = False


class Kept(NamedTuple):
    """Bytes a layer keeps of every token on one GPU, for ``window`` tokens back (0: for ever)."""

    kind: AttentionKind
    window: int
    bytes_per_token: float


class Cut(NamedTuple):
    """Something that tensor parallelism divides: ``number`` of ``what``; ``copies``: fewer than GPUs are copied instead."""

    what: str
    number: int
    copies: bool = False
