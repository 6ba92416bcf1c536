"""A document in which one thing is otherwise: what a reader makes of it shows what it looks at, and what it takes it for."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from sim.errors import ServesimError
from tests.answers import plain, unlike
from tests.strategies import places, value_at

SHOWN = 8
"""Differences of an answer that are kept, besides how many there are."""


def otherwise(document: Any, most: int = 9) -> Iterator[tuple[str, Any]]:
    """What was changed, and the whole: every thing gone, and every value another one, up to ``most``. It is the document itself, put back
    afterwards.
    """
    for path in list(places(document)):
        inside, key = value_at(document, path[:-1]), path[-1]
        kept = inside[key]
        for word, value in [*_others(kept), *_beside(inside, key)][:most]:
            inside[key] = value
            yield f"{'/'.join(map(str, path))} {word}", document
        inside[key] = kept
        rest = list(inside.items()) if isinstance(inside, dict) else list(inside)
        del inside[key]
        yield f"{'/'.join(map(str, path))} gone", document
        inside.clear()
        inside.update(rest) if isinstance(inside, dict) else inside.extend(rest)


def _others(value: Any) -> list[tuple[str, Any]]:
    """Values of the same kind that say something else, and one of another kind."""
    if isinstance(value, bool):
        return [("not", not value)]
    if isinstance(value, int | float):
        return [("more", 3 * value + 1), ("none", 0), ("below", -1 - value)]
    if isinstance(value, str):
        first, _, unit = value.partition(" ")
        figure = [("nothing", f"0 {unit}")] if unit and first.replace(".", "", 1).isdecimal() else []
        return [("other", f"x{value}"), ("empty", ""), *figure]
    if isinstance(value, list):
        return [("empty", []), ("reversed", value[::-1])] if len(value) > 1 else [("empty", [])]
    return [("none", None if isinstance(value, dict) else 1)]


def _beside(inside: Any, key: Any) -> list[tuple[str, Any]]:
    """What stands for another number at the two numbers before it: two moments, or two counts, that fall together."""
    entries = list(inside.items() if isinstance(inside, dict) else enumerate(inside))
    at = next(i for i, (name, _) in enumerate(entries) if name == key)
    numbers = [(k, v) for k, v in entries[:at] if isinstance(v, int | float) and not isinstance(v, bool)]
    mine = inside[key]
    if isinstance(mine, bool) or not isinstance(mine, int | float):
        return []
    return [(f"as {k}", v) for k, v in numbers[-2:] if v != mine]


def made_of(document: Any, read: Callable[[Any], Any], most: int = 9) -> dict[str, Any]:
    """The answer of a reader for a document, and by what each change makes it differ; the kind of an error and what it names."""

    def answer(of: Any) -> Any:
        try:
            return plain(read(of))
        except ServesimError as error:
            return f"{type(error).__name__}: {getattr(error, 'field', '')}"

    base = answer(document)
    found: dict[str, Any] = {}
    for word, changed in otherwise(document, most):
        mine = answer(changed)
        lines = [mine] if isinstance(mine, str) else list(unlike(base, mine))
        if lines:
            found[word] = [*lines[:SHOWN], len(lines)]
    return {"as it is": base, "otherwise": found}
