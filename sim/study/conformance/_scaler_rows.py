"""Replays recorded steps of Ray Serve's autoscaling, and rows of Knative's unit tests."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TypedDict

from sim.policy.scaling.kpa import Panic
from sim.policy.scaling.ray_serve import QueueLength


class Config(TypedDict):
    """Of the rule."""

    target_ongoing_requests: float
    up: float
    down: float
    upscale_delay_s: float
    downscale_delay_s: float
    downscale_to_zero_delay_s: float | None
    min_replicas: int
    max_replicas: int


class Episode(TypedDict):
    """Steps: time, requests, replicas that run, the number aimed at, the one that is wanted, and the same within bounds."""

    config: Config
    steps: list[tuple[float, float, int, int, int, int]]


class Start(TypedDict):
    """A panic that had begun before."""

    since_s: float
    max_panic_pods: int


class Step(TypedDict):
    """One evaluation."""

    t_s: float
    target: float
    stable: float
    panic: float
    ready: int
    expect: int


class Kpa(TypedDict):
    """One test."""

    panic_threshold: float
    max_up: float
    max_down: float
    stable_window_s: float
    start_panic: Start | None
    steps: list[Step]


def ray(data: list[Episode]) -> Iterator[tuple[object, object]]:
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


def kpa(row: Kpa) -> tuple[object, object]:
    """(expected, ours) of one test."""
    rule = Panic(row["panic_threshold"], row["max_up"], row["max_down"], row["stable_window_s"])
    if row["start_panic"] is not None:
        rule.since, rule.pods = row["start_panic"]["since_s"], row["start_panic"]["max_panic_pods"]
    steps = row["steps"]
    ours = [rule.wanted(s["t_s"], s["target"], s["stable"], s["panic"], s["ready"]) for s in steps]
    return [s["expect"] for s in steps], ours
