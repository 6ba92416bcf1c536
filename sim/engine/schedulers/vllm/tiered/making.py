"""What the tiers of an engine core are made from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sim.engine.schedulers.vllm.connectors import LMCacheConfig, connector_of
from sim.engine.schedulers.vllm.tiered.state import TierSettings
from sim.engine.tiers.plan import EVICTS, LEASE, WATERMARK, TierPlan
from sim.jit import by_name

if TYPE_CHECKING:
    from sim.engine.schedulers.vllm.params import VllmParams


def tier_settings(p: VllmParams, plan: TierPlan) -> TierSettings:
    """Sizes and speeds by unit. ``p``: resolved settings."""
    c = connector_of(p)
    assert c is not None
    lmcache = c.kv_connector == "LMCacheConnectorV1"
    file = p.LMCACHE_CONFIG_FILE or LMCacheConfig()
    extra = c.kv_connector_extra_config
    told: dict[str, object] = {}
    for name in ("cpu", "disk", "remote"):
        told |= {name: 0, f"{name}_read": 0.0, f"{name}_write": 0.0, f"{name}_latency": 0.0}
    for k, m in enumerate(plan.media):
        told |= {
            m.name: plan.blocks(k),
            f"{m.name}_read": plan.bytes / m.read,
            f"{m.name}_write": plan.bytes / m.write,
            f"{m.name}_latency": m.latency,
        }
    store = int(str(told["remote"]))
    mooncake = (file.remote_url or "").startswith("mooncakestore")
    return by_name(
        TierSettings,
        high=int(WATERMARK * store) if mooncake else store,
        step=int(EVICTS * store) if mooncake else 0,
        lease=LEASE if mooncake else 0.0,
        unit=plan.tokens // p.block_size,
        with_step=lmcache,
        ahead=lmcache and file.enable_async_loading,
        keeps_cpu=file.local_cpu,
        keeps_output=not lmcache or file.save_decode_cache,
        reloads=lmcache or p.minor >= 14,
        late=extra.load_timeout_seconds if extra is not None else 1e18,
        **told,
    )
