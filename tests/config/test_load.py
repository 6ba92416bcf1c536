"""Files, names, relative paths, defaults."""

import pickle

import pytest
from pydantic import ValidationError

import sim
import sim.config as config
from sim.errors import ConfigError, DataError, ServesimError
from tests.config.conftest import POOLS, TEXT


def test_defaults_and_units(scenario):
    s = scenario("slo={ttft: 500ms, tpot: 0.05}", "warmup=2min")

    assert (s.seed, s.router.name, s.deployment.tp, s.slo.ttft, s.slo.tpot, s.warmup) == (0, "round_robin", 1, 0.5, 0.05, 120.0)
    assert s.traffic.synthetic.arrival.settings == {"rate": "8/s"}


def test_a_bare_string_is_the_name(scenario):
    long = scenario("router={name: random}", "deployment.engine={name: static}", "model={name: llama-3.1-8b}")

    assert scenario("router=random", "deployment.engine=static", "model=llama-3.1-8b") == long


def test_sections_cannot_be_changed(scenario):
    with pytest.raises(ValidationError):
        scenario().deployment.tp = 2


def test_scenarios_travel_between_processes(scenario):
    assert pickle.loads(pickle.dumps(scenario(text=POOLS))) == scenario(text=POOLS)


def test_every_built_in_scenario_loads():
    found = config.built_in()

    assert "quickstart" in dict(found)
    for name, question in found:
        assert config.load(name).name == name
        assert question


def test_a_path_given_to_a_built_in_scenario_counts_from_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    made = config.load("quickstart", ["traffic={trace: {path: gone.csv}}"])
    assert made.traffic.trace.path == str(tmp_path / "gone.csv")


def test_a_scenario_that_is_changed_no_longer_asks_what_it_asked():
    assert config.load("quickstart").question and not config.load("quickstart", ["deployment.tp=2"]).question
    assert config.load("quickstart", ["question=Is it enough?"]).question == "Is it enough?"


@pytest.mark.parametrize("name", ["x.yaml", ".hidden.yaml", "ä b.yaml", "1.5.yaml"])
def test_a_file_names_its_scenario(tmp_path, name):
    (tmp_path / name).write_text(TEXT)

    assert config.load(tmp_path / name).name.strip("-") in name


def test_paths_count_from_the_scenario_then_from_here(tmp_path, monkeypatch):
    there, here = tmp_path / "there", tmp_path / "here"
    there.mkdir()
    here.mkdir()
    for file in (there / "t.csv", there / "c.json", there / "mine.py", here / "gpu.yaml"):
        file.touch()
    monkeypatch.chdir(here)
    (there / "s.yaml").write_text(
        "model: {config: c.json}\ntraffic: {trace: {format: csv, path: t.csv}}\n"
        "deployment: {accelerator: gpu.yaml, engine: 'mine.py:Mine'}\n"
    )
    s = config.load("../there/s.yaml")

    assert s.model.config == str(there / "c.json")
    assert s.traffic.trace.path == str(there / "t.csv")
    assert s.deployment.accelerator == str(here / "gpu.yaml")
    assert s.deployment.engine.name == f"{there / 'mine.py'}:Mine"


def test_lengths_from_a_file_beside_the_scenario(tmp_path):
    (tmp_path / "l.csv").touch()
    (tmp_path / "s.yaml").write_text(TEXT)
    s = config.load(tmp_path / "s.yaml", ["traffic.synthetic.lengths={kind: empirical, path: l.csv}"])

    assert s.traffic.synthetic.lengths.settings["path"] == str(tmp_path / "l.csv")


def test_a_missing_file(tmp_path):
    with pytest.raises(DataError, match="quickstart"):
        config.load("quikstart")
    for path in (tmp_path, tmp_path / "no.yaml", "", "\0", "a" * 5000):
        with pytest.raises(ServesimError):
            config.load(path)


@pytest.mark.parametrize(
    "content", [b"\x80\x81PAR1", b"\0\1\2", b"", b"[1, 2]", b"text", b"a: b: c", b"a: 1\na: 2", b"? [x]\n: 1"]
)
def test_a_file_that_is_no_scenario(tmp_path, content):
    file = tmp_path / "s.yaml"
    file.write_bytes(content)

    with pytest.raises(ServesimError, match=r"s\.yaml"):
        config.load(file)


def test_yaml_bombs_are_refused():
    with pytest.raises(ServesimError):
        config.loads("a: &a [x, x]\nb: &b [*a, *a]\nc: &c [*b, *b]\n" + TEXT)
    with pytest.raises(ServesimError):
        config.loads("a: &a {b: *a}\n" + TEXT)
    with pytest.raises(ServesimError):
        config.loads("a: " + "[" * 5000)
    with pytest.raises(ServesimError):
        config.loads("a: " + "x" * 3_000_000)


def test_one_source_one_place_unique_names(scenario):
    for text, overrides in (
        (TEXT, ["traffic.synthetic=null"]),
        (TEXT, ["traffic.trace={format: csv, path: x}"]),
        (TEXT, ["deployment=null"]),
        (TEXT, ["pools=[{name: a, accelerator: h100-sxm, engine: static}]"]),
        (POOLS, ["pools[1].name=a"]),
        (TEXT, ["model={weights: bf16}"]),
        (TEXT, ["name=../x"]),
        (TEXT, ["name=.."]),
        (TEXT, ["expect.ttft_s={}"]),
        (TEXT, ["expect.ttft_s={value: 1}"]),
    ):
        with pytest.raises(ConfigError):
            scenario(*overrides, text=text)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("deployment.replicas=1e40", "must be a whole number (got '1e40')"),
        ("traffic.synthetic.requests=1e4", "must be a whole number (got '1e4'); write its digits: 10000"),
        ("deployment.engine.max_num_seqs=1.5", "must be a whole number (got 1.5)"),
        ("deployment.engine.max_num_seqs=1.0e+40", "is too large for a whole number (got 1e+40)"),
        ("deployment.engine.enable_prefix_caching=perhaps", "must be true or false (got 'perhaps')"),
        ("slo.attainment=high", "must be a number (got 'high')"),
    ],
)
def test_what_kind_of_value_a_setting_takes_is_said_in_plain_words(change, says):
    with pytest.raises(ConfigError) as told:
        sim.run(config.load("quickstart", [change]))
    assert str(told.value) == f"{change.partition('=')[0]}: {says}"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ("deployment.engine.max_num_seqs=true", "deployment.engine.max_num_seqs"),
        ("deployment.engine.gpu_memory_utilization=true", "deployment.engine.gpu_memory_utilization"),
        ("slo.attainment=true", "slo.attainment"),
        ("traffic.synthetic.lengths={kind: fixed, prompt_tokens: true, output_tokens: 5}", "traffic.synthetic.lengths"),
        (
            "traffic.synthetic.lengths={kind: uniform, prompt_tokens: [true, 9], output_tokens: [1, 5]}",
            "traffic.synthetic.lengths",
        ),
        ("router={name: llm-d, non_cached_tokens: true}", "router.non_cached_tokens"),
    ],
)
def test_truth_is_no_number(change, field):
    with pytest.raises(ConfigError, match="not true or false|must be a whole number") as told:
        sim.run(config.load("quickstart", [change]))
    assert told.value.field.startswith(field), told.value
