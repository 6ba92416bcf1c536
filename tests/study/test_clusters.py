"""The same study on a cluster: the bytes of one process."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import sim
from sim.errors import ConfigError

OVER = {
    "deployment.engine.max_num_seqs": [2, 8],
    "traffic.synthetic.arrival.rate": ["4/s", "12/s"],
    "model": ["llama-3.1-8b", "llama-3.1-405b"],
}
FILES = ("runs.parquet", "summary.json", "report.html")


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("alone")
    sim.sweep(scenario(), over=OVER, jobs=1, out=folder)
    return folder


def scenario() -> Any:
    return sim.load("quickstart", ["traffic.synthetic.requests=60", "record.timeseries=false"])


@pytest.fixture
def dask() -> Iterator[str]:
    distributed = pytest.importorskip("distributed", reason="servesim[dask] is not installed")
    cluster = distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None)
    yield f"dask={cluster.scheduler_address}"
    cluster.close()


@pytest.fixture
def ray() -> Iterator[str]:
    pytest.importorskip("ray", reason="servesim[ray] is not installed")
    import subprocess
    import sys

    command = [str(Path(sys.executable).parent / "ray")]
    if not Path(command[0]).exists():
        command = [sys.executable, "-m", "ray.scripts.scripts"]
    started = subprocess.run(
        [*command, "start", "--head", "--num-cpus=2", "--port=0", "--include-dashboard=false", "--disable-usage-stats"],
        capture_output=True,
        text=True,
        check=False,
    )
    if started.returncode:
        pytest.skip(f"no local Ray cluster can be started here: {started.stderr[-200:]}")
    yield "ray://auto"
    subprocess.run([*command, "stop", "--force"], capture_output=True, check=False)


def same(address: str, alone: Path, tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # those of the cluster's own library
        sim.sweep(scenario(), over=OVER, cluster=address, out=tmp_path)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (alone / name).read_bytes(), name


@pytest.mark.filterwarnings("ignore")
def test_dask(dask: str, alone: Path, tmp_path: Path) -> None:
    same(dask, alone, tmp_path)


@pytest.mark.filterwarnings("ignore")
def test_ray(ray: str, alone: Path, tmp_path: Path) -> None:
    same(ray, alone, tmp_path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("library", "address"), [("distributed", "dask=tcp://127.0.0.1:9"), ("ray", "ray://127.0.0.1:9")])
def test_a_cluster_that_nobody_answers_for(library: str, address: str, tmp_path: Path) -> None:
    pytest.importorskip(library)
    with pytest.raises(ConfigError, match="cannot be reached"):
        sim.sweep(scenario(), over=OVER, cluster=address, out=tmp_path / "out")
