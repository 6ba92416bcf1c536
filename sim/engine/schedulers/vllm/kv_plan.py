"""KV groups of a model under vLLM: kinds of layer, block sizes, how many blocks a request takes, what the start-up log says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import gcd, lcm

NO_LIMIT = 1 << 30


@dataclass(frozen=True)
class Group:
    """Layers that share block tables. ``block_size`` in tokens, ``page`` bytes of one block in one layer, ``window`` of sliding ones."""

    kind: str
    layers: int
    block_size: int
    page: float
    window: int = 0
    draft: bool = False


@dataclass(frozen=True)
class GroupPlan:
    """The groups of a model in the order of their ids, and the sizes the scheduler works with."""

    groups: tuple[Group, ...]
    hash_block_size: int
    fine: bool = False
    chunk: int = 0
    checkpoint: int = 0
    """Alignment of the checkpoints that layers export from inside a chunk; 0: none."""

    @property
    def grid(self) -> int:
        """``scheduler_block_size``."""
        return lcm(*(g.block_size for g in self.groups))

    @property
    def least(self) -> int:
        """``cache_config.block_size``."""
        return min(g.block_size for g in self.groups)

    @property
    def bytes_per_block(self) -> float:
        """Of the pool: a block belongs to one group at a time, and the largest must fit."""
        return max(g.layers * g.page for g in self.groups)

    @property
    def words(self) -> str:
        """The groups in one line."""
        parts: dict[str, int] = {}
        for g in self.groups:
            kind = {"linear": "recurrent", "sliding": f"window {g.window}", "chunked": f"chunks of {self.chunk}"}.get(
                g.kind, g.kind
            )
            text = f"{g.layers} {kind} layers in blocks of {g.block_size}"
            parts[text] = parts.get(text, 0) + 1
        return ", ".join(f"{n} × {text}" for text, n in parts.items())

    def caps(self, max_model_len: int, in_flight: int) -> list[int]:
        """Most blocks that one request needs of each group at once, as admission counts; ``in_flight``: tokens of all batches under way."""
        out = []
        for g in self.groups:
            kept = g.window - 1 if g.kind == "sliding" else self.chunk
            if g.kind == "sliding":
                out.append(-(-min(kept + in_flight, max_model_len) // g.block_size) + 1)
            elif g.kind == "chunked":
                out.append(-(-min(kept + in_flight, max_model_len) // g.block_size))
            else:
                out.append(NO_LIMIT)
        return out

    def per_request(self, max_model_len: int, in_flight: int, states: bool, drafts: int) -> list[int]:
        """Blocks that one request of ``max_model_len`` takes of each group, as vLLM sizes its pool."""
        out = []
        for g, cap in zip(self.groups, self.caps(max_model_len, in_flight), strict=True):
            if g.kind == "linear":
                out.append(1 + drafts + ((1 + (self.checkpoint > 0)) if states else 0))
            elif g.kind == "full":
                out.append(-(-max_model_len // g.block_size))
            else:
                out.append(cap)
        return out

    def spec_groups(self) -> list[list[int]]:
        """Groups of equal layers, which are looked up together; full attention first."""
        found: list[tuple[tuple[str, int, int, float], list[int]]] = []
        for i, g in enumerate(self.groups):
            key = (g.kind, g.block_size, g.window, g.page)
            for known, members in found:
                if known == key:
                    members.append(i)
                    break
            else:
                found.append((key, [i]))
        found.sort(key=lambda item: item[0][0] != "full")
        return [members for _, members in found]


def hash_block_size(groups: Sequence[Group], match_unit: int | None, caching: bool, states: bool) -> int:
    """Unit of the hash chain: what ``prefix_match_unit`` says, or what divides all block sizes."""
    sizes = [g.block_size for g in groups]
    if not caching or (not states and any(g.kind == "linear" for g in groups)):
        return lcm(*sizes)
    return match_unit or gcd(*sizes)
