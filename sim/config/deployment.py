"""What serves it, on what."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from sim.config.section import Named, Section


class Engine(Named):
    """The serving engine; its settings are spelled as it spells them. A bare string is the name."""

    kind: ClassVar[str] = "engine"


class Router(Named):
    """Which replica gets a request. A bare string is the name."""

    kind: ClassVar[str] = "router"


class Deployment(Section):
    """Replicas of one engine on one kind of accelerator."""

    accelerator: str = Field(min_length=1, description="name such as h100-sxm, or the path of a profile")
    tp: int = Field(1, ge=1, le=4096, description="tensor-parallel width")
    pp: int = Field(1, ge=1, le=4096, description="pipeline stages")
    dp: int = Field(1, ge=1, le=4096, description="data-parallel ranks of one replica")
    ep: int = Field(1, ge=1, le=4096, description="expert-parallel width")
    replicas: int = Field(1, ge=1, le=100_000, description="copies of the engine")
    engine: Engine = Field(description="the serving engine and its settings")
    kv_blocks: int | None = Field(
        None, ge=1, le=2**40, description="pins the KV blocks of a replica to what a real server logged"
    )


class Pool(Deployment):
    """A deployment among several."""

    name: str = Field(pattern=r"^\w[\w .+-]*$", max_length=100, description="unique name of the pool")
