# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Compiled functions that are called by address, so that a caller's compilation does not contain them.

Numba compiles a callee once by itself and once more inside each level of its callers. A function decorated with ``@outlined(T)`` is compiled
once; a call costs some two nanoseconds. Its first argument is the struct ``T``, which has a field ``fn: i8s`` (from `addresses`); further
arguments and the result are integers. It cannot raise.
"""

from collections.abc import Callable, Mapping
from functools import wraps
from types import FunctionType
from typing import Any

import numpy as np
from numba.core.ccallback import CFunc

from sim.engine.borrow import seen_as, view
from sim.engine.seam import I8
from sim.jit import JIT, F, callback

_functions: dict[type, list[FunctionType]] = {}
"""By struct type, in the order of their declaration."""
_compiled_functions: dict[FunctionType, CFunc] = {}

if JIT:
    from llvmlite import ir
    from numba import njit, types
    from numba.core.errors import TypingError
    from numba.extending import intrinsic

    @intrinsic
    def _call(typingctx, address, s, *args):
        """Call the function at ``address`` with a struct and integers."""
        if s != seen_as(getattr(s, "owned", s)):
            raise TypingError(f"{s.name} has no outlined functions of views: mark it @struct(viewed=True)")
        given = args[0] if len(args) == 1 and isinstance(args[0], types.BaseTuple) else args
        signature = types.int64(types.int64, s, types.StarArgTuple([types.int64] * len(given)))

        def codegen(context, builder, sig, values):
            pointer, struct, rest = values
            parts = [builder.extract_value(rest, k) for k in range(len(given))]
            kinds = [context.get_value_type(sig.args[1])] + [ir.IntType(64)] * len(parts)
            function = ir.FunctionType(ir.IntType(64), kinds).as_pointer()
            return builder.call(builder.inttoptr(pointer, function), [struct, *parts])

        return signature, codegen


def outlined(struct_type: type) -> Callable[[F], F]:
    """Decorator: compile apart, call by address."""

    def wrap(function: F) -> F:
        table = _functions.setdefault(struct_type, [])
        index = len(table)
        table.append(function)
        if not JIT:
            return wraps(function)(lambda s, *given: _in_python(table, s.fn[index], function)(s, *given))
        names = function.__code__.co_varnames[1 : function.__code__.co_argcount]
        arguments = "".join(f", {name}" for name in names)
        scope: dict[str, Any] = {"call": _call, "view": view}
        exec(f"def {function.__name__}(s{arguments}): v = view(s); return call(v.fn[{index}], v{arguments})", scope)
        return njit(error_model="numpy", nogil=True, inline="always")(scope[function.__name__])

    return wrap


def _in_python(table: list[FunctionType], k: int, function: FunctionType) -> FunctionType:
    """Entry ``k`` of a table of functions; compiled code would crash where a function that was left out is called."""
    assert k >= 0, f"{function.__module__}.{function.__name__} is called, but was left out"
    return table[k]


def addresses(struct_type: type, without: frozenset[str] = frozenset(), instead: Mapping[str, str] | None = None) -> I8:
    """i8[n]: where the outlined functions of a struct type are, compiled or taken from the cache on first use.

    Functions named in ``without`` are left out, as the settings never call them: that saves their compilation. ``instead``: names of the
    functions (of the same arguments) that take the place of others, so that one struct can behave in more than one way.
    """
    table = _functions.get(struct_type, [])
    names = [f.__name__ for f in table]
    places = [names.index((instead or {}).get(name, name)) for name in names]
    if not JIT:
        return np.array([-1 if name in without else k for name, k in zip(names, places, strict=True)], np.int64)
    found = zip(names, places, strict=True)
    return np.array([0 if name in without else _compiled(struct_type, table[k]).address for name, k in found], np.int64)


def outlined_in(struct_type: type, modules: Mapping[str, bool]) -> set[str]:
    """Names of the outlined functions of those ``modules`` that are True."""
    return {f.__name__ for f in _functions.get(struct_type, []) if modules.get(f.__module__, False)}


def _compiled(struct_type: type, function: FunctionType) -> CFunc:
    if function not in _compiled_functions:
        count = function.__code__.co_argcount - 1
        kinds: list[Any] = [seen_as(struct_type), *[types.int64] * count]
        signature = types.int64(*kinds)
        _compiled_functions[function] = callback(signature, function)
    return _compiled_functions[function]
