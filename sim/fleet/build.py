"""From a scenario to the pools of a run: model, accelerator, memory, step cost, engines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sim import registry
from sim.cost.build import build_step_cost
from sim.cost.evidence import Evidence, merge_notes
from sim.cost.extras import Extras, adapter_bytes
from sim.cost.layout import Layout
from sim.cost.memory import Budget, Line, memory_budget
from sim.cost.profile import EngineProfile, load_engine_profile
from sim.cost.together import build_rank_cost
from sim.engine.adapters import set_adapters
from sim.engine.contract import Ranks, Scheduler, Site
from sim.engine.seam import Group
from sim.engine.state import new_recorder
from sim.errors import ConfigError, NotModelledError
from sim.hardware import Accelerator, load_accelerator, node_of
from sim.model import ModelSpec, load_model
from sim.model.serving import cache_warning, served
from sim.policy.router import ReplicaFacts

_ROWS = 1024  # first size of the recorder; it grows


@dataclass(frozen=True)
class Plan:
    """One pool, resolved but not yet built: everything that can be wrong with a deployment is found while planning."""

    name: str
    field: str
    replicas: int
    model: ModelSpec
    accelerator: Accelerator
    layout: Layout
    scheduler: type[Scheduler]
    params: Any
    site: Site
    budget: Budget | None
    profile: EngineProfile
    cost: Any
    evidence: Evidence
    share: float = 1.0
    """Weight of this pool's model among the requests, where several models share one accelerator."""
    several: bool = False
    """Whether the pools of the fleet are models that share one accelerator."""
    role: str = ""
    """``prefill`` or ``decode`` in a disaggregated deployment."""
    ranks: Ranks | None = None
    """Data-parallel ranks of one replica, if it has several."""
    given: Any = None
    """Settings as the user wrote them, nothing filled in."""
    shared: Any = None
    """What the ranks share in a step (`sim.cost.shared`), where they step together."""

    @property
    def rank_count(self) -> int:
        """Schedulers of one replica."""
        return 1 if self.ranks is None else self.ranks.n

    @property
    def accelerators(self) -> int:
        """Accelerators of the whole pool."""
        return self.replicas * self.layout.tp * self.layout.pp * self.layout.dp

    @property
    def kv_blocks(self) -> int:
        """KV blocks of one replica, or of one data-parallel rank; 0 where the engine does not manage KV memory."""
        return self.budget.kv_blocks if self.budget else 0

    @property
    def max_context(self) -> int:
        """Longest prompt + output of a request."""
        return self.scheduler.max_context(self.params, self.site)

    def build(self, bins: int, width: float, histogram: tuple[int, float, float]) -> Group:
        """The engines. ``bins`` of ``width`` seconds per time series; ``histogram`` of ITL: bins, lowest edge, bins per factor e."""
        n = self.replicas * self.rank_count
        recorder = new_recorder(n, bins, width, _ROWS, *histogram)
        new_state = self.scheduler.new_state
        states = [new_state(self.params, self.site, self.kv_blocks, i, recorder, self.cost) for i in range(n)]
        if (adapters := self.scheduler.adapters(self.params)) is not None:
            for state in states:
                set_adapters(state, adapters.on_device, adapters.in_host or 0)
        if self.ranks is None:
            group: Group = self.scheduler.group(states, recorder)
        else:
            from sim.fleet.ranks import ranked_group

            group = ranked_group(states, recorder, self.ranks, self.shared, self.facts)
        group.set_front(self.profile.client_serial)
        return group

    @property
    def facts(self) -> ReplicaFacts:
        """What routers may know of one replica."""
        ranks = self.layout.tp * self.layout.pp
        size = self.budget.block_size if self.budget else 1
        per_token = self.model.kv_bytes_per_token(self.layout.tp, self.layout.pp)
        names = ("maxBatchSize", "max_num_seqs", "max_running_requests")
        slots = next((n for name in names if (n := getattr(self.params, name, None)) is not None), 0)
        return ReplicaFacts(size, per_token * ranks, self.scheduler.name, slots=int(slots), role=self.role)


def plan(scenario: Any) -> list[Plan]:
    """The pools of a scenario. Raises `ConfigError` (and its kin) for whatever cannot be deployed."""
    wanted = scenario.model
    model = load_model(wanted.config or wanted.name, weights=wanted.weights, kv_cache=wanted.kv_cache)
    pools = scenario.pools
    if pools is None:
        return [_plan(scenario.deployment, model, "main", "deployment", scenario.traffic)]
    several = any(pool.model is not None for pool in pools)
    plans = []
    for i, pool in enumerate(pools):
        own = pool.model
        served = model if own is None else load_model(own.config or own.name, weights=own.weights, kv_cache=own.kv_cache)
        found = _plan(pool, served, pool.name, f"pools[{i}]", scenario.traffic)
        if pool.share != 1.0 and not several:
            raise ConfigError(f"pools[{i}].share", pool.share, "is the weight of a model, and no pool names its own", "1")
        plans.append(replace(found, share=pool.share, several=several, role=pool.role or ""))
    if several:
        from sim.fleet.ollama_host import check_host

        check_host(plans, scenario.router.name)
    if plans[0].role:
        from sim.fleet.disaggregation import check_sides

        check_sides(plans)
    return plans


def accelerators(plans: Sequence[Plan]) -> int:
    """Accelerators of all pools; models that share one count it once."""
    return max(p.accelerators for p in plans) if plans[0].several else sum(p.accelerators for p in plans)


def _plan(section: Any, model: ModelSpec, name: str, field: str, traffic: Any) -> Plan:
    accelerator = load_accelerator(section.accelerator, f"{field}.accelerator")
    size, network = node_of(accelerator, section.node, section.network, field)
    layout = Layout(section.tp, section.pp, section.dp, section.ep, section.expert_imbalance, None, network, size)
    model.check_parallelism(layout.tp, layout.pp, layout.ep, layout.dp, field)
    scheduler, given = engine_of(section.engine, f"{field}.engine")
    if section.expert_imbalance > 1.0 and (layout.ep == 1 or not model.is_moe):
        raise ConfigError(
            f"{field}.expert_imbalance", section.expert_imbalance, "matters only to experts spread over ranks", hint="set ep > 1"
        )
    written = given
    if getattr(section, "role", None) is not None:
        given = scheduler.as_side(given, section.role)
    model = served(model, scheduler.follows_checkpoint_kv)
    site = Site(model, accelerator, layout.tp, layout.pp, layout.dp, layout.ep, section.kv_blocks)
    params = scheduler.resolve(given, site)
    ranks = scheduler.ranks(params, site)
    if ranks is not None and not ranks.together:  # engines of their own, which share nothing
        model.check_parallelism(layout.tp, layout.pp, layout.ep, 1, field)
        site = replace(site, dp=1)
    budget = _budget(scheduler, params, site, field)
    profile = load_engine_profile(
        section.profile or scheduler.profile or scheduler.name, getattr(params, "version", None), accelerator.name
    )
    profile = host(scheduler, params, model, profile, traffic.endpoint == "chat")
    if traffic.structured_output and not profile.structured_row:
        why = f"is not modelled for {scheduler.name} {getattr(params, 'version', '')}".rstrip()
        raise NotModelledError("traffic.structured_output", traffic.structured_output, why, "0")
    extras = replace(scheduler.extras(params, site) or Extras(), structured=traffic.structured_output)
    tokens = scheduler.max_batch_tokens(params, site)
    cost, shared, evidence = step_costs(model, accelerator, replace(layout, dp=site.dp), profile, tokens, extras, ranks)
    warning = cache_warning(model, scheduler.own_caches)
    if warning is not None:
        evidence = replace(evidence, notes=merge_notes([warning], evidence.notes))
    return Plan(
        name, field, section.replicas, model, accelerator, layout, scheduler, params, site, budget, profile, cost, evidence,
        ranks=ranks, shared=shared, given=written,
    )  # fmt: skip


def host(scheduler: type[Scheduler], params: Any, model: ModelSpec, profile: EngineProfile, chat: bool) -> EngineProfile:
    """The host side under the engine's settings and the endpoint that clients call."""
    profile = scheduler.host(params, profile)
    harmony = model.architecture.lower().replace("_", "").startswith("gptoss")  # rendered without the tokenizer's template
    return profile.for_chat() if chat and not harmony else profile


def step_costs(
    model: ModelSpec,
    accelerator: Accelerator,
    layout: Layout,
    profile: EngineProfile,
    tokens: int,
    extras: Extras,
    ranks: Ranks | None = None,
) -> tuple[Any, Any, Evidence]:
    """The cost of a step, what ranks that step together share in it (else None), and what both rest on."""
    if ranks is not None and ranks.together:
        return build_rank_cost(model, accelerator, layout, profile, tokens, extras)
    cost, evidence = build_step_cost(model, accelerator, layout, profile, tokens, extras)
    return cost, None, evidence


def engine_of(section: Any, field: str) -> tuple[type[Scheduler], Any]:
    """The scheduler class of an ``engine`` section and its validated settings."""
    from sim.config import settings

    settings_given: Mapping[str, Any] = dict(section.settings)
    scheduler: type[Scheduler] = registry.lookup("engine", section.name, f"{field}.name").edition(settings_given)
    return scheduler, settings(scheduler.Params, settings_given, field)


def _adapter_lines(scheduler: type[Scheduler], params: Any, site: Site) -> tuple[Line, ...]:
    """Places for adapters on the device, which are taken whether adapters come or not."""
    adapters = scheduler.adapters(params)
    if adapters is None:
        return ()
    size = adapters.on_device * adapter_bytes(site.model, adapters.rank, site.tp) / site.pp
    return (Line("adapters", size, "estimated", f"{adapters.on_device} of rank {adapters.rank} in 16 bits, all linear layers"),)


def _budget(scheduler: type[Scheduler], params: Any, site: Site, field: str) -> Budget | None:
    rule = scheduler.memory_rule(params, site)
    if rule is None:
        return None
    pinned = site.kv_blocks
    # as the engines do when they start: one request of the longest length must fit
    context = getattr(params, "max_model_len", None) if pinned is None else None
    more = _adapter_lines(scheduler, params, site)
    budget = memory_budget(site.model, site.accelerator, rule, site.tp, site.pp, site.ep, site.dp, context, field, more)
    return budget if pinned is None else budget.pinned(pinned, f"{field}.kv_blocks")
