"""How many of a group's instances prefill and how many decode (``controller/role_manager``: ``LlamaSimulator``, ``ProportionCalculator``).

The controller does not measure: it computes what one instance of either kind could do with requests of mean length, from a roofline with
conservative efficiencies, and hands out roles one by one. Units as upstream: milliseconds, and GB and TB of 2¹⁰ steps.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from sim.model.spec import ModelSpec

_MS: Final = 1000.0
_K: Final = 1024.0
_MOST: Final = 100_000  # requests in a batch


@dataclass(frozen=True)
class Machine:
    """``machine_config/800IA2.json``: a server of eight 910B4."""

    TFLOPS: float = 246.0
    TFLOPSeff: float = 0.5
    MBW_TB: float = 0.8
    MBW_TBeff: float = 0.3
    BW_GB: float = 392.0
    BW_RDMA_Gb: float = 200.0
    BWeff: float = 0.5
    alpha: float = 2.0
    """Start of a collective, µs."""
    MEMCapacity: float = 32.0
    eta_OOM: float = 0.9
    staticTransferDelay: float = 1e-5
    hardware_card_nums: int = 8


@dataclass(frozen=True)
class Summary:
    """What the requests are like, and what they must get."""

    input_length: int = 3000
    output_length: int = 200
    prefill_slo: float = 1000.0
    decode_slo: float = 50.0


class Ability(NamedTuple):
    """Requests per second of one prefill instance, one decode instance, one link between them."""

    prefill: float
    decode: float
    transfer: float


class Ratio(NamedTuple):
    """Instances of either kind."""

    prefill: int
    decode: int


@dataclass(frozen=True)
class Roofline:
    """``LlamaSimulator``. ``model`` (hidden, intermediate, heads, kv_heads, layers), 16-bit."""

    model: ModelSpec
    summary: Summary = Summary()
    machine: Machine = Machine()
    tp: int = 8
    pp: int = 1
    byte_size: float = 2.0

    def _weights(self, mlp: float) -> float:
        m = self.model
        attention = 2.0 * m.hidden * m.hidden * m.layers * (1.0 + m.kv_heads / m.heads)
        return float(attention + mlp * m.hidden * m.intermediate * m.layers)

    def compute_ms(self, batch: int, decode: bool) -> float:
        """Of one decode step with ``batch`` requests, or of one prompt."""
        m, s, h = self.model, self.summary, self.machine
        size = batch if decode else s.input_length
        attended = s.input_length + (s.output_length if decode else 0)
        work = self._weights(2.0) * size + 2.0 * m.hidden * m.layers * size * attended
        return float(2.0 * work / self.tp / self.pp / (h.TFLOPS * h.TFLOPSeff * 1e12) * _MS)

    def fetch_ms(self, batch: int, decode: bool) -> float:
        """Weights, and the cache of a decode batch."""
        m, s, h = self.model, self.summary, self.machine
        read = self._weights(2.0)
        if decode:
            read += 2.0 * (s.input_length + s.output_length) * batch * m.hidden * m.layers * m.kv_heads / m.heads
        return float(self.byte_size * read / self.tp / self.pp / (h.MBW_TB * h.MBW_TBeff * _K**4) * _MS)

    def communicate_ms(self, batch: int, decode: bool) -> float:
        """Collectives within and between hosts, and between pipeline stages."""
        m, h = self.model, self.machine
        rdma = h.BWeff * h.BW_RDMA_Gb / 8.0 * _K**3
        hosts = self.tp // h.hardware_card_nums
        inter = inter_static = 0.0
        if hosts > 0:
            inter = 4.0 * (hosts - 1) * self.byte_size * m.hidden * m.layers / hosts / rdma
            inter_static = 2.0 * self.byte_size * (hosts - 1) * h.alpha * m.layers / _MS
        size = 1 if decode else self.summary.input_length
        intra = 2.0 * self.byte_size * size * m.hidden * m.layers / (h.BWeff * h.BW_GB * _K**3) * _MS
        stages = (self.pp - 1) * size * m.hidden * self.byte_size / rdma * _MS
        static = inter_static + 4.0 * h.alpha * m.layers / _MS + (self.pp - 1) * h.alpha / _MS
        return float(batch * (inter + intra + stages) + static)

    def batch_ms(self, batch: int, decode: bool) -> float:
        """A prefill batch, or one decode step."""
        compute = self.compute_ms(batch, True) if decode else batch * self.compute_ms(1, False)
        return compute + self.communicate_ms(batch, decode) + self.fetch_ms(batch, decode)

    def memory_gb(self, batch: int, decode: bool) -> float:
        """Weights and cache per card."""
        m, s = self.model, self.summary
        weights = self.byte_size * self._weights(3.0) / self.tp / self.pp / _K**3
        token = 2.0 * self.byte_size * m.hidden * m.layers * m.kv_heads / m.heads / self.tp / self.pp / _K**3
        return float(weights + token * batch * (s.input_length + (s.output_length if decode else 0)))

    def batch_size(self, decode: bool) -> int:
        """The largest batch that meets the target and fits; at least 1."""
        target = self.summary.decode_slo if decode else self.summary.prefill_slo
        room = self.machine.MEMCapacity * self.machine.eta_OOM
        size = 1
        while size < _MOST and target >= self.batch_ms(size + 1, decode):
            size += 1
        while size > 1 and room <= self.memory_gb(size, decode):
            size -= 1
        return size

    def transfer_ms(self) -> float:
        """The cache of one prompt to its decode instance."""
        m, h, tokens = self.model, self.machine, self.summary.input_length
        moved = 2.0 * m.layers * tokens * self.byte_size * m.hidden * m.kv_heads / m.heads
        link = h.BW_RDMA_Gb * h.BWeff / 8.0
        delay = 2.0 * h.staticTransferDelay * _MS * m.layers * tokens / 128
        return float(moved / link / self.tp / self.pp * _MS / _K**3 + delay)

    def ability(self) -> Ability:
        """Of one instance (``CalAbility``, ``CalTransferAbility``)."""
        prompts, rows = self.batch_size(False), self.batch_size(True)
        decode = rows / self.batch_ms(rows, True) / self.summary.output_length * _MS
        return Ability(prompts / self.batch_ms(prompts, False) * _MS, decode, _MS / self.transfer_ms())


def pd_ratio(instances: int, prefill: float, decode: float) -> Ratio:
    """``CalPdRatio``: one more prefill instance while all of them together do no more than the decode instances, else one more of these.

    Without abilities half of them, the odd one prefills.
    """
    if prefill <= 0 or decode <= 0:
        return Ratio(instances - instances // 2, instances // 2)
    p = d = 0
    while p + d < instances:
        if prefill * p <= decode * d:
            p += 1
        else:
            d += 1
    return Ratio(p, d)
