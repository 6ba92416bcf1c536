"""Functions that are compiled only to become part of others: lowered, but not optimised, not turned into machine code, not callable.

Importing this is enough. It reaches into Numba, so it does so only in versions that were tried (`TRIED`) and for kernels that `mark` has seen:
others, and whatever a program of somebody else compiles, are compiled as Numba does it.

Numba compiles every function that another one calls as if it were to be called from Python too: with wrappers, all optimisations and machine code
of its own, and then all of it again inside its caller. Half of the time of a first run goes there. With `Part` as pipeline a function that
is compiled on behalf of another one is linked into it as it was lowered; the caller is optimised as a whole. Called from Python (tests), it is
compiled as usual.
"""

# mypy: disable-error-code="no-untyped-call, method-assign, misc, import-untyped"

from __future__ import annotations

from types import MethodType
from typing import Any

import numba
from llvmlite.binding import Linkage
from numba.core import event
from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary
from numba.core.compiler import Compiler

TRIED = ((0, 68),)
"""Versions of Numba in which this is known to hold; `tests/house/test_lean.py` tells of another."""
LEAN: bool = tuple(numba.version_info[:2]) in TRIED

_stack: list[Any] = []
"""Functions being compiled, each on behalf of the one before."""


class _Stack(event.Listener):
    def on_start(self, event: Any) -> None:
        dispatcher = event.data["dispatcher"]
        compiler: Any = getattr(dispatcher, "_compiler", None)
        if _stack and hasattr(_stack[0], "_lean") and getattr(compiler, "pipeline_class", None) is Compiler:
            compiler.pipeline_class = Part
        _stack.append(dispatcher)

    def on_end(self, event: Any) -> None:
        _stack.pop()


def mark(dispatcher: Any) -> Any:
    """The same function, whose parts are compiled as parts."""
    dispatcher._lean = True
    return dispatcher


class _Linked(JITCodeLibrary):
    """Code that is only linked into other code: its own, without that of the functions it calls."""

    def finalize(self) -> None:
        """As it was lowered."""
        self._raise_if_finalized()
        self._finalize_dynamic_globals()
        passes, builder = self._codegen._module_pass_manager(
            loop_vectorize=False, slp_vectorize=False, opt=self._codegen._opt_level, cost="cheap"
        )
        passes.run(self._final_module, builder)  # pairs of reference counts are found here, not in the whole
        self.names = [f.name for f in self._final_module.functions if not f.is_declaration and f.linkage == Linkage.external]
        for name in self.names:
            self._final_module.get_function(name).linkage = "linkonce_odr"
        self._shared_module = self._final_module
        self._finalized = True

    def get_pointer_to_function(self, name: str) -> int:
        """There is none."""
        self._ensure_finalized()
        return 0


def _in_order(libraries: list[Any]) -> list[Any]:
    """These and what their parts call: callers first, as what nobody has called yet is dropped when it is linked."""
    found: list[Any] = []
    seen: set[int] = set()

    def visit(library: Any) -> None:
        if id(library) not in seen:
            seen.add(id(library))
            if isinstance(library, _Linked):
                for called in library._linking_libraries:
                    visit(called)
            found.append(library)

    for library in libraries:
        visit(library)
    return found[::-1]


def _finalize(self: Any) -> None:
    self._linking_libraries = _in_order(self._linking_libraries)
    _finalize_whole(self)


def _optimize(self: Any) -> None:
    """Nobody else calls the parts: one that is called from one place is pasted in there."""
    module = self._final_module
    for library in self._linking_libraries:
        for name in library.names if isinstance(library, _Linked) else ():
            try:
                function = module.get_function(name)
            except NameError:  # dropped
                continue
            if not function.is_declaration:
                function.linkage = "internal"
    _optimize_whole(self)


_finalize_whole: Any = CPUCodeLibrary.finalize
_optimize_whole: Any = CPUCodeLibrary._optimize_final_module
if LEAN:
    event.register("numba:compile", _Stack())
    CPUCodeLibrary.finalize = _finalize
    CPUCodeLibrary._optimize_final_module = _optimize


class Part(Compiler):
    """The pipeline of such functions."""

    def __init__(
        self, typingctx: Any, targetctx: Any, library: Any, args: Any, return_type: Any, flags: Any, locals: Any
    ) -> None:
        self._of = _stack[-1] if len(_stack) > 1 and library is None else None
        if self._of is not None:
            library = _Linked(targetctx.codegen(), self._of.py_func.__qualname__)
            flags = flags.copy()
            flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
            self._of.add_overload = MethodType(_add_overload, self._of)
            self._of.compile = MethodType(_compile, self._of)
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

    def compile_extra(self, func: Any) -> Any:
        """The compiled function."""
        result = super().compile_extra(func)
        if self._of is not None:
            result = result._replace(entry_point=_Nowhere())
            result.target_context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


def is_part(result: Any) -> bool:
    """Whether the result of a compilation has no code of its own."""
    return isinstance(result.entry_point, _Nowhere)


class _Nowhere:
    """Stands for the address of code that has none; callers find the code by it."""


def _add_overload(self: Any, result: Any) -> None:
    if is_part(result):
        self.overloads[tuple(result.signature.args)] = result
    else:
        type(self).add_overload(self, result)


def _compile(self: Any, sig: Any) -> Any:
    args = tuple(sig.args) if hasattr(sig, "args") else tuple(sig)
    known = self.overloads.get(args)
    if known is not None and is_part(known) and not _stack:  # asked from Python
        del self.overloads[args]
    return type(self).compile(self, sig)
