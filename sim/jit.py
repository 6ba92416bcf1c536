"""Numba set-up: where compiled code is cached, and structs of arrays that also work with the JIT switched off.

Import this before any kernel. The on-disk cache of Numba watches only the file of the cached function, so an edited scheduler would keep
its old behaviour inside a cached loop: the cache folder is therefore keyed by a digest of every source file of the package. What was compiled
with a plug-in's types lies in a folder below, keyed by the sources of that plug-in: an edit recompiles, and runs without it never see it.

`NUMBA_DISABLE_JIT=1` runs everything as plain Python for debugging; `NUMBA_BOUNDSCHECK=1` checks every index.

Do not write ``from __future__ import annotations`` in a module that declares a `struct`: its annotations are Numba types.
"""

import hashlib
import os
import pickle
import re
import shutil
import sys
import tempfile
import time
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import types
from numba.core import config as _config
from numba.core import sigutils
from numba.core.caching import FunctionCache, IndexDataCacheFile
from numba.core.ccallback import CFunc
from numba.core.runtime import rtsys
from numba.experimental import structref
from numba.extending import overload
from numba.typed import List as _TypedList
from platformdirs import user_cache_path

from sim import plugins
from sim.errors import ConfigError
from sim.lean import LEAN, is_part, mark

NT = typing.TypeVar("NT", bound=tuple)
JIT: bool = not _config.DISABLE_JIT
_KEEP_CACHES = 4

f8, i8, i4, i1, b1 = numba.float64, numba.int64, numba.int32, numba.int8, numba.boolean
f8s, i8s, i4s, i1s = f8[::1], i8[::1], i4[::1], i1[::1]
f8ss, i8ss, i4ss = f8[:, ::1], i8[:, ::1], i4[:, ::1]
f8sss = f8[:, :, ::1]


def _source_digest() -> str:
    """Digest of all package sources and Numba's version: an edit recompiles, an unchanged tree hits."""
    root = Path(__file__).resolve().parent
    digest = hashlib.sha256(f"{numba.__version__} {sys.version}".encode())
    for path in sorted(root.rglob("*.py")):
        if path.relative_to(root).parts[0] in _COMPILED_ROOMS:
            digest.update(str(path.relative_to(root)).encode() + path.read_bytes())
    return digest.hexdigest()[:16]


_COMPILED_ROOMS = ("jit.py", "ledger.py", "lean.py", "cost", "engine")


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
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if hasattr(os, "getuid") and (status.st_uid != user or status.st_mode & 0o022 or folder.is_symlink()):
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


if JIT:
    _set_cache_folder()


_foreign: set[str] = set()
"""Modules of plug-ins that declare structs."""
listeners: list[Callable[[str, str], Any]] = []
"""Called with the name of a function and its signature when it is about to be compiled, as the cache does not have it."""


class _Cache(FunctionCache):
    """A cache on disk with an index for each specialisation, kept apart for each set of plug-ins; what cannot be read is compiled anew.

    Numba's own index holds all specialisations of a function: reading it imports the modules of every engine that was ever compiled, and
    processes that write it at the same time lose or mix up each other's entries.
    """

    def __init__(self, function: Any) -> None:
        super().__init__(function)
        self._function = function
        self._files: dict[str, Any] = {}

    def _file(self, sig: Any) -> Any:
        """Index of the specialisation; None where a plug-in that takes part in it has no source file."""
        text = str(sig)
        if text in self._files:
            return self._files[text]
        names = {name for name in _foreign if f"{name}." in text}
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
        self._files[text] = IndexDataCacheFile(
            cache_path=str(folder),
            filename_base=f"{self._impl.filename_base}-{hashlib.sha256(text.encode()).hexdigest()[:12]}",
            source_stamp=self._impl.locator.get_source_stamp(),
        )
        return self._files[text]

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """As Numba does it, without loading all that it can compile: what was compiled needs its run-time system only."""
        if not LEAN:
            return super().load_overload(sig, target_context)
        rtsys.initialize(target_context)
        with self._guard_against_spurious_io_errors():
            return self._load_overload(sig, target_context)

    def _load_overload(self, sig: Any, target_context: Any) -> Any:
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
        if data is None:
            for tell in listeners:
                tell(f"{self._function.__module__}.{self._function.__qualname__}", str(sig))
        return data

    def _save_overload(self, sig: Any, data: Any) -> None:
        file = self._file(sig) if self._enabled and not is_part(data) else None
        if file is None or not self._impl.check_cachable(data):
            return
        Path(file._cache_path).mkdir(parents=True, exist_ok=True)
        file.save(self._index_key(sig, data.codegen), self._impl.reduce(data))


def kernel(function: Any = None, **given: Any) -> Any:
    """``@kernel``: compiled on first call and cached on disk. No fast-math: results are the same bytes everywhere."""
    options: dict[str, Any] = {"cache": True, "error_model": "numpy", "nogil": True} | given
    if function is None:
        return lambda f: kernel(f, **given)
    cached = options.pop("cache") and JIT and _has_file(function)
    made = mark(numba.njit(**options)(function))
    if cached:
        made._cache = _Cache(function)
    return made


def callback(signature: Any, function: Any) -> Any:
    """``function`` compiled for this signature, to be called by its ``address``; cached on disk as kernels are."""
    made = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={"error_model": "numpy", "nogil": True})
    if _has_file(function):
        made._cache = _Cache(function)
    made.compile()
    return made


def _has_file(function: Any) -> bool:
    return plugins.is_own(function.__module__) or getattr(sys.modules.get(function.__module__), "__file__", None) is not None


def inline(function: Any) -> Any:
    """``@inline``: a small helper that is only called from kernels; LLVM inlines it, no cache entry of its own."""
    return numba.njit(error_model="numpy", nogil=True)(function)


def flat(function: Any) -> Any:
    """``@flat``: part of a larger function that is called from one place only; Numba pastes it in before compiling (cheaper than `inline`)."""
    return numba.njit(error_model="numpy", nogil=True, inline="always")(function)


def in_python(function: Any) -> Any:
    """The Python function behind a compiled one, for who calls it on plain values."""
    return getattr(function, "py_func", function)


def struct(cls: Any = None, viewed: bool = False) -> Any:
    """Class decorator: a struct of arrays and scalars whose annotations (also inherited ones) are Numba types.

    With the JIT the result is the Numba type itself, to be made inside a kernel with ``new(T)`` and passed to kernels by reference;
    without it, a plain class with the same fields. Fields are assigned after ``new``; an unassigned one is zero or null.
    ``viewed``: kernels of the engine get views of it (`sim.engine.borrow`).
    """
    if cls is None:
        return lambda c: struct(c, viewed)
    fields: dict[str, Any] = {}
    for base in reversed(cls.__mro__):
        fields.update(base.__dict__.get("__annotations__", {}))
    text = next((name for name, kind in fields.items() if isinstance(kind, str)), None)
    if text is not None:
        why = "must be a Numba type; annotations are text under `from __future__ import annotations`"
        raise ConfigError(f"{cls.__module__}.{cls.__qualname__}.{text}", fields[text], why)
    if not JIT:
        return type(cls.__name__, (), {"__slots__": tuple(fields), "__doc__": cls.__doc__, "__module__": cls.__module__})
    module = sys.modules[cls.__module__]
    if not plugins.is_own(cls.__module__):
        _foreign.add(cls.__module__)
        plugins.remember(cls.__module__)

    def preprocess_fields(self: Any, fields: Any) -> Any:
        return tuple((name, types.unliteral(ty)) for name, ty in fields)

    def __init__(self: Any, fields: Any) -> None:
        types.StructRef.__init__(self, fields)
        self.name = f"{cls.__module__}.{cls.__name__}"  # not the list of all fields: errors and symbols stay readable

    methods = {"preprocess_fields": preprocess_fields, "__init__": __init__, "__module__": cls.__module__, "viewed": viewed}
    type_class = type(cls.__name__ + "Type", (types.StructRef,), methods)
    setattr(module, type_class.__name__, type_class)  # the cache index pickles types by this name
    structref.register(type_class)
    proxy = type(cls.__name__ + "Proxy", (structref.StructRefProxy,), {"__module__": cls.__module__, "__getattr__": _read_field})
    structref.define_boxing(type_class, proxy)
    return type_class(list(fields.items()))


def by_name(kind: type[NT], **values: Any) -> NT:
    """A named tuple ``kind`` for a kernel, each value in the type that is annotated: another type would compile the kernel again."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: hints[name](value) for name, value in values.items()})


_GETTERS: dict[str, Any] = {}


def _read_field(proxy: Any, name: str) -> Any:
    """Read a field from Python: compiles a getter on first use, so for tests and replays, not for hot paths."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in _GETTERS:
        scope: dict[str, Any] = {}
        exec(f"def get(s): return s.{name}", scope)
        _GETTERS[name] = numba.njit(scope["get"])
    return _GETTERS[name](proxy)


def _python_new(cls: Any) -> Any:
    return cls()


new: Any = structref.new if JIT else _python_new


def list_of(s: Any) -> Any:
    """A list that holds the struct ``s`` and that kernels can append to and index."""
    return [s]


@overload(list_of)
def _list_of(s: Any) -> Any:
    item_type = s

    def make(s: Any) -> Any:
        items = _TypedList.empty_list(item_type)
        items.append(s)
        return items

    return make


_METHODS: dict[str, dict[Any, Any]] = {}


def generic(stub: Any) -> Any:
    """Declare a kernel function with one implementation per struct type of its first argument; see `implement`."""
    name = stub.__name__
    table = _METHODS.setdefault(name, {})
    if not JIT:

        def dispatch(s: Any, *args: Any) -> Any:
            return table[type(s)](s, *args)

        dispatch.__doc__ = stub.__doc__
        return dispatch

    # the overload's signature must equal the stub's, so it is made from the stub's own argument names
    arguments = stub.__code__.co_varnames[: stub.__code__.co_argcount]
    scope: dict[str, Any] = {"table": table}
    exec(f"def choose({', '.join(arguments)}): return table.get(getattr({arguments[0]}, 'owned', {arguments[0]}))", scope)
    overload(stub, jit_options={"error_model": "numpy", "nogil": True})(scope["choose"])
    return stub


def implement(struct_type: Any, **functions: Any) -> None:
    """Attach plain (undecorated) functions to a struct type: ``implement(VllmState, plan=_plan, complete=_complete)``.

    An implementation must have exactly the argument names of the stub. Raises `ConfigError` for a struct that has one from another module:
    derive a struct of your own.
    """
    for name, function in functions.items():
        if name not in _METHODS:
            raise ConfigError("implement", name, "is no function that a struct can have", ", ".join(sorted(_METHODS)))
        known = _METHODS[name].get(struct_type)
        if known is not None and known.__module__ != function.__module__:
            raise ConfigError(
                name,
                function.__module__,
                f"is implemented for this struct by {known.__module__}",
                hint="derive a @struct of your own",
            )
        _METHODS[name][struct_type] = function
