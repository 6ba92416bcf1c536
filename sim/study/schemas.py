"""JSON schemas of every file a user may write (scenarios, accelerators, links, engine profiles, servers), and of the summary of a run."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.errors import UnknownNameError

if TYPE_CHECKING:
    from pydantic import JsonValue

KINDS = ("scenario", "accelerator", "link", "engine-profile", "servers", "summary")
"""What there is a schema of."""


def schema(kind: str = "scenario") -> dict[str, JsonValue]:
    """The JSON schema (draft 2020-12) of a kind of file. Raises `UnknownNameError`."""
    if kind == "scenario":
        from sim.config import schema as of_scenarios

        return of_scenarios()
    if kind == "accelerator":
        from sim.hardware.accelerator_file import AcceleratorFile

        return AcceleratorFile.model_json_schema()
    if kind == "link":
        from sim.hardware.links import LinkFile

        return LinkFile.model_json_schema()
    if kind == "engine-profile":
        from sim.cost.engine_figures import EngineProfileFile

        return EngineProfileFile.model_json_schema()
    if kind == "servers":
        from sim.hardware.instances import InstanceFile

        return InstanceFile.model_json_schema()
    if kind == "summary":
        from sim.metrics.summary import schema as of_summaries

        return of_summaries()
    raise UnknownNameError("schema", kind, KINDS)
