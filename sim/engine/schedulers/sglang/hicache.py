"""HiCache's settings: what is refused, and how much host memory there is at what speed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.contract import Site
from sim.engine.schedulers.sglang.pools import kind_of
from sim.engine.schedulers.sglang.state import PLAIN
from sim.engine.tiers.plan import TierPlan, bytes_per_token, host_memory
from sim.errors import ConfigError, NotModelledError

if TYPE_CHECKING:
    from sim.engine.schedulers.sglang.params import SglangParams

_SETTINGS = ("hicache_ratio", "hicache_size", "hicache_write_policy", "hicache_io_backend", "hicache_mem_layout")


def check_hicache(p: SglangParams, site: Site) -> None:
    """Raises `ConfigError` and `NotModelledError`."""
    if p.hicache_storage_backend is not None:
        why = "storage behind host memory is not modelled"
        raise NotModelledError("engine.hicache_storage_backend", p.hicache_storage_backend, why, "null")
    if not p.enable_hierarchical_cache:
        for name in _SETTINGS:
            if getattr(p, name) != type(p).model_fields[name].default:
                raise ConfigError(f"engine.{name}", getattr(p, name), "goes with enable_hierarchical_cache", "leave it out")
        return
    field = "engine.enable_hierarchical_cache"
    if p.disable_radix_cache:
        raise ConfigError("engine.disable_radix_cache", True, "HiCache is a radix cache", "false")
    if p._role or p.speculative_algorithm is not None:
        what = f"on a {p._role} side" if p._role else "with speculative decoding"
        raise NotModelledError(field, True, f"is not modelled {what}", "false")
    if site.pp > 1 or site.dp > 1:
        where, value = ("deployment.pp", site.pp) if site.pp > 1 else ("deployment.dp", site.dp)
        raise NotModelledError(where, value, "is not modelled with HiCache", "1")
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
    """The tier of a replica whose device keeps ``device`` tokens; None: there is none. Its blocks are tokens."""
    tokens = host_tokens(p, site, device)
    if tokens == 0:
        return None
    size = bytes_per_token(site)
    return TierPlan(1, size, (host_memory(tokens * size, site),))
