"""What all sections share: frozen, unknown keys refused, bare names allowed where a section is mostly a name."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StrictInt, model_validator

Count = Annotated[StrictInt, Field(ge=1, le=2**31 - 1)]
"""A whole number of at least 1; ``true`` and ``2.0`` are not. Who has other bounds writes ``StrictInt`` with both: these would win."""
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
"""A part of a whole, from 0 to 1."""


class Section(BaseModel):
    """Base of every section."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Named(BaseModel):
    """A name and the settings of what bears it: ``{name: vllm, max_num_seqs: 64}``, or just ``vllm``.

    The settings are checked against the `Params` of the registered class when the run is planned; here they are any mapping.
    """

    model_config = ConfigDict(frozen=True, extra="allow")
    key: ClassVar[str] = "name"
    registered: ClassVar[str]
    """Kind of what is named, in `sim.registry`."""

    @model_validator(mode="before")
    @classmethod
    def _bare(cls, value: object) -> object:
        if isinstance(value, str):
            return {cls.key: value}
        if not isinstance(value, Mapping):
            raise ValueError(f"must be a name, or a mapping with {cls.key!r} and settings")
        bad = [k for k in value if not isinstance(k, str)]
        if bad:
            raise ValueError(f"settings must have names, not {bad[0]!r}")
        return value

    @property
    def settings(self) -> dict[str, Any]:
        """Everything but the name."""
        return dict(self.model_extra or {})


class Engine(Named):
    """The serving engine and its settings, spelled as the engine spells them."""

    registered: ClassVar[str] = "engine"
    name: str = Field(description="name of the engine, or path/to/file.py:Class of your own")


class Router(Named):
    """How requests are spread over the replicas."""

    registered: ClassVar[str] = "router"
    name: str = Field(description="name of the router, or path/to/file.py:Class of your own")


class Scaling(Named):
    """How many replicas there are, by load."""

    registered: ClassVar[str] = "scaler"
    name: str = Field(description="name of the autoscaler, or path/to/file.py:Class of your own")


class Admission(Named):
    """Who may go on to the replicas, in which order."""

    registered: ClassVar[str] = "admission"
    name: str = Field(description="name of the admission policy, or path/to/file.py:Class of your own")


class Clients(Named):
    """What clients do besides sending: time-outs, retries, hedging, leaving."""

    registered: ClassVar[str] = "client"
    name: str = Field(description="name of the client, or path/to/file.py:Class of your own")


class Fault(Named):
    """What breaks, when, and for how long."""

    registered: ClassVar[str] = "fault"
    name: str = Field(description="name of the fault, or path/to/file.py:Class of your own")


class Arrival(Named):
    """When requests arrive."""

    key: ClassVar[str] = "process"
    registered: ClassVar[str] = "arrival"
    process: str = Field(description="name of the arrival process")


class Lengths(Named):
    """How long prompts and outputs are."""

    key: ClassVar[str] = "kind"
    registered: ClassVar[str] = "length"
    kind: str = Field(description="name of the length distribution")
