"""What the user asks for: frozen sections, read from YAML, written back resolved. No behaviour."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.config.reading import as_scenario, built_in, load, loads, to_yaml, vary
from sim.config.resolving import resolve
from sim.config.scenario import Scenario
from sim.config.validate import settings

if TYPE_CHECKING:
    from pydantic import JsonValue

__all__ = ["Scenario", "as_scenario", "built_in", "load", "loads", "resolve", "schema", "settings", "to_yaml", "vary"]


def schema() -> dict[str, JsonValue]:
    """JSON schema of a scenario file; loads every registered class."""
    from sim.config.json_schema import schema as make

    return make()
