"""Replays the queue of the VTC artifact: who is admitted next, and every counter after every event."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

from sim.policy.gateways.vtc import Counters


def replay(data: Any) -> Iterator[tuple[object, object]]:
    """(recorded, ours) for each event. How many are admitted at once follows from the artifact's memory test, which is not ours: it is taken over."""
    for episode in data:
        config = episode["config"]
        weights = dict(zip(config["users"], config["weights"], strict=True))
        counters = Counters("artifact", weights=weights)
        queues: dict[str, deque[int]] = {}
        user_of: dict[int, str] = {}
        size: dict[int, int] = {}
        running: set[int] = set()
        for event in episode["events"]:
            what, about, after = event[0], event[1], event[-1]
            if what == "arrive":
                _, number, user, prompt, *_ = event
                counters.arrive(user, [u for u, q in queues.items() if q])
                queues.setdefault(user, deque()).append(number)
                user_of[number], size[number] = user, prompt
            elif what == "admit":
                ours = []
                for _ in about:
                    user = str(counters.next([u for u, q in queues.items() if q]))
                    ours.append(queues[user].popleft())
                    counters.admitted(user, size[ours[-1]], not queues[user])
                yield about, ours
                running |= set(about)
            else:
                for number in about if what == "first_token" else sorted(running):
                    counters.generated(user_of[number], 1)
                running -= set(about if what == "decode" else ())
            yield {u: float(c) for u, c in after.items()}, {u: float(counters.of[u]) for u in after}
