"""Finished rows of the engines until the run is over: in memory, or on disk where they are too many."""

from __future__ import annotations

from sim.ledger import Values
from sim.metrics import on_disk

Columns = dict[str, Values]


class Kept:
    """``to_disk``: rows may go there, as nobody asks for all of them at once before they are in order."""

    def __init__(self) -> None:
        self.to_disk = False
        self._parts: list[Columns] = []
        self._held = 0
        self._disk: on_disk.DiskTable | None = None

    def add(self, rows: Columns) -> None:
        """Further rows."""
        self._parts.append(rows)
        self._held += len(rows["id"])
        if self._disk is not None:
            self._flush(self._disk)
        elif self.to_disk and self._held > on_disk.HELD_ROWS:
            self.to_disk = on_disk.has_room(10 * self._held)
            if self.to_disk:
                self._disk = on_disk.DiskTable()
                self._flush(self._disk)

    def take(self) -> list[Columns] | on_disk.DiskTable:
        """All rows, not kept any more: in parts, or a table in which there were too many."""
        parts, disk, self._parts, self._disk, self._held = self._parts, self._disk, [], None, 0
        return parts if disk is None else disk

    def _flush(self, disk: on_disk.DiskTable) -> None:
        for rows in self._parts:
            disk.append(rows)
        self._parts = []
