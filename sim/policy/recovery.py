"""What a router does about a replica that has died: when it stops choosing it, and whether it sends a request elsewhere by itself."""

from __future__ import annotations

from dataclasses import dataclass
from math import inf

import numpy as np


@dataclass(frozen=True)
class Recovery:
    """Seconds; the default is what Kubernetes' readiness probes do (10 s period, 3 failures), and no attempt of the router's own.

    ``attempts``: times that a request is sent in all, as long as no byte of its answer has come. Before attempt k + 1 it pauses ``pause`` · ``factor``ᵏ,
    at most ``most``, give or take the share ``jitter``. ``detects``: a dead replica is chosen no more after so long; ``returns``: one that serves again is
    chosen after so long. ``breaker``: failures in a row after which it is not chosen at once. ``resends``: also what had reached the replica.
    ``migrations``: so often a request whose answer has begun goes on elsewhere, its prompt and what was generated being its prompt.
    """

    attempts: int = 1
    pause: float = 0.0
    factor: float = 1.0
    most: float = inf
    jitter: float = 0.0
    detects: float = 30.0
    returns: float = 10.0
    breaker: float = inf
    resends: bool = True
    migrations: int = 0
    source: str = "Kubernetes readiness: period 10 s, 3 failures; no retry of the router's own"

    def delay(self, tried: int, rng: np.random.Generator) -> float:
        """Pause after attempt number ``tried`` (from 1)."""
        pause = min(self.pause * self.factor ** (tried - 1), self.most)
        return pause * (1.0 + self.jitter * (2.0 * float(rng.random()) - 1.0)) if pause else 0.0


SMG = Recovery(
    attempts=5,
    pause=0.05,
    factor=1.5,
    most=30.0,
    jitter=0.2,
    detects=180.0,
    returns=120.0,
    breaker=10,
    source="sgl-model-gateway routers/common/retry.rs, worker/circuit_breaker.rs: 5 attempts before the first byte; health every 60 s, out after 3 "
    "failures or 10 failed requests in a row, back after 2 successes",
)
"""SGLang's router and what descends from it."""
NGINX = Recovery(
    attempts=1000,
    detects=inf,
    breaker=1,
    returns=10.0,
    resends=False,
    source="nginx: proxy_next_upstream error timeout, not for a POST that was sent; max_fails 1, fail_timeout 10 s",
)
LITELLM = Recovery(
    attempts=3,
    detects=inf,
    breaker=4,
    returns=5.0,
    source="litellm 1.110.2: num_retries 2, at once while another deployment is healthy; allowed_fails 3, cooldown_time 5 s",
)
DYNAMO = Recovery(
    detects=10.0,
    breaker=1,
    returns=1.0,
    source="Dynamo v1.6: stream errors are seen at once, the lease on etcd ends after 10 s; migration_limit (off by default)",
)
RAY = Recovery(
    attempts=1000,
    pause=0.025,
    factor=2.0,
    most=0.5,
    detects=60.0,
    returns=10.0,
    breaker=1,
    source="ray 2.60 serve: a request that has not begun is routed again; health check every 10 s, time-out 30 s, 3 failures; a dead actor is known at once",
)
"""Ray Serve."""
