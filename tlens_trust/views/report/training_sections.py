"""The sections of a report that draw a trace: the map of checkpoints and layers, and its curves."""

from collections.abc import Callable

from markupsafe import Markup

from tlens_trust.tracing import Trace
from tlens_trust.views.plot_text import plot_text
from tlens_trust.views.report.elements import (
    render_figure,
    render_grid,
    render_notes,
    render_subsections,
)
from tlens_trust.views.report.section import ReportContent, Section, SummaryRow

_MARKS_NOTE = (
    "A cross marks a cell that is not above its own null band (permuted labels). A dash marks a "
    "cell that is above that band but not above the text-only baseline. The marks are not "
    "corrected for the number of cells, so a few cells at chance level have no mark."
)
_REFERENCES_NOTE = (
    "In grey the references: the band of permuted labels, the larger class (dotted), untrained "
    "weights (dash-dotted) and the text-only baseline (dashed)."
)


def _drawn_variable(trace: Trace) -> str | None:
    """The quantity to draw: the accuracy where there is one."""
    axes = {"concept", "checkpoint", "site"}
    drawable = [name for name in trace.quantities if {*trace.data[name].dims} - {"run"} == axes]
    return "accuracy" if "accuracy" in drawable else next(iter(drawable), None)


def _training_axis(trace: Trace) -> str | None:
    if None not in trace.steps:
        return "step"
    return "tokens" if trace.data["tokens"].notnull().all() else None


def _by_probe(trace: Trace, draw: Callable[[Trace], Markup]) -> Markup:
    """Draw each probe, under its name where there are several."""
    if "probe" not in trace.data.dims:
        return draw(trace)
    names = trace.data["probe"].values.tolist()
    return render_subsections({str(name): draw(trace.sel(probe=name)) for name in names})


def _render_map(content: ReportContent) -> Markup:
    return _by_probe(content.trace, _draw_map)


def _draw_map(trace: Trace) -> Markup:
    variable, x = _drawn_variable(trace), _training_axis(trace)
    if variable is None or x is None:
        return Markup("")
    # The section's heading stands in for a title, whose room would be an empty band.
    figure = trace.plot.heatmap(variable, x=x, slider=True).update_layout(margin={"t": 20})
    label = f"{variable} by checkpoint and layer"
    body = render_figure(figure, label, choices=trace.concepts, height=460)
    has_marks = {f"{variable}_null", f"{variable}_floor"} & {*trace.data}
    return body + render_notes([_MARKS_NOTE]) if has_marks else body


def _render_curves(content: ReportContent) -> Markup:
    # Runs may differ in their best layer, and their mean needs one: that of the first run.
    summary = next(iter(content.summaries.values()), [])
    return _by_probe(content.trace, lambda trace: _draw_curves(trace, summary))


def _draw_curves(trace: Trace, summary: list[SummaryRow]) -> Markup:
    variable, x = _drawn_variable(trace), _training_axis(trace)
    if variable is None or x is None:
        return Markup("")
    probe = trace.data.coords.get("probe")
    layers = {
        row["concept"]: int(row["layer"])
        for row in summary
        if row["site"] and (probe is None or row["probe"] in ("", str(probe.item())))
    }
    last_layer = int(trace.data["layer"].values[-1])
    figures = []
    for concept in trace.concepts:
        layer = layers.get(concept, last_layer)
        curves = trace.sel(concept=concept).plot.lines(variable, x=x, sites=[layer])
        curves.update_layout(showlegend=False, margin={"l": 60, "r": 10, "t": 40, "b": 50})
        curves.update_yaxes(title_text=variable.replace("_", " "))
        # plotly keeps the title of a panel as an annotation.
        curves.layout.annotations[0].text = f"{plot_text(concept)}, layer {layer}"
        figures.append(render_figure(curves, f"{variable} of {concept} along training", height=330))
    curve = "In colour the layer with the highest value at the last checkpoint"
    if "run" in trace.data.dims:
        curve += " of the first run, as the mean of the runs with their range. "
    else:
        curve += ", with its 95% interval. "
    return render_grid(figures) + render_notes([curve + _REFERENCES_NOTE])


MAP = Section("Map", _render_map)
CURVES = Section("Along training", _render_curves)
