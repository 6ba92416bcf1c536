# mypy: disable-error-code="no-untyped-def, no-untyped-call, misc"
"""Data-parallel ranks of SGLang: schedulers of their own, or (``enable_dp_attention``) ranks that share the experts and step together.

*Source*: SGLang 0.5.23 ``managers/scheduler_components/dp_attn.py`` (a rank without work runs an idle batch while any rank has tokens; a prompt
on any rank takes the decode graph from all), ``server_args.py`` (what is divided by the number of ranks), ``arg_groups/memory_hook.py``.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import sim.engine.confer  # noqa: F401 - declares the functions implemented here
from sim.engine.contract import Ranks, Site
from sim.errors import ConfigError, NotModelledError

if TYPE_CHECKING:
    from sim.engine.schedulers.sglang.params import SglangParams


def refuse_ranks(params: SglangParams, site: Site) -> None:
    """Raise for what DP attention needs (`ConfigError`) or what is not modelled with it (`NotModelledError`)."""
    if not params.enable_dp_attention:
        return
    if site.dp == 1:
        raise ConfigError("engine.enable_dp_attention", True, "needs data-parallel ranks", "false", "set deployment.dp")
    if site.model is not None and not site.model.is_moe:
        raise NotModelledError(
            "engine.enable_dp_attention", True, "the gathered dense layers of a model without experts are not modelled", "false"
        )
    if site.pp > 1:
        raise NotModelledError("deployment.pp", site.pp, "pipeline stages with DP attention are not modelled", "1")
    if params.speculative_algorithm is not None:
        raise NotModelledError(
            "engine.speculative_algorithm", params.speculative_algorithm, "speculation with DP attention is not modelled", "null"
        )
    if params.scheduler_recv_interval > 1:
        raise NotModelledError(
            "engine.scheduler_recv_interval", params.scheduler_recv_interval, "is not modelled with DP attention", "1"
        )


def server_site(params: SglangParams, site: Site) -> Site:
    """The site as the server's arguments see it: under DP attention ``--tp`` counts the accelerators of all ranks."""
    return replace(site, tp=site.tp * site.dp) if params.enable_dp_attention else site


def graph_reserve(params: SglangParams, site: Site, max_bs: int) -> float:
    """MiB that the decode graphs of DP attention take beside those of a single rank."""
    if not params.enable_dp_attention:
        return 0.0
    return (3.0 + (1.5 if max_bs > 300 else 0.0)) * max_bs * site.dp


def divided(params: SglangParams, site: Site) -> SglangParams:
    """``chunked_prefill_size`` and ``max_running_requests`` are those of all ranks together. Raises `ConfigError`."""
    if not params.enable_dp_attention:
        return params
    new: dict[str, int] = {}
    chunk, most = params.chunked_prefill_size, params.max_running_requests
    if chunk > 0:
        new["chunked_prefill_size"] = own = chunk // site.dp
        if own == 0 or own % params.page_size:
            raise ConfigError(
                "engine.chunked_prefill_size", chunk, f"must be a multiple of {site.dp} ranks × page_size {params.page_size}"
            )
    if most is not None:
        new["max_running_requests"] = most // site.dp
        if most < site.dp:
            raise ConfigError("engine.max_running_requests", most, "is divided by the ranks", f"at least {site.dp}")
        new["cuda_graph_max_bs"] = min(params.cuda_graph_max_bs or most, most // site.dp)
    return params.model_copy(update=new)


def ranks_of(params: SglangParams, site: Site) -> Ranks:
    """The ranks behind the data-parallel controller."""
    method = params.load_balance_method
    if method == "auto" and params._role == "prefill":  # ``server_args.py``; the rank follows from the number of the hand-over
        method = "follow_bootstrap_room"
    settings = {"load_balance_method": method, "load_watch_interval": params.load_watch_interval}
    return Ranks(site.dp, params.enable_dp_attention, "sglang_dp", settings)


def confer_sglang(s, said):
    """Nothing that would change a decision: token counts and modes decide the time of the step."""


def heed_sglang(s, said, step):
    """Nothing either."""


def unfinished_sglang(s):
    """Work in the queue or in the batch."""
    return s.n_run > 0 or s.chunked >= 0 or s.w_hi > s.w_lo


def at_rest_sglang(s):
    """Nothing to do, and the last decision found that out."""
    idle = s.n_run == 0 and s.chunked < 0 and s.w_hi == s.w_lo and s.n_ready == 0 and s.n_out == 0
    return idle and s.last < 0 and s.n_ended == 0 and s.interval_left == 0
