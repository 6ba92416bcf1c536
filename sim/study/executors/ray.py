"""A Ray cluster: ``ray://HOST:10001``, or ``ray://auto`` for the one of this machine. Needs ``servesim[ray]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import ModuleType
from typing import TYPE_CHECKING

from sim.errors import ConfigError
from sim.study.base import Trial
from sim.study.executors.base import Inner, checked
from sim.study.keys import code_version
from sim.study.perform import Observe, Performed, perform

if TYPE_CHECKING:
    from ray import ObjectRef

_IN_FLIGHT = 2  # trials per processor of the cluster that are handed over at a time


def connect(address: str) -> Ray:
    """Raises `ConfigError` without the library, when nobody answers there, or when its nodes run other code."""
    try:
        import ray
    except ImportError:
        raise ConfigError("--cluster", address, "needs Ray", hint="pip install 'servesim[ray]'") from None
    try:
        ray.init("auto" if address == "ray://auto" else address, logging_level=40, log_to_driver=False)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError("--cluster", address, f"cannot be reached: {str(error).splitlines()[0]}") from None
    try:
        checked(address, [ray.get(ray.remote(_version).remote())])
    except BaseException:
        ray.shutdown()
        raise
    return Ray(ray)


def _version() -> str:
    return code_version()


class Ray:
    """See `Executor`."""

    def __init__(self, ray: ModuleType) -> None:
        self._ray = ray
        self._perform = ray.remote(perform)

    def run(self, trials: Sequence[Trial], observe: Observe, inner: Inner) -> Iterator[tuple[int, Performed]]:
        """See `Executor`."""
        most = max(1, int(_IN_FLIGHT * self._ray.cluster_resources().get("CPU", 1)))
        waiting = list(enumerate(trials))[::-1]
        running: dict[ObjectRef[Performed], int] = {}
        try:
            while waiting or running:
                while waiting and len(running) < most:
                    number, trial = waiting.pop()
                    running[self._perform.remote(trial, observe)] = number
                finished, _ = self._ray.wait(list(running), timeout=0.3)
                if not finished:
                    inner(0.0)
                for reference in finished:
                    number = running.pop(reference)
                    try:
                        yield number, self._ray.get(reference)
                    except self._ray.exceptions.RayError as error:
                        yield number, Performed(None, f"its worker was lost: {str(error).splitlines()[0]}", final=False)
        finally:
            for reference in running:
                self._ray.cancel(reference, force=True)

    def close(self) -> None:
        """Leave the cluster as it is."""
        self._ray.shutdown()
