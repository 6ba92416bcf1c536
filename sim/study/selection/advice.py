"""Advice in words, English and Chinese: what fits this traffic, and what fits which situation.

The rules are few and readable: figures decide under this traffic; facts (maintenance, hardware, licence) exclude or caution.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from sim.metrics import model_error
from sim.metrics.slo import attained
from sim.study.plan.model_band import ModelBand
from sim.study.within import Within
from sim.units import show_share

TITLES = {
    "vllm": "vLLM", "sglang": "SGLang", "tgi": "TGI", "ollama": "Ollama", "llamacpp": "llama.cpp", "mindie": "MindIE",
    "vllm-ascend": "vllm-ascend", "bladellm": "BladeLLM (PAI-EAS)",
}  # fmt: skip
ARCHIVED = ("tgi",)
CLOSED = {"bladellm": ("only inside Alibaba Cloud PAI", "只能在阿里云 PAI 内使用")}
FEW_USERS = ("ollama", "llamacpp")

SITUATIONS: Sequence[tuple[str, str, str, str]] = (
    ("one machine, few users, quantised models", "Ollama; llama.cpp where every setting matters",
     "单机、少量用户、量化模型", "Ollama；需要逐项控制时用 llama.cpp"),
    ("production on NVIDIA GPUs, many users", "vLLM or SGLang: take the one that is cheaper under your traffic (above)",
     "NVIDIA GPU 上的多用户生产环境", "vLLM 或 SGLang：按上表在您的流量下取成本更低者"),
    ("agents and conversations with long shared prefixes, large mixture-of-experts models", "SGLang, then vLLM; compare with `servesim compare`",
     "长共享前缀的智能体与多轮对话、大型 MoE 模型", "先 SGLang，后 vLLM；用 `servesim compare` 比较"),
    ("an existing TGI deployment", "plan the move to vLLM or SGLang: TGI is in maintenance mode and archived",
     "已有的 TGI 部署", "规划迁移到 vLLM 或 SGLang：TGI 已进入维护模式并归档"),
    ("Huawei Ascend", "vllm-ascend for new models and the vLLM ecosystem; MindIE with Motor for vendor support and P/D in production",
     "华为昇腾", "新模型与 vLLM 生态选 vllm-ascend；需要厂商支持与 P/D 生产部署选 MindIE + Motor"),
    ("Alibaba Cloud, no operations team", "PAI-EAS with BladeLLM (or its vLLM and SGLang images) and its autoscaling",
     "阿里云、无运维团队", "PAI-EAS 上的 BladeLLM（或其 vLLM、SGLang 镜像）及其自动伸缩"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """The best deployment of one engine: ``holds`` with ``size`` replicas (None: none holds), ``accelerators``, ``cost`` an hour if prices are known."""

    engine: str
    label: str
    accelerator: str
    tp: int
    holds: bool
    size: int | None
    accelerators: int | None
    cost: float | None
    figures: Mapping[str, float]
    attainment: float
    attainment_low: float
    why: str = ""
    bands: Mapping[str, Within] = field(default_factory=dict)
    """Figure → where 4 of 5 real deployments like this one would be (`sim.study.plan.model_band.figures`)."""
    model: ModelBand | None = None
    """Replicas within the error of the model; None where nothing is known, or nothing holds."""
    apart: bool = False
    """Whether the SLO demands several things: ``attainment`` is the effective one then."""

    def within(self, to: str = " to ") -> str:
        """``2 to 5``: accelerators within the error of the model; empty where nothing is known."""
        if self.model is None or not self.size or not self.accelerators:
            return ""
        one, m = self.accelerators // self.size, self.model
        if m.low == m.high:
            return f"{one * m.low:,}"
        high = f"{one * m.high:,}" if m.high is not None else f"> {2 * self.accelerators:,}"
        return f"{one * m.low:,}{to}{high}"


def best(rows: Sequence[Row]) -> Row | None:
    """The recommended engine: of those that hold, are maintained and can be run by oneself, the cheapest, else the smallest."""
    able = [r for r in rows if r.holds and r.engine not in ARCHIVED and r.engine not in CLOSED]
    if not able:
        able = [r for r in rows if r.holds]
    priced = all(r.cost is not None for r in able)

    def rank(r: Row) -> tuple[float, float]:
        return (r.cost or 0.0 if priced else float(r.accelerators or 0), -r.attainment)

    return min(able, key=rank, default=None)


def advice(rows: Sequence[Row], currency: str, rate: float, stopped: bool = False) -> tuple[list[str], list[str]]:
    """(English, Chinese): the recommendation under this traffic, then what to mind. ``stopped``: the study was, before its end."""
    top = best(rows)
    if not rows:
        return ["No engine was judged before the study ended."], ["研究结束前未能评估任何引擎。"]
    if top is None and stopped:
        return ["The study ended before any engine was confirmed to hold the SLO."], ["研究在确认任何引擎满足 SLO 之前已结束。"]
    if top is None:
        return ["No engine holds the SLO on the hardware that was tried."], ["在所尝试的硬件上，没有引擎满足 SLO。"]
    name, cards = TITLES.get(top.engine, top.engine), top.accelerators or 0
    money = ("", "") if top.cost is None else (f", {top.cost:,.2f} {currency} per hour", f"，每小时 {top.cost:,.2f} {currency}")
    english = [
        (
            f"Under this traffic ({rate:.4g} requests/s): {name}, {top.size} × {top.accelerator} tp {top.tp} "
            f"({cards} accelerator{'s' if cards != 1 else ''}{money[0]}); {attained(show_share(top.attainment), top.apart, 'the SLO')}."
        )
    ]
    chinese = [
        (
            f"在该流量下（{rate:.4g} 请求/秒）推荐 {name}：{top.size} × {top.accelerator}，tp {top.tp}（共 {cards} 张卡{money[1]}）；"
            + (
                f"SLO 的有效达标率为 {show_share(top.attainment)}。"
                if top.apart
                else f"{show_share(top.attainment)} 的请求满足 SLO。"
            )
        )
    ]
    if (m := top.model) is not None:
        within = f"{top.within()} accelerator{'s' * (top.within() != '1')}{' at either end' * (m.low == m.high)}"
        english[0] += model_error.sentence(within, m.deployments, m.words, m.level)
        what = "您自己的测量点" if m.words == model_error.OWN else f"实测部署（{m.words}）"
        chinese[0] += f"模型误差：按 {m.deployments} 个{what}中 {m.level:.0%} 的偏差，需要 {top.within(' 至 ')} 张卡。"
    close = [r for r in rows if r.holds and r is not top and r.engine not in ARCHIVED and _near(r, top)]
    if close:
        names = [TITLES.get(r.engine, r.engine) for r in close]
        english.append(f"As good within 10 %: {', '.join(names)}. Facts decide between them, not this simulation.")
        chinese.append(f"差距在 10% 以内：{'、'.join(names)}。应由下列事实而非仿真决定。")
    for r in rows:
        if not r.holds:
            continue
        if r.engine in ARCHIVED:
            english.append(f"{TITLES[r.engine]} holds the SLO too, but it is archived: do not choose it for a new deployment.")
            chinese.append(f"{TITLES[r.engine]} 同样满足 SLO，但项目已归档：新部署不应选用。")
        if r.engine in CLOSED:
            english.append(f"{TITLES[r.engine]} runs {CLOSED[r.engine][0]}.")
            chinese.append(f"{TITLES[r.engine]} {CLOSED[r.engine][1]}。")
    slow = [TITLES.get(r.engine, r.engine) for r in rows if r.engine in FEW_USERS and (not r.holds or _times(r, top) >= 2)]
    if slow:
        english.append(
            f"{' and '.join(slow)}: made for few users at once; under this load far more hardware, or none, holds the SLO."
        )
        chinese.append(f"{'、'.join(slow)}：面向少量并发用户；在该负载下需要多得多的硬件，或无法满足 SLO。")
    return english, chinese


def _near(r: Row, top: Row) -> bool:
    if r.cost is not None and top.cost is not None:
        return r.cost <= 1.1 * top.cost
    return (r.accelerators or 0) <= 1.1 * (top.accelerators or 0)


def _times(r: Row, top: Row) -> float:
    return (r.accelerators or 0) / max(top.accelerators or 1, 1)
