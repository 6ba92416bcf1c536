"""What a replica can do at best, from its step cost alone: candidates that cannot hold the SLO are never simulated.

For `N` requests of `p` prompt and `o` output tokens every step obeys ``t(step) >= t(its decode rows alone)`` and
``t(step) >= a (its tokens)`` with ``a`` the least time per token of any step. So the time for all of them is at least
``N max(o min_b t(b)/b, a (p + o))``, over the batches `b` that fit the engine and whose step is no longer than the TPOT target: whoever
meets it on average must decode at least that fast. Prompts that may be cached count nothing. The bound is generous, never too low.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sim import ledger
from sim.cost import features as f
from sim.cost.step import step_time
from sim.fleet.build import Plan
from sim.metrics.slo import Slo, loosest
from sim.workload.base import Traffic

if TYPE_CHECKING:
    from sim.study.single import Prepared

_LOOK = 10_000


@dataclass(frozen=True)
class Demand:
    """What the traffic asks for, from its first requests. Tokens; ``prompt_at``: the prompt length that ``attainment`` of them do not exceed."""

    prompt: float
    output: float
    prompt_at: float
    prefixes: bool


@dataclass(frozen=True)
class Bound:
    """``rate``: requests per second that one replica cannot exceed; ``guess``: what it may really do; ``hopeless``: why none holds the SLO."""

    rate: float
    guess: float
    hopeless: str = ""


def demand(traffic: Traffic, attainment: float) -> Demand:
    """Mean lengths of the first requests."""
    prompts, outputs, shared, seen = [], [], False, 0
    for block in traffic.blocks():
        prompts.append(block.prompt_tokens)
        outputs.append(block.output_tokens)
        shared |= bool(block.span_off[-1])
        seen += len(block)
        if seen >= _LOOK:
            break
    p, o = np.concatenate(prompts), np.concatenate(outputs)
    return Demand(float(p.mean()), float(o.mean()), float(np.quantile(p, attainment)), shared)


def bound(plan: Plan, need: Demand, slo: Slo) -> Bound:
    """The bound of one replica of a pool without a role and without ranks that step together."""
    most = plan.scheduler.max_batch_tokens(plan.params, plan.site)
    context = need.prompt + need.output / 2.0
    own = plan.budget is not None and plan.budget.shared is None and not need.prefixes  # each token has a place of its own
    held = plan.budget.kv_tokens / context if own and plan.budget else 2048.0
    rows = sorted({1, *(int(b) for b in np.geomspace(1, max(min(held, most, 2048), 1), 24))})
    decode = {b: _time(plan, decode_rows=b, context=context) for b in rows}
    alone = decode[1]
    if slo.tpot is not None and need.output > 1 and alone / (1 + _drafts(plan)) > slo.tpot:
        return Bound(0.0, 0.0, f"a token takes {alone * 1e3:.1f} ms in an empty engine; the SLO asks for {slo.tpot * 1e3:.1f} ms")
    first = 0.0 if need.prefixes else _prompt(plan, need.prompt_at, most)
    if slo.ttft is not None and first > slo.ttft:
        what = (
            f"a prompt of {need.prompt_at:,.0f} tokens takes {first:.2f} s in an empty engine; the SLO asks for {slo.ttft:.2f} s"
        )
        return Bound(0.0, 0.0, what)
    target = None if slo.tpot is None else slo.tpot * (1 + _drafts(plan))
    per_output = min(t / b for b, t in decode.items() if target is None or t <= target)
    grid = sorted({1, *(int(n) for n in np.geomspace(1, most, 16))})
    per_token = min(_time(plan, prompt=n) / n for n in grid)
    prompt = 0.0 if need.prefixes else need.prompt
    drafts = 1 + _drafts(plan)  # at best every draft is accepted
    at_once = plan.layout.pp * plan.rank_count  # stages that work on batches of their own, and engines of their own
    least = max(need.output * per_output / drafts, per_token * (prompt + need.output / drafts))
    likely = need.output * per_output / drafts**0.5 + per_token * prompt
    return Bound(at_once / least, at_once / likely)


def _drafts(plan: Plan) -> int:
    extras = plan.scheduler.extras(plan.params, plan.site)
    return extras.draft_tokens if extras is not None else 0


def _time(plan: Plan, *, decode_rows: int = 0, context: float = 0.0, prompt: int = 0, before: int = 0) -> float:
    feat = np.zeros(f.N_FEATURES)
    feat[f.TOKENS] = decode_rows + prompt
    feat[f.DECODE_ROWS] = feat[f.DECODE_TOKENS] = decode_rows
    feat[f.DECODE_CTX] = decode_rows * context
    feat[f.LARGEST_CTX] = max(context, prompt + before)
    if prompt:
        feat[f.PREFILL_ROWS], feat[f.PREFILL_TOKENS] = 1, prompt
        feat[f.PREFILL_WORK], feat[f.PREFILL_CTX] = prompt * (before + prompt / 2.0), before + prompt
    feat[f.ROWS] = decode_rows + (prompt > 0)
    feat[f.SAMPLED] = max(decode_rows, 1)
    return float(step_time(plan.cost, feat, np.zeros(ledger.N_PARTS)))


def _prompt(plan: Plan, tokens: float, most: int) -> float:
    """Seconds to compute a prompt alone, in chunks of the engine's budget."""
    total, done = 0.0, 0
    while done < int(tokens):
        n = min(int(tokens) - done, most)
        total += _time(plan, prompt=n, before=done)
        done += n
    return total


def bounded(plans: list[Plan]) -> bool:
    """Whether `bound` can be asked: one pool, without a role, no ranks in lock-step."""
    return len(plans) == 1 and not plans[0].role and plans[0].shared is None and not plans[0].several


def of_scenario(prepared: Prepared) -> Bound | None:
    """The bound of a prepared scenario's replica; None where it has none."""
    if not bounded(prepared.plans) or prepared.traffic.closed_loop is not None:
        return None
    slo, share = loosest(prepared.scenario)
    return bound(prepared.plans[0], demand(prepared.traffic, share), slo)
