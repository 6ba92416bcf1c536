"""Whatever a file of any kind holds, it is read in bounded time to something that can be used, or refused with one error of ours."""

from __future__ import annotations

import gzip
import os
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sim.errors import ServesimError
from tests.hostile.kinds import KINDS, Kind
from tests.hostile.slips import slipped
from tests.strategies import ANY
from tests.within import within

SECONDS = 20
"""No file takes longer."""
QUIET: dict[str, Any] = {"suppress_health_check": list(HealthCheck), "database": None}
pytestmark = pytest.mark.filterwarnings("ignore:Generating overly large repr")
each = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.name)


def attempt(kind: Kind, folder: Path, content: bytes) -> None:
    file = folder / kind.name
    file.write_bytes(content)
    with within(SECONDS):
        try:
            kind.read(file)
        except ServesimError as error:
            assert str(error) and len(str(error)) < 4000, str(error)[:500]
            if kind.names:
                assert file.stem in str(error), str(error)[:500]


@each
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_nearly_right(kind: Kind, tmp_path: Path) -> None:
    @settings(max_examples=40, derandomize=True, **QUIET)
    @given(kind.contents)
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()


@each
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_what_is_wrong_otherwise(kind: Kind, tmp_path: Path) -> None:
    @settings(max_examples=12, derandomize=True, **QUIET)
    @given(kind.other)
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()


@each
def test_what_is_no_such_file_at_all(kind: Kind, tmp_path: Path) -> None:
    @settings(max_examples=8, derandomize=True, **QUIET)
    @given(ANY)
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()


SOUND = [content for kind in KINDS for content in kind.sound]


@each
@pytest.mark.parametrize("cases", [10, pytest.param(8_000 // len(KINDS), marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_slips_of_hands_and_names(kind: Kind, cases: int, tmp_path: Path) -> None:
    @settings(max_examples=cases, derandomize=cases < 100, **QUIET)
    @given(st.sampled_from(kind.sound).flatmap(lambda own: slipped(own, SOUND)))
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()


@cache
def bomb() -> bytes:
    """Seventy megabytes in a few hundred kilobytes."""
    return gzip.compress(b"1" * 70_000_000, 1, mtime=0)


@each
@pytest.mark.parametrize("what", ["pipe", "device", "folder", "link to nothing", "packed bomb"])
def test_what_is_no_regular_file_is_refused(kind: Kind, what: str, tmp_path: Path) -> None:
    file = tmp_path / kind.name
    if what == "pipe":
        os.mkfifo(file)
    elif what == "device":
        file.symlink_to("/dev/zero")
    elif what == "folder":
        file.mkdir()
    elif what == "packed bomb":
        file.write_bytes(bomb())
    else:
        file.symlink_to(tmp_path / "nothing")
    with within(SECONDS), pytest.raises(ServesimError) as error:
        kind.read(file)
    assert len(str(error.value)) < 4000


@each
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_many_more(kind: Kind, tmp_path: Path) -> None:
    @settings(max_examples=20_000 // len(KINDS), **QUIET)
    @given(st.one_of(kind.contents, kind.contents, kind.contents, ANY))
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()


@each
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::SyntaxWarning")
def test_many_more_that_are_wrong_otherwise(kind: Kind, tmp_path: Path) -> None:
    @settings(max_examples=4_000 // len(KINDS), **QUIET)
    @given(kind.other)
    def check(content: bytes) -> None:
        attempt(kind, tmp_path, content)

    check()
