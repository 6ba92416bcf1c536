"""KV connectors as ``--kv-transfer-config`` names them: between engines (NIXL), or to tiers behind one engine (native offloading, LMCache)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from sim.engine.contract import Site
from sim.engine.effect import needs
from sim.engine.tiers.plan import GIB, Medium, TierPlan, bytes_per_token, host_memory
from sim.errors import ConfigError, NotModelledError
from sim.units import Bytes, Seconds

if TYPE_CHECKING:
    from sim.engine.schedulers.vllm.params import VllmParams

TO_TIERS = ("OffloadingConnector", "LMCacheConnectorV1")
Connector = Literal["NixlConnector", "OffloadingConnector", "LMCacheConnectorV1"]


class ConnectorExtra(BaseModel):
    """``kv_connector_extra_config`` of the OffloadingConnector."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    cpu_bytes_to_use: Bytes | None = Field(None, ge=0, description="host memory for KV, of all ranks together")
    block_size: int | None = Field(
        None, ge=1, description="tokens of an offloaded block, a multiple of the engine's; default its own"
    )
    eviction_policy: Literal["lru", "arc"] = Field("lru", description="only lru is modelled")
    store_threshold: int = Field(0, ge=0, description="only 0 and 1 are modelled: every block is kept")
    load_timeout_seconds: float = Field(
        30.0,
        gt=0,
        description="a load that takes longer is named; vLLM computes again then",
        json_schema_extra={"effect": "none", "why": "loads that take longer are counted and said, not computed again"},
    )


class LMCacheConfig(BaseModel):
    """LMCache's configuration, as its file (``LMCACHE_CONFIG_FILE``) spells it; sizes in GiB per worker."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    chunk_size: int = Field(256, ge=1, description="tokens that are kept under one hash")
    local_cpu: bool = Field(True, description="keep chunks in host memory")
    max_local_cpu_size: float = Field(5.0, ge=0, description="host memory for KV")
    max_local_disk_size: float = Field(0.0, ge=0, description="disk for KV; 0: none")
    remote_url: str | None = Field(
        None, description="a remote store, shared by all replicas; one of Mooncake (mooncakestore://) evicts as that does"
    )
    save_decode_cache: bool = Field(False, description="keep generated tokens too")
    cache_policy: Literal["LRU", "LFU", "FIFO", "MRU", "S3FIFO"] = Field("LRU", description="only LRU is modelled")
    use_layerwise: bool = Field(False, description="only false is modelled")
    enable_async_loading: bool = Field(
        False, description="what disks and remote stores have comes into host memory while the request waits, not within the step"
    )
    disk_bandwidth: Bytes = Field(
        5 * 10**9, gt=0, description="bytes per second of the disk, each way (no setting of LMCache; an NVMe disk)"
    )
    disk_latency: Seconds = Field(0.0001, ge=0, description="of one read or write (no setting of LMCache)")
    remote_bandwidth: Bytes = Field(
        12_500_000_000, gt=0, description="bytes per second to and from the remote store (no setting of LMCache; 100 Gb/s)"
    )
    remote_latency: Seconds = Field(0.001, ge=0, description="of one transfer with the remote store (no setting of LMCache)")
    max_remote_size: float = Field(1024.0, gt=0, description="GiB that the remote store keeps (no setting of LMCache)")


class KVTransferConfig(BaseModel):
    """``--kv-transfer-config``: a NIXL-like connector that pulls, with the times that the network takes; or one to tiers."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    kv_connector: Connector = Field(
        "NixlConnector", description="between prefill and decode side, or to tiers behind this engine"
    )
    kv_role: Literal["kv_producer", "kv_consumer", "kv_both"] = Field(
        description="prefill side or decode side; kv_both with connectors to tiers"
    )
    kv_load_failure_policy: Literal["fail", "recompute"] = Field(
        "fail",
        description="what becomes of a request on the decode side whose KV does not come, as its prefill replica has died",
        json_schema_extra=needs("faults"),
    )
    kv_connector_extra_config: ConnectorExtra | None = Field(None, description="settings of the OffloadingConnector")
    transfer_base: Seconds = Field(0.003, ge=0, description="latency of one transfer")
    transfer_per_token: Seconds = Field(0.0, ge=0, description="time per prompt token transferred")
    idle_poll: Seconds = Field(
        0.001, gt=0, description="pause of the core when it has nothing to schedule but something to wait for"
    )


def shared(description: str, **more: Any) -> Any:
    """A field that matters only where prompts share prefixes."""
    return Field(None, description=description, json_schema_extra=needs("shared prefixes"), **more)


def changed(given: BaseModel, name: str) -> bool:
    """Whether a setting has another value than its default."""
    return bool(getattr(given, name) != type(given).model_fields[name].default)


def connector_of(p: VllmParams) -> KVTransferConfig | None:
    """The connector, given or derived from ``kv_offloading_size`` (``config/vllm.py: _post_init_kv_transfer_config``). Raises `ConfigError`."""
    given: KVTransferConfig | None = p.kv_transfer_config
    if p.kv_offloading_size is None:
        if p.kv_offloading_backend is not None:
            raise ConfigError("engine.kv_offloading_backend", p.kv_offloading_backend, "goes with kv_offloading_size", "null")
        return given
    if given is not None:
        raise ConfigError("engine.kv_offloading_size", p.kv_offloading_size, "contradicts kv_transfer_config", "one of the two")
    if (p.kv_offloading_backend or "native") == "lmcache":
        return KVTransferConfig(kv_connector="LMCacheConnectorV1", kv_role="kv_both")
    extra = ConnectorExtra(cpu_bytes_to_use=p.kv_offloading_size * GIB)
    return KVTransferConfig(kv_connector="OffloadingConnector", kv_role="kv_both", kv_connector_extra_config=extra)


def check_connector(p: VllmParams, site: Site) -> None:
    """Raises `ConfigError` and `NotModelledError` for what cannot be, or is not modelled."""
    c = connector_of(p)
    if p.kv_offloading_size is not None and p.minor < 14:
        raise ConfigError("engine.kv_offloading_size", p.kv_offloading_size, f"version {p.version} has no such setting", "null")
    lmcache = c is not None and c.kv_connector == "LMCacheConnectorV1"
    if p.LMCACHE_CONFIG_FILE is not None and not lmcache:
        raise ConfigError("engine.LMCACHE_CONFIG_FILE", "set", "is read by the LMCacheConnectorV1", "null")
    if c is None:
        return
    to_tiers = c.kv_connector in TO_TIERS
    if to_tiers != (c.kv_role == "kv_both"):
        raise ConfigError(
            "engine.kv_transfer_config.kv_role", c.kv_role, f"is not a role of the {c.kv_connector} here",
            "kv_both" if to_tiers else "kv_producer, kv_consumer",
        )  # fmt: skip
    if c.kv_connector_extra_config is not None and c.kv_connector != "OffloadingConnector":
        raise ConfigError(
            "engine.kv_transfer_config.kv_connector_extra_config", "set", "holds settings of the OffloadingConnector", "null"
        )
    if not to_tiers:
        return
    for name in ("transfer_base", "transfer_per_token"):
        if changed(c, name):
            raise ConfigError(
                f"engine.kv_transfer_config.{name}", getattr(c, name), "the host's links carry the KV", "leave it out"
            )
    _check_tiers(p, site, c)


def _check_tiers(p: VllmParams, site: Site, c: KVTransferConfig) -> None:
    name = c.kv_connector
    if not p.enable_prefix_caching:
        raise ConfigError("engine.enable_prefix_caching", False, f"the {name} knows blocks by their hashes", "true")
    if p.speculative_config is not None:
        raise NotModelledError("engine.speculative_config", "set", f"drafts beside the {name} are not modelled", "null")
    if site.pp > 1:
        raise NotModelledError("deployment.pp", site.pp, f"is not modelled with the {name}", "1")
    if site.accelerator is not None and site.accelerator.is_cpu:
        raise ConfigError("engine.kv_transfer_config", name, "a CPU has its KV in host memory already", "null")
    extra, field = c.kv_connector_extra_config, "engine.kv_transfer_config.kv_connector_extra_config"
    if name == "OffloadingConnector":
        if extra is None or extra.cpu_bytes_to_use is None:
            raise ConfigError(f"{field}.cpu_bytes_to_use", None, "is required by the OffloadingConnector", "a size such as 64GB")
        if (extra.block_size or p.block_size) % p.block_size:
            raise ConfigError(f"{field}.block_size", extra.block_size, "must be a multiple of block_size", f"{p.block_size}·n")
        if extra.eviction_policy != "lru":
            raise NotModelledError(f"{field}.eviction_policy", extra.eviction_policy, "is not modelled", "lru")
        if extra.store_threshold > 1:
            raise NotModelledError(f"{field}.store_threshold", extra.store_threshold, "is not modelled", "0, 1")
    else:
        _check_lmcache(p)


def _check_lmcache(p: VllmParams) -> None:
    f, field = p.LMCACHE_CONFIG_FILE or LMCacheConfig(), "engine.LMCACHE_CONFIG_FILE"
    if f.chunk_size % p.block_size:
        raise ConfigError(f"{field}.chunk_size", f.chunk_size, "must be a multiple of block_size", f"{p.block_size}·n")
    if f.cache_policy != "LRU":
        raise NotModelledError(f"{field}.cache_policy", f.cache_policy, "is not modelled", "LRU")
    if f.use_layerwise:
        raise NotModelledError(f"{field}.use_layerwise", True, "is not modelled", "false")
    if f.enable_async_loading and f.max_local_disk_size == 0 and f.remote_url is None:
        raise ConfigError(f"{field}.enable_async_loading", True, "there is no disk or remote store to load from", "false")
    needs_one = {"disk_bandwidth": f.max_local_disk_size > 0, "disk_latency": f.max_local_disk_size > 0} | {
        name: f.remote_url is not None for name in ("remote_bandwidth", "remote_latency", "max_remote_size")
    }
    for name, there in needs_one.items():
        if changed(f, name) and not there:
            medium = "disk (max_local_disk_size)" if name.startswith("disk") else "remote store (remote_url)"
            raise ConfigError(f"{field}.{name}", getattr(f, name), f"there is no {medium}", "leave it out")
    if p.kv_offloading_size is not None and changed(f, "max_local_cpu_size"):
        raise ConfigError(f"{field}.max_local_cpu_size", f.max_local_cpu_size, "contradicts kv_offloading_size", "one of the two")
    if not f.local_cpu and f.max_local_disk_size == 0 and f.remote_url is None:
        raise ConfigError(f"{field}.local_cpu", False, "leaves no place for KV", "true, or a disk or remote store")


def tiers_of(p: VllmParams, site: Site) -> TierPlan | None:
    """The tiers behind an engine under resolved settings; None: there are none, or nothing fits into them."""
    c = connector_of(p)
    if c is None or c.kv_connector not in TO_TIERS:
        return None
    per_token = bytes_per_token(site)
    extra = c.kv_connector_extra_config
    if c.kv_connector == "OffloadingConnector":
        assert extra is not None
        tokens = extra.block_size or p.block_size
        plan = TierPlan(tokens, tokens * per_token, (host_memory(float(extra.cpu_bytes_to_use or 0), site),))
    else:
        f = p.LMCACHE_CONFIG_FILE or LMCacheConfig()
        workers = site.tp * site.pp
        size = f.max_local_cpu_size * workers if p.kv_offloading_size is None else p.kv_offloading_size
        media = [host_memory(size * GIB if f.local_cpu else 0.0, site)]
        if f.max_local_disk_size > 0:
            media.append(
                Medium("disk", f.max_local_disk_size * workers * GIB, f.disk_bandwidth, f.disk_bandwidth, f.disk_latency)
            )
        if f.remote_url is not None:
            rate = f.remote_bandwidth
            media.append(Medium("remote", f.max_remote_size * GIB, rate, rate, f.remote_latency, shared=True))
        plan = TierPlan(f.chunk_size, f.chunk_size * per_token, tuple(media))
    return plan if any(plan.blocks(k) > 0 for k in range(len(plan.media))) else None
