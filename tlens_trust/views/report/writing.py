"""One self-contained page about a run."""

import os
from collections.abc import Callable, Mapping, Sequence
from html import escape
from importlib.resources import files
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import xarray as xr
from plotly.offline import get_plotlyjs

from tlens_trust.analysis import Phases
from tlens_trust.files import write_file
from tlens_trust.tracing import Trace, register_trace_accessor
from tlens_trust.views.axes import format_count
from tlens_trust.views.onset_text import explain_onset
from tlens_trust.views.report import parts
from tlens_trust.views.report.cautions import find_cautions
from tlens_trust.views.report.findings import find_findings
from tlens_trust.views.report.information import information
from tlens_trust.views.report.numbers import downloads
from tlens_trust.views.report.steered import steering_part
from tlens_trust.views.tables import summarise
from tlens_trust.views.text import number, small_number, with_interval
from tlens_trust.views.tokens import PagePart
from tlens_trust.views.tokens.script import circuitsvis_script

# Nothing but what stands in the page may be asked for.
_POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; font-src data:; connect-src 'none'"
)


# Columns of the summary that are no numbers.
_WORDS = ("concept", "run", "probe", "onset")


@register_trace_accessor("report")
class TraceReport:
    """Writes a trace's report, as `trace.report("report.html")`; see `write_report`."""

    def __init__(self, trace: Trace) -> None:
        self._trace = trace

    def __call__(
        self,
        path: str | os.PathLike[str],
        *,
        onset: xr.Dataset | None = None,
        plane: xr.Dataset | None = None,
        phases: Phases | None = None,
        figures: Mapping[str, go.Figure] | None = None,
        steering: Sequence[xr.Dataset] = (),
        tokens: Sequence[PagePart] = (),
        title: str | None = None,
    ) -> Path:
        """Write the report."""
        return write_report(
            self._trace,
            path,
            onset=onset,
            plane=plane,
            phases=phases,
            figures=figures,
            steering=steering,
            tokens=tokens,
            title=title,
        )


def write_report(
    trace: Trace,
    path: str | os.PathLike[str],
    *,
    onset: xr.Dataset | None = None,
    plane: xr.Dataset | None = None,
    phases: Phases | None = None,
    figures: Mapping[str, go.Figure] | None = None,
    steering: Sequence[xr.Dataset] = (),
    tokens: Sequence[PagePart] = (),
    title: str | None = None,
    command: str = "",
    unfinished: Sequence[str] = (),
) -> Path:
    """Write what a run found into one file, which opens without a network.

    It says what was run, finds in sentences what the numbers say, each with its interval, warns
    where there is something to know before believing them, draws the map and the curves, and holds
    the numbers themselves as CSV. It asks nothing of any server, and what names and statements say
    is shown and not run.

    Args:
        trace: A run's results.
        path: A file that ends in `.html`; what is there is replaced.
        onset: What `find_onset` gives for the run folder; without it no onsets are told.
        plane: What `information_plane` gives of the trace; its figure is shown.
        phases: What `find_phases` makes of the plane; its verdicts are told.
        figures: More figures to show, by their headings.
        steering: What `steering_matrix` gives for checkpoints of this run, one for each concept.
        tokens: Views of texts to show, as `draw_tokens` and `draw_generations` give them.
        title: Of the page; by default, what models it is about.
        command: What was typed into a shell to make the run, if it was.
        unfinished: Checkpoints that the sweep was to read and has not read yet, to be warned of.

    Returns:
        The file.

    Raises:
        ValueError: The file has another ending, `onset` is not of this trace, or a matrix is of
            other checkpoints.

    Examples:
        >>> from tlens_trust.analysis import find_onset
        >>> trace = Trace.load("run")  # doctest: +SKIP
        >>> write_report(trace, "report.html", onset=find_onset("run"))  # doctest: +SKIP
    """
    file = Path(path).expanduser()
    if file.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"A report is saved as .html, got {str(path)!r}.")
    page = _page(
        trace,
        onset,
        plane,
        phases,
        figures or {},
        steering,
        tokens,
        title or _title(trace),
        command,
        unfinished,
    )
    write_file(file, page)
    return file


def _page(
    trace: Trace,
    onset: xr.Dataset | None,
    plane: xr.Dataset | None,
    phases: Phases | None,
    figures: Mapping[str, go.Figure],
    steering: Sequence[xr.Dataset],
    tokens: Sequence[PagePart],
    title: str,
    command: str,
    unfinished: Sequence[str],
) -> str:
    probed = {"accuracy", "accuracy_ci"} <= set(trace.data)
    of_runs = _of_runs(trace)
    rows = {
        run: [
            {"run": run, **{str(name): value for name, value in row.items()}}
            for row in summarise(each, onset if each is trace else None).to_dict(orient="records")
        ]
        for run, each in of_runs.items()
        if probed
    }
    every_row = [row for of_run in rows.values() for row in of_run]
    first = next(iter(rows.values()), [])
    sections = {
        "Findings": "".join(
            _headed(run, _findings(of_runs[run], of_run, onset)) for run, of_run in rows.items()
        ),
        "Summary": _summary(every_row, onset),
        "Map": _of_probes(trace, _map),
        "Along training": _of_probes(trace, lambda part: _curves(part, first)),
        "Information": "" if plane is None else information(plane, phases),
        "Steering": steering_part(trace, steering),
        **{
            heading: parts.figure(drawn, heading, height=int(drawn.layout.height or 0))
            for heading, drawn in figures.items()
        },
        "Tokens": "".join(view.fragment() for view in tokens),
        "What was run": _run(trace, command),
        "Numbers": _numbers(trace, steering),
    }
    shown = {heading: body for heading, body in sections.items() if body}
    anchors = {heading: f"part-{i}" for i, heading in enumerate(shown)}
    links = "".join(
        f'<li><a href="#{anchor}">{escape(heading)}</a></li>' for heading, anchor in anchors.items()
    )
    body = "".join(
        f'<section aria-labelledby="{anchors[heading]}">'
        f'<h2 id="{anchors[heading]}">{escape(heading)}</h2>{content}</section>'
        for heading, content in shown.items()
    )
    own = files("tlens_trust.views.report")
    style = own.joinpath("report.css").read_text(encoding="utf-8")
    script = own.joinpath("report.js").read_text(encoding="utf-8")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{style}</style></head><body>"
        '<a class="skip" href="#content">Skip to the findings</a>'
        f"<header><h1>{escape(title)}</h1>{_lead(trace)}</header>"
        f'<nav aria-label="Parts of the report"><ul>{links}</ul></nav>'
        f'<main id="content">{_cautions(trace, unfinished)}{body}</main>'
        f"<script>{get_plotlyjs()}</script>"
        f"{circuitsvis_script() if tokens else ''}<script>{script}</script></body></html>"
    )


def _of_runs(trace: Trace) -> dict[str, Trace]:
    """Each run by its name; the trace itself where it is one."""
    if "run" not in trace.data.dims:
        return {"": trace}
    return {str(run): trace.sel(run=run) for run in trace.data["run"].values.tolist()}


def _of_probes(trace: Trace, draw: Callable[[Trace], str]) -> str:
    """What is drawn of each probe, under its name where there are several."""
    if "probe" not in trace.data.dims:
        return draw(trace)
    names = trace.data["probe"].values.tolist()
    return "".join(_headed(str(name), draw(trace.sel(probe=name))) for name in names)


def _headed(heading: str, body: str) -> str:
    return f"<h3>{escape(heading)}</h3>{body}" if heading and body else body


def _title(trace: Trace) -> str:
    models = trace.provenance.get("models") or [trace.data.attrs.get("model", "a series")]
    return f"What {', '.join(_short(str(model)) for model in models)} came to know, and when"


def _short(model: str) -> str:
    """A hub name as it is; of a folder, its last part."""
    return model if model.count("/") == 1 and not model.startswith("/") else Path(model).name


def _lead(trace: Trace) -> str:
    steps = [step for step in trace.steps if step is not None]
    along = f" from step {format_count(min(steps))} to {format_count(max(steps))}" if steps else ""
    made = str(trace.data.attrs.get("created", ""))[:10]
    by = f"Made on {made} by" if made else "Made by"
    runs = trace.data.sizes.get("run", 1)
    several = f" in {runs} runs, of which figures show mean and range" if runs > 1 else ""
    text = (
        f"{_counted(trace.concepts, 'concept')} at {_counted(trace.checkpoints, 'checkpoint')}"
        f"{along}, read at {_counted(trace.sites, 'site')}{several}. {by} tlens_trust."
    )
    return f'<p class="lead">{escape(text)}</p>'


def _counted(things: Sequence[str], noun: str) -> str:
    return f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"


def _cautions(trace: Trace, unfinished: Sequence[str]) -> str:
    found = find_cautions(trace, unfinished=unfinished)
    if not found:
        return ""
    items = "".join(f"<li>{escape(text)}</li>" for text in found)
    return (
        '<aside class="cautions" aria-label="Before you believe these numbers">'
        f"<b>Before you believe these numbers</b><ul>{items}</ul></aside>"
    )


def _findings(trace: Trace, rows: list[dict[str, Any]], onset: xr.Dataset | None) -> str:
    articles = []
    above_text = onset is not None and onset.attrs.get("floor") == "True"
    for finding in find_findings(trace, rows, above_text=above_text):
        caution = f'<p class="caution">{escape(finding.caution)}</p>' if finding.caution else ""
        items = "".join(f"<li>{escape(sentence)}</li>" for sentence in finding.sentences)
        articles.append(
            f"<article><h3>{escape(finding.concept)}</h3><ul>{items}</ul>{caution}</article>"
        )
    return f'<div class="findings">{"".join(articles)}</div>' if articles else ""


def _summary(rows: list[dict[str, Any]], onset: xr.Dataset | None) -> str:
    if not rows:
        return ""
    columns = {
        "concept": [row["concept"] for row in rows],
        "run": [row["run"] for row in rows],
        "probe": [row["probe"] for row in rows],
        "layer": [f"{row['layer']:g}" if row["site"] else "unknown" for row in rows],
        "accuracy [95% interval]": [
            with_interval(row["accuracy"], row["low"], row["high"]) for row in rows
        ],
        **{
            heading: [number(row[key]) for row in rows]
            for heading, key in (
                ("null", "null"),
                ("text alone", "floor"),
                ("untrained", "untrained"),
            )
        },
        "q": [small_number(row["q"]) for row in rows],
        "onset": [row["onset"] if row["looked_at"] else "" for row in rows],
    }
    kept = {heading: cells for heading, cells in columns.items() if any(cells)}
    numbers = [heading for heading in kept if heading not in _WORDS]
    told = (
        "Null: the upper end of the middle 95% where labels are permuted. Text alone: a classifier "
        "of the statements' words and characters. Untrained: the same layer at step 0, or of "
        "random weights. q: of labels being read at any layer, corrected for concepts and "
        "checkpoints."
    )
    if any(row["chosen"] == "on other folds" for row in rows):
        told += (
            " Accuracy is that of the layer chosen on other folds, fold by fold; the layer named "
            "is the one chosen most often, and its own curve below may lie a little higher."
        )
    notes = [told]
    if onset is not None and "onset" in kept:
        notes.append(f"Onset: {' '.join(explain_onset(onset, kept['onset']))}")
    return parts.table(list(kept), list(zip(*kept.values(), strict=True)), numbers=numbers) + (
        "".join(f'<p class="quiet">{escape(note)}</p>' for note in notes)
    )


def _drawable(trace: Trace) -> str | None:
    """The quantity to draw: accuracy where there is one."""
    wanted = {"concept", "checkpoint", "site"}
    held = [name for name in trace.quantities if {*trace.data[name].dims} - {"run"} == wanted]
    return "accuracy" if "accuracy" in held else next(iter(held), None)


def _axis(trace: Trace) -> str | None:
    if None not in trace.steps:
        return "step"
    return "tokens" if trace.data["tokens"].notnull().all() else None


def _map(trace: Trace) -> str:
    variable, x = _drawable(trace), _axis(trace)
    if variable is None or x is None:
        return ""
    drawn = trace.plot.heatmap(variable, x=x, slider=True).update_layout(margin={"t": 20})
    shown = parts.figure(
        drawn, f"{variable} by checkpoint and layer", choices=trace.concepts, height=460
    )
    if not {f"{variable}_null", f"{variable}_floor"} & {*trace.data}:
        return shown
    told = (
        "A cross marks a cell that is no better than its own band of permuted labels, a dash one "
        "that is better than that and no better than the text alone. Nothing is corrected there "
        "for how many cells there are, so that now and then a guess goes without."
    )
    return f'{shown}<p class="quiet">{escape(told)}</p>'


def _curves(trace: Trace, rows: list[dict[str, Any]]) -> str:
    variable, x = _drawable(trace), _axis(trace)
    if variable is None or x is None:
        return ""
    here = trace.data.coords.get("probe")
    layers = {
        row["concept"]: int(row["layer"])
        for row in rows
        if row["site"] and (here is None or row["probe"] in ("", str(here.item())))
    }
    last = int(trace.data["layer"].values[-1])
    drawn = []
    for concept in trace.concepts:
        layer = layers.get(concept, last)
        curves = trace.sel(concept=concept).plot.lines(variable, x=x, sites=[layer])
        curves.update_layout(showlegend=False, margin={"l": 60, "r": 10, "t": 40, "b": 50})
        curves.update_yaxes(title_text=variable.replace("_", " "))
        curves.layout.annotations[0].text = f"{escape(concept)}, layer {layer}"
        drawn.append(parts.figure(curves, f"{variable} of {concept} along training", height=330))
    which = "in the first run, with the range of the runs" if "run" in trace.data.dims else ""
    told = (
        f"In colour the layer that is read best in the end{which and f' {which}'}"
        f"{'' if which else ', with its 95% interval'}. In grey what it "
        "must be held against: the band of permuted labels; dotted the larger class, dash-dotted "
        "untrained weights, dashed the text alone."
    )
    return f'<div class="grid">{"".join(drawn)}</div><p class="quiet">{escape(told)}</p>'


def _run(trace: Trace, command: str) -> str:
    known = trace.provenance
    attributes = trace.data.attrs
    settings = known.get("settings", {})
    pairs = [
        ("model", ", ".join(map(str, known.get("models", [attributes.get("model", "unknown")])))),
        ("measures", str(attributes.get("measures", "unknown"))),
        ("sites", str(attributes.get("sites", "unknown"))),
        ("position", str(attributes.get("position", "unknown"))),
        ("seed", str(attributes.get("seed", "unknown"))),
        ("read by", f"{settings.get('backend', '?')}, {settings.get('dtype', '?')}"),
        ("versions", str(attributes.get("versions", "unknown"))),
    ]
    return (
        parts.facts(pairs)
        + f"<h3>To do it again</h3><pre>{escape(_again(trace, command))}</pre>"
        + f"<details><summary>Checkpoints</summary>{_checkpoints(trace)}</details>"
        + f"<details><summary>Concepts</summary>{_concepts(trace)}</details>"
    )


def _again(trace: Trace, command: str) -> str:
    return f"$ {command}\n\n# or, in Python\n{_call(trace)}" if command else _call(trace)


def _call(trace: Trace) -> str:
    known = trace.provenance
    settings = known.get("settings", {})
    models = known.get("models") or ["..."]
    model = str(models[0])
    source = "from_hub" if model == _short(model) and "/" in model else "from_directory"
    steps = [step for step in trace.steps if step is not None]
    at = f".at({steps})" if source == "from_directory" else ""
    asked = f", steps={steps}" if source == "from_hub" else ""
    return (
        "from tlens_trust import CheckpointSeries, load_concepts, trace_checkpoints\n\n"
        f"series = CheckpointSeries.{source}({model!r}{asked}){at}\n"
        f"concepts = {_loading(trace)}\n"
        f"# measures: {'; '.join(settings.get('measures', [])) or 'unknown'}\n"
        "trace_checkpoints(\n"
        f"    series, concepts, sites={settings.get('sites', 'resid_post')!r}, "
        f"position={settings.get('position', 'last')!r}, bos={settings.get('bos')!r},\n"
        f"    seed={settings.get('seed', 0)!r}, backend={settings.get('backend', 'auto')!r}, "
        'out="run",\n)'
    )


def _loading(trace: Trace) -> str:
    """How the concepts are had again, where that can be known."""
    known = trace.provenance.get("concepts", {})
    embedded = [
        str(known.get(name, {}).get("provenance", {}).get("source", "")).startswith(
            "written for tlens_trust"
        )
        for name in trace.concepts
    ]
    if all(embedded):
        return f"load_concepts({list(trace.concepts)!r})"
    return f"...  # {', '.join(trace.concepts)}: see below for where they came from"


def _checkpoints(trace: Trace) -> str:
    data = trace.data

    def along(name: str) -> list[Any]:
        # What differs between runs stands in none of them.
        own = name in data.coords and data[name].dims == ("checkpoint",)
        return list(data[name].values.tolist()) if own else []

    columns = {"checkpoint": list(trace.checkpoints)}
    for name in ("step", "tokens"):
        columns[name] = [format_count(value) for value in along(name)]
    columns["revision"] = [str(value) for value in along("revision")]
    columns["loss (nats/token)"] = [number(value) for value in along("loss")]
    columns["identity"] = [str(value)[:12] for value in along("identity")]
    kept = {heading: cells for heading, cells in columns.items() if any(cells)}
    return parts.table(
        list(kept),
        list(zip(*kept.values(), strict=True)),
        numbers=["step", "tokens", "loss (nats/token)"],
    )


def _concepts(trace: Trace) -> str:
    known = trace.provenance.get("concepts", {})
    told = [known.get(name, {}) for name in trace.concepts]
    columns = {"concept": list(trace.concepts)}
    for name in ("dimension", "statements", "groups"):
        columns[name] = [str(each.get(name, "")) for each in told]
    sources = [each.get("provenance", {}) for each in told]
    # What label 1 is decides the sign of everything; embedded sets say it for each label, a table
    # of one's own for its column.
    for heading, name in (
        ("label 1", "label 1"), ("label 0", "label 0"), ("labels", "labels"),
        ("grouped by", "groups"), ("source", "source"),
    ):  # fmt: skip
        columns[heading] = [str(each.get(name, "")) for each in sources]
    columns["fingerprint"] = [str(each.get("fingerprint", ""))[:12] for each in told]
    kept = {heading: cells for heading, cells in columns.items() if any(cells)}
    return parts.table(
        list(kept), list(zip(*kept.values(), strict=True)), numbers=["statements", "groups"]
    )


def _numbers(trace: Trace, steering: Sequence[xr.Dataset]) -> str:
    found = downloads(trace, steering)
    links = "".join(
        f'<p><a class="button" data-packed="{escape(each.name)}" '
        f'download="{escape(each.name)}.gz" href="data:application/gzip;base64,{each.packed}">'
        f"Download {escape(each.name)}</a> "
        f'<span class="quiet">{each.rows:,} rows: {escape(each.about)}'
        f"{f'; {escape(each.left_out)}' if each.left_out else ''}</span></p>"
        for each in found
    )
    if any(each.left_out for each in found):
        links += (
            '<p class="quiet">What would make this page too large is left out; '
            "<code>Trace.load(run).to_frame()</code> has all of it.</p>"
        )
    columns = {column for each in found for column in each.columns}
    units = [
        [str(name), *(str(variable.attrs.get(key, "")) for key in ("units", "long_name"))]
        for name, variable in sorted(trace.data.data_vars.items(), key=lambda pair: str(pair[0]))
        if columns & {str(name), f"{str(name).removesuffix('_ci')}_low"}
    ]
    return (
        f"{links}<details><summary>What the columns are</summary>"
        f"{parts.table(['variable', 'unit', 'meaning'], units)}</details>"
    )
