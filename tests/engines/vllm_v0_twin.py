"""vLLM V0's scheduler once more, in plain Python with queues of objects: what the compiled engine is compared with.

Written from `vllm/core/scheduler.py`, `block_manager_v1.py` and `block_manager_v2.py` of the releases named in `random_case`, not from ours.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(eq=False)
class Seq:
    id: int
    arrival: int
    prompt: int
    stop: int
    priority: int = 0
    lora: int = 0
    len: int = 0
    done: int = 0
    prefill: bool = True
    blocks: int = 0
    ended: bool = False
    ran: bool = False

    @property
    def new(self) -> int:
        return self.len - self.done if self.prefill else 1


@dataclass
class Budget:
    tokens: int
    seqs: int
    used: int = 0
    ids: set[int] = field(default_factory=set)

    def fits(self, tokens: int) -> bool:
        return self.used + tokens <= self.tokens and len(self.ids) + 1 <= self.seqs

    @property
    def left(self) -> int:
        return self.tokens - self.used


class Twin:
    """``c``: settings. ``steps``: (time, rows [(id, tokens)], free blocks after the decision); ``events``: (kind, id)."""

    def __init__(self, c: dict[str, Any], seqs: list[Seq]) -> None:
        self.c = c
        self.coming = deque(seqs)
        self.waiting: deque[Seq] = deque()
        self.running: deque[Seq] = deque()
        self.swapped: deque[Seq] = deque()
        self.total = self.free = c["blocks"]
        self.host = c["host"]
        self.watermark = int(0.01 * c["blocks"])
        self.now = 0
        self.prev_time, self.prev_prompt, self.latency = 0, False, 0
        self.copied = 0
        self.steps: list[Any] = []
        self.events: list[tuple[str, int]] = []
        self.release = tuple(c["release"])
        self.v2 = c["v2"]

    # -- block manager
    def blocks_of(self, tokens: int) -> int:
        return -(-tokens // self.c["size"])

    def can_allocate(self, seq: Seq) -> str:
        need = self.blocks_of(seq.len)
        if self.total - need < self.watermark:
            return "never"
        return "ok" if self.free - need >= self.watermark else "later"

    def touched(self, seq: Seq) -> int:
        if not self.v2:
            return 1
        size = self.c["size"]
        full, unseen = (seq.len, 0) if seq.prefill else (seq.len - 1, 1)
        tokens = unseen + (0 if seq.prefill else self.c["lookahead"])
        first = size - full % size
        return 1 + -((first - tokens) // size) if tokens else (0 if first == size else 1)

    def append(self, seq: Seq) -> None:
        if not seq.prefill:
            need = self.blocks_of(seq.len + self.c["lookahead"])
            self.free -= max(need - seq.blocks, 0)
            seq.blocks = max(need, seq.blocks)
        assert self.free >= 0

    def can_swap_in(self, seq: Seq) -> str:
        if self.v2:
            need = (seq.len if seq.prefill else seq.len - 1) // self.c["size"] + self.touched(seq)
        else:
            need = seq.blocks + 1
        if self.release >= (4, 0) and self.total < need:
            return "never"
        return "ok" if self.free - need >= self.watermark else "later"

    # -- leaving
    def give_up(self, seq: Seq) -> None:
        self.events.append(("ignored", seq.id))

    def preempt(self, seq: Seq) -> str:
        if seq.ended:
            self.free += seq.blocks
            return "gone"
        self.free += seq.blocks
        if self.c["mode"] == "recompute":
            seq.blocks, seq.prefill, seq.done = 0, True, 0
            self.events.append(("recompute", seq.id))
            return "recompute"
        full = seq.len if seq.prefill else seq.len - 1
        if seq.blocks > self.host or (self.v2 and full // self.c["size"] + 1 > self.host):
            self.give_up(seq)
            return "failed"
        self.host -= seq.blocks
        self.copied += seq.blocks
        self.swapped.append(seq)
        self.events.append(("swap out", seq.id))
        return "swap"

    # -- the schedule
    def delay_passed(self) -> bool:
        if self.prev_prompt:
            self.latency = self.now - self.prev_time
        self.prev_time, self.prev_prompt = self.now, False
        if not self.c["delay"] or not self.waiting:
            return True
        if self.release >= (5, 5) or self.oldest is None:
            self.oldest = min(s.arrival for s in self.waiting)
        return self.now - self.oldest > self.c["delay"] * self.latency or not self.seen_running

    def prefills(self, budget: Budget, loras: set[int]) -> list[Seq]:
        chunked, out, skipped = self.c["chunked"], [], deque()
        lengths: list[int] = []
        self.oldest = None
        while self.delay_passed() and self.waiting:
            seq = self.waiting[0]
            n = min(seq.new, budget.left) if chunked else seq.new
            can = self.can_allocate(seq)
            if can == "later":
                break
            if can == "never":
                self.give_up(self.waiting.popleft())
                continue
            if self.c["loras"] and seq.lora and seq.lora not in loras and len(loras) >= self.c["loras"]:
                skipped.append(self.waiting.popleft())
                continue
            if self.release < (4, 0):
                padded = [*lengths, n]
                area = len(padded) * max(padded)
                if area > budget.tokens or len(budget.ids) + 1 > budget.seqs or area - sum(padded) > self.c["paddings"]:
                    break
                lengths = padded
            elif n == 0 or not budget.fits(n):
                break
            self.waiting.popleft()
            if seq.lora:
                loras.add(seq.lora)
            seq.blocks = self.blocks_of(seq.len)
            self.free -= seq.blocks
            budget.ids.add(seq.id)
            budget.used += n
            self.rows.append((seq, n))
            out.append(seq)
        self.waiting.extendleft(reversed(skipped))
        if out:
            self.prev_prompt = True
        return out

    def run_on(self, budget: Budget, loras: set[int]) -> tuple[list[Seq], list[Seq], list[Seq]]:
        """Decodes, prompts, and who is to be computed again; `self.running` keeps who found no tokens."""
        chunked = self.c["chunked"]
        if self.release < (5, 5):
            self.running = deque(sorted(self.running, key=lambda s: s.arrival))
        decodes, prompts, again = [], [], []
        self.lost = 0
        while self.running:
            seq = self.running[0]
            n = min(seq.new, budget.left) if chunked else 1
            if n == 0:
                break
            self.running.popleft()
            while self.touched(seq) > self.free:
                budget.ids.discard(seq.id)
                loras.discard(seq.lora)
                victim = self.running.pop() if self.running else seq
                how = self.preempt(victim)
                self.lost += how != "gone"
                if how == "recompute":
                    again.append(victim)
                if victim is seq:
                    break
            else:
                self.append(seq)
                (prompts if seq.prefill else decodes).append(seq)
                budget.used += n
                if chunked:
                    budget.ids.add(seq.id)
                if seq.lora:
                    loras.add(seq.lora)
                self.rows.append((seq, n))
        return decodes, prompts, again

    def swap_in(self, budget: Budget, loras: set[int]) -> tuple[list[Seq], list[Seq]]:
        if self.release < (5, 5):
            self.swapped = deque(sorted(self.swapped, key=lambda s: s.arrival))
        decodes, prompts, skipped = [], [], []
        while self.swapped:
            seq = self.swapped[0]
            no_adapter = self.c["loras"] and seq.lora and seq.lora not in loras and len(loras) >= self.c["loras"]
            can = self.can_swap_in(seq)
            if no_adapter and (self.release < (4, 0) or can == "ok"):
                skipped.append(self.swapped.popleft())
                continue
            if can == "later":
                break
            if can == "never":
                self.host += seq.blocks
                self.give_up(self.swapped.popleft())
                continue
            if not budget.fits(seq.new):
                break
            self.swapped.popleft()
            if seq.lora:
                loras.add(seq.lora)
            self.host += seq.blocks
            self.free -= seq.blocks
            self.copied += seq.blocks
            self.events.append(("swap in", seq.id))
            self.append(seq)
            (prompts if seq.prefill else decodes).append(seq)
            budget.used += seq.new
            budget.ids.add(seq.id)
            self.rows.append((seq, seq.new))
        self.swapped.extendleft(reversed(skipped))
        return decodes, prompts

    def by_priority(self, budget: Budget) -> None:
        key = lambda s: (s.priority, s.arrival)  # noqa: E731
        self.running = deque(sorted(self.running, key=key))
        if self.waiting:
            head = self.waiting.popleft()
            while self.running and key(self.running[-1]) > key(head):
                if self.can_allocate(head) == "ok" and budget.fits(head.new):
                    break
                victim = self.running.pop()
                budget.ids.discard(victim.id)
                if self.preempt(victim) == "recompute":
                    self.waiting.appendleft(victim)
            self.waiting.appendleft(head)
        self.waiting = deque(sorted(self.waiting, key=key))

    def default(self) -> None:
        budget = Budget(self.c["tokens"], self.c["seqs"], ids={s.id for s in self.running})
        loras = {s.lora for s in self.running if s.lora}
        new: list[Seq] = []
        self.seen_running = len(self.running)
        if not self.swapped:
            new = self.prefills(budget, loras)
        if new:
            self.running.extend(new)
            return
        if self.c["priority"]:
            self.by_priority(budget)
        decodes, _, again = self.run_on(budget, loras)
        back = self.swap_in(budget, loras)[0] if not self.lost else []
        self.waiting.extendleft(again)
        self.running = deque([*decodes, *back])

    def chunks(self) -> None:
        budget = Budget(self.c["tokens"], self.c["seqs"])
        loras: set[int] = set()
        before = len(self.running)
        decodes, prompts, again = self.run_on(budget, loras)
        left = list(self.running)
        self.seen_running = before if self.release < (5, 5) else len(left)
        back, half = self.swap_in(budget, loras) if not self.lost else ([], [])
        new = self.prefills(budget, loras) if budget.left else []
        self.waiting.extendleft(again)
        if self.release >= (7, 3):
            tokens = {s.id: n for s, n in self.rows}
            prompts.sort(key=lambda s: tokens[s.id] != s.len - s.done)
        self.running = deque([*left, *back, *half, *decodes, *prompts, *new])

    def step(self) -> list[tuple[Seq, int]]:
        self.rows: list[tuple[Seq, int]] = []
        while self.waiting or self.running or self.swapped:
            idle = not self.running
            (self.chunks if self.c["chunked"] else self.default)()
            if self.rows:
                break
            if idle and self.swapped:
                seq = self.swapped.popleft()
                self.host += seq.blocks
                self.give_up(seq)
        return self.rows

    def duration(self, rows: list[tuple[Seq, int]]) -> int:
        a, b, c, d = self.c["time"]
        tokens = sum(n for _, n in rows)
        if self.release < (4, 0) and any(s.prefill for s, _ in rows):
            tokens = len(rows) * max(n for _, n in rows)
        ctx = sum(s.len for s, _ in rows if not s.prefill)
        return int(a + b * tokens + c * ctx + d * self.copied)

    def arrive(self) -> None:
        while self.coming and self.coming[0].arrival <= self.now:
            seq = self.coming.popleft()
            if seq.prompt < self.c["length"]:
                seq.len = seq.prompt
                self.waiting.append(seq)

    def run(self) -> None:
        while True:
            self.arrive()
            self.copied = 0
            rows = self.step()
            if not rows:
                if not self.coming:
                    return
                self.now = max(self.now, self.coming[0].arrival)
                continue
            self.steps.append((self.now, [(s.id, n) for s, n in rows], self.free))
            self.now += self.duration(rows)
            for seq in [s for s in self.running if s.ended]:  # the scheduler learns of them during the step
                self.free += seq.blocks
                self.running.remove(seq)
            for seq, n in rows:
                if seq.ended:
                    continue
                if seq.prefill:
                    seq.done += n
                    if seq.done < seq.len:
                        continue
                    seq.prefill = False
                seq.len += 1
                if seq.len == seq.stop:
                    self.events.append(("finish", seq.id))
                    seq.ended = True
                    if not self.c["async"]:
                        self.free += seq.blocks
                        self.running.remove(seq)


RELEASES = ("0.2.7", "0.3.3", "0.4.2", "0.5.4", "0.5.5", "0.6.1", "0.6.2", "0.6.3", "0.6.6", "0.7.2", "0.7.3")


def random_case(rng: np.random.Generator) -> tuple[dict[str, Any], list[Seq]]:
    """Settings as `VllmV0Params` spells them under ``params``, and requests that press on memory, tokens and places."""
    version = str(rng.choice(RELEASES))
    release = tuple(int(n) for n in version.split(".")[1:])
    size = int(rng.choice([1, 4, 16]))
    length = int(rng.choice([48, 96, 200]))
    fits = -(-length // size)
    blocks = int(fits + rng.integers(0, 3) + rng.choice([0, 1, 4]) * rng.integers(0, fits + 1) + rng.choice([0, 100]))
    chunked = bool(release >= (4, 0) and rng.random() < 0.5)
    blocks += chunked  # a chunked prompt that takes all blocks preempts itself for ever
    seqs = int(rng.choice([2, 5, 16]))
    tokens = int(rng.choice([seqs, 24, 64])) if chunked else length + int(rng.choice([0, 100]))
    params: dict[str, Any] = {
        "version": version,
        "block_size": size,
        "max_model_len": length,
        "max_num_seqs": min(seqs, tokens),
        "max_num_batched_tokens": tokens,
    }
    if release < (4, 0):
        params["max_paddings"] = int(rng.choice([10, 40, 256]))
    else:
        params["enable_chunked_prefill"] = chunked
        params["scheduler_delay_factor"] = float(rng.choice([0.0, 0.0, 0.0, 0.5, 2.0]))
    if release >= (6, 2) and rng.random() < 0.3:
        params["scheduling_policy"] = "priority"
    elif release >= (5, 0) and rng.random() < 0.5:
        params["preemption_mode"] = "swap"
    if (4, 0) <= release < (6, 5):
        params["use_v2_block_manager"] = bool(rng.integers(2))
    if params.get("use_v2_block_manager", release >= (6, 3)) and rng.random() < 0.3:
        params["num_lookahead_slots"] = int(rng.integers(1, 6))
    if release >= (6, 0) and rng.random() < 0.4:
        params["disable_async_output_proc"] = True
    if rng.random() < 0.25:
        params["max_loras"] = int(rng.integers(1, 3))
    n = int(rng.integers(1, 60))
    gap = int(rng.choice([0, 200, 2000, 20000]))
    t, out = 0, []
    for i in range(n):
        t += int(rng.integers(0, gap + 1)) if rng.random() < 0.7 else 0
        prompt = int(rng.integers(1, length if rng.random() < 0.3 else length // 3))
        output = int(rng.integers(1, length))
        lora = int(rng.integers(0, 4)) if "max_loras" in params else 0
        out.append(Seq(i, t, prompt, min(prompt + output, length), int(rng.integers(3)), lora))
    case = {
        "params": params,
        "release": release,
        "size": size,
        "length": length,
        "blocks": blocks,
        "host": int(rng.choice([0, fits, 1000])),
        "chunked": chunked,
        "seqs": params["max_num_seqs"],
        "tokens": tokens,
        "paddings": params.get("max_paddings", 0),
        "delay": params.get("scheduler_delay_factor", 0.0),
        "priority": params.get("scheduling_policy") == "priority",
        "mode": params.get("preemption_mode", "recompute"),
        "v2": params.get("use_v2_block_manager", release >= (6, 3)),
        "lookahead": params.get("num_lookahead_slots", 0),
        "async": release >= (6, 0) and not params.get("disable_async_output_proc"),
        "loras": params.get("max_loras", 0),
        "time": (int(rng.integers(100, 1000)), int(rng.integers(0, 10)), int(rng.integers(0, 3)), int(rng.integers(0, 4))),
    }
    return case, out
