"""The laws of trace readers."""

from __future__ import annotations

import gzip
from collections.abc import Mapping
from pathlib import Path
from typing import ClassVar

import numpy as np

from sim.config import settings
from sim.errors import PluginError, ServesimError
from sim.testing._base import refuses_unknown_settings, subject
from sim.workload import build_traffic
from sim.workload.table import RequestBlock


class TraceLaws:
    """What every trace reader keeps. Say ``trace``, ``settings`` where it needs some, and ``example``: the text of a file of three requests or more.

    The block of a file keeps every promise of `RequestBlock` (sorted times from 0 on, at least one token each, canonical spans); read again it
    is the same; it comes in the traffic unchanged, and twice as fast with ``rate_scale: 2``; an empty file, a file cut off anywhere and a file
    with a broken byte are read, or refused with a `DataError`, never with another exception; unknown settings are refused by name.
    ``compressed = False`` where the format does not allow gzip.
    """

    trace: ClassVar[str] = ""
    settings: ClassVar[Mapping[str, object]] = {}
    example: ClassVar[str] = ""
    compressed: ClassVar[bool] = True

    def read(self, path: Path) -> RequestBlock:
        """What the reader under test makes of a file."""
        cls = subject("trace", self.trace, self)
        block: RequestBlock = cls(settings(cls.Params, self.settings, "settings")).read(path)
        return block

    def _file(self, folder: Path, data: bytes) -> Path:
        path = folder / "trace"
        path.write_bytes(data)
        return path

    def test_a_file_is_read_as_requests(self, tmp_path: Path) -> None:
        """Three or more, all promises kept, the first at 0, the same again."""
        path = self._file(tmp_path, self.example.encode())
        block = self.read(path).validate()
        assert len(block) >= 3, f"the example has {len(block)} requests"
        assert block.arrival_s[0] == 0.0, f"times begin at {block.arrival_s[0]} s, not at 0"
        again = self.read(path)
        for one, two in zip((*block.columns, *block.spans), (*again.columns, *again.spans), strict=True):
            np.testing.assert_array_equal(one, two)

    def test_gzip(self, tmp_path: Path) -> None:
        """The same file, compressed, is the same."""
        if not self.compressed:
            return
        plain = self.read(self._file(tmp_path, self.example.encode()))
        packed = self.read(self._file(tmp_path, gzip.compress(self.example.encode())))
        np.testing.assert_array_equal(plain.arrival_s, packed.arrival_s)
        np.testing.assert_array_equal(plain.prompt_tokens, packed.prompt_tokens)

    def test_it_arrives_in_the_traffic(self, tmp_path: Path) -> None:
        """All requests, and twice as fast where that is asked for."""
        path = self._file(tmp_path, self.example.encode())
        block = self.read(path)
        section: dict[str, dict[str, object]] = {
            "trace": {"format": self.trace, "path": str(path), "settings": dict(self.settings)}
        }
        whole = RequestBlock.concat(list(build_traffic(section).blocks()))
        np.testing.assert_allclose(whole.arrival_s, block.arrival_s)
        np.testing.assert_array_equal(whole.prompt_tokens, block.prompt_tokens)
        np.testing.assert_array_equal(whole.output_tokens, block.output_tokens)
        section["trace"]["rate_scale"] = 2.0
        fast = RequestBlock.concat(list(build_traffic(section).blocks()))
        np.testing.assert_allclose(2 * fast.arrival_s, block.arrival_s)

    def test_a_broken_file_is_refused_with_an_error_of_the_package(self, tmp_path: Path) -> None:
        """Or read; a file without requests is refused."""
        whole = self.example.encode()
        broken = [whole[: len(whole) * k // 7] for k in range(7)]
        for at in range(0, len(whole), max(1, len(whole) // 40)):
            broken.append(whole[:at] + b"\xff" + whole[at + 1 :])
            broken.append(whole[:at] + b"-" + whole[at + 1 :])
        for data in broken:
            try:
                self.read(self._file(tmp_path, data)).validate()
            except PluginError as error:
                raise AssertionError(
                    f"a broken file ends in an exception, not in a DataError: {error}; file {data[:80]!r}"
                ) from error
            except ServesimError as error:
                assert str(error), "an error without a word"
        for nothing in (b"", b"\n"):
            try:
                found = self.read(self._file(tmp_path, nothing))
            except PluginError as error:
                raise AssertionError(f"an empty file ends in an exception, not in a DataError: {error}") from error
            except ServesimError:
                continue
            raise AssertionError(f"an empty file is read as {len(found)} requests")

    def test_unknown_settings_are_refused(self) -> None:
        """By their name."""
        refuses_unknown_settings(subject("trace", self.trace, self))
