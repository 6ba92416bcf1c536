"""Plug-ins are called through a guard: what they raise, answer or try to change becomes one error with their file and line.

`guarded` derives a class from a plug-in's whose methods are guarded: those that the base class knows. A base class may say more about a
method in its mapping ``guards``: how a wrong answer is told, what is handed out read-only, how long a call may take.
"""

from __future__ import annotations

import ctypes
import functools
import inspect
import os
import re
import sys
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import FunctionType, MappingProxyType
from typing import Any, ParamSpec, TypeVar

import numpy as np
from numpy.typing import NDArray

from sim import plugins
from sim.errors import PluginError, ServesimError

P = ParamSpec("P")
R = TypeVar("R")
A = TypeVar("A")
B = TypeVar("B")
LIMIT = float(os.environ.get("SERVESIM_PLUGIN_SECONDS", "60"))
"""Seconds of wall time that one call of a plug-in's decision may take."""


@dataclass(frozen=True)
class Guard:
    """What is checked about one method.

    ``answer(instance, result)`` returns what is wrong with an answer, or an empty string. ``about(*arguments)`` says for what it was called:
    the request, the time. ``show``: the arguments are handed out read-only. ``limited``: a call may take `LIMIT` seconds. ``each``: the answer is a
    series of which each item is asked for, limited and checked by itself.
    """

    answer: Callable[[Any, Any], str] | None = None
    about: Callable[..., str] | None = None
    show: bool = False
    limited: bool = False
    each: bool = False


_PLAIN = Guard()


def guarded(cls: type, base: type, everything: bool = False) -> type:
    """A class derived from a plug-in's ``cls``, which calls its own versions of what ``base`` declares under guard; ``everything``: ours too."""
    known: dict[str, Guard] = {}
    for parent in reversed(cls.__mro__):
        if plugins.is_own(parent.__module__):
            known.update(parent.__dict__.get("guards", {}))
    space: dict[str, object] = {"__module__": cls.__module__, "__doc__": cls.__doc__, "__qualname__": cls.__qualname__}
    for name in {n for parent in base.__mro__[:-1] for n in vars(parent)} | {"__init__", *known}:
        if name.startswith("_") and name != "__init__":
            continue
        found = inspect.getattr_static(cls, name)
        function = _function(found)
        if function is None or (plugins.is_own(function.__module__) and not everything):
            continue
        call = watched(function, known.get(name, _PLAIN), f"{cls.__name__}.{name}")
        if isinstance(found, classmethod):
            space[name] = classmethod(call)
        elif isinstance(found, staticmethod):
            space[name] = staticmethod(call)
        else:
            space[name] = property(call) if isinstance(found, property) else call
    return type(cls)(cls.__name__, (cls,), space)


def _function(found: object) -> FunctionType | None:
    inner = (
        found.__func__ if isinstance(found, classmethod | staticmethod) else found.fget if isinstance(found, property) else found
    )
    return inner if isinstance(inner, FunctionType) else None


def watched(function: Callable[..., R], guard: Guard, what: str) -> Callable[..., R]:
    """The function with the same arguments, under guard; ``what`` names it in messages."""
    file, line = function.__code__.co_filename, function.__code__.co_firstlineno
    last: dict[int, tuple[object, ReadOnly]] = {}  # by place: the proxy handed out last, which is mostly wanted again

    def shown_at(place: int, value: object) -> object:
        known = last.get(place)
        if known is not None and known[0] is value:
            return known[1]
        shown = read_only(value)
        if type(shown) is ReadOnly:
            last[place] = (value, shown)
        return shown

    def call(*args: object, **given: object) -> Any:
        shown = args
        if guard.show:
            shown = (args[0], *[shown_at(i, a) for i, a in enumerate(args[1:])])
            if given:
                given = {k: read_only(v) for k, v in given.items()}
        try:
            result: Any = _in_time(functools.partial(function, *shown, **given), guard.limited)
        except ServesimError:
            raise
        except BaseException as error:
            if plugins.is_interrupt(error):
                raise
            about = _about(guard, args)
            raise failure(error, file, line, what, about) from error
        if guard.each and not isinstance(result, Iterable):
            raise PluginError(
                file, line, what, f"answered {repr(result)[:80]}; allowed: what can be gone through", _about(guard, args)
            )
        if guard.each or (guard.answer is None and inspect.isgenerator(result)):
            return _each(iter(result), file, line, what, guard, args)
        if guard.answer is not None:
            try:
                problem = guard.answer(args[0], result)
            except AttributeError as error:
                problem = f"lacks what its base class sets up ({error}): call super().__init__ first"
            if problem:
                raise PluginError(file, line, what, problem, _about(guard, args))
        return result

    call.__name__, call.__doc__, call.__wrapped__ = function.__name__, function.__doc__, function  # type: ignore[attr-defined]
    return call


def _in_time(call: Callable[[], R], limited: bool = True) -> R:
    """What it answers within `LIMIT`."""
    began = _enter() if limited else None
    try:
        return call()
    finally:
        if began is not None:
            _leave(began)


def engines(function: Callable[P, R]) -> Callable[P, R]:
    """Decorator of what runs plans (its first argument; each has a ``scheduler``): an error inside a plug-in's engine is told as the plug-in's.

    That is one whose traceback goes through its file, or one of the compiler.
    """

    @functools.wraps(function)
    def run(*args: P.args, **given: P.kwargs) -> R:
        try:
            return function(*args, **given)
        except ServesimError:
            raise
        except Exception as error:
            plans: Any = args[0] if args else next(iter(given.values()))
            for cls in {p.scheduler for p in plans if not plugins.is_own(p.scheduler.__module__)}:
                file = str(getattr(sys.modules.get(cls.__module__), "__file__", ""))
                if plugins.last_line(error.__traceback__, file) or _of_compiler(error):
                    raise failure(error, file, 0, cls.__name__) from error
            raise

    return run


def _of_compiler(error: BaseException) -> bool:
    return type(error).__module__.partition(".")[0] == "numba"


def failure(error: BaseException, file: str, line: int, what: str, about: str = "") -> PluginError:
    """What a plug-in's exception is told as: with the innermost line of its file."""
    at = plugins.last_line(error.__traceback__, file) or line
    if _of_compiler(error):
        lines = [int(n) for n in re.findall(rf'{re.escape(Path(file).name)}", line (\d+)', str(error))]
        first = next((x.strip() for x in re.sub(r"\x1b\[[\d;]*m", "", str(error)).splitlines()[1:] if x.strip()), "")
        return PluginError(file, lines[-1] if lines else at, what, f"cannot be compiled: {first[:200]}", about)
    if isinstance(error, TimeLimit):
        return PluginError(file, at, what, f"has not come back after {LIMIT:g} s", about)
    text = plugins.said(error)
    if isinstance(error, ValueError | AttributeError) and "read-only" in str(error):
        return PluginError(file, at, what, f"changes what it was only shown: {text}", about)
    return PluginError(file, at, what, f"raised {text}", about)


def _about(guard: Guard, args: tuple[object, ...]) -> str:
    return guard.about(*args[1:]) if guard.about is not None else ""


def _each(items: Iterator[A], file: str, line: int, what: str, guard: Guard, args: tuple[object, ...]) -> Iterator[A]:
    while True:
        try:
            item = _in_time(functools.partial(next, items), guard.limited)
        except StopIteration:
            return
        except ServesimError:
            raise
        except BaseException as error:
            if plugins.is_interrupt(error):
                raise
            raise failure(error, file, line, what, _about(guard, args)) from error
        problem = guard.answer(args[0], item) if guard.each and guard.answer is not None else ""
        if problem:
            raise PluginError(file, line, what, problem, _about(guard, args))
        yield item


def conversation(steps: Generator[A, B, R], asked: Callable[[A], str], end: Callable[[R], str], what: str) -> Generator[A, B, R]:
    """A plug-in's generator under guard: ``asked`` says what is wrong with what it yields, ``end`` with what it returns; each step may take `LIMIT`."""
    code = steps.gi_code  # type: ignore[attr-defined]
    file, line = code.co_filename, code.co_firstlineno
    step: Callable[[], A] = functools.partial(next, steps)
    thrown: BaseException | None = None
    while True:
        try:
            item = _in_time(step)
        except StopIteration as done:
            problem = end(done.value)
            if problem:
                raise PluginError(file, line, what, problem) from None
            return done.value  # type: ignore[no-any-return]
        except ServesimError:
            raise
        except BaseException as error:
            if error is thrown or plugins.is_interrupt(error):
                raise
            raise failure(error, file, line, what) from error
        problem = asked(item)
        if problem:
            steps.close()
            raise PluginError(file, line, what, problem)
        try:
            answer = yield item
        except GeneratorExit:
            steps.close()
            raise
        except BaseException as error:
            thrown, step = error, functools.partial(steps.throw, error)
        else:
            step = functools.partial(steps.send, answer)


# -- read-only


class ReadOnly:
    """Stands for an object: reads go through, arrays come out read-only, nothing can be set."""

    __slots__ = ("_inner",)

    def __init__(self, inner: object) -> None:
        object.__setattr__(self, "_inner", inner)

    def __getattr__(self, name: str) -> Any:
        value = getattr(self._inner, name)
        if inspect.ismethod(value):
            return lambda *args, **given: read_only(value(*args, **given))
        return read_only(value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{name!r} of {type(self._inner).__name__} is read-only")

    __delattr__ = __setattr__  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self._inner)

    def __repr__(self) -> str:
        return repr(self._inner)


def read_only(value: object) -> object:
    """The same value such that it cannot be changed: a read-only view of an array, a proxy of an object of ours."""
    kind = type(value)
    show = _SHOWN.get(kind)
    if show is None:
        show = _SHOWN[kind] = _how(kind)
    return show(value)


def _how(kind: type) -> Callable[[Any], object]:
    """How values of a type are shown."""
    if issubclass(kind, np.ndarray):
        return _view
    if issubclass(kind, dict):
        return lambda value: MappingProxyType({k: read_only(v) for k, v in value.items()})
    if kind is tuple:
        return lambda value: tuple(read_only(v) for v in value)
    if issubclass(kind, tuple) and hasattr(kind, "_make"):  # who keeps one finds it again by its value
        return lambda value: kind._make(read_only(v) for v in value)
    if issubclass(kind, list):
        return lambda value: [read_only(v) for v in value]  # a copy
    if not issubclass(kind, Mapping | ReadOnly | BaseException | type) and plugins.is_own(kind.__module__):
        return ReadOnly
    return lambda value: value


def _view(value: NDArray[np.generic]) -> NDArray[np.generic]:
    if value.flags.writeable:
        value = value.view()
        value.flags.writeable = False
    return value


_SHOWN: dict[type, Callable[[Any], object]] = {}


# -- the time limit


class TimeLimit(BaseException):
    """Raised inside a plug-in that does not come back; no `Exception`, which it might catch."""


@dataclass(slots=True)
class _Call:
    thread: int
    began: float
    fired: bool = False


_calls: dict[int, _Call] = {}
_lock = threading.Lock()
_watcher: list[threading.Thread] = []


def _enter() -> _Call | None:
    """Begin to watch a call of this thread; None inside another one."""
    thread = threading.get_ident()
    if thread in _calls:
        return None
    if not _watcher:
        _watcher.append(threading.Thread(target=_watch, name="plug-in time limit", daemon=True))
        _watcher[0].start()
    call = _calls[thread] = _Call(thread, time.monotonic())
    return call


def _leave(call: _Call) -> None:
    with _lock:
        _calls.pop(call.thread, None)
    if call.fired:  # it may still be on its way
        ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), None)
        if not isinstance(sys.exception(), TimeLimit):
            raise TimeLimit


def _watch() -> None:
    while True:
        time.sleep(min(1.0, LIMIT / 4))
        now = time.monotonic()
        with _lock:
            for call in list(_calls.values()):
                if now - call.began > LIMIT:
                    call.fired = True
                    ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(call.thread), ctypes.py_object(TimeLimit))


def _forget() -> None:
    """A forked process has no watching thread yet."""
    _watcher.clear()
    _calls.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
