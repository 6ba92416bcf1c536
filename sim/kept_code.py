"""Compiled code that is kept on disk: one folder for each state of the sources, an index for each specialisation, and who compiles what is not there.

The on-disk cache of Numba watches only the file of the cached function, so an edited scheduler would keep
its old behaviour inside a cached loop: the cache folder is therefore keyed by a digest of every source file of the package. What was compiled
with a plug-in's types lies in a folder below, keyed by the sources of that plug-in: an edit recompiles, and runs without it never see it.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import re
import shutil
import stat
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

import numba
from numba.core import config as _config
from numba.core import event
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.runtime import rtsys
from platformdirs import user_cache_path

from sim import plugins
from sim.lean import LEAN, is_part, outermost
from sim.turns import Turn

if TYPE_CHECKING:
    from numba.core.compiler import CompileResult
    from numba.core.cpu import CPUContext
    from numba.core.typing.templates import Signature

_KEEP_CACHES = 4


def _source_digest() -> str:
    """Digest of all package sources and Numba's version: an edit recompiles, an unchanged tree hits."""
    root = Path(__file__).resolve().parent
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).as_posix().startswith(_COMPILED_ROOMS):
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


_COMPILED_ROOMS = ("jit.py", "kept_code.py", "ledger.py", "lean.py", "rules.py", "cost/", "engine/", "policy/rules/")


def _set_cache_folder() -> None:
    if os.environ.get("NUMBA_CACHE_DIR"):
        base = Path(os.environ["NUMBA_CACHE_DIR"])
    else:
        base = user_cache_path("servesim", appauthor=False) / "numba"
    folder = base / _source_digest()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        os.utime(folder)
        _prune(base, folder)
        probe = folder / f".{os.getpid()}"
        probe.touch()
        probe.unlink()
    except OSError:  # a read-only home
        folder = _temporary_folder(folder.name)
    _config.CACHE_DIR = str(folder)


def _temporary_folder(name: str) -> Path:
    """A folder among the system's temporary ones that nobody else can write to: Numba executes what it finds in its cache."""
    user = os.getuid() if hasattr(os, "getuid") else 0
    folder = Path(tempfile.gettempdir()) / f"servesim-numba-{user}"
    with suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or (hasattr(os, "getuid") and (status.st_uid != user or status.st_mode & 0o022)):
        folder = Path(tempfile.mkdtemp(prefix="servesim-numba-"))
    (folder / name).mkdir(exist_ok=True)
    return folder / name


def _prune(base: Path, keep: Path) -> None:
    """Drop caches of older sources, but none used within the last hour (another process may run from it)."""
    named = re.compile(r"(plugin-)?[0-9a-f]{16}")
    folders = (p for p in base.iterdir() if p.is_dir() and p != keep and named.fullmatch(p.name))
    old = sorted(folders, key=lambda p: p.stat().st_mtime)
    for path in old[:-_KEEP_CACHES] if len(old) > _KEEP_CACHES else ():
        if time.time() - path.stat().st_mtime > 3600:
            shutil.rmtree(path, ignore_errors=True)


if not _config.DISABLE_JIT:
    _set_cache_folder()


foreign: set[str] = set()
"""Modules of plug-ins that declare structs."""
listeners: list[Callable[[str, str], object]] = []
"""Called with the name of a function and its signature when it is about to be compiled, as the cache does not have it."""


class _File(IndexDataCacheFile):
    """An index and its data, each with a checksum at its end: what a sudden end or a bad disk left of them is not run but compiled anew."""

    def _dump(self, obj: object) -> bytes:
        data: bytes = super()._dump(obj)
        return data + _sum(data)

    def _load_index(self) -> dict[object, str]:
        try:
            raw = Path(self._index_path).read_bytes()
        except OSError:
            return {}
        version = pickle.dumps(self._version, protocol=-1)
        if not raw.startswith(version):
            return {}
        stamp, overloads = pickle.loads(_whole(raw[len(version) :]))
        return overloads if stamp == self._source_stamp else {}

    def _load_data(self, name: str) -> object:
        return pickle.loads(_whole(Path(self._data_path(name)).read_bytes()))


def _sum(data: bytes) -> bytes:
    return zlib.crc32(data).to_bytes(4, "little")


def _whole(data: bytes) -> bytes:
    if _sum(data[:-4]) != data[-4:]:
        raise pickle.UnpicklingError("not as it was written")
    return data[:-4]


class Cache(FunctionCache):
    """A cache on disk with an index for each specialisation, kept apart for each set of plug-ins; what cannot be read is compiled anew.

    Numba's own index holds all specialisations of a function: reading it imports the modules of every engine that was ever compiled, and
    processes that write it at the same time lose or mix up each other's entries.
    """

    def __init__(self, function: FunctionType) -> None:
        super().__init__(function)
        self._function = function
        self._files: dict[str, _File | None] = {}
        self._turn: Turn | None = None

    def _file(self, sig: Signature) -> _File | None:
        """Index of the specialisation; None where a plug-in that takes part in it has no source file."""
        text = str(sig)
        if text in self._files:
            return self._files[text]
        names = {name for name in foreign if f"{name}." in text}
        if not plugins.is_own(self._function.__module__):
            names.add(self._function.__module__)
        folder = place = Path(self._cache_path)
        if names:
            found = plugins.digest(names)
            if found is None:
                return None
            base = Path(_config.CACHE_DIR)
            folder = base / f"plugin-{found}" / (place.relative_to(base) if place.is_relative_to(base) else place.name)
            folder.mkdir(parents=True, exist_ok=True)
            os.utime(base / f"plugin-{found}")
            _prune(base, base / f"plugin-{found}")
        self._files[text] = _File(
            cache_path=str(folder),
            filename_base=f"{self._impl.filename_base}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )
        return self._files[text]

    def load_overload(self, sig: Signature, target_context: CPUContext) -> CompileResult | None:
        """As Numba does it, without loading all that it can compile: what was compiled needs its run-time system only."""
        if not LEAN:
            return super().load_overload(sig, target_context)
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def _load_overload(self, sig: Signature, target_context: CPUContext) -> CompileResult | None:
        file = self._file(sig) if self._enabled else None
        data = None
        if file is not None:
            try:
                data = file.load(self._index_key(sig, target_context.codegen()))
                if data is not None:
                    data = self._impl.rebuild(target_context, data)
            except (
                pickle.UnpicklingError,
                EOFError,
                ImportError,
                AttributeError,
                ValueError,
                IndexError,
            ):  # cut off, or of another day
                Path(file._index_path).unlink(missing_ok=True)
                data = None
        if data is None and file is not None and self._turn is None and outermost():
            self._turn = Turn(Path(f"{file._index_path}.lock"))
            try:
                self._turn.take()
                data = self._load_overload(sig, target_context)  # if somebody has compiled it in the meantime
            except BaseException:  # Ctrl-C: nothing will be compiled that ends it
                self.leave()
                raise
            if data is not None:
                self.leave()
            return data
        if data is None:
            for tell in listeners:
                tell(f"{self._function.__module__}.{self._function.__qualname__}", str(sig))
        return data

    def _save_overload(self, sig: Signature, data: CompileResult) -> None:
        try:
            file = self._file(sig) if self._enabled and not is_part(data) else None
            if file is not None and self._impl.check_cachable(data):
                Path(file._cache_path).mkdir(parents=True, exist_ok=True)
                file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))
        except OSError:
            pass  # a full disk: it runs, and the next process compiles it again
        finally:
            self.leave()

    def leave(self) -> None:
        """Whoever waits for what was compiled may have it, or compile it himself."""
        if self._turn is not None:
            self._turn.leave()
            self._turn = None


class _Failures(event.Listener):
    """A compilation that fails saves nothing."""

    def on_start(self, event: event.Event) -> None:
        """Nothing yet."""

    def on_end(self, event: event.Event) -> None:
        """Give up the turn."""
        cache = getattr(event.data["dispatcher"], "_cache", None)
        failed = any(getattr(event, "_exc_details", None) or ())  # `is_failed` says it of none
        if failed and isinstance(cache, Cache):
            cache.leave()


if not _config.DISABLE_JIT:
    event.register("numba:compile", _Failures())
