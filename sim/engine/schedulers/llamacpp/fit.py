"""What fits on the card: context and layers. The margin of 1 GiB per device stays free.

*Source*: llama.cpp 0c1e570 common/fit.cpp ``common_params_fit``: the context first, if it was not set; then whole layers from the back of
the model; of models with experts the layers without these, and where all of them fit, experts from the front. That one more layer may be
split between card and CPU is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from sim.cost.memory import GIB, Deployment
from sim.cost.memory_rules import LlamaCppRule
from sim.cost.placement import Placement, Sizes
from sim.errors import ConfigError, NotModelledError
from sim.hardware import load_accelerator
from sim.units import show_bytes

if TYPE_CHECKING:
    from sim.engine.contract import Site

MARGIN = 1.0 * GIB
MIN_CTX = 4096  # per stream
_PAD = 256


def room(site: Site, rule: LlamaCppRule, margin: float = MARGIN) -> float:
    """Bytes over all cards for weights and KV cache."""
    d = Deployment(site.model, site.accelerator, tp=site.tp)
    fixed = sum(line.bytes for line in rule.parts(d)[1:])
    return float(site.tp * (site.card.memory_bytes - fixed - margin))


def fit_context(site: Site, rule: LlamaCppRule) -> int:
    """``n_ctx`` over all slots that fits with the margin: between 4,096 per stream and the model's own."""
    top = int(site.spec.max_position)
    if site.accelerator is None:
        return top
    streams = 1 if rule.kv_unified else rule.n_parallel
    step = _PAD * streams
    have = room(site, rule)

    def fits(n_ctx: int) -> bool:
        return sum(replace(rule, n_ctx=n_ctx).sizes(site.model).on_card(None)) <= have

    low = min(MIN_CTX * streams, top)
    if fits(top):
        return top
    lowest, highest = low // step, top // step
    while highest - lowest > 1:
        middle = (lowest + highest) // 2
        lowest, highest = (middle, highest) if fits(middle * step) else (lowest, middle)
    return max(lowest * step, low)


def last_layers(sizes: Sizes, n_gpu_layers: int, n_cpu_moe: int = 0) -> Placement:
    """The output and the last ``n_gpu_layers`` - 1 layers on the cards; experts of the first ``n_cpu_moe`` layers on the CPU."""
    n = len(sizes.layers)
    cpu = min(max(n + 1 - n_gpu_layers, 0), n)
    return Placement(None, cpu, sum(e > 0 for e in sizes.experts[cpu:n_cpu_moe]), n_gpu_layers == 0)


def fit_layers(sizes: Sizes, have: float, n_cpu_moe: int = 0) -> Placement:
    """Step 3 and 4 of the fit: as much of the model as goes into ``have`` bytes."""
    n = len(sizes.layers)

    def size(p: Placement) -> float:
        return sum(sizes.on_card(p))

    whole = last_layers(sizes, n + 1, n_cpu_moe)
    if size(whole) <= have:
        return whole
    moe = sum(e > 0 for e in sizes.experts)
    on = _most(lambda k: size(_dense(sizes, k)) <= have, n + 1)
    found = _dense(sizes, on)
    if on == n + 1 and moe:
        kept = _most(lambda k: size(replace(found, cpu_experts=moe - k)) <= have, moe)
        found = replace(found, cpu_experts=moe - kept)
    return found


def _dense(sizes: Sizes, n_gpu_layers: int) -> Placement:
    return last_layers(sizes, n_gpu_layers, len(sizes.layers))


def _most(fits: Callable[[int], bool], top: int) -> int:
    k = 0
    while k < top and fits(k + 1):
        k += 1
    return k


def place(
    site: Site, rule: LlamaCppRule, wanted: int, n_cpu_moe: int, host: str, field: str, names: tuple[str, str]
) -> Placement:
    """The placement of a deployment. ``wanted`` layers on the cards (negative: as many as fit); ``names`` of settings for errors.

    Raises `ConfigError` where cards or system memory do not hold their parts.
    """
    sizes, layers = rule.sizes(site.model), site.spec.layers + 1
    best = fit_layers(sizes, room(site, rule), n_cpu_moe)
    found = best if wanted < 0 else last_layers(sizes, wanted, n_cpu_moe)
    if wanted >= 0 and sum(sizes.on_card(found)) > (have := room(site, rule, 0.0)):
        most = _most(lambda k: sum(sizes.on_card(last_layers(sizes, k, n_cpu_moe))) <= have, layers)
        size = show_bytes(sum(sizes.on_card(found)))
        raise ConfigError(
            f"{field}.{names[0]}",
            wanted,
            f"these layers and their KV cache take {size}, {site.card.title} has {show_bytes(max(have, 0.0))} for them",
            f"0..{most}",
            f"{layers - best.cpu_layers - best.head_on_cpu} fit with the usual margin; or a smaller {names[1]}, or fewer weight bits",
        )
    return on_host(site, sizes, found, host, rule.n_ubatch, field, names)


def on_host(
    site: Site,
    sizes: Sizes,
    found: Placement,
    host: str,
    n_ubatch: int,
    field: str,
    names: tuple[str, str],
    op_offload: bool = True,
) -> Placement:
    """``found`` with the processor that has the rest. Raises `ConfigError` where its memory does not hold it."""
    if found.whole:
        return replace(found, n_ubatch=n_ubatch)
    if site.card.vendor == "apple":
        raise NotModelledError(
            f"{field}.{names[0]}",
            site.spec.layers + 1 - found.cpu_layers - found.head_on_cpu,
            f"{site.spec.name} does not fit on {site.card.title}, and layers on a processor that shares its memory are not modelled",
            "all layers",
            f"a smaller {names[1]}, fewer weight bits or more memory",
        )
    processor = load_accelerator(host, f"{field}.host")
    if not processor.is_cpu:
        raise ConfigError(
            f"{field}.host", host, "is no processor", "cpu-desktop, cpu-server, or the path of a profile of your own"
        )
    need = sizes.on_host(found)
    if need > processor.memory_bytes:
        raise ConfigError(
            f"{field}.host",
            host,
            f"{site.spec.name} fits neither on {site.card.title} nor beside it: what is left takes {show_bytes(need)}, "
            f"{processor.title} has {show_bytes(processor.memory_bytes)}",
            hint=f"a host with more memory, more cards, a smaller {names[1]} or fewer weight bits (weights are {site.spec.weights})",
        )
    return replace(found, host=processor, n_ubatch=n_ubatch, op_offload=op_offload)
