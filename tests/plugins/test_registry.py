"""What a file of one's own may be, and what is said about one that is not."""

import os
import pickle
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest
import simpy

import sim
from sim import kept_code, registry
from sim.errors import ConfigError, DataError, NotModelledError, PluginError, UnknownNameError

GOOD = """
from sim.policy.router import Router

class Last(Router):
    name = "last"

    def choose(self, snapshot, block, row):
        return self.replicas - 1
"""


@pytest.fixture
def own(tmp_path):
    def write(text, name="mine.py"):
        path = tmp_path / name
        path.write_text(textwrap.dedent(text))
        return path

    return write


def test_a_class_of_an_own_file_is_found_and_its_module_is_real(own):
    cls = registry.lookup("router", f"{own(GOOD)}:Last")
    assert cls.name == "last"
    assert sys.modules[cls.__module__].__file__.endswith("mine.py")
    assert registry.lookup("router", f"{own(GOOD)}:Last") is cls


def test_an_edited_file_is_read_again(own):
    before = registry.lookup("router", f"{own(GOOD)}:Last")
    after = registry.lookup("router", f"{own(GOOD.replace('self.replicas - 1', '0'))}:Last")
    assert before is not after
    assert before(before.Params(), 3, None).choose(None, None, 0) == 2
    assert after(after.Params(), 3, None).choose(None, None, 0) == 0


def test_a_module_beside_the_file_can_be_imported(own):
    own("LIMIT = 5", "beside_it.py")
    cls = registry.lookup("router", f"{own('from beside_it import LIMIT' + GOOD)}:Last")
    assert sys.modules[cls.__module__].LIMIT == 5


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("class Last: pass", "must be a class derived from sim.policy.router.Router"),
        ("Last = 3", "must be a class derived from sim.policy.router.Router"),
        ("from sim.policy.router import Router\nclass Last(Router):\n    name = 'a'", "does not define choose"),
        (GOOD.replace('name = "last"', "pass"), "needs a `name`"),
        (GOOD.replace('name = "last"', "name = 7"), "needs a `name`"),
        (GOOD.replace('name = "last"', 'name = "last"; Params = dict'), "needs `Params`"),
        (GOOD.replace("Last", "First"), "has no 'Last'"),
    ],
)
def test_a_class_that_is_no_router_is_refused_by_name(own, text, says):
    with pytest.raises(ConfigError, match="router.name") as caught:
        registry.lookup("router", f"{own(text)}:Last", "router.name")
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("text", "line", "says"),
    [
        ("x = 1\n1 / 0\n", 2, "ZeroDivisionError"),
        ("\n\ndef f(:\n", 3, "SyntaxError"),
        ("import sys\nsys.exit(3)\n", 2, "SystemExit"),
        ("import no_such_module_at_all\n", 1, "ModuleNotFoundError"),
    ],
)
def test_a_file_that_cannot_be_loaded_is_told_with_its_line(own, text, line, says):
    with pytest.raises(PluginError) as caught:
        registry.lookup("router", f"{own(text)}:Last")
    assert str(caught.value).startswith(f"{own(text)}:{line}: ")
    assert says in str(caught.value)


def test_no_such_file():
    with pytest.raises(ConfigError, match="no such file"):
        registry.lookup("engine", "nowhere/at/all.py:Mine")


def test_a_name_is_given_once():
    from sim.policy.router import Router

    with pytest.raises(ConfigError, match="choose another `name`"):

        @registry.register("router")
        class Mine(Router):
            name = "round_robin"

            def choose(self, snapshot, block, row):
                return 0

    assert registry.lookup("router", "round_robin").__module__ == "sim.policy.routing.round_robin"


def _scenario(**deployment):
    return sim.load("quickstart", [f"deployment.{key}={value}" for key, value in deployment.items()])


def test_an_engine_without_a_cost_profile_is_told_which_setting_names_one(own):
    text = """
    from sim.engine.schedulers.static import Static

    class Mine(Static):
        name = "mine"
    """
    from sim.fleet.build import plan

    with pytest.raises(ConfigError, match=r"deployment\.profile: .*'mine'"):
        plan(_scenario(engine=f"{own(text)}:Mine"))
    (planned,) = plan(_scenario(engine=f"{own(text)}:Mine", profile="vllm"))
    assert planned.scheduler.name == "mine"


ERRORS = [
    ConfigError("deployment.tp", 3, "does not divide", "1, 2", "use 2"),
    NotModelledError("x", 1, "is not modelled"),
    UnknownNameError("router.name", "round-robbin", ["round_robin", "random"]),
    DataError("file.csv", "has no rows", "give one"),
    PluginError("mine.py", 3, "Mine.choose", "raised KeyError", "at 3 s"),
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda e: type(e).__name__)
def test_errors_survive_processes_and_simpy(error):
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), str(again)) == (type(error), str(error))

    def process(env):
        yield env.timeout(1)
        raise error

    env = simpy.Environment()
    env.process(process(env))
    with pytest.raises(type(error)) as caught:
        env.run()
    assert str(caught.value) == str(error)


# -- compiled plug-ins: small ones, each in a process of its own with a cache of its own

STRUCT = """
import numpy as np
from sim.engine.state import EngineState, init_engine
from sim.jit import i8, implement, kernel, new, struct
from sim.policy.router import Router
from amount import AMOUNT

@struct
class MineState(EngineState):
    marker: i8

def _grow(s, n):
    s.marker += STEP * AMOUNT

implement(MineState, grow=_grow)

@kernel
def make(rec, cost):
    s = new(MineState)
    init_engine(s, 0, rec, cost, 1, 1, 1, 2)
    s.n_free = 0
    s.marker = 0
    return s

class Mine(Router):
    name = "mine"
    def choose(self, snapshot, block, row):
        return 0
"""
SCRIPT = """
import sys
import numpy as np
from sim import kept_code, registry
from sim.cost.step import new_linear_cost
from sim.engine.loop import make_room
from sim.engine.state import new_recorder
rec = new_recorder(1, 0, 1.0, 4, 4, 1.0, 1.0)
cost = new_linear_cost(np.zeros(2), np.zeros(0, np.int64), np.zeros((2, 0)))
if len(sys.argv) > 1:
    module = sys.modules[registry.lookup("router", sys.argv[1] + ":Mine").__module__]
    s = module.make(rec, cost)
else:
    from sim.engine.schedulers.static import _new_state
    s = _new_state(0, rec, cost, 4, 0.0, 0)
make_room(s, 0)
print(s.marker if len(sys.argv) > 1 else s.n_slots)
from sim.jit import _config
hits = sum(make_room.stats.cache_hits.values())
print("hit" if hits else "compiled")
"""


def _run(cache: Path, *args: str) -> list[str]:
    env = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run([sys.executable, "-c", SCRIPT, *args], capture_output=True, text=True, env=env, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")
def test_an_edited_compiled_plug_in_is_compiled_again_and_others_never_see_it(own, tmp_path):
    cache = tmp_path / "cache"
    own("AMOUNT = 1", "amount.py")
    file = str(own(STRUCT.replace("STEP", "3")))
    assert _run(cache, file) == ["3", "compiled"]
    assert _run(cache, file) == ["3", "hit"]
    own(STRUCT.replace("STEP", "4"))
    assert _run(cache, file) == ["4", "compiled"]
    own("AMOUNT = 10", "amount.py")  # a module that it imports
    assert _run(cache, file) == ["40", "compiled"]
    own("raise RuntimeError")
    assert _run(cache)[1] == "compiled"
    assert _run(cache)[1] == "hit"  # no trace of the plug-in in the cache of those who do not use it
    # a cache whose index was cut off, or of whose code the disk has kept only a part
    for k, data in enumerate(sorted(cache.rglob("*.nbc"))):
        if k % 2:
            data.write_bytes(data.read_bytes()[:-400] + bytes(400))
        else:
            index = data.with_name(f"{data.name.rsplit('.', 2)[0]}.nbi")
            index.write_bytes(index.read_bytes()[:40])
    assert _run(cache)[1] == "compiled"


def test_no_byte_of_kept_code_may_differ(tmp_path):
    kept = kept_code._File(str(tmp_path), "f", "stamp")
    kept.save("key", ("code", b"\x90" * 60))
    assert kept.load("key") == ("code", b"\x90" * 60)
    assert kept_code._File(str(tmp_path), "f", "of other sources").load("key") is None
    for file in sorted(tmp_path.iterdir()):
        whole = file.read_bytes()
        for at in range(len(whole)):
            for spoilt in (whole[:at], whole[:at] + bytes([whole[at] ^ 4]) + whole[at + 1 :]):
                file.write_bytes(spoilt)
                try:
                    assert kept.load("key") is None  # as of another version
                except pickle.UnpicklingError as error:
                    assert str(error) == "not as it was written"
        file.write_bytes(whole)


def test_a_struct_of_the_package_cannot_be_given_other_functions():
    from sim.engine.schedulers.static import StaticState
    from sim.jit import implement

    def plan(s):
        return 0

    with pytest.raises(ConfigError, match="derive a @struct of your own"):
        implement(StaticState, plan=plan)
    with pytest.raises(ConfigError, match="is no function that a struct can have"):
        implement(StaticState, no_such_function=plan)


def test_an_installed_plug_in_that_cannot_be_loaded_harms_nobody_else(tmp_path):
    (tmp_path / "badplug.py").write_text("1 / 0")
    (tmp_path / "goodplug.py").write_text(GOOD)
    info = tmp_path / "plug-1.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plug\nVersion: 1\n")
    (info / "entry_points.txt").write_text("[servesim.router]\nbad = badplug:Bad\nlast = goodplug:Last\n")
    script = """
from sim import kept_code, registry
print(registry.lookup("router", "last").name, "round_robin" in registry.names("router"))
for name in ("bad", "no_such_router"):
    try:
        registry.lookup("router", name)
    except Exception as error:
        print(type(error).__name__, "badplug:Bad cannot be loaded: ZeroDivisionError" in str(error))
"""
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, env=env, check=False)
    assert done.stdout.split() == ["last", "True", "ConfigError", "True", "UnknownNameError", "True"], done.stderr
