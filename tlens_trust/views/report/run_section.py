"""The section of a report that says what was run, and how to reproduce it."""

from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from tlens_trust.html import render
from tlens_trust.tracing import Trace
from tlens_trust.views.axes import format_count
from tlens_trust.views.report.elements import render_columns
from tlens_trust.views.report.section import ReportContent, Section
from tlens_trust.views.report.trace_labels import short_model_name
from tlens_trust.views.text_tables import number

# Columns of the table of concepts that come from a concept's provenance. The meaning of label 1
# decides the sign of every result; embedded sets state it for each label, a user's own table for
# its column.
_PROVENANCE = {
    "label 1": "label 1",
    "label 0": "label 0",
    "labels": "labels",
    "grouped by": "groups",
    "source": "source",
}


def _render(content: ReportContent) -> Markup:
    trace = content.trace
    provenance = trace.provenance
    attributes = trace.data.attrs
    settings = provenance.get("settings", {})
    models = provenance.get("models", [attributes.get("model", "unknown")])
    facts = {
        "model": ", ".join(map(str, models)),
        **{
            name: str(attributes.get(name, "unknown"))
            for name in ("measures", "sites", "position", "seed")
        },
        "backend": f"{settings.get('backend', '?')}, {settings.get('dtype', '?')}",
        "versions": str(attributes.get("versions", "unknown")),
    }
    return render(
        "report/run",
        {
            "facts": facts,
            "code": _code(trace, content.command),
            "checkpoints": _checkpoint_table(trace),
            "concepts": _concept_table(trace),
        },
    )


def _code(trace: Trace, command: str) -> str:
    call = python_call(trace)
    return f"$ {command}\n\n# or, in Python\n{call}" if command else call


def python_call(trace: Trace) -> str:
    """The Python code that runs a trace's sweep again."""
    provenance = trace.provenance
    settings = provenance.get("settings", {})
    models = provenance.get("models") or ["..."]
    model = str(models[0])
    # A folder is recorded by its path, of which the short name is only the last part.
    is_on_hub = model == short_model_name(model) and "/" in model
    source = "from_hub" if is_on_hub else "from_directory"
    steps = [step for step in trace.steps if step is not None]
    steps_argument = f", steps={steps}" if is_on_hub else ""
    selection = "" if is_on_hub else f".at({steps})"
    imports = "import torch\n" if settings.get("dtype", "float32") != "float32" else ""
    return (
        "from tlens_trust import CheckpointSeries, load_concepts, trace_checkpoints\n"
        f"{imports}\n"
        f"series = CheckpointSeries.{source}({model!r}{steps_argument}){selection}\n"
        f"{_loading_call(settings)}"
        f"concepts = {_concepts_call(trace)}\n"
        # A measure is recorded by its identity, which is no code: a comment names it.
        f"# measures: {'; '.join(settings.get('measures', [])) or 'unknown'}\n"
        "trace_checkpoints(\n"
        f"    series, concepts, sites={settings.get('sites', 'resid_post')!r}, "
        f"position={settings.get('position', 'last')!r}, bos={settings.get('bos')!r},\n"
        f'    seed={settings.get("seed", 0)!r}, out="run",\n)'
    )


def _loading_call(settings: Mapping[str, Any]) -> str:
    """How to load the series as the run did; empty where that is the default."""
    arguments = []
    if settings.get("dtype", "float32") != "float32":
        arguments.append(f"dtype=torch.{settings['dtype']}")
    if settings.get("backend", "auto") != "auto":
        arguments.append(f"backend={settings['backend']!r}")
    return f"series = series.loaded_with({', '.join(arguments)})\n" if arguments else ""


def _concepts_call(trace: Trace) -> str:
    """How to load the concepts again, where that is known."""
    records = trace.provenance.get("concepts", {})
    sources = [
        str(records.get(name, {}).get("provenance", {}).get("source", ""))
        for name in trace.concepts
    ]
    if all(source.startswith("written for tlens_trust") for source in sources):
        return f"load_concepts({list(trace.concepts)!r})"
    return f"...  # {', '.join(trace.concepts)}: see their sources below"


def _checkpoint_table(trace: Trace) -> Markup:
    data = trace.data

    def values(name: str) -> list[Any]:
        # A value that differs between runs belongs to none of them.
        is_shared = name in data.coords and data[name].dims == ("checkpoint",)
        return list(data[name].values.tolist()) if is_shared else []

    columns = {"checkpoint": list(trace.checkpoints)}
    for name in ("step", "tokens"):
        columns[name] = [format_count(value) for value in values(name)]
    columns["revision"] = [str(value) for value in values("revision")]
    columns["loss (nats/token)"] = [number(value) for value in values("loss")]
    # Twelve digits of a hash identify a checkpoint as well, and fit into a column.
    columns["identity"] = [str(value)[:12] for value in values("identity")]
    return render_columns(columns, numbers=["step", "tokens", "loss (nats/token)"])


def _concept_table(trace: Trace) -> Markup:
    by_name = trace.provenance.get("concepts", {})
    records = [by_name.get(name, {}) for name in trace.concepts]
    columns = {"concept": list(trace.concepts)}
    for name in ("dimension", "statements", "groups"):
        columns[name] = [str(record.get(name, "")) for record in records]
    provenances = [record.get("provenance", {}) for record in records]
    for heading, name in _PROVENANCE.items():
        columns[heading] = [str(provenance.get(name, "")) for provenance in provenances]
    columns["fingerprint"] = [str(record.get("fingerprint", ""))[:12] for record in records]
    return render_columns(columns, numbers=["statements", "groups"])


RUN = Section("What was run", _render)
