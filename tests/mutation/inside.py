"""A mutant put into a process that has everything imported: the functions of its module get the code of the changed source."""

from __future__ import annotations

import gc
import inspect
from pathlib import Path
from types import CodeType, FunctionType


def put(file: Path, before: str, after: str) -> bool:
    """Whether that was possible: False for what a module or a class does once, when it is imported (values, defaults of arguments)."""
    old, new = (
        _codes(compile(before, str(file), "exec", dont_inherit=True)),
        _codes(compile(after, str(file), "exec", dont_inherit=True)),
    )
    if [code.co_qualname for code in old] != [code.co_qualname for code in new]:
        return False
    changed = [b for a, b in zip(old, new, strict=True) if _own(a) != _own(b)]
    if not changed or not all(code.co_flags & inspect.CO_OPTIMIZED for code in changed):
        return False
    instead = {(a.co_qualname, a.co_firstlineno): b for a, b in zip(old, new, strict=True)}
    put = set()
    for function in [o for o in gc.get_objects() if type(o) is FunctionType and o.__code__.co_filename == str(file)]:
        code = instead.get((function.__code__.co_qualname, function.__code__.co_firstlineno))
        if code is not None and code.co_freevars == function.__code__.co_freevars:
            function.__code__ = code
            put.update(map(id, _codes(code)))
    return all(id(code) in put for code in changed)


def _codes(code: CodeType) -> list[CodeType]:
    """It and all within it, in their order."""
    return [code, *(inner for const in code.co_consts if isinstance(const, CodeType) for inner in _codes(const))]


def _own(code: CodeType) -> tuple[object, ...]:
    """What it does itself, apart from functions within it."""
    consts = tuple((type(c), repr(c)) for c in code.co_consts if not isinstance(c, CodeType))
    return code.co_code, consts, code.co_names, code.co_varnames
