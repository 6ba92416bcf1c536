"""llama-bench: JSON of tests of one prompt (pp) or one answer (tg)."""

from __future__ import annotations

from collections.abc import Iterator

from sim.document import Json
from sim.registry import register
from sim.study.accuracy.point import Told
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Run, refusal


@register("bench")
class LlamaBench(Bench):
    """``[{n_prompt, n_gen, avg_ts, …}]`` (``llama-bench -o json`` or ``jsonl``): tokens per second of one sequence, prompts and answers timed apart.

    Source: ggml-org/llama.cpp, tools/llama-bench.
    """

    name = "llama-bench"
    title = "llama-bench JSON"

    def fits(self, document: Document) -> bool:
        """By its names."""
        return {"n_prompt", "n_gen", "avg_ts"} <= set(document.first)

    def runs(self, document: Document) -> Iterator[Run]:
        """One run a test."""
        for number, record in enumerate(document.records, 1):
            keys = Keys(document.path, record, f"[{number}]")
            yield self._run(keys, f"{document.path.name}[{number}]")

    def _run(self, keys: Keys, name: str) -> Run:
        for key in ("n_prompt", "n_gen", "avg_ts"):
            keys.needed(key)
        prompt, output, speed = keys.count("n_prompt") or 0, keys.count("n_gen") or 0, keys.number("avg_ts") or 0.0
        said: dict[str, Json] = {"engine": "llama.cpp"}
        if not speed:
            return refusal(self.name, name, "avg_ts is 0: nothing was measured", said)
        if keys.count("n_depth"):
            return refusal(self.name, name, "starts from a filled context (n_depth), which is not simulated", said)
        if prompt and output:
            return refusal(self.name, name, "times a prompt and its answer together (pg), which is not simulated", said)
        traffic: Told = {
            "kind": "static_batch",
            "batch": 1,
            "prompt_tokens": max(prompt, 1),
            "output_tokens": max(output, 1),
        }
        measured = {"input_tokens_per_s": speed} if prompt else {"step_s.decode": 1.0 / speed}
        return Run(self.name, name, {}, traffic, measured, said, ("prompts and answers are timed alone, without a server",))
