"""Where trials run: here and in processes of this machine, or on a cluster by the scheme of its address, one file each."""

from __future__ import annotations

from importlib import import_module
from pkgutil import iter_modules

from sim.errors import ConfigError
from sim.study.executors.base import Executor


def executor(jobs: int | None = None, cluster: str | None = None) -> Executor:
    """``jobs``: processes of this machine (None: as many as it has processors, where they pay off). ``cluster``: ``scheme://address``.

    Raises `ConfigError`.
    """
    if jobs is not None and jobs < 1:
        raise ConfigError("--jobs", jobs, "must be at least 1")
    if cluster is None:
        from sim.study.executors.processes import Processes

        return Processes(jobs)
    scheme = cluster.partition("://")[0].partition("=")[0]
    known = [m.name for m in iter_modules(__path__) if m.name not in ("base", "processes")]
    if "://" not in cluster or scheme not in known:
        examples = "ray://HOST:10001, dask=tcp://HOST:8786"
        raise ConfigError("--cluster", cluster, "is no address of a cluster", examples)
    made: Executor = import_module(f"{__name__}.{scheme}").connect(cluster)
    return made


__all__ = ["Executor", "executor"]
