"""The information plane in a report: its figure, and every verdict with what blocked it."""

from html import escape

import xarray as xr

from tlens_trust.tracing import Phase, Phases
from tlens_trust.views.axes import format_count
from tlens_trust.views.information import draw_plane
from tlens_trust.views.information.parts import panel_name, site_of
from tlens_trust.views.report import parts

_TOLD = (
    "A path runs through the checkpoints, from early (dark) to late (light). A claim has to "
    "survive noise, the permutation null, a flattened spectrum and every other width, and the "
    "correction for how many are made; where it does not, the reason names what stood in the way. "
    "Of each concept one site is shown, that of the largest I(T;Y) in the end, chosen by that "
    "number."
)


def information(plane: xr.Dataset, phases: Phases | None) -> str:
    """The plane, one panel a concept, with the verdicts beneath it.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` makes of it.
    """
    drawn = draw_plane(plane, phases)
    height = int(drawn.layout.height or 0)
    figure = parts.figure(drawn, "information plane, one panel a concept", height=height)
    unit = str(plane.attrs.get("units", "1"))
    lead = (
        f"{plane.attrs.get('x')} and {plane.attrs.get('y')}: "
        + ("a dependence, which is not in nats." if unit == "1" else f"in {unit}.")
        + f" X: {str(plane.attrs.get('against') or 'the input').replace('_', ' ')}."
    )
    return (
        f'<p class="quiet">{escape(lead)}</p>{figure}{_verdicts(plane, phases)}'
        f'<p class="quiet">{escape(_TOLD)}</p>'
    )


def _verdicts(plane: xr.Dataset, phases: Phases | None) -> str:
    if phases is None:
        told = "Phases were not looked for: give `phases=`, or run `tlens-trust information`."
        return f'<p class="quiet">{escape(told)}</p>'
    rows = []
    for concept in plane["concept"].values.tolist():
        site = site_of(plane, concept, None)
        name = panel_name(plane, concept, site)
        rows += [
            [name, each.quantity, _between(each), each.verdict, each.reason]
            for each in phases
            if (each.concept, each.site) == (concept, site)
        ]
    if not rows:
        return ""
    return parts.table(["concept", "quantity", "between", "verdict", "why"], rows, wrapped=("why",))


def _between(phase: Phase) -> str:
    ends = zip((phase.first_step, phase.last_step), (phase.first, phase.last), strict=True)
    return " → ".join(format_count(step) if step == step else name for step, name in ends)
