"""The ``deployment`` section: one pool of equal replicas; ``pools`` is a list of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, StrictInt

from sim.config.base import Count, Engine, Section
from sim.config.model import Model
from sim.units import Bytes, Seconds


class Deployment(Section):
    """Replicas of one engine on one kind of accelerator."""

    accelerator: str = Field(description="name of an accelerator profile, such as h100-sxm, or the path of a YAML of your own")
    tp: Count = Field(1, description="tensor-parallel width")
    pp: Count = Field(1, description="pipeline stages")
    dp: Count = Field(1, description="data-parallel ranks of one engine, each with a scheduler of its own")
    ep: Count = Field(1, description="expert-parallel width")
    expert_imbalance: float = Field(
        1.0,
        ge=1.0,
        le=256.0,
        allow_inf_nan=False,
        description="tokens of the busiest expert-parallel rank over the mean, beyond what chance makes of even routing (1: none); needs ep > 1",
    )
    node: Count | str | None = Field(
        None,
        description="accelerators that share a server, or the name of a server or instance type (dgx-h100); default: the accelerator's usual one",
    )
    network: str | None = Field(
        None,
        description="what joins servers, per accelerator: a link such as rdma-400g or tcp-25g, or the path of a YAML of your own; "
        "default: that of the node",
    )
    replicas: Annotated[StrictInt, Field(ge=1, le=1_000_000)] = Field(1, description="number of engines")
    engine: Engine = Field(description="the serving engine and its settings")
    profile: str | None = Field(
        None,
        description="engine profile (host overheads): a built-in name, or path/to/file.yaml as `servesim calibrate` writes it",
    )
    kv_blocks: Count | None = Field(
        None,
        description="KV blocks per replica (of each data-parallel rank) as a real server logged them, instead of the estimate",
    )


class Pool(Deployment):
    """One pool of several."""

    name: str = Field(min_length=1, description="name of the pool, unique")
    model: Model | None = Field(
        None, description="a model of its own: several models in one fleet, with Ollama on one accelerator"
    )
    role: Literal["prefill", "decode"] | None = Field(
        None, description="side of a disaggregated deployment; all pools have one, or none has"
    )
    share: float = Field(1.0, gt=0, allow_inf_nan=False, description="weight of its model among the requests")


class Transfer(Section):
    """How KV travels from prefill to decode replicas. Every accelerator has its own port; the transfers of a replica pass one after the other."""

    link: str | None = Field(
        None, description="name of a link, such as rdma-400g; default: the network of the prefill pool's servers"
    )
    bandwidth: Bytes | None = Field(
        None, gt=0, description="bytes per second and accelerator in one direction, instead of the link's"
    )
    efficiency: float = Field(
        0.72, gt=0, le=1, description="share of the line rate that transfers reach (NCCL between H100 nodes: 36 of 50 GB/s)"
    )
    latency: Seconds | None = Field(None, ge=0, description="latency of one transfer, instead of the link's")
    layerwise: bool = Field(
        False,
        description="each layer's KV leaves as soon as that layer is computed, while the next ones are (as P2pNcclConnector, or layerwise connectors "
        "of Mooncake, do); false: when the prompt, or a chunk of it, is computed",
    )
    overhead: Seconds = Field(0.001, ge=0, description="handshake and notification of one transfer (estimated)")
