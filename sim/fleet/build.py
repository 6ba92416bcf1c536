"""From a scenario to the pools of a run (model, accelerator, memory, step cost, engines), and from them to the stations of its world."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from sim import registry
from sim.config.deployment import Pool
from sim.cost.build import build_step_cost
from sim.cost.evidence import Evidence, merge_notes
from sim.cost.extras import Extras, adapter_bytes
from sim.cost.layout import Layout
from sim.cost.machines import alike
from sim.cost.memory import Budget, Deployment, Divides, Line, memory_budget
from sim.cost.profile import EngineProfile, load_engine_profile
from sim.cost.sampling import asked
from sim.cost.together import build_rank_cost
from sim.engine.adapters import set_adapters
from sim.engine.contract import Ranks, Scheduler, Site
from sim.engine.seam import Group
from sim.engine.state import add_pools, new_recorder
from sim.engine.unfit import unfit
from sim.errors import ConfigError, NotModelledError
from sim.fleet.breakage import check_faults, make_faults
from sim.fleet.checks import check_apart, check_host, check_sides
from sim.fleet.door import make_policies
from sim.fleet.refused import BREAKS, REFUSED
from sim.fleet.routers import make_routers
from sim.hardware import Accelerator, load_accelerator, node_of
from sim.model import ModelSpec, load_model
from sim.model.serving import served
from sim.policy.router import ReplicaFacts

if TYPE_CHECKING:
    from sim.config.base import Engine
    from sim.config.deployment import Deployment as Section
    from sim.config.scenario import Scenario
    from sim.config.traffic import Traffic
    from sim.cost.shared import SharedCost
    from sim.cost.step import StepCost
    from sim.engine.contract import EngineParams
    from sim.engine.recorder import Recorder
    from sim.engine.state import EngineState
    from sim.engine.tiers.plan import TierPlan

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
    scheduler: type[Scheduler[Any]]
    params: EngineParams
    site: Site
    budget: Budget | None
    profile: EngineProfile
    cost: StepCost
    evidence: Evidence
    share: float = 1.0
    """Weight of this pool's model among the requests, where several models share one accelerator."""
    several: bool = False
    """Whether the pools of the fleet are models that share one accelerator."""
    apart: bool = False
    """Whether the pools of the fleet serve several models, each on accelerators of its own."""
    role: str = ""
    """``prefill`` or ``decode`` in a disaggregated deployment."""
    ranks: Ranks | None = None
    """Data-parallel ranks of one replica, if it has several."""
    given: EngineParams | None = None
    """Settings as the user wrote them, nothing filled in."""
    shared: SharedCost | None = None
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
        if self.budget is not None and self.budget.pools:
            add_pools(recorder, len(self.budget.pools))
        states = [self.engine(i, recorder) for i in range(n)]
        group: Group
        if self.ranks is None:
            group = engines = self.scheduler.group(states, recorder)
        else:
            from sim.fleet.ranks import ranked_group

            group = ranked_group(self.scheduler, states, recorder, self.ranks, self.shared, self.facts)
            engines = group.inner
        if (tiers := self.tiers) is not None:
            from sim.engine.tiers.group import GroupWithTiers

            assert isinstance(engines, GroupWithTiers)
            engines.with_tiers(tiers)
        group.set_front(self.profile.client_serial)
        return group

    def processes(self, replica: int, recorder: Recorder) -> list[EngineState]:
        """The states of new processes in the place of a replica's, one of each rank."""
        first = replica * self.rank_count
        return [self.engine(k, recorder) for k in range(first, first + self.rank_count)]

    def engine(self, number: int, recorder: Recorder) -> EngineState:
        """The state of one new process."""
        state = self.scheduler.new_state(self.params, self.site, self.kv_blocks, number, recorder, self.cost)
        if (adapters := self.scheduler.adapters(self.params)) is not None:
            set_adapters(state, adapters.on_device, adapters.in_host or 0)
        return state

    @property
    def tiers(self) -> TierPlan | None:
        """What keeps KV outside the accelerators, a `sim.engine.tiers.plan.TierPlan`; None: nothing does."""
        return self.scheduler.tiers(self.params, self.site, self.kv_blocks)

    @property
    def facts(self) -> ReplicaFacts:
        """What routers may know of one replica."""
        ranks = self.layout.tp * self.layout.pp
        size = self.budget.block_size if self.budget else 1
        per_token = self.model.kv_bytes_per_token(self.layout.tp, self.layout.pp)
        slots = self.scheduler.most_running(self.params)
        return ReplicaFacts(size, per_token * ranks, self.scheduler.name, slots=slots, role=self.role)


def plan(scenario: Scenario) -> list[Plan]:
    """The pools of a scenario. Raises `ConfigError` (and its kin) for whatever cannot be deployed."""
    wanted = scenario.model
    model = load_model(wanted.config or wanted.name or "", weights=wanted.weights, kv_cache=wanted.kv_cache)
    pools = scenario.pools
    if pools is None:
        assert scenario.deployment is not None, "a scenario has one of the two"
        plans = [_plan(scenario.deployment, model, "main", "deployment", scenario.traffic)]
        refuse(plans, scenario)
        return plans
    several = any(pool.model is not None for pool in pools)
    plans = []
    for i, pool in enumerate(pools):
        own = pool.model
        served = model if own is None else load_model(own.config or own.name or "", weights=own.weights, kv_cache=own.kv_cache)
        found = _plan(pool, served, pool.name, f"pools[{i}]", scenario.traffic)
        if pool.share != 1.0 and not several:
            raise ConfigError(f"pools[{i}].share", pool.share, "is the weight of a model, and no pool names its own", "1")
        plans.append(replace(found, share=pool.share, role=pool.role or ""))
    if several:
        one_card = all(p.scheduler.name == "ollama" for p in plans)
        plans = [replace(p, several=one_card, apart=not one_card) for p in plans]
        check_host(plans) if one_card else check_apart(plans)
    if plans[0].role:
        check_sides(plans)
    refuse(plans, scenario)
    return plans


def accelerators(plans: Sequence[Plan]) -> int:
    """Accelerators of all pools; models that share one count it once."""
    return max(p.accelerators for p in plans) if plans[0].several else sum(p.accelerators for p in plans)


def _plan(section: Section, model: ModelSpec, name: str, field: str, traffic: Traffic) -> Plan:
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
    if isinstance(section, Pool) and section.role is not None:
        given = scheduler.as_side(given, section.role)
    model = served(model, scheduler.follows_checkpoint_kv)
    site = Site(model, accelerator, layout.tp, layout.pp, layout.dp, layout.ep, section.kv_blocks)
    params = scheduler.resolve(given, site)
    ranks = scheduler.ranks(params, site)
    if ranks is not None and not ranks.together:  # engines of their own, which share nothing
        model.check_parallelism(layout.tp, layout.pp, layout.ep, 1, field)
        site = replace(site, dp=1)
    budget = _budget(scheduler, params, site, field)
    if budget is not None and budget.pools:
        site = replace(site, extra=site.extra | {"pools": {p.name: p.size for p in budget.pools}})
    profile = load_engine_profile(
        section.profile or scheduler.profile or scheduler.name, getattr(params, "version", None), *alike(accelerator)
    )
    profile = host(scheduler, params, model, profile, traffic.endpoint == "chat")
    if traffic.structured_output and not profile.structured_row:
        why = f"is not modelled for {scheduler.name} {getattr(params, 'version', '')}".rstrip()
        raise NotModelledError("traffic.structured_output", traffic.structured_output, why, "0")
    sampling = asked(traffic, profile, scheduler.name)
    extras = replace(scheduler.extras(params, site) or Extras(), structured=traffic.structured_output, sampling=sampling)
    tokens = scheduler.max_batch_tokens(params, site)
    cost, shared, evidence = step_costs(model, accelerator, replace(layout, dp=site.dp), profile, tokens, extras, ranks)
    if profile.step_scatter > 0.0:
        sigma = f"steps scatter about their mean by {100 * profile.step_scatter:g} % (log-normal), as measured of this engine and accelerator"
        evidence = replace(evidence, notes=merge_notes(evidence.notes, [sigma]))
    if warnings := [*unfit(scheduler.name, site), *scheduler.cache_notes(params, site)]:
        evidence = replace(evidence, notes=merge_notes(warnings, evidence.notes))
    return Plan(
        name, field, section.replicas, model, accelerator, layout, scheduler, params, site, budget, profile, cost, evidence,
        ranks=ranks, shared=shared, given=written,
    )  # fmt: skip


def host(
    scheduler: type[Scheduler[Any]], params: EngineParams, model: ModelSpec, profile: EngineProfile, chat: bool
) -> EngineProfile:
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
) -> tuple[StepCost, SharedCost | None, Evidence]:
    """The cost of a step, what ranks that step together share in it (else None), and what both rest on."""
    if ranks is not None and ranks.together:
        return build_rank_cost(model, accelerator, layout, profile, tokens, extras)
    cost, evidence = build_step_cost(model, accelerator, layout, profile, tokens, extras)
    return cost, None, evidence


def engine_of(section: Engine, field: str) -> tuple[type[Scheduler[Any]], EngineParams]:
    """The scheduler class of an ``engine`` section and its validated settings."""
    from sim.config import settings

    settings_given: Mapping[str, object] = dict(section.settings)
    scheduler: type[Scheduler[Any]] = registry.lookup("engine", section.name, f"{field}.name").edition(settings_given)
    return scheduler, settings(scheduler.Params, settings_given, field)


def _adapter_lines(scheduler: type[Scheduler[Any]], params: EngineParams, site: Site) -> tuple[Line, ...]:
    """Places for adapters on the device, which are taken whether adapters come or not."""
    adapters = scheduler.adapters(params)
    if adapters is None:
        return ()
    size = adapters.on_device * adapter_bytes(site.spec, adapters.rank, site.tp) / site.pp
    return (Line("adapters", size, "estimated", f"{adapters.on_device} of rank {adapters.rank} in 16 bits, all linear layers"),)


def _budget(scheduler: type[Scheduler[Any]], params: EngineParams, site: Site, field: str) -> Budget | None:
    rule = scheduler.memory_rule(params, site)
    if rule is None:
        return None
    pinned = site.kv_blocks
    # as the engines do when they start: one request of the longest length must fit
    context = scheduler.must_fit(params) if pinned is None else None
    more = _adapter_lines(scheduler, params, site)
    budget = memory_budget(site.spec, site.card, rule, site.tp, site.pp, site.ep, site.dp, context, field, more)
    if pinned is None:
        return budget
    budget = budget.pinned(pinned, f"{field}.kv_blocks")
    d = Deployment(site.spec, site.card, site.tp, site.pp, site.ep, site.dp)
    divided = rule.divide(d, budget.kv_bytes, budget.kv_tokens) if isinstance(rule, Divides) else None
    return budget if divided is None else replace(budget, pools=divided.pools)


# -- what cannot be combined


def refuse(plans: Sequence[Plan], scenario: Scenario) -> None:
    """Raise `NotModelledError` for two features of a scenario that do not go together. Raises `ConfigError` for a router that cannot be."""
    router = make_routers(plans, scenario.router, scenario.seed)[0]
    has: dict[str, tuple[str, object]] = {}
    if scenario.scaling is not None:
        has["scaling"] = "scaling", scenario.scaling.name
        if plans[0].role:
            has["scaled roles"] = "scaling", scenario.scaling.name
    for i, policy in enumerate(make_policies(scenario.admission, 1, scenario.seed)):
        if hasattr(policy.params, "detector"):
            has["a saturation detector"] = f"admission[{i}].name", policy.name
    if scenario.clients is not None:
        has["clients"] = "clients.name", scenario.clients.name
    broken = make_faults(scenario.faults)
    check_faults(broken, plans)
    for i, fault in enumerate(broken):
        has["faults"] = f"faults[{i}].name", fault.name
        if fault.touches in BREAKS:
            has[BREAKS[fault.touches]] = f"faults[{i}].name", fault.name
    if not router.elastic:
        has["a router of a fixed fleet"] = "router.name", scenario.router.name
    if router.coordinates:
        has["a coordinator"] = "router.name", scenario.router.name
    if router.migration is not None:
        has["migration"] = "router", scenario.router.name
    if scenario.transfer is not None and scenario.transfer.layerwise:
        has["layer-wise transfers"] = "transfer.layerwise", True
    if scenario.record.token_times:
        has["token times"] = "record.token_times", True
    for p in plans:
        if p.apart:
            has["models apart"] = f"{p.field}.model", p.model.name
        if p.several:
            has["several models"] = f"{p.field}.model", p.model.name
        if p.role:
            has["roles"] = f"{p.field}.role", p.role
        if p.ranks is not None:
            has["ranks"] = f"{p.field}.dp", p.layout.dp
            if p.ranks.together:
                has["ranks that step together"] = f"{p.field}.dp", p.layout.dp
    for pair in REFUSED:
        if pair.one in has and pair.other in has:
            field, value = has[pair.other]
            if pair.allowed == "elastic":
                names = ", ".join(n for n in registry.names("router") if registry.lookup("router", n).elastic)
                raise NotModelledError(field, value, pair.why, names, "a router of your own says `elastic = True`")
            raise NotModelledError(field, value, pair.why, pair.allowed)
