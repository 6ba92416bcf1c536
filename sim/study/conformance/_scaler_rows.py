"""Replays recorded steps of Ray Serve's autoscaling, and rows of Knative's unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sim.policy.scaling.kpa import Panic
from sim.policy.scaling.ray_serve import QueueLength


def ray(data: Any) -> Iterator[tuple[object, object]]:
    """(recorded, ours) of each step: the number before and after the bounds."""
    for episode in data:
        c = episode["config"]
        rule = QueueLength(
            c["target_ongoing_requests"], c["up"], c["down"],
            c["upscale_delay_s"], c["downscale_delay_s"], c["downscale_to_zero_delay_s"],
        )  # fmt: skip
        for now, total, running, aim, wanted, bounded in episode["steps"]:
            ours = rule.wanted(now, total, running, aim)
            yield [wanted, bounded], [ours, min(max(ours, c["min_replicas"]), c["max_replicas"])]


def kpa(row: Any) -> tuple[object, object]:
    """(expected, ours) of one test."""
    rule = Panic(row["panic_threshold"], row["max_up"], row["max_down"], row["stable_window_s"])
    if row["start_panic"] is not None:
        rule.since, rule.pods = row["start_panic"]["since_s"], row["start_panic"]["max_panic_pods"]
    steps = row["steps"]
    ours = [rule.wanted(s["t_s"], s["target"], s["stable"], s["panic"], s["ready"]) for s in steps]
    return [s["expect"] for s in steps], ours
