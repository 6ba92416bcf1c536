"""What the tree holds, and what it must not hold."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".txt", ".css", ".js", ".html", ".json", ".cfg", ".ipynb", ""}
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.$])/(?:root|home/\w+|Users/\w+|work|opt/(?:venv|pypi|wheels))(?:/|\b)"),
    "the address of a package index": re.compile(r"--(?:extra-)?index-url|find-links|https?://[^\s/]*/simple\b"),
}


def tracked():
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.split("\0") if name and (ROOT / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_nothing_of_the_machine_it_was_written_on(what):
    here = Path(__file__)
    found = [
        f"{file.relative_to(ROOT)}:{i}: {line.strip()[:120]}"
        for file in tracked()
        if file.suffix in TEXT and file != here and file.stat().st_size < 1_000_000
        for i, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1)
        if FORBIDDEN[what].search(line)
    ]

    assert found == []


def test_no_large_file():
    assert [str(f.relative_to(ROOT)) for f in tracked() if f.stat().st_size > 3_000_000] == []


def test_types_are_announced():
    assert (ROOT / "sim" / "py.typed").is_file()


def test_one_version():
    import sim

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    assert project["version"] == sim.__version__


def test_every_requirement_is_pinned():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    pinned = {line.split("==")[0].lower().replace("_", "-") for line in (ROOT / ".ci" / "constraints.txt").read_text().split()}
    wanted = [*project["dependencies"], *(r for extra in project["optional-dependencies"].values() for r in extra)]

    assert [r for r in wanted if re.split(r"[<>=!~\[]", r)[0].strip().lower().replace("_", "-") not in pinned] == []


def test_data_is_found_beside_the_package():
    from sim.resources import path

    assert path("scenarios", "quickstart.yaml").is_file()
    assert any(path("profiles", "hardware").iterdir())
