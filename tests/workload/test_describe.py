"""What is said of traffic files, and the same requests in another format."""

import json

import numpy as np
import pytest

from sim.errors import ConfigError
from sim.report import traffic as view
from sim.workload import build_traffic
from sim.workload.convert import convert
from sim.workload.describe import describe
from tests.workload.conftest import tokens_of, whole


def poisson(folder, n=4000, rate=8.0):
    """Independent requests: prompts 100 to 199, outputs 5 to 14."""
    rng = np.random.default_rng(0)
    at, prompt, output = np.cumsum(rng.exponential(1 / rate, n)), rng.integers(100, 200, n), rng.integers(5, 15, n)
    file = folder / "p.csv"
    rows = zip(at.tolist(), prompt.tolist(), output.tolist(), strict=True)
    file.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{a},{p},{o}\n" for a, p, o in rows))
    return file


def test_figures_of_a_poisson_stream(tmp_path):
    d = describe(poisson(tmp_path))

    assert d.data["requests"] == 4000
    assert d.data["rate_per_s"] == pytest.approx(8, rel=0.05)
    assert d.data["cv"] == pytest.approx(1, abs=0.06)
    assert d.data["dispersion_1s"] == pytest.approx(1, abs=0.12)
    assert (d.data["prompt_tokens"]["min"], d.data["prompt_tokens"]["max"]) == (100, 199)
    assert d.data["prompt_tokens"]["p50"] == pytest.approx(150, abs=3)
    assert "sharing" not in d.data
    assert d.synthetic["arrival"]["process"] == "poisson"


def test_the_synthetic_section_can_be_pasted(tmp_path):
    d = describe(poisson(tmp_path))
    block = whole(build_traffic({"synthetic": d.synthetic}))

    assert len(block) == 4000
    assert block.prompt_tokens.mean() == pytest.approx(149.5, rel=0.02)
    assert block.output_tokens.mean() == pytest.approx(9.5, rel=0.04)


def test_a_spike_becomes_stages(tmp_path):
    at = np.concatenate([np.arange(0, 100, 0.5), np.arange(100, 130, 0.02), np.arange(130, 240, 0.5)])
    file = tmp_path / "s.csv"
    file.write_text("arrival_s,input_tokens,output_tokens\n" + "".join(f"{a},10,5\n" for a in at))
    arrival = describe(file).synthetic["arrival"]

    assert arrival["process"] == "stages"
    made = build_traffic(
        {
            "synthetic": {
                "arrival": arrival,
                "lengths": {"kind": "fixed", "prompt_tokens": 1, "output_tokens": 1},
                "requests": None,
            }
        }
    )
    assert made.total == pytest.approx(len(at), rel=0.1)


PROMPTS = [[1, 2, 3], [1, 2, 4], [9], [1, 2, 3]]


@pytest.fixture
def shared_prefixes(tmp_path):
    file = tmp_path / "m.jsonl"
    rows = [{"timestamp": i, "input_length": 512 * len(p), "output_length": 3, "hash_ids": p} for i, p in enumerate(PROMPTS)]
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def test_the_best_hit_rate_by_hand(shared_prefixes):
    sharing = describe(shared_prefixes).data["sharing"]

    assert sharing["best_hit_rate"] == pytest.approx(5 / 10)  # 2 of the second prompt, 3 of the fourth
    by_size = dict(sharing["by_cache_tokens"])
    assert max(by_size) == 5 * 512
    small = [rate for size, rate in by_size.items() if size < 2 * 512]
    assert all(rate <= 2 / 10 for rate in small)  # one block held: found in the second and the fourth prompt
    assert list(by_size.values()) == sorted(by_size.values())


@pytest.mark.parametrize("to", ["csv", "mooncake"])
@pytest.mark.parametrize("pack", ["", ".gz", ".zst"])
def test_a_converted_file_is_the_same_traffic(shared_prefixes, tmp_path, to, pack):
    out = tmp_path / f"out.x{pack}"
    count, notes = convert(shared_prefixes, out, to)
    before, after = (whole(build_traffic({"trace": {"path": str(f)}})) for f in (shared_prefixes, out))

    assert count == 4
    assert notes[0] == "m.jsonl is read as mooncake (format: auto)"
    for name in ("arrival_s", "prompt_tokens", "output_tokens"):
        assert getattr(before, name).tolist() == pytest.approx(getattr(after, name).tolist())
    for i in range(4):
        for j in range(4):
            same = [x == y for x, y in zip(tokens_of(before, i), tokens_of(before, j), strict=False)]
            assert same == [x == y for x, y in zip(tokens_of(after, i), tokens_of(after, j), strict=False)]


def test_converting_what_cannot_be_written(shared_prefixes, tmp_path):
    with pytest.raises(ConfigError, match="--to.*did you mean 'mooncake'"):
        convert(shared_prefixes, tmp_path / "x", "moncake")
    with pytest.raises(ConfigError, match="is the file that is read"):
        convert(shared_prefixes, shared_prefixes, "csv")


def test_the_page(shared_prefixes, tmp_path):
    folder = view.save([describe(shared_prefixes), describe(poisson(tmp_path))], tmp_path / "out")

    assert {f.name for f in folder.iterdir()} == {
        ".servesim.json",
        "summary.json",
        "report.html",
        "m.synthetic.yaml",
        "p.synthetic.yaml",
    }
    assert "Best possible hit rate" in (folder / "report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "summary.json").read_text())["files"][0]["sharing"]["best_hit_rate"] == 0.5
