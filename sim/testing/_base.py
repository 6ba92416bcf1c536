"""What the law classes share."""

from __future__ import annotations

from typing import Any, NoReturn

from sim import registry
from sim.config import settings
from sim.errors import ConfigError


def skip(why: str) -> NoReturn:
    """Skip the test that runs. pytest is imported here, so that nobody else needs it."""
    import pytest

    raise pytest.skip.Exception(why)


def subject(kind: str, name: str, laws: object) -> Any:
    """The class under test. Raises `ConfigError` when the test class does not name one."""
    if not name:
        raise ConfigError(f"{type(laws).__name__}.{kind}", name, "must name what is tested", "a name, or path/to/file.py:Class")
    return registry.lookup(kind, name)


def refuses_unknown_settings(cls: Any) -> None:
    """A misspelt setting is an error that names it."""
    try:
        settings(cls.Params, {"no_such_setting": 1}, "settings")
    except ConfigError as error:
        assert "no_such_setting" in str(error), f"an unknown setting is refused, but not by its name: {error}"
        return
    raise AssertionError(f"{cls.__name__}.Params accepts a setting that it does not have")
