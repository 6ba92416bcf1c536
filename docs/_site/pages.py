"""Reference pages that the package writes of itself: nothing here can differ from what runs.

``python docs/_site/pages.py`` writes the tables of the accuracy page anew from the record.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator
from math import exp
from pathlib import Path
from statistics import median
from typing import Any

import typer
import yaml
from typer.cli import get_docs_for_click

from sim import registry, resources
from sim.cli.main import application
from sim.metrics.definitions import as_markdown
from sim.study.engine_page import engine_page
from sim.study.schemas import schema


def pages() -> dict[str, str]:
    """Path below `docs/` → Markdown."""
    return {
        "reference/metrics.md": metrics(),
        "reference/engines.md": engines(),
        "reference/blocks.md": blocks(),
        "reference/commands.md": commands(),
        "reference/scenario.md": scenario(),
        "reference/scenarios.md": scenarios(),
        "reference/profiles.md": profiles(),
    }


def metrics() -> str:
    """The table of metrics."""
    return f"# Metrics\n\nEvery name that a table, a file or a plot shows means what is written here.\n\n{as_markdown()}"


def engines() -> str:
    """The page of every engine: version, what is modelled and what is not, settings."""
    parts = [
        "# Engines\n\n`servesim engine NAME` prints the same. A setting is spelled as the engine spells it; one that cannot change a time says so.\n"
    ]
    others: dict[str, list[str]] = {}
    for name in registry.names("engine"):
        others.setdefault(registry.lookup("engine", name).name, []).append(name)
    for name, called in sorted(others.items()):
        page = engine_page(name)
        also = [f"`{n}`" for n in called if n != name]
        rows = [
            f"| `{s.name}` | {_cell(s.default)} | {_cell(s.description)}{f' *({_cell(s.note)})*' if s.note else ''} |"
            for s in page.settings
        ]
        parts += [
            f"## {name}\n\n**{page.title}**: {_plain(page.models)}\n",
            f"Also called {', '.join(also)}.\n" if also else "",
            _plain(page.words) + "\n",
            "**Not modelled**: " + ("; ".join(page.not_modelled) or "nothing that is known") + ".\n",
            "**Without effect on time**: "
            + (_cell("; ".join(f"`{k}` ({why})" for k, why in page.idle.items())) or "none")
            + ".\n",
            "\n".join(["| setting | default | what it is |", "|---|---|---|", *rows]) + "\n",
        ]
    return "\n".join(parts)


KINDS = {
    "router": "`router:`",
    "scaler": "`scaling:`",
    "arrival": "`traffic.synthetic.arrival:`",
    "length": "`traffic.synthetic.lengths:`",
    "trace": "`traffic.trace.format:`",
    "bench": "files that `servesim accuracy` reads",
    "export": "`servesim run --export`",
    "study": "commands",
}
"""What a scenario names by its registered name, besides engines; where the name stands. Kinds that come later are listed after these."""


def blocks() -> str:
    """Every registered router, autoscaler, arrival process, … with its settings."""
    parts = ["# Building blocks\n\nEach is one file; [one of your own](../extending.md) stands wherever such a name does.\n"]
    for kind in dict.fromkeys([*KINDS, *registry.ROOMS]):
        if kind == "engine" or kind not in registry.ROOMS:
            continue
        parts.append(f"## {kind}\n\nNamed in {KINDS.get(kind, f'`{kind}:`')}.\n")
        for name in registry.names(kind):
            cls = registry.lookup(kind, name)
            parts.append(f"### {kind}: {name}\n\n{_plain(inspect.cleandoc(cls.__doc__ or ''))}\n")
            fields = getattr(getattr(cls, "Params", None), "model_json_schema", dict)().get("properties", {})
            if fields:
                rows = [f"| `{k}` | {_type(f)} | {_default(f)} | {_cell(f.get('description', ''))} |" for k, f in fields.items()]
                parts.append("\n".join(["| setting | type | default | what it is |", "|---|---|---|---|", *rows]) + "\n")
    return "\n".join(parts)


def commands() -> str:
    """Every command with its options."""
    command = typer.main.get_command(application())
    ctx = typer.Context(command, info_name="servesim")
    for one in _all(command):
        one.epilog = f"**Examples**:\n\n```sh\n{one.epilog}\n```" if one.epilog else None
    text = get_docs_for_click(obj=command, ctx=ctx, name="servesim", title="Commands")
    text = re.sub(r"^\* `(\S+) <\S+>`", r"* `\1`", text, flags=re.M)  # the type of an argument
    return re.sub(r" +\[(default: .*?|required)\]$", r" (\1)", text, flags=re.M)


def _all(command: Any) -> Iterator[Any]:
    """A command and those below it."""
    yield command
    for inner in getattr(command, "commands", {}).values():
        yield from _all(inner)


def scenario() -> str:
    """Every section of a scenario, from its JSON schema."""
    found = schema("scenario")
    sections = frozenset(name for name, body in found.get("$defs", {}).items() if body.get("properties"))
    parts = [
        "# Scenario\n\nOne YAML file. Units are written out (`8/s`, `50ms`, `16GiB`); unknown keys are errors. `servesim schema` prints the JSON schema of "
        "this page for editors. Settings of an engine are on [its page](engines.md).\n",
        _section("scenario", found, sections),
    ]
    parts += [_section(name, found["$defs"][name], sections) for name in sorted(sections)]
    return "\n".join(parts)


def scenarios() -> str:
    """The scenarios that come with the package, with the question that each answers."""
    parts = [
        "# Built-in scenarios\n\n`servesim run NAME` runs one; `servesim scenarios` lists them. Each is a file to copy and change.\n"
    ]
    for path in sorted(resources.path("scenarios").glob("*.yaml")):
        parts.append(f"## {path.stem}\n\n```yaml\n{path.read_text(encoding='utf-8').strip()}\n```\n")
    return "\n".join(parts)


def profiles() -> str:
    """Accelerators and models that come with the package."""
    from sim.hardware import load_accelerator

    parts = [
        "# Hardware and models\n\n`servesim profiles show NAME` prints every figure with its source and grade.\n\n## Accelerators\n"
    ]
    parts += ["| name | memory | bandwidth | bf16 or fp16 |", "|---|---|---|---|"]
    for path in sorted(resources.path("profiles", "hardware").glob("*.yaml")):
        card = load_accelerator(path.stem)
        flops = card.peak_flops.get("bf16") or card.peak_flops.get("fp16") or 0.0
        parts.append(
            f"| `{path.stem}` | {card.memory_bytes / 2**30:.0f} GiB | {card.memory_bandwidth / 1e9:,.0f} GB/s | {flops / 1e12:,.0f} TFLOP/s |"
        )
    names = sorted(p.stem for p in resources.path("profiles", "models").rglob("*") if p.suffix in (".json", ".yaml"))
    parts += [
        "\n## Models\n",
        "Or any `config.json` of a family that is known (`model: {config: path/to/config.json}`):\n",
        ", ".join(f"`{n}`" for n in names),
        "",
    ]
    return "\n".join(parts)


RECORDED = {
    "tpot_s.mean": "TPOT",
    "ttft_s.mean": "TTFT",
    "ttft_s.p99": "TTFT p99",
    "e2e_s.mean": "E2E",
    "output_tokens_per_s": "output tokens/s",
}
"""Figures of the accuracy record, and their titles."""


def accuracy(text: str) -> str:
    """The accuracy page with its tables as the record has them, each behind a comment with its name."""
    for name, table in {"errors": errors, "record": record}.items():
        text = re.sub(rf"(?<=<!-- {name} -->\n\n)(\|.*\n)+", lambda _, made=table: f"{made()}\n", text)
    return text


def errors() -> str:
    """Absolute errors of the record's points, and with what is like them left out: median and 90th percentile."""
    found = _recorded()["errors"]
    groups = [g for g in found if g not in ("these points", "layout left out")]
    rows = [f"| | {' | '.join(groups)} |", "|---" * (len(groups) + 1) + "|"]
    for figure, title in RECORDED.items():
        cells = [
            f"{100 * found[g][figure][0]:.1f} %, {100 * found[g][figure][1]:.1f} %" if figure in found[g] else "" for g in groups
        ]
        rows.append(f"| {title} | {' | '.join(cells)} |")
    return "\n".join(rows)


def _recorded() -> Any:
    return yaml.safe_load(resources.path("profiles", "accuracy.yaml").read_text(encoding="utf-8"))


def record() -> str:
    """The accuracy record as a table: what was measured over what was predicted, by engine and accelerator."""
    found = _recorded()["deployments"]
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for one in found:
        groups.setdefault((one["engine"], one["accelerator"]), []).append(one["spread"])
    rows = [
        "| engine, accelerator | deployments | " + " | ".join(RECORDED.values()) + " |",
        "|---|---" + "|---" * len(RECORDED) + "|",
    ]
    for (engine, accelerator), spreads in sorted(groups.items()):
        cells = [_ratio([s[figure] for s in spreads if figure in s]) for figure in RECORDED]
        rows.append(f"| {engine}, {accelerator} | {len(spreads)} | " + " | ".join(cells) + " |")
    return "\n".join(rows)


def _ratio(spreads: list[list[float]]) -> str:
    """Middle (lowest to highest median of a deployment): spreads are logarithms at five quantiles."""
    middles = sorted(exp(s[len(s) // 2]) for s in spreads)
    if not middles:
        return ""
    return f"{median(middles):.2f}" + (f" ({middles[0]:.2f} to {middles[-1]:.2f})" if len(middles) > 1 else "")


def _section(name: str, body: dict[str, Any], linked: frozenset[str]) -> str:
    rows = [
        f"| `{key}` | {_type(field, linked)} | {_default(field)} | {_cell(field.get('description', ''))} |"
        for key, field in body["properties"].items()
    ]
    head = f"## {name}\n\n{_plain(body.get('description', ''))}\n\n| key | type | default | what it is |\n|---|---|---|---|\n"
    return head + "\n".join(rows) + "\n"


def _anchor(title: str) -> str:
    """Where Markdown puts a heading."""
    return re.sub(r"[^\w\s-]", "", title).strip().lower()


def _type(field: dict[str, Any], linked: frozenset[str] = frozenset()) -> str:
    if "$ref" in field:
        name = field["$ref"].rsplit("/", 1)[-1]
        return f"[{name}](#{_anchor(name)})" if name in linked else name.rpartition(".")[2]
    if "anyOf" in field:
        kinds = [_type(f, linked) for f in field["anyOf"] if f.get("type") != "null"]
        return " or ".join(dict.fromkeys(kinds))
    if "enum" in field:
        return ", ".join(f"`{v}`" for v in field["enum"][:8]) + (" …" if len(field["enum"]) > 8 else "")
    if field.get("type") == "array":
        return f"list of {_type(field.get('items', {}), linked)}"
    kinds = field.get("type", "any")
    return " or ".join(k for k in kinds if k != "null") if isinstance(kinds, list) else str(kinds)


def _default(field: dict[str, Any]) -> str:
    return f"`{field['default']}`" if field.get("default") not in (None, "", [], {}) else ""


def _cell(text: str) -> str:
    return _plain(str(text)).replace("|", "\\|").replace("\n", " ")


def _plain(text: str) -> str:
    """Docstrings mark code twice, Markdown once."""
    return re.sub(r"``([^`]+)``", r"`\1`", text).replace("<", "&lt;") if text else ""


if __name__ == "__main__":
    page = Path(__file__).parents[1] / "accuracy.md"
    page.write_text(accuracy(page.read_text(encoding="utf-8")), encoding="utf-8")
