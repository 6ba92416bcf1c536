"""Code that is not of this package: a user's own file as a real module, and which source files a plug-in consists of."""

from __future__ import annotations

import ast
import hashlib
import opcode
import sys
import traceback
from collections.abc import Iterable, Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType, TracebackType

from sim import trust
from sim.errors import ConfigError, PluginError
from sim.places import expanded, is_file

alone = False
"""Whether this process runs one command and nothing else, so that it may end itself."""
_loaded: dict[str, ModuleType] = {}
_digests: dict[str, str] = {}
_COMMON = frozenset(sys.stdlib_module_names) | {"sim", "numpy", "numba", "pydantic", "scipy", "pandas", "simpy"}


def is_own(module: str) -> bool:
    """Whether a module is of this package; everything else is a plug-in's."""
    return module == "sim" or module.startswith("sim.")


def is_interrupt(error: BaseException) -> bool:
    """Whether this is Ctrl-C, and not a KeyboardInterrupt that a plug-in's own ``raise`` made.

    A signal strikes between any two instructions; its traceback ends at a ``raise`` only in our own handler.
    """
    if not isinstance(error, KeyboardInterrupt):
        return False
    last = error.__traceback__
    while last is not None and last.tb_next is not None:
        last = last.tb_next
    if last is None or is_own(str(last.tb_frame.f_globals.get("__name__"))):
        return True
    return opcode.opname[last.tb_frame.f_code.co_code[last.tb_lasti]] != "RAISE_VARARGS"


def load_file(file: str, field: str) -> ModuleType:
    """The module of a user's own file, in `sys.modules` under a name that follows its place and content: edited, it is a new module.

    Modules beside the file can be imported by it. Raises `ConfigError` without such a file, `PluginError` where it cannot be executed.
    """
    path = expanded(file)
    if not is_file(path):
        raise ConfigError(field, file, "no such file", "path/to/file.py:ClassName")
    path = path.resolve()
    trust.check(path, field)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise ConfigError(field, file, f"cannot be read: {error.strerror}") from None
    name = f"own_{hashlib.sha256(str(path).encode() + source).hexdigest()[:12]}_{path.stem}"
    if name in _loaded:
        return _loaded[name]
    spec = spec_from_file_location(name, path)
    assert spec is not None
    module = module_from_spec(spec)
    sys.modules[name] = module  # before it runs: dataclasses, pickle and Numba look classes up there
    sys.path.insert(0, str(path.parent))
    try:
        exec(compile(source, str(path), "exec", dont_inherit=True), module.__dict__)  # byte code kept on disk goes by date
    except BaseException as error:
        del sys.modules[name]
        if isinstance(error, PluginError) or is_interrupt(error):
            raise
        raise _broken(error, path) from error
    finally:
        sys.path.remove(str(path.parent))
    _digests[name] = hashlib.sha256(source).hexdigest()
    _loaded[name] = module
    return module


def carry(module: str) -> None:
    """Let classes and functions of a user's own file travel to other processes by value: nobody there can import it by name."""
    from importlib import import_module

    for name in ("joblib.externals.cloudpickle", "cloudpickle", "ray.cloudpickle"):
        try:
            import_module(name).register_pickle_by_value(sys.modules[module])
        except ImportError:
            continue


def _broken(error: BaseException, path: Path) -> PluginError:
    if isinstance(error, SyntaxError) and error.filename:
        return PluginError(
            error.filename, error.lineno or 0, "the file", f"cannot be loaded: {type(error).__name__}: {error.msg}"
        )
    line = last_line(error.__traceback__, str(path))
    return PluginError(str(path), line, "the file", f"cannot be loaded: {said(error)}")


def said(error: BaseException) -> str:
    """An exception on one line, cut where it is very long; one that cannot be shown by its name."""
    try:
        text = " ".join(str(error).split())
    except Exception:
        text = ""
    text = text if len(text) <= 300 else text[:299] + "…"
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def last_line(trace: TracebackType | None, file: str) -> int:
    """The line of the innermost frame of a traceback that lies in ``file``; 0 if none does."""
    lines = [frame.lineno or 0 for frame in traceback.extract_tb(trace) if frame.filename == file]
    return lines[-1] if lines else 0


def file_name(module: str) -> str:
    """Name of the file of a plug-in's module; empty for a module of this package."""
    path = None if is_own(module) else _file(module)
    return path.name if path else ""


def blame(error: BaseException) -> PluginError | None:
    """What to tell of an exception that came out of a user's own file: the innermost frame in one; None if it did not."""
    files = {str(module.__file__) for module in _loaded.values()}
    for frame in reversed(traceback.extract_tb(error.__traceback__)):
        if frame.filename in files:
            return PluginError(frame.filename, frame.lineno or 0, frame.name, f"raised {said(error)}")
    return None


def digest(modules: Iterable[str]) -> str | None:
    """Digest of the sources that plug-in modules consist of: their own files and those they import. None where one has no file."""
    found: dict[str, str] = {}
    for name in modules:
        if not _follow(name, found):
            return None
    text = "".join(f"{key}:{value};" for key, value in sorted(found.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def remember(module: str) -> None:
    """Take the digest of a plug-in's module now, while its file is what was imported."""
    if module not in _digests:
        path = _file(module)
        if path is not None:
            _digests[module] = hashlib.sha256(path.read_bytes()).hexdigest()


def _file(module: str) -> Path | None:
    file = getattr(sys.modules.get(module), "__file__", None)
    return Path(file) if file and file.endswith(".py") and is_file(Path(file)) else None


def _follow(module: str, found: dict[str, str]) -> bool:
    """Add a module and, transitively, what it imports and is loaded: of its own folder or package all, of other packages their first file."""
    path = _file(module)
    if path is None:
        return False
    remember(module)
    found[module] = _digests[module]
    root = module.partition(".")[0]
    installed = path.parent.name in ("site-packages", "dist-packages")
    for name in _imports(module, path):
        top = name.partition(".")[0]
        if name in found or top in _COMMON:
            continue
        other = _file(name)
        if other is None:
            continue
        near = top == root or (not installed and "." not in module and other.is_relative_to(path.parent))
        if near:
            _follow(name, found)
        else:
            remember(name)
            found[name] = _digests[name]
    return True


def _imports(module: str, path: Path) -> Iterator[str]:
    """Loaded modules that a source file imports anywhere, by absolute name."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_bytes())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(package.split(".")[: len(package.split(".")) - node.level + 1]) if node.level else ""
            base = ".".join(part for part in (base, node.module or "") if part)
            names = [base, *(f"{base}.{alias.name}" for alias in node.names)]
        else:
            continue
        yield from (name for name in names if name in sys.modules)
