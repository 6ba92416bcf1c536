"""The exception family: every error a user can cause names the field, the value, what is allowed and the nearest choice."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Self

_LONGEST = 3000
"""Characters of an error: what it quotes may be as long as a file."""


class ServesimError(Exception):
    """Base of every error this package raises on purpose. The command line prints it on one line and exits with 2.

    ``args`` are those of the constructor, so that an error can be copied: SimPy raises a copy out of a process, as does a pool of processes.
    """

    _text: str | None = None

    def _say(self, text: str, *args: object) -> None:
        Exception.__init__(self, *args)
        self._text = text if len(text) <= _LONGEST else text[:_LONGEST] + "…"

    def __str__(self) -> str:
        return super().__str__() if self._text is None else self._text

    def inside(self, file: str) -> Self:
        """The same error, which says in which of several files it is."""
        self._text = f"{file}: {self}"
        return self


class ConfigError(ServesimError):
    """A setting that cannot be run as written.

    ``field`` is the dotted path as the user would write it after ``--set`` (``deployment.tp``).
    """

    def __init__(self, field: str, value: object, problem: str, allowed: str = "", hint: str = "") -> None:
        self.field, self.value, self.problem, self.allowed, self.hint = field, value, problem, allowed, hint
        got = "nothing" if value is None else shown(value)
        text = f"{field}: {problem} (got {got})" if field else problem
        if allowed:
            text += f"; allowed: {allowed}"
        if hint:
            text += f"; {hint}"
        self._say(text, field, value, problem, allowed, hint)


class DataError(ServesimError):
    """A file that cannot be used: missing, a wrong column, times that run backwards. Names file, row and column."""

    def __init__(self, source: str, problem: str, hint: str = "") -> None:
        self.source, self.problem = source, problem
        told = re.sub(r"(\S{200})\S{200,}", r"\1…", problem)  # a name in it that has no end
        self._say(f"{source}: {told}" + (f"; {hint}" if hint else ""), source, problem, hint)


class NotModelledError(ConfigError):
    """A combination the real system allows and this package does not model. Refused, never approximated in silence."""


class UnknownNameError(ConfigError):
    """A name that no registry, profile or folder knows; the message offers the nearest known names."""

    def __init__(self, field: str, name: str, known: Iterable[str], hint: str = "") -> None:
        names = sorted(known)
        hints = (did_you_mean(name, names), hint)
        super().__init__(field, name, "unknown name", ", ".join(names), "; ".join(h for h in hints if h))
        self.args = (field, name, names, hint)


class PluginError(ServesimError):
    """A plug-in raised, answered nonsense, did not come back, or changed what it was only shown.

    ``file`` and ``line`` are the plug-in's; ``what`` the method that was called; ``about`` the request or time it was called for.
    """

    def __init__(self, file: str, line: int, what: str, problem: str, about: str = "") -> None:
        self.file, self.line, self.what, self.problem, self.about = file, line, what, problem, about
        at = f"{file}:{line}: " if line else f"{file}: "
        self._say(f"{at}{what} {problem}" + (f" ({about})" if about else ""), file, line, what, problem, about)


class LawViolation(Exception):
    """A law does not hold after a run: a fault of the package, never the user's. No `ServesimError`: nothing may go on with such a result.

    ``scenario``: YAML that shows it again, with what was changed about it in comments.
    """

    def __init__(self, text: str, scenario: str = "") -> None:
        self.text, self.scenario = text, scenario
        super().__init__(text, scenario)

    def __str__(self) -> str:
        return self.text


def shown(value: object) -> str:
    """A value in an error: cut where it is very long."""
    text = repr(value)
    return text if len(text) <= 300 else f"{text[:200]}… of {len(text):,} characters"


def brief(text: str) -> str:
    """What somebody wrote, inside a sentence: its beginning where it is long."""
    return text if len(text) <= 60 else text[:57] + "…"


_LEAST_ALIKE = 0.6
_MODEL_NUMBER = re.compile(r"[a-z]+\d+|\d+[a-z]+")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """``did you mean 'x'?`` for the nearest of ``known``, or an empty string when nothing is near.

    What begins with a number of a model (``h100…``) is meant to be one of that number, where there are some.
    """
    by_lower = {k.lower(): k for k in known}
    names, wanted, alike = list(by_lower), name.lower(), _LEAST_ALIKE
    if (number := _MODEL_NUMBER.match(wanted)) is not None:
        same = [n for n in names if n.startswith(number[0])]
        names, alike = (same, 0.0) if same else (names, alike)
    near = difflib.get_close_matches(wanted, names, n=1, cutoff=alike)
    return f"did you mean {by_lower[near[0]]!r}?" if near else ""
