"""Small tables in CSV, as rows by name of column. Traffic, which is large, is read by `sim.workload.traces._columns`."""

from __future__ import annotations

import csv

from sim.errors import DataError


def lines(where: object, text: str, delimiter: str = ",") -> list[list[str]]:
    """Fields of every line. Raises `DataError` naming ``where``."""
    try:
        return list(csv.reader(text.splitlines(), delimiter=delimiter))
    except csv.Error as error:
        raise DataError(str(where), f"is no table that can be read ({error})") from None


def records(where: object, text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """`by_name` of a text."""
    return by_name(where, lines(where, text))


def by_name(where: object, found: list[list[str]]) -> tuple[list[str], list[tuple[int, dict[str, str]]]]:
    """(names of columns, (number of the line, fields by name) of every row that is not blank), of the fields of lines.

    Raises `DataError` for a column that is there twice and for a row of another length than the header.
    """
    header = [name.strip() for name in found[0]] if found else []
    for name in header:
        if header.count(name) > 1:
            raise DataError(str(where), f"has the column {name!r} twice")
    out = []
    for number, row in enumerate(found[1:], 2):
        if not row:
            continue
        if len(row) != len(header):
            raise DataError(str(where), f"line {number}: has {len(row)} fields, the header {len(header)}")
        out.append((number, dict(zip(header, row, strict=True))))
    return header, out
