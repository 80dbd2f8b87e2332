"""The information plane in a report: its figure, and every verdict with what blocked it."""

from html import escape

import xarray as xr

from tlens_trust.analysis import Phase, Phases
from tlens_trust.views.axes import format_count
from tlens_trust.views.information import draw_plane
from tlens_trust.views.information.parts import panel_name, site_of
from tlens_trust.views.report import parts

_TOLD = (
    "A path runs through the checkpoints, from early (dark) to late (light), with a broad line "
    "under it where a phase was claimed, green for a rise and red for a fall. The diamond is "
    "untrained weights; dashed is the upper end of the null at the last checkpoint. A claim has "
    "to survive noise, the permutation null, a flattened spectrum and every other width, and the "
    "correction for how many are made; where it does not, the reason names what stood in the way. "
    "No claim is no claim: whether labels can be read is told by the probes above. Of each "
    "concept one site is shown, that of the largest I(T;Y) in the end, chosen by that number."
)
_HEIGHT = 360
_HEADINGS = ("quantity", "between", "verdict", "why")


def information(plane: xr.Dataset, phases: Phases | None) -> str:
    """The plane, one panel a concept, with the verdicts beneath it.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` makes of it.
    """
    figures = []
    for concept in plane["concept"].values.tolist():
        drawn = draw_plane(plane.sel(concept=[concept]), phases)
        # Told once, beneath all of them.
        drawn.update_layout(showlegend=False, margin={"b": 60, "r": 10})
        drawn.update_traces(marker_colorbar_thickness=12, selector={"mode": "lines+markers"})
        figures.append(parts.figure(drawn, f"information plane of {concept}", height=_HEIGHT))
    unit = str(plane.attrs.get("units", "1"))
    names = " and ".join(dict.fromkeys(str(plane.attrs.get(axis)) for axis in "xy"))
    lead = (
        f"By {names}, "
        + ("a dependence, which is not in nats." if unit == "1" else f"in {unit}.")
        + f" X is {_inputs(plane)}."
    )
    return (
        f'<p class="quiet">{escape(lead)}</p><div class="grid">{"".join(figures)}</div>'
        f'{_verdicts(plane, phases)}<p class="quiet">{escape(_TOLD)}</p>'
    )


def _verdicts(plane: xr.Dataset, phases: Phases | None) -> str:
    if phases is None:
        told = "Phases were not looked for: give `phases=`, or run `tlens-trust information`."
        return f'<p class="quiet">{escape(told)}</p>'
    tables: list[str] = []
    for concept in plane["concept"].values.tolist():
        site = site_of(plane, concept, None)
        rows = [
            [each.quantity, _between(each), each.verdict, each.reason]
            for each in phases
            if (each.concept, each.site) == (concept, site)
        ]
        if rows:
            head = f"<h3>{escape(panel_name(plane, concept, site))}</h3>"
            tables.append(head + parts.table(_HEADINGS, rows, wrapped=("why",)))
    return "".join(tables)


def _inputs(plane: xr.Dataset) -> str:
    against = str(plane.attrs.get("against") or "")
    known = {"first_block": "the first block's output", "text": "words and characters of the text"}
    return known.get(against, "the statement")


def _between(phase: Phase) -> str:
    ends = zip((phase.first_step, phase.last_step), (phase.first, phase.last), strict=True)
    return " → ".join(format_count(step) if step == step else name for step, name in ends)
