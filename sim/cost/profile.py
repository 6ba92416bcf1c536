"""Engine profiles: what the host side of an engine costs, by version line (`profiles/engines/<engine>.yaml`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass, field, fields, replace
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sim.cost.engine_figures import EngineProfileFile, GraphRange, Line, LineFigures, version_of
from sim.errors import ConfigError, DataError, UnknownNameError
from sim.hardware.accelerator import Figure
from sim.places import expanded
from sim.profile_files import Graded, checked, parse_mapping, read_text
from sim.resources import path

if TYPE_CHECKING:
    from sim.cost.residual import Numbers

_WHAT = "the host side of an engine"

_EAGER_LAYER = 3.7e-4  # launching a layer's kernels one by one; Splitwise static batches: 29 to 31 ms for 80 layers on H100


@dataclass(frozen=True)
class EngineProfile:
    """One version line of one engine.

    *Units*: seconds. ``host_step`` per step, ``host_row`` per row, ``host_prefill_row`` per row with prompt tokens, ``host_token`` per
    token, ``sampler_row`` device time per sampled row; with ``overlap`` the host prepares the next step while the device works and only
    ``overlap_gap`` shows, and ``overlap_gap_ranks`` more with several ranks; with ``host_ahead`` (and no ``overlap``) it processes the last step's outputs
    between launches: the device works behind all of it. ``graph_sizes`` are the token counts that graphs are captured for:
    a batch is padded to the next one, beyond the last one kernels are launched one by one, ``eager_layer`` seconds a layer.
    ``graph_prefill`` says whether steps with prompt tokens use graphs too.
    ``client_request`` and ``client_first_token`` are what a client sees besides the engine: HTTP and tokenising before, detokenising and
    sending after. ``client_serial`` of the time before is work of the one API server process, a request after the other, so that bursts queue
    there; ``client_chat`` and ``client_chat_serial`` are what a chat request adds to both (its template).
    ``host_scale_tp`` further seconds per step for each rank beyond the first, ``host_row_ranks`` per row where there are several.
    ``eager_expert_layer`` is what a layer of experts adds to ``eager_layer``: it launches several times as many kernels, and
    ``eager_expert_few`` what it adds below 128 tokens, and without compilation (None: the same); ``eager_latent_layer`` one of latent
    attention. ``latent_kernels``: how many small kernels such a layer has more than ``small_kernels_per_layer``. ``eager_layer_plain``
    is ``eager_layer`` without compilation (``enforce_eager``; 0: not known). ``recurrent_layer`` is what a layer with a recurrent state adds in
    steps with prompts, whose chunked form no graph holds. ``piecewise_layer`` is a layer's attention, launched between graphs that leave it out
    (in steps with prompts, and with ``decode_graph`` piecewise); ``sinks_layer`` what it adds where sinks need Triton (before Hopper),
    ``sinks_prefill`` how much longer prompts take there.
    ``structured_row``: the mask of allowed tokens, per row that must follow a grammar (0: not modelled). ``filter_row, penalty_step, penalty_row,
    logprob_row``: what clients may ask of sampling (`sim.cost.sampling`; 0: not known). ``expert_layer`` and
    ``expert_token``: what surrounds the kernels of a layer of experts that were measured (sorting, scattering, quantising), a step and a token;
    ``expert_element`` for each element of a token's hidden width, as rows are quantised, copied to their experts and added up;
    ``expert_group`` for each expert that has tokens, where one follows the other; ``expert_quantising`` more a step where activations are quantised.
    ``quantise_inputs``: kernels of their own quantise the inputs of products in 8-bit integers.
    ``int4_expert_layer`` and ``int4_expert_token`` are what a layer of experts with 4-bit weights takes more than the kernels that were
    measured, a step and a token. ``block_expert_floor`` and ``block_expert_copy``: such a layer in 8 bits with block scales, on one rank or cut over
    several, by another kernel than was measured: before any weight is read, and for each expert of a token (0: as measured).
    ``decode_tile``: decode attention computes so many query rows per KV head, whatever the group (0: as measured).
    ``serial_token``: what decode attention takes per token of the context where its kernel splits none (0: it splits).
    ``window_tile``: query rows of a tile of attention in a window that is not split (FlashAttention 2; 0: as measured).
    ``gemm_scale``, ``attention_scale``, ``comms_scale``: time of the kernels and collectives of this line relative to those that were
    measured: older releases had slower ones. ``compute_scale``: the compute of matrix products alone; ``prefill_scale``: attention of prompts beyond its
    launch; ``prefill_masked``: share of the peak at which they attend to the whole square under a mask (0: causal kernels);
    ``expert_scale``: routed experts; ``collective_start``: further seconds
    of every collective, ``collective_ranks`` of those among more than two ranks;
    ``large_reduce``: of every byte that a rank passes on for others in all-reduces of 64 MiB and more.
    ``eager_prompt_layer``: what a layer adds to ``eager_layer`` in steps with prompts.
    ``draft_step`` and ``draft_row``: further host work where drafts are verified; ``draft_pass``: choosing tokens after each pass of the draft.
    ``step_scatter``: standard deviation of the logarithm of a step's time about its mean (`sim.engine.scatter`; 0: not measured).
    ``band``: what is left of the model's error by metric, as `servesim calibrate` writes it.
    ``mixed_factor`` is how much longer decode attention takes in a step that also computes prompts, ``mixed_group`` the same for each query head of a
    KV head, where the kernel for prompts reads keys and values for each of them. ``mxfp4_marlin``: mxfp4 experts run Marlin on Hopper too.
    ``fused_shared_experts``: see `sim.cost.fused`. ``figures``
    has source and grade of each.
    """

    engine: str
    line: str
    kernels: str
    title: str
    host_step: float
    host_row: float
    host_prefill_row: float
    host_token: float
    host_scale_tp: float
    overlap: bool
    overlap_gap: float
    graph_sizes: tuple[int, ...]
    graph_prefill: bool
    eager_layer: float
    sampler_step: float
    sampler_row: float
    mixed_factor: float
    mixed_row: float
    separate_attention: bool  # prompt and decode rows run in two kernels
    small_kernel: float
    small_kernels_per_layer: float
    client_request: float
    client_first_token: float
    client_prompt_token: float
    all_to_all: str  # "allgather" | "deepep"
    client_serial: float = 0.0
    client_chat: float = 0.0
    client_chat_serial: float = 0.0
    overlap_gap_ranks: float = 0.0
    host_ahead: bool = False
    host_row_ranks: float = 0.0
    eager_expert_layer: float = 0.0
    eager_expert_few: float | None = None
    eager_prompt_layer: float = 0.0
    eager_latent_layer: float = 0.0
    eager_layer_plain: float = 0.0
    latent_kernels: float = 0.0
    recurrent_layer: float = 0.0
    mixed_group: float = 0.0
    fused_shared_experts: bool = False
    mxfp4_marlin: bool = False
    decode_graph: str = "full"  # "full" | "piecewise"
    piecewise_layer: float = 0.0
    sinks_layer: float = 0.0
    sinks_prefill: float = 1.0
    expert_layer: float = 0.0
    expert_token: float = 0.0
    expert_quantising: float = 0.0
    expert_element: float = 0.0
    expert_group: float = 0.0
    quantise_inputs: bool = False
    structured_row: float = 0.0
    step_scatter: float = 0.0
    draft_step: float = 0.0
    draft_row: float = 0.0
    draft_pass: float = 0.0
    filter_row: float = 0.0
    penalty_step: float = 0.0
    penalty_row: float = 0.0
    logprob_row: float = 0.0
    int4_expert_layer: float = 0.0
    int4_expert_token: float = 0.0
    block_expert_floor: float = 0.0
    block_expert_copy: float = 0.0
    decode_tile: float = 0.0
    serial_token: float = 0.0
    window_tile: float = 0.0
    gemm_scale: float = 1.0
    compute_scale: float = 1.0
    attention_scale: float = 1.0
    prefill_scale: float = 1.0
    prefill_masked: float = 0.0
    expert_scale: float = 1.0
    comms_scale: float = 1.0
    collective_start: float = 0.0
    collective_ranks: float = 0.0
    large_reduce: float = 0.0
    band: Mapping[str, tuple[float, float, int]] = field(default_factory=dict, hash=False, compare=False, repr=False)
    figures: Mapping[str, Figure] = field(default_factory=dict, hash=False, compare=False, repr=False)

    def adapted(
        self,
        overlap: bool | None = None,
        graphs: bool | None = None,
        graph_sizes: tuple[int, ...] | None = None,
        graph_mode: str | None = None,
    ) -> EngineProfile:
        """The profile under an engine's settings: asynchronous scheduling on or off, graphs off (``enforce_eager``), other capture sizes.

        ``graph_mode`` as vLLM's ``cudagraph_mode`` names it.
        """
        changes: dict[str, Any] = {} if overlap is None else {"overlap": overlap}
        if graph_mode is not None:
            changes |= {"decode_graph": "piecewise" if graph_mode == "PIECEWISE" else "full"}
            changes |= {"graph_prefill": graph_mode in ("PIECEWISE", "FULL", "FULL_AND_PIECEWISE")}
            changes |= {"graph_sizes": ()} if graph_mode == "NONE" else {}
        if graph_sizes is not None and graph_mode != "NONE":
            changes["graph_sizes"] = tuple(sorted(graph_sizes))
        if graphs is False:
            changes |= {"graph_sizes": (), "eager_layer": self.eager_layer_plain or max(self.eager_layer, _EAGER_LAYER)}
            if self.eager_expert_few is not None:  # measured without graphs: prompts launch as many kernels as decode steps
                changes["eager_expert_layer"] = self.eager_expert_few
        return replace(self, **changes)

    def for_chat(self) -> EngineProfile:
        """The profile of a server that is asked for chat completions."""
        return replace(
            self,
            client_request=self.client_request + self.client_chat,
            client_serial=self.client_serial + self.client_chat_serial,
        )

    def before_engine(self, prompt_tokens: Numbers) -> Numbers:
        """Seconds from the client to the engine for prompts of so many tokens, less the time in the queue of the API server."""
        return self.client_request - self.client_serial + self.client_prompt_token * prompt_tokens

    def engine_alone(self) -> EngineProfile:
        """The profile for times that were taken inside the engine: nothing before and nothing after it."""
        names = ("request", "first_token", "prompt_token", "serial", "chat", "chat_serial")
        return self.changed({f"client_{name}": 0.0 for name in names})

    def changed(self, figures: Mapping[str, float]) -> EngineProfile:
        """The profile with other values for some of its figures."""
        given: dict[str, Any] = dict(figures)
        return replace(self, **given) if given else self

    def padded(self, tokens: int) -> int:
        """Tokens that are computed for a batch of ``tokens``: the next captured size, or the batch itself beyond the last."""
        for size in self.graph_sizes:
            if size >= tokens:
                return size
        return tokens


@lru_cache(maxsize=64)
def _checked(text: str, file: Path) -> EngineProfileFile:
    return checked(EngineProfileFile, parse_mapping(text, str(file), _WHAT), str(file))


def _read(engine: str, above: tuple[str, ...] = ()) -> EngineProfileFile:
    """A built-in profile by name, or a user's by path: ``base`` names the one whose figures hold where it gives none."""
    if engine.endswith((".yaml", ".yml")):
        file = expanded(engine)
    else:
        folder = path("profiles", "engines")
        known = sorted(p.stem for p in folder.glob("*.yaml"))
        if engine not in known:
            own = "an engine of your own says which profile of host overheads holds for it: here, or as `profile` of its class"
            raise UnknownNameError("deployment.profile", engine, known, own)
        file = folder / f"{engine}.yaml"
    data = _checked(read_text(file, _WHAT), file)
    if data.base is None:
        return data
    if engine in above:
        raise DataError(str(file), f"base: goes round in a circle: {' → '.join((*above, engine))}")
    base = _read(str(data.base), (*above, engine))
    return data.model_copy(update={"title": data.title or base.title, "lines": _merged(base.lines, data.lines)})


def _merged(base: Sequence[Line], own: Sequence[Line]) -> tuple[Line, ...]:
    """Lines of both, in order of version; where both have one, the own figures replace those of the base, `accelerators` included."""
    lines = {line.start: line for line in base}
    for line in own:
        known = lines.get(line.start)
        if known is None:
            lines[line.start] = line
            continue
        on = dict(known.accelerators or {})
        for where, figures in (line.accelerators or {}).items():
            on[where] = on[where].model_copy(update=_given(figures)) if where in on else figures
        lines[line.start] = known.model_copy(update=_given(line) | {"accelerators": on})
    return tuple(lines[k] for k in sorted(lines, key=version_of))


def _given(figures: LineFigures) -> dict[str, object]:
    """The figures that are there."""
    return {k: v for k in LineFigures.model_fields if (v := getattr(figures, k)) is not None}


def _here(line: Line, accelerators: Sequence[str]) -> dict[str, object]:
    """Figures of a line for the first of some accelerators that has any.

    An accelerator has the entry with the longest name that begins its own (``h20`` does not begin ``h200-sxm``).
    """
    entries = line.accelerators or {}
    for accelerator in accelerators:
        for name in sorted(entries, key=len, reverse=True):
            rest = accelerator[len(name) :]
            if name and accelerator.startswith(name) and not (name[-1].isdigit() and rest[:1].isdigit()):
                return _given(entries[name])
    return {}


def engine_profiles() -> list[str]:
    """Names of all engine profiles."""
    return sorted(p.stem for p in path("profiles", "engines").glob("*.yaml"))


def engine_lines(name: str) -> list[str]:
    """First versions of the lines of an engine's profile, oldest first, without what continues one. Raises `UnknownNameError`, `DataError`."""
    return [line.start for line in _read(name).lines if not line.continues]


def load_engine_profile(name: str, version: str | None = None, *accelerators: str) -> EngineProfile:
    """The line of an engine that ``version`` belongs to (None: the newest). Raises `ConfigError`, `DataError`.

    ``name``: a built-in profile, or the path of a ``*.yaml`` of the same form (`servesim calibrate` writes one), which is read again when it
    was edited. A line begins at its ``from`` version; its figures replace those of the lines before it (one that ``continues`` keeps
    its name). Its ``accelerators`` section holds
    figures for the first of ``accelerators`` that it has, by its name or the beginning of it; they hold for this line only. (`machines.alike`
    names those whose figures may stand in.)
    """
    data = _read(name)
    figures: dict[str, object] = {}
    here: dict[str, object] = {}
    start = ""
    wanted = version_of(version) if version else None
    if version and not wanted:
        raise ConfigError("deployment.engine.version", version, "is not a version", "such as '0.15.1'")
    for line in data.lines:
        if start and wanted is not None and version_of(line.start) > wanted:
            break
        figures |= _given(line)
        here = (here if line.continues else {}) | _here(line, accelerators)
        start = start if line.continues and start else line.start
    plain: dict[str, Any] = {}
    graded: dict[str, Figure] = {}
    for key, value in (figures | here).items():
        if isinstance(value, Graded):
            plain[key] = value.value
            if value.model_fields_set > {"value"}:
                graded[key] = Figure(value.value, value.source, value.evidence)
        else:
            plain[key] = value
    plain["graph_sizes"] = _sizes(plain.get("graph_sizes") or ())
    missing = [f.name for f in fields(EngineProfile) if f.default is MISSING and f.default_factory is MISSING]
    missing = [m for m in missing if m not in plain and m not in ("engine", "line", "title")]
    if missing:
        raise DataError(name, f"line {start} lacks {', '.join(missing)}", "give them, or a base whose figures hold")
    return EngineProfile(engine=name, line=start, title=data.title or name, figures=graded, **plain)


def _sizes(entries: Sequence[int | GraphRange]) -> tuple[int, ...]:
    """``[1, 2, 4, {from: 8, to: 256, step: 8}]`` → all sizes."""
    out: set[int] = set()
    for e in entries:
        out |= set(range(e.first, e.last + 1, e.step)) if isinstance(e, GraphRange) else {e}
    return tuple(sorted(out))
