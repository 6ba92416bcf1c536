"""A Dask cluster: ``dask=tcp://HOST:8786`` (or ``dask=tls://…``), the address of its scheduler. Needs ``servesim[dask]``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from sim.errors import ConfigError
from sim.study.base import Trial
from sim.study.executors.base import Inner, checked
from sim.study.keys import code_version
from sim.study.perform import Observe, Performed, perform

if TYPE_CHECKING:
    from distributed import Client


def connect(address: str) -> Dask:
    """Raises `ConfigError` without the library, when nobody answers there, or when its workers run other code."""
    try:
        from distributed import Client
    except ImportError:
        raise ConfigError("--cluster", address, "needs Dask", hint="pip install 'servesim[dask]'") from None
    try:
        client = Client(address.removeprefix("dask=").removeprefix("dask://"), timeout=10, set_as_default=False)
    except (OSError, ValueError) as error:
        raise ConfigError("--cluster", address, f"cannot be reached: {str(error).splitlines()[0]}") from None
    try:
        versions = client.run(code_version)
        checked(address, list(versions.values()))
    except BaseException:
        client.close()
        raise
    return Dask(client)


class Dask:
    """See `Executor`."""

    def __init__(self, client: Client) -> None:
        self._client = client

    def run(self, trials: Sequence[Trial], observe: Observe, inner: Inner) -> Iterator[tuple[int, Performed]]:
        """See `Executor`."""
        from distributed import wait

        running = {self._client.submit(perform, trial, observe, pure=False, retries=2): i for i, trial in enumerate(trials)}
        try:
            while running:
                try:
                    with self._client.as_current():
                        finished = wait(list(running), timeout=0.3, return_when="FIRST_COMPLETED").done
                except TimeoutError:
                    finished = ()
                if not finished:
                    inner(0.0)
                for future in finished:
                    number = running.pop(future)
                    if future.status == "finished":
                        yield number, future.result()
                    else:
                        yield number, Performed(None, f"its worker was lost: {future.exception()}", final=False)
        finally:
            if running:
                self._client.cancel(list(running))

    def close(self) -> None:
        """Leave the cluster as it is."""
        self._client.close()
