"""Every number of every setting at its extremes: what comes of it is a run, or one error of ours."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest

import sim
from sim import registry
from sim.errors import ConfigError, ServesimError
from sim.study.single import Prepared
from tests.hostile.numbers import Extreme, extremes, scenario
from tests.hostile.test_every_file import SECONDS
from tests.within import within

ALL = extremes()
FEW = ALL[::23]
"""So many that the suite has time for them."""


ON_H100 = {"accelerator": "h100-sxm"}
ON_ASCEND = {"accelerator": "ascend-910b2"}


def attempt(case: Extreme, run: bool) -> None:
    with within(3 * SECONDS if run else SECONDS):  # what a setting switches on may have to be compiled
        try:
            made = Prepared(sim.loads(json.dumps(scenario(case))))
            if run:
                json.dumps(made.run().summary.as_dict(), allow_nan=False)
        except ServesimError as error:
            assert 0 < len(str(error)) < 4000, (case, str(error)[:500])


def test_one_in_some_is_planned_or_refused() -> None:
    for case in FEW:
        attempt(case, run=False)


@pytest.fixture(scope="module")
def compiled() -> None:
    """What runs is compiled before anybody looks at the time."""
    for name in {registry.lookup("engine", each).name for each in registry.names("engine")}:
        made = scenario(Extreme("", name, ("seed",), 1))
        made["deployment"]["engine"] = name
        Prepared(sim.loads(json.dumps(made))).run()


@pytest.mark.slow
@pytest.mark.usefixtures("compiled")
@pytest.mark.parametrize("part", range(20))
def test_each_runs_or_is_refused(part: int) -> None:
    for case in ALL[part::20]:
        attempt(case, run=True)


def test_all_settings_of_all_classes_are_among_them() -> None:
    assert {case.kind for case in ALL} == {"", "engine", "router", "scaler", "admission", "client", "fault", "arrival", "length"}
    assert len({(case.kind, case.name, case.path) for case in ALL}) > 500
    assert {case.value for case in ALL if case.path[-1] == "max_num_seqs" and case.name == "vllm"} >= {0, 2**31, 2**63}


@pytest.mark.parametrize(
    ("section", "says"),
    [
        (
            {"router": {"name": "sglang_router", "balance_rel_threshold": math.inf}},
            "router.balance_rel_threshold: must be a finite number",
        ),
        ({"router": {"name": "llumnix", "dispatch_neutral_load_threshold": 1e31}}, "too large to compute with"),
        ({"router": {"name": "llumnix", "dispatch_neutral_load_threshold": 1e-31}}, "too small to compute with"),
        ({"router": {"name": "vllm_dp", "min_stats_update_interval": "1us"}}, "greater than or equal to 0.001"),
        ({"faults": [{"name": "crash", "mtbf": "1us"}]}, "greater than or equal to 0.01"),
        (
            {"deployment": ON_ASCEND | {"engine": {"name": "mindie", "cpuMemSize": 1e30}}},
            "cpuMemSize: .* less than or equal to 1048576",
        ),
        (
            {"deployment": ON_H100 | {"engine": {"name": "vllm-v0", "swap_space": 1e30}}},
            "swap_space: .* less than or equal to 1048576",
        ),
    ],
)
def test_what_cannot_be_computed_with_is_refused_by_name(section: dict[str, Any], says: str) -> None:
    base = scenario(Extreme("", "", ("seed",), 1))
    with pytest.raises(ConfigError, match=says):
        Prepared(sim.loads(json.dumps(base | section)))
