"""Functions that are compiled only to become part of others: lowered, but not optimised, not turned into machine code, not callable.

Importing this is enough. It reaches into Numba, so it does so only in versions that were tried (`TRIED`) and for kernels that `mark` has seen:
others, and whatever a program of somebody else compiles, are compiled as Numba does it.

Numba compiles every function that another one calls as if it were to be called from Python too: with wrappers, all optimisations and machine code
of its own, and then all of it again inside its caller. Half of the time of a first run goes there. With `Part` as pipeline a function that
is compiled on behalf of another one is linked into it as it was lowered; the caller is optimised as a whole. Called from Python (tests), it is
compiled as usual.
"""

# mypy: disable-error-code="no-untyped-call, method-assign, misc, import-untyped, attr-defined, union-attr, assignment, return-value, no-any-return"

from __future__ import annotations

from types import MethodType
from typing import TYPE_CHECKING, TypeAlias

import numba
from llvmlite.binding import Linkage
from numba.core import event
from numba.core.codegen import CPUCodeLibrary, JITCodeLibrary
from numba.core.compiler import Compiler
from numba.core.dispatcher import Dispatcher

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FunctionType

    from numba.core.base import BaseContext
    from numba.core.compiler import CompileResult, Flags
    from numba.core.types import Type
    from numba.core.typing.context import Context
    from numba.core.typing.templates import Signature

    Finalizer: TypeAlias = Callable[[CPUCodeLibrary], None]

TRIED = ((0, 68),)
"""Versions of Numba in which this is known to hold; `tests/house/test_lean.py` tells of another."""
LEAN: bool = tuple(numba.version_info[:2]) in TRIED

_stack: list[Dispatcher] = []
"""Functions being compiled, each on behalf of the one before."""


class _Stack(event.Listener):
    def on_start(self, event: event.Event) -> None:
        dispatcher = event.data["dispatcher"]
        compiler = getattr(dispatcher, "_compiler", None)
        if _stack and hasattr(_stack[0], "_lean") and getattr(compiler, "pipeline_class", None) is Compiler:
            compiler.pipeline_class = Part
        _stack.append(dispatcher)

    def on_end(self, event: event.Event) -> None:
        _stack.pop()


def outermost() -> bool:
    """Whether nothing is being compiled of which the next function would be a part."""
    return not _stack


def mark(dispatcher: Dispatcher) -> Dispatcher:
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


def _in_order(libraries: list[CPUCodeLibrary]) -> list[CPUCodeLibrary]:
    """These and what their parts call: callers first, as what nobody has called yet is dropped when it is linked."""
    found: list[CPUCodeLibrary] = []
    seen: set[int] = set()

    def visit(library: CPUCodeLibrary) -> None:
        if id(library) not in seen:
            seen.add(id(library))
            if isinstance(library, _Linked):
                for called in library._linking_libraries:
                    visit(called)
            found.append(library)

    for library in libraries:
        visit(library)
    return found[::-1]


def _finalize(self: CPUCodeLibrary) -> None:
    self._linking_libraries = _in_order(self._linking_libraries)
    _finalize_whole(self)


def _optimize(self: CPUCodeLibrary) -> None:
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


_finalize_whole: Finalizer = CPUCodeLibrary.finalize
_optimize_whole: Finalizer = CPUCodeLibrary._optimize_final_module
if LEAN:
    event.register("numba:compile", _Stack())
    CPUCodeLibrary.finalize = _finalize
    CPUCodeLibrary._optimize_final_module = _optimize


class Part(Compiler):
    """The pipeline of such functions."""

    def __init__(
        self,
        typingctx: Context,
        targetctx: BaseContext,
        library: CPUCodeLibrary | None,
        args: tuple[Type, ...],
        return_type: Type | None,
        flags: Flags,
        locals: dict[str, Type],
    ) -> None:
        self._of = _stack[-1] if len(_stack) > 1 and library is None else None
        if self._of is not None:
            library = _Linked(targetctx.codegen(), self._of.py_func.__qualname__)
            flags = flags.copy()
            flags.no_cpython_wrapper = flags.no_cfunc_wrapper = flags.no_compile = True
            self._of.add_overload = MethodType(_add_overload, self._of)
            self._of.compile = MethodType(_compile, self._of)
        super().__init__(typingctx, targetctx, library, args, return_type, flags, locals)

    def compile_extra(self, func: FunctionType) -> CompileResult:
        """The compiled function."""
        result = super().compile_extra(func)
        if self._of is not None:
            result = result._replace(entry_point=_Nowhere())
            result.target_context.insert_user_function(result.entry_point, result.fndesc, [result.library])
        return result


def is_part(result: CompileResult) -> bool:
    """Whether the result of a compilation has no code of its own."""
    return isinstance(result.entry_point, _Nowhere)


class _Nowhere:
    """Stands for the address of code that has none; callers find the code by it."""


def _add_overload(self: Dispatcher, result: CompileResult) -> None:
    if is_part(result):
        self.overloads[tuple(result.signature.args)] = result
    else:
        type(self).add_overload(self, result)


def _compile(self: Dispatcher, sig: Signature | tuple[Type, ...]) -> CompileResult:
    args = tuple(sig.args) if hasattr(sig, "args") else tuple(sig)
    known = self.overloads.get(args)
    if known is not None and is_part(known) and not _stack:  # asked from Python
        del self.overloads[args]
    return type(self).compile(self, sig)
