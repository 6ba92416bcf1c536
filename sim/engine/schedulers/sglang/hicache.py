"""HiCache's settings: what is refused, how much host memory and storage there is at what speed, and which rules the storage has."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from pydantic import BaseModel, ConfigDict, Field

from sim.engine.contract import Site
from sim.engine.schedulers.sglang.pools import kind_of
from sim.engine.schedulers.sglang.state import PLAIN
from sim.engine.tiers.plan import EVICTS, GIB, LEASE, PLACES, WATERMARK, Medium, TierPlan, bytes_per_token, host_memory
from sim.errors import ConfigError, NotModelledError
from sim.units import Bytes, Seconds

if TYPE_CHECKING:
    from sim.engine.schedulers.sglang.params import SglangParams

_SETTINGS = ("hicache_ratio", "hicache_size", "hicache_write_policy", "hicache_io_backend", "hicache_mem_layout")
_OF_STORAGE = ("hicache_storage_prefetch_policy", "hicache_storage_backend_extra_config")
PREFETCH_POLICIES: Final = ("best_effort", "wait_complete", "timeout")


class StorageConfig(BaseModel):
    """``--hicache-storage-backend-extra-config``, as far as it says when and how long to fetch; and what the storage is."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prefetch_threshold: int = Field(256, ge=1, description="tokens below which nothing is fetched; at least a page")
    prefetch_timeout_base: Seconds = Field(1.0, ge=0, description="timeout: how long a request is passed over")
    prefetch_timeout_per_ki_token: Seconds = Field(0.25, ge=0, description="and for each 1,024 tokens that are fetched")
    bandwidth: Bytes | None = Field(
        None,
        gt=0,
        description="bytes per second between a replica's host and the storage, each way (no setting of SGLang); default: of an NVMe "
        "disk (5 GB/s) with file, of a network of 100 Gb/s with the others",
    )
    latency: Seconds | None = Field(
        None,
        ge=0,
        description="of a transfer of at most 128 pages (no setting of SGLang); default 0.1 ms with file, 1 ms with the others",
    )
    size: float = Field(1024.0, gt=0, description="GiB that the storage keeps (no setting of SGLang)")


@dataclass(frozen=True)
class Backend:
    """A kind of storage. ``high``: share of it above which it evicts; ``step``: share it evicts at once, −1: it never does; ``lease`` in seconds."""

    tier: str
    bandwidth: float
    latency: float
    high: float = 1.0
    step: float = 0.0
    lease: float = 0.0


BACKENDS: Final = {
    "file": Backend("disk", 5e9, 1e-4, step=-1.0),
    "mooncake": Backend("remote", 12.5e9, 1e-3, WATERMARK, EVICTS, LEASE),
    "hf3fs": Backend("remote", 12.5e9, 1e-3),
}
"""*Source*: ``mem_cache/hicache_storage.py: HiCacheFile`` (files are never removed), ``mem_cache/storage/hf3fs`` (the pages written or looked up
least recently make way), Mooncake's ``mooncake-store/include/types.h``. Speeds are assumed."""


def _check_storage(p: SglangParams) -> None:
    name = p.hicache_storage_backend
    if name is None:
        for setting in _OF_STORAGE:
            if getattr(p, setting) != type(p).model_fields[setting].default:
                raise ConfigError(f"engine.{setting}", "set", "goes with hicache_storage_backend", "leave it out")
    elif not p.enable_hierarchical_cache:
        raise ConfigError("engine.hicache_storage_backend", name, "goes with enable_hierarchical_cache", "leave it out")
    elif name not in BACKENDS:
        raise NotModelledError("engine.hicache_storage_backend", name, "is not modelled", ", ".join(BACKENDS))


def check_hicache(p: SglangParams, site: Site) -> None:
    """Raises `ConfigError` and `NotModelledError`."""
    _check_storage(p)
    if not p.enable_hierarchical_cache:
        for name in _SETTINGS:
            if getattr(p, name) != type(p).model_fields[name].default:
                raise ConfigError(f"engine.{name}", getattr(p, name), "goes with enable_hierarchical_cache", "leave it out")
        return
    field = "engine.enable_hierarchical_cache"
    if p._role == "decode":
        why = "a decode server keeps no radix cache, which HiCache is, without disaggregation_decode_enable_radix_cache"
        raise NotModelledError(field, True, f"{why}, which is not modelled", "false", "the prefill side may have it")
    if p.disable_radix_cache:
        raise ConfigError("engine.disable_radix_cache", True, "HiCache is a radix cache", "false")
    if p.speculative_algorithm is not None:
        raise NotModelledError(field, True, "is not modelled with speculative decoding", "false")
    if kind_of(p, site.model) != PLAIN:
        why = "copies in host memory of models whose layers forget are not modelled"
        raise NotModelledError(field, True, why, "false", "disable_hybrid_swa_memory: true for window layers")
    if p.radix_eviction_policy == "mru":
        raise NotModelledError(
            "engine.radix_eviction_policy", "mru", "is not modelled with HiCache", "lru, lfu, slru, fifo, filo"
        )


def pool_tokens(p: SglangParams, blocks: int) -> int:
    """Tokens of the device's pool of so many pages."""
    tokens: int = blocks * p.page_size
    return tokens if p.max_total_tokens is None else min(tokens, p.max_total_tokens // p.page_size * p.page_size)


def host_tokens(p: SglangParams, site: Site, device: int) -> int:
    """Tokens that host memory keeps beside ``device`` of them; whole pages. *Source*: ``mem_cache/memory_pool_host.py: HostKVCache``."""
    if not p.enable_hierarchical_cache:
        return 0
    tokens = p.hicache_ratio * device
    if p.hicache_size > 0:
        tokens = p.hicache_size * 1e9 * site.tp / bytes_per_token(site)
    return int(tokens) // p.page_size * p.page_size


def host_plan(p: SglangParams, site: Site, device: int) -> TierPlan | None:
    """The tiers of a replica whose device keeps ``device`` tokens; None: there are none. Their blocks are tokens."""
    tokens = host_tokens(p, site, device)
    if tokens == 0:
        return None
    size = bytes_per_token(site)
    host = host_memory(tokens * size, site)
    if p.hicache_storage_backend is None:
        return TierPlan(1, size, (host,))
    c, kind = p.hicache_storage_backend_extra_config or StorageConfig(), BACKENDS[p.hicache_storage_backend]
    rate = float(c.bandwidth or kind.bandwidth)
    latency = kind.latency if c.latency is None else c.latency
    return TierPlan(1, size, (host, Medium(kind.tier, c.size * GIB, rate, rate, latency, shared=kind.tier == "remote")))


def storage_settings(p: SglangParams, plan: TierPlan) -> dict[str, object] | None:
    """`sim.engine.schedulers.sglang.storage.StorageSettings` by name; None: there is no storage. ``p``: resolved settings."""
    if p.hicache_storage_backend is None:
        return None
    c, kind = p.hicache_storage_backend_extra_config or StorageConfig(), BACKENDS[p.hicache_storage_backend]
    medium, pages = plan.media[1], plan.blocks(1) // p.page_size
    return {
        "tier": PLACES[kind.tier],
        "pages": pages,
        "high": int(kind.high * pages),
        "step": -1 if kind.step < 0 else int(kind.step * pages),
        "lease": kind.lease,
        "read": p.page_size * plan.bytes / medium.read,
        "write": p.page_size * plan.bytes / medium.write,
        "latency": medium.latency,
        "threshold": c.prefetch_threshold,
        "policy": PREFETCH_POLICIES.index(p.hicache_storage_prefetch_policy),
        "base": float(c.prefetch_timeout_base),
        "per_ki_token": float(c.prefetch_timeout_per_ki_token),
    }
