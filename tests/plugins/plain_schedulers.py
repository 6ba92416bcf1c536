"""Twins of compiled schedulers in plain Python."""

from pydantic import Field

from sim.engine.plain import PlainParams, PlainScheduler


class StaticParams(PlainParams):
    max_batch_size: int = Field(8, ge=1)
    max_queue_delay: float = Field(0.0, ge=0)
    max_num_batched_tokens: int = 65536


class PlainStatic(PlainScheduler):
    """A batch is formed, runs until its last member is done, then the next is formed."""

    name = "plain-static"
    profile = "static"
    Params = StaticParams
    rule = None
    together = True

    def plan(self, waiting, running, kv):
        if running:
            return dict.fromkeys(running, 1)
        batch = waiting[: self.params.max_batch_size]
        due = batch[0].arrival + self.params.max_queue_delay
        if len(batch) < self.params.max_batch_size and self.now < due:
            self.wake_at(due)
            return {}
        return {r: r.prompt for r in batch}


class PlainVllm(PlainScheduler):
    """vLLM without asynchronous scheduling and prefix caching: running requests first, then the queue, recompute preemption."""

    name = "plain-vllm"
    profile = "vllm"

    def plan(self, waiting, running, kv):
        batch, budget, running, preempted = {}, self.params.max_num_batched_tokens, list(running), False
        for request in tuple(running):
            tokens = min(request.left, budget)
            while tokens and request in running and not kv.take(request, tokens):
                kv.evict(running.pop())
                preempted = True
            if request not in running or not tokens:
                break
            batch[request] = tokens
            budget -= tokens
        for request in waiting:
            tokens = min(request.left, budget)
            if preempted or not tokens or len(running) == self.params.max_num_seqs or not kv.fits(request, request.left):
                break
            kv.take(request, tokens)
            batch[request] = tokens
            budget -= tokens
            running.append(request)
        return batch
