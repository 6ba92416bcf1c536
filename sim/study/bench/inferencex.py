"""InferenceX (InferenceMAX): one object a configuration, latencies in s."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from sim.document import Json
from sim.registry import register
from sim.study.bench._base import Bench
from sim.study.bench._document import Document, Keys
from sim.study.bench._run import Run, of_aggregates, of_figures, refusal
from sim.study.bench._sent import Sent

_NAMES = {"ttft": "ttft_s", "tpot": "tpot_s", "itl": "itl_s", "e2el": "e2e_s"}
_STATISTICS = {"mean": "mean", "median": "p50", "p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99"}
_RANGE, _PROMPTS = 0.8, 10


@register("bench")
class InferenceX(Bench):
    """``{hw, framework, precision, tp, ep, conc, isl, osl, tput_per_gpu, output_tput_per_gpu, mean_ttft, p99_tpot …}``, figures also under ``metrics``.

    Clients in a closed loop; lengths uniform between 80 and 100 % of ``isl`` and ``osl``, ten prompts a client, as the suite's benchmark draws them.

    Source: SemiAnalysisAI/InferenceX.
    """

    name = "inferencex"
    title = "InferenceX JSON"

    def fits(self, document: Document) -> bool:
        """By its names."""
        head = document.first
        inner = head.get("metrics")
        return "conc" in head and ("tput_per_gpu" in head or (isinstance(inner, Mapping) and "tput_per_gpu" in inner))

    def runs(self, document: Document) -> Iterator[Run]:
        """One run an object."""
        several = len(document.records) > 1
        for number, record in enumerate(document.records, 1):
            inner = record.get("metrics")
            flat: dict[str, Json] = {**record, **(inner if isinstance(inner, Mapping) else {})}
            inside = f"[{number}]" if several else ""
            yield self._run(Keys(document.path, flat, inside), document.path.name + inside)

    def _run(self, keys: Keys, name: str) -> Run:
        tp = keys.count("tp", low=1) or 1
        said = {
            "model": keys.text("model"), "accelerator": keys.text("hw"), "engine": (keys.text("framework") or "").split("-")[0] or None, "tp": tp,
            "ep": keys.count("ep") or None,
        }  # fmt: skip
        if keys.raw("disagg") in (True, "true") or keys.raw("is_multinode") in (True, "true"):
            return refusal(
                self.name,
                name,
                "is of prefill and decode apart or of several nodes, which is not simulated from these files",
                said,
            )
        spec = keys.text("spec_decoding")
        if spec not in (None, "none", "false", "False"):
            return refusal(self.name, name, f"is with drafts ({spec}), whose acceptance the file does not say", said)
        measured: dict[str, float] = {}
        for theirs, ours in _NAMES.items():
            for stat, mine in _STATISTICS.items():
                value = keys.number(f"{stat}_{theirs}")
                if value:
                    measured[f"{ours}.{mine}"] = value
        value = keys.number("output_tput_per_gpu")
        if value:
            measured["output_tokens_per_s"] = value * tp
        isl, osl, conc = keys.count("isl"), keys.count("osl"), keys.count("conc", low=1)
        if not isl or not osl or not conc:
            return of_figures(
                self.name,
                name,
                measured,
                ("how long prompts and answers were (isl, osl)", "how many clients there were (conc)"),
                said,
            )
        prompt, output = ((max(1, round(_RANGE * x)), x) for x in (isl, osl))
        notes = (f"{_PROMPTS} prompts a client",)
        return of_aggregates(
            self.name,
            name,
            requests=_PROMPTS * conc,
            prompt=prompt,
            output=output,
            measured=measured,
            sent=Sent(concurrency=conc),
            said=said,
            notes=notes,
        )
