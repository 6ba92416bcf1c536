"""The same steady loads to servesim and to tools that install from the registry: one table of TTFT, TPOT and tokens/s, and the time that each took."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import time
import venv
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
FOLDER = HERE / ".peers"
PEERS = ("aiconfigurator==0.12.0",)


@dataclass(frozen=True)
class Question:
    """``concurrency`` requests at once, all of the same lengths (tokens), on one replica of ``tp`` cards."""

    model: str
    hub: str
    card: str
    engine: str
    tp: int
    concurrency: int
    prompt: int
    answer: int

    def __str__(self) -> str:
        return f"{self.model} · {self.engine} · {self.tp} × {self.card} · {self.concurrency} at once · {self.prompt} + {self.answer} tokens"


QUESTIONS = (
    Question("qwen3-32b", "Qwen/Qwen3-32B", "h100-sxm", "vllm", 2, 16, 1024, 256),
    Question("qwen3-32b", "Qwen/Qwen3-32B", "h100-sxm", "vllm", 2, 64, 2048, 512),
    Question("qwen3-32b", "Qwen/Qwen3-32B", "h200-sxm", "sglang", 2, 32, 1024, 256),
    Question("qwen3-235b-a22b", "Qwen/Qwen3-235B-A22B", "h200-sxm", "vllm", 8, 32, 1024, 256),
)

Answer = dict[str, float]


def servesim(q: Question) -> Answer:
    """TTFT and TPOT in ms, output tokens/s; the first tenth is left out as warm-up."""
    import sim

    scenario = sim.loads(
        f"""
model: {q.model}
traffic:
  synthetic:
    arrival: {{process: burst}}
    lengths: {{kind: fixed, prompt_tokens: {q.prompt}, output_tokens: {q.answer}}}
    requests: {q.concurrency * 20}
  closed_loop: {{concurrency: {q.concurrency}}}
deployment: {{accelerator: {q.card}, tp: {q.tp}, engine: {q.engine}}}
"""
    )
    summary = sim.run(scenario).summary
    latency = summary["latency"]
    return {
        "ttft_ms": 1e3 * latency["ttft_s"]["mean"],
        "tpot_ms": 1e3 * latency["tpot_s"]["mean"],
        "tokens_per_s": summary["throughput"]["output_tokens_per_s"],
    }


def aiconfigurator(q: Question) -> Answer:
    """`aiconfigurator cli estimate`: measured kernels, steady state, no scheduler."""
    system = q.card.replace("-", "_")
    out = _call(
        "aiconfigurator", "cli", "estimate", "--no-color", "--model-path", q.hub, "--system", system, "--backend", q.engine, "--isl", q.prompt,
        "--osl", q.answer, "--batch-size", q.concurrency, "--tp-size", q.tp,
        *(("--moe-tp-size", q.tp, "--moe-ep-size", 1) if "-a" in q.model else ()),
    )  # fmt: skip
    return {
        "ttft_ms": _figure(out, r"TTFT:\s+"),
        "tpot_ms": _figure(out, r"TPOT:\s+"),
        "tokens_per_s": _figure(out, r"tokens/s:\s+"),
    }


def _call(program: str, *arguments: object) -> str:
    done = subprocess.run(
        [str(FOLDER / "bin" / program), *map(str, arguments)], capture_output=True, text=True, timeout=300, check=False
    )
    if done.returncode:
        raise RuntimeError((done.stderr.strip().splitlines() or ["no reason given"])[-1][:120])
    return done.stdout


def _figure(text: str, label: str) -> float:
    found = re.search(label + r"([\d,.]+)", text)
    if not found:
        raise RuntimeError(f"its output has no {label!r}")
    return float(found[1].replace(",", ""))


def main() -> None:
    """Install what is missing, ask everyone everything, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--no-install", action="store_true", help="use the environment that is there")
    if not parser.parse_args().no_install:
        venv.create(FOLDER, with_pip=True)
        subprocess.run([str(FOLDER / "bin" / "pip"), "install", "-q", *PEERS], check=True)
    for question in QUESTIONS:
        print(f"\n{question}")
        for ask in (servesim, aiconfigurator):
            start = time.perf_counter()
            try:
                a = ask(question)
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                print(f"  {ask.__name__:<15} no answer: {error}")
                continue
            seconds = time.perf_counter() - start
            print(
                f"  {ask.__name__:<15} TTFT {a['ttft_ms']:8.1f} ms   TPOT {a['tpot_ms']:6.2f} ms   {a['tokens_per_s']:9,.0f} tokens/s   in {seconds:.1f} s"
            )


if __name__ == "__main__":
    sys.exit(main())
