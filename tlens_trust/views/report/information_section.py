"""The section of a report that shows the information plane, with every verdict and its reason."""

import xarray as xr
from markupsafe import Markup

from tlens_trust.analysis.phases.phase_records import Phase, Phases
from tlens_trust.views.axes import format_count
from tlens_trust.views.information.plane_figure import draw_plane
from tlens_trust.views.information.plane_parts import panel_name, site_of
from tlens_trust.views.report.elements import (
    render_figure,
    render_grid,
    render_notes,
    render_subsections,
    render_table,
)
from tlens_trust.views.report.section import ReportContent, Section

_NOTE = (
    "A path runs through the checkpoints, from early (dark) to late (light). A broad line under it "
    "marks a claimed phase, green for a rise and red for a fall. The diamond is untrained weights; "
    "the dashed line is the upper end of the null band at the last checkpoint. A claim has to "
    "survive noise, the permutation null, a flattened spectrum, every other kernel width, and the "
    "correction for the number of tests; otherwise the reason names the test that failed. No claim "
    "does not mean that there is no phase. Whether the labels can be decoded is answered by the "
    "probes above. Each concept is shown at one site, the one with the largest I(T;Y) at the last "
    "checkpoint, which is chosen by that same number."
)
_NO_PHASES_NOTE = "Phases were not tested. Pass `phases=`, or run `tlens-trust information`."
_HEIGHT = 360
_HEADINGS = ("quantity", "between", "verdict", "why")
_INPUTS = {"first_block": "the first block's output", "text": "words and characters of the text"}


def _render(content: ReportContent) -> Markup:
    if content.plane is None:
        return Markup("")
    plane, phases = content.plane, content.phases
    figures = []
    for concept in plane["concept"].values.tolist():
        # One figure per concept, so that a narrow page can set them below each other.
        figure = draw_plane(plane.sel(concept=[concept]), phases)
        # The note below all figures explains the marks once.
        figure.update_layout(showlegend=False, margin={"b": 60, "r": 10})
        figure.update_traces(marker_colorbar_thickness=12, selector={"mode": "lines+markers"})
        label = f"information plane of {concept}"
        figures.append(render_figure(figure, label, height=_HEIGHT))
    unit = str(plane.attrs.get("units", "1"))
    estimators = " and ".join(dict.fromkeys(str(plane.attrs.get(axis)) for axis in "xy"))
    scale = "a dependence, which is not in nats" if unit == "1" else f"in {unit}"
    source = _INPUTS.get(str(plane.attrs.get("against") or ""), "the statement")
    return (
        render_notes([f"Estimated by {estimators}, {scale}. X is {source}."])
        + render_grid(figures)
        + _verdicts(plane, phases)
        + render_notes([_NOTE])
    )


def _verdicts(plane: xr.Dataset, phases: Phases | None) -> Markup:
    if phases is None:
        return render_notes([_NO_PHASES_NOTE])
    tables = {}
    for concept in plane["concept"].values.tolist():
        site = site_of(plane, concept, None)
        rows = [
            [phase.quantity, _ends(phase), phase.verdict, phase.reason]
            for phase in phases
            if (phase.concept, phase.site) == (concept, site)
        ]
        if rows:
            name = panel_name(plane, concept, site)
            tables[name] = render_table(_HEADINGS, rows, wrapped=("why",))
    return render_subsections(tables)


def _ends(phase: Phase) -> str:
    ends = zip((phase.first_step, phase.last_step), (phase.first, phase.last), strict=True)
    # An unknown step is NaN, which is unequal to itself.
    return " → ".join(format_count(step) if step == step else name for step, name in ends)


INFORMATION = Section("Information", _render)
