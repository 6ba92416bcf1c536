"""Numba set-up: where compiled code is cached, and structs of arrays that also work with the JIT switched off.

Import this before any kernel: it says where compiled code is kept (`sim.kept_code`).

`NUMBA_DISABLE_JIT=1` runs everything as plain Python for debugging; `NUMBA_BOUNDSCHECK=1` checks every index.

Do not write ``from __future__ import annotations`` in a module that declares a `struct`: its annotations are Numba types.
"""

from __future__ import annotations

import inspect
import sys
import typing
from collections.abc import Callable
from types import FunctionType
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numba
import numpy as np
from numba import types
from numba.core import config as _config
from numba.core import sigutils
from numba.core.ccallback import CFunc
from numba.experimental import structref
from numba.extending import overload
from numba.typed import List as _TypedList
from numpy.typing import NDArray

from sim import plugins
from sim.errors import ConfigError
from sim.kept_code import Cache, foreign
from sim.lean import mark

if TYPE_CHECKING:
    from numba.core.typing.templates import Signature

T = TypeVar("T")
F = TypeVar("F", bound=Callable[..., object])
NT = TypeVar("NT", bound=tuple[object, ...])
Fields: TypeAlias = tuple[tuple[str, types.Type], ...]
Getter: TypeAlias = Callable[[object], object]
JIT: bool = not _config.DISABLE_JIT

if TYPE_CHECKING:  # what a field of such a Numba type holds
    f8: TypeAlias = float
    i8: TypeAlias = int
    i4: TypeAlias = int
    i1: TypeAlias = int
    b1: TypeAlias = bool
    f8s: TypeAlias = NDArray[np.float64]
    i8s: TypeAlias = NDArray[np.int64]
    i4s: TypeAlias = NDArray[np.int32]
    i1s: TypeAlias = NDArray[np.int8]
    f8ss: TypeAlias = f8s
    i8ss: TypeAlias = i8s
    i4ss: TypeAlias = i4s
    f8sss: TypeAlias = f8s
    i8x: TypeAlias = i8s
    i4x: TypeAlias = i4s
else:
    f8, i8, i4, i1, b1 = numba.float64, numba.int64, numba.int32, numba.int8, numba.boolean
    f8s, i8s, i4s, i1s = f8[::1], i8[::1], i4[::1], i1[::1]
    f8ss, i8ss, i4ss = f8[:, ::1], i8[:, ::1], i4[:, ::1]
    f8sss = f8[:, :, ::1]
    i8x, i4x = i8[:], i4[:]  # columns of a matrix


@typing.overload
def kernel(function: F) -> F: ...
@typing.overload
def kernel(*, cache: bool) -> Callable[[F], F]: ...
def kernel(function: F | None = None, cache: bool = True) -> F | Callable[[F], F]:
    """``@kernel``: compiled on first call and cached on disk. No fast-math: results are the same bytes everywhere."""
    if function is None:
        return lambda f: _kernel(f, cache)
    return _kernel(function, cache)


def _kernel(function: Any, cache: bool) -> Any:
    made = mark(numba.njit(error_model="numpy", nogil=True)(function))
    if cache and JIT and _has_file(function):
        made._cache = Cache(function)
    return made


def callback(signature: Signature, function: FunctionType) -> CFunc:
    """``function`` compiled for this signature, to be called by its ``address``; cached on disk as kernels are."""
    made = CFunc(function, sigutils.normalize_signature(signature), locals={}, options={"error_model": "numpy", "nogil": True})
    if _has_file(function):
        made._cache = Cache(function)
    made.compile()
    return made


def _has_file(function: Callable[..., object]) -> bool:
    return plugins.is_own(function.__module__) or getattr(sys.modules.get(function.__module__), "__file__", None) is not None


def inline(function: F) -> F:
    """``@inline``: a small helper that is only called from kernels; LLVM inlines it, no cache entry of its own."""
    return numba.njit(error_model="numpy", nogil=True)(function)


def flat(function: F) -> F:
    """``@flat``: part of a larger function that is called from one place only; Numba pastes it in before compiling (cheaper than `inline`)."""
    return numba.njit(error_model="numpy", nogil=True, inline="always")(function)


def in_python(function: F) -> F:
    """The Python function behind a compiled one, for who calls it on plain values."""
    return getattr(function, "py_func", function)


@typing.overload
def struct(cls: type[T]) -> type[T]: ...
@typing.overload
def struct(*, viewed: bool) -> Callable[[type[T]], type[T]]: ...
def struct(cls: type[T] | None = None, viewed: bool = False) -> type[T] | Callable[[type[T]], type[T]]:
    """Class decorator: a struct of arrays and scalars whose annotations (also inherited ones) are Numba types.

    With the JIT the result is the Numba type itself, to be made inside a kernel with ``new(T)`` and passed to kernels by reference;
    without it, a plain class with the same fields. Fields are assigned after ``new``; an unassigned one is zero or null.
    ``viewed``: kernels of the engine get views of it (`sim.engine.borrow`).
    """
    return (lambda c: _struct(c, viewed)) if cls is None else _struct(cls, viewed)


def _struct(cls: Any, viewed: bool) -> Any:
    fields: dict[str, types.Type] = {}
    for base in reversed(cls.__mro__):
        for name, kind in inspect.get_annotations(base).items():
            if name in fields:
                why = f"is a field of a class that this one derives from ({fields[name]})"
                raise ConfigError(f"{cls.__module__}.{cls.__qualname__}.{name}", str(kind), why, hint="another name")
            fields[name] = kind
    text = next((name for name, kind in fields.items() if isinstance(kind, str)), None)
    if text is not None:
        why = "must be a Numba type; annotations are text under `from __future__ import annotations`"
        raise ConfigError(f"{cls.__module__}.{cls.__qualname__}.{text}", fields[text], why)
    if not JIT:
        return type(cls.__name__, (), {"__slots__": tuple(fields), "__doc__": cls.__doc__, "__module__": cls.__module__})
    module = sys.modules[cls.__module__]
    if not plugins.is_own(cls.__module__):
        foreign.add(cls.__module__)
        plugins.remember(cls.__module__)

    def preprocess_fields(self: types.StructRef, fields: Fields) -> Fields:
        return tuple((name, types.unliteral(ty)) for name, ty in fields)

    def __init__(self: types.StructRef, fields: Fields) -> None:
        types.StructRef.__init__(self, fields)
        self.name = f"{cls.__module__}.{cls.__name__}"  # not the list of all fields: errors and symbols stay readable

    methods = {"preprocess_fields": preprocess_fields, "__init__": __init__, "__module__": cls.__module__, "viewed": viewed}
    type_class = type(cls.__name__ + "Type", (types.StructRef,), methods)
    setattr(module, type_class.__name__, type_class)  # the cache index pickles types by this name
    structref.register(type_class)
    proxy = type(cls.__name__ + "Proxy", (structref.StructRefProxy,), {"__module__": cls.__module__, "__getattr__": _read_field})
    structref.define_boxing(type_class, proxy)
    return type_class(list(fields.items()))


def by_name(kind: type[NT], **values: object) -> NT:
    """A named tuple ``kind`` for a kernel, each value in the type that is annotated: another type would compile the kernel again."""
    hints = typing.get_type_hints(kind)
    return kind(**{name: hints[name](value) for name, value in values.items()})


_GETTERS: dict[str, Getter] = {}


def _read_field(proxy: structref.StructRefProxy, name: str) -> object:
    """Read a field from Python: compiles a getter on first use, so for tests and replays, not for hot paths."""
    if name.startswith("__"):
        raise AttributeError(name)
    if name not in _GETTERS:
        scope: dict[str, Getter] = {}
        exec(f"def get(s): return s.{name}", scope)
        _GETTERS[name] = numba.njit(scope["get"])
    return _GETTERS[name](proxy)


def _python_new(cls: type[T]) -> T:
    return cls()


new: Callable[[type[T]], T] = structref.new if JIT else _python_new


def list_of(s: T) -> list[T]:
    """A list that holds the struct ``s`` and that kernels can append to and index."""
    return [s]


@overload(list_of)  # Numba compares the arguments of the two functions, with their annotations: there are none
def _list_of(s):
    item_type = s

    def make(s):
        items = _TypedList.empty_list(item_type)
        items.append(s)
        return items

    return make


_METHODS: dict[str, dict[type, Callable[..., object]]] = {}
"""By name of the function, by struct type."""


def generic(stub: F) -> F:
    """Declare a kernel function with one implementation per struct type of its first argument; see `implement`."""
    name = stub.__name__
    table = _METHODS.setdefault(name, {})
    if not JIT:

        def dispatch(s: object, *args: object) -> object:
            return table[type(s)](s, *args)

        dispatch.__doc__ = stub.__doc__
        return dispatch

    # the overload's signature must equal the stub's, so it is made from the stub's own argument names
    arguments = stub.__code__.co_varnames[: stub.__code__.co_argcount]
    scope: dict[str, Any] = {"table": table}
    exec(f"def choose({', '.join(arguments)}): return table.get(getattr({arguments[0]}, 'owned', {arguments[0]}))", scope)
    overload(stub, jit_options={"error_model": "numpy", "nogil": True})(scope["choose"])
    return stub


def implement(struct_type: type, **functions: Callable[..., object]) -> None:
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
