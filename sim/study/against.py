"""Deployments against the first of them, figure by figure: by how much they differ, and how sure that is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sim.study.statistics.paired import Difference

FIGURES: dict[str, tuple[str, str, bool]] = {
    "slo.attainment.joint": ("requests within all targets", "higher", True),
    "slo.goodput_requests_per_s": ("goodput", "higher", False),
    "latency.ttft_s.mean": ("mean TTFT", "lower", False),
    "latency.ttft_s.p50": ("p50 TTFT", "lower", False),
    "latency.ttft_s.p99": ("p99 TTFT", "lower", True),
    "latency.tpot_s.p50": ("p50 TPOT", "lower", False),
    "latency.tpot_s.p99": ("p99 TPOT", "lower", True),
    "latency.e2e_s.mean": ("mean E2E", "lower", False),
    "latency.e2e_s.p99": ("p99 E2E", "lower", True),
    "throughput.requests_per_s": ("requests/s", "higher", False),
    "throughput.output_tokens_per_s": ("output tokens/s", "higher", False),
    "throughput.output_tokens_per_s_per_accelerator": ("tokens/s per accelerator", "higher", True),
}
"""Path in the summary → name, which way is better, whether the verdict speaks of it. The corrected tests are those of the verdict."""
BESIDE = ("slo.effective", "slo.unserved", "latency.itl_s.p99", "latency.e2e_s.p50", "latency.queue_s.mean", "context.accelerators",
          "utilisation.kv_peak", "preemptions")  # fmt: skip
"""What is told beside these: means over the repetitions, without an interval."""


@dataclass
class Against:
    """One deployment against the first: `sim.study.statistics.paired.Difference` by figure, and the verdict in words."""

    first: str
    second: str
    differences: dict[str, Difference]
    verdict: str
    worse: bool
    better: bool

    @property
    def mood(self) -> str:
        """In a word or two."""
        if self.better and self.worse:
            return "better in some, worse in others"
        return "better" if self.better else "worse" if self.worse else "not shown to differ"


def against(names: Sequence[str], pairs: Sequence[Mapping[str, list[float]]], level: float) -> list[Against]:
    """Each further one with the first, in the order of ``names``; ``pairs``: of each the values by figure, one for each repetition."""
    from sim.study.statistics.holm import holm
    from sim.study.statistics.paired import paired_difference

    found: list[dict[str, Difference]] = []
    for values in pairs[1:]:
        both = [k for k in FIGURES if k in pairs[0] and k in values and len(values[k]) == len(pairs[0][k])]
        differences = {k: paired_difference(pairs[0][k], values[k], level) for k in both}
        found.append({k: d for k, d in differences.items() if d is not None})
    tested = [(i, k) for i, d in enumerate(found) for k in d if FIGURES[k][2]]
    for (i, k), p in zip(tested, holm([found[i][k].p for i, k in tested]), strict=True):
        found[i][k] = replace(found[i][k], holm=p)
    out = []
    for name, shown in zip(names[1:], found, strict=True):
        words, worse, better = [], False, False
        for path, difference in shown.items():
            figure, direction, primary = FIGURES[path]
            if not primary:
                continue
            words.append(difference.verdict(figure, points=path == "slo.attainment.joint"))
            if difference.significant and abs(difference.relative.value) >= 0.001:
                good = (difference.relative.value < 0) == (direction == "lower")
                better, worse = better or good, worse or not good
        sentence = f"{name} against {names[0]}: {', '.join(words)}." if words else ""
        out.append(Against(names[0], name, shown, sentence, worse, better))
    return out
