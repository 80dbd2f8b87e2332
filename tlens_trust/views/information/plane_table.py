"""An information plane and its phases as a table for a terminal."""

from typing import TYPE_CHECKING

import numpy as np
import xarray as xr

from tlens_trust.views.text_tables import Column, lay_out, number

if TYPE_CHECKING:
    from tlens_trust.analysis.phases.phase_records import Phases


def plane_lines(plane: xr.Dataset, phases: "Phases") -> list[str]:
    """List the claimed phases of each concept in one line, at the site that `plane_table` shows.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` gives for the plane.
    """
    concepts = plane["concept"].values.tolist()
    width = max(len(str(concept)) for concept in concepts)
    lines = [_title(plane)]
    for concept in concepts:
        (site, *_) = _sites(plane.sel(concept=concept), every_site=False)
        verdicts = []
        for quantity in ("I(T;X)", "I(T;Y)"):
            claims = [
                f"{phase.verdict} between {phase.first_step:.0f} and {phase.last_step:.0f} "
                f"({phase.change:+.2f})".replace("-", "−")
                for phase in phases
                if (phase.concept, phase.site, phase.quantity) == (concept, site, quantity)
                and phase.verdict != "no claim"
            ]
            verdicts.append(f"{quantity} {', '.join(claims) or 'no claim'}")
        layer = int(plane["layer"].sel(site=site))
        lines.append(f"{concept:<{width}}  layer {layer}: {'; '.join(verdicts)}")
    return lines


def plane_table(plane: xr.Dataset, phases: "Phases", *, every_site: bool = False) -> str:
    """Lay out the plane of each concept along training for a terminal, with its verdicts.

    Each concept is shown at one site, the one with the largest `I(T;Y)` at the last checkpoint,
    unless `every_site` is set. The verdicts are corrected for all sites and concepts either way.

    Args:
        plane: What `information_plane` gives.
        phases: What `find_phases` gives for the plane.
        every_site: Whether to show every site.
    """
    lines = [_title(plane), ""]
    for concept in plane["concept"].values.tolist():
        for site in _sites(plane.sel(concept=concept), every_site=every_site):
            lines.append(f"{concept}, {site}")
            lines += _curves(plane.sel(concept=concept, site=site))
            lines += [*_verdicts(concept, site, phases), ""]
    return "\n".join([*lines, *_legend(plane, every_site=every_site)])


def _title(plane: xr.Dataset) -> str:
    unit = plane.attrs["units"]
    unit_label = "a dependence, not in nats" if unit == "1" else f"in {unit}"
    against = f", X: {plane.attrs['against'].replace('_', ' ')}" if plane.attrs["against"] else ""
    names = dict.fromkeys([plane.attrs["x"], plane.attrs["y"]])
    return f"{' and '.join(names)} ({unit_label}{against})"


def _sites(part: xr.Dataset, *, every_site: bool) -> list[str]:
    names: list[str] = part["site"].values.tolist()
    last_values = part["y"].isel(checkpoint=-1)
    if every_site or not bool(last_values.notnull().any()):
        return names
    return [str(last_values.idxmax("site").item())]


def _curves(part: xr.Dataset) -> list[str]:
    steps = np.asarray(part["step"].values, dtype=float)
    names = part["checkpoint"].values.tolist()
    columns: list[Column] = [
        (
            "step",
            [
                f"{step:.0f}" if np.isfinite(step) else str(name)
                for step, name in zip(steps, names, strict=True)
            ],
        )
    ]
    for axis, title in (("x", "I(T;X)"), ("y", "I(T;Y)")):
        columns.append((f"{title} [95% interval]", _intervals(part, axis)))
        if f"{axis}_null" in part and part[f"{axis}_null"].notnull().any():
            high = part[f"{axis}_null"].sel(bound="high").values.tolist()
            columns.append(("null", [number(value) for value in high]))
    if "rankme" in part:
        columns.append(("rank", [number(v, digits=1) for v in part["rankme"].values.tolist()]))
    return [f"  {line}" for line in lay_out(columns, left=())]


def _verdicts(concept: str, site: str, phases: "Phases") -> list[str]:
    curve_phases = [phase for phase in phases if (phase.concept, phase.site) == (concept, site)]
    width = max((len(phase.quantity) for phase in curve_phases), default=0)
    return [
        *(f"  {phase.quantity:<{width}}  {phase}" for phase in curve_phases),
        *(f"  {text}" for text in phases.unknown if text.startswith(f"{concept}, {site}, ")),
    ]


def _intervals(part: xr.Dataset, axis: str) -> list[str]:
    values = part[axis].values.tolist()
    bounds = part[f"{axis}_ci"].transpose("checkpoint", "bound").values.tolist()
    return [
        "" if np.isnan(value) else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        for value, (low, high) in zip(values, bounds, strict=True)
    ]


def _legend(plane: xr.Dataset, *, every_site: bool) -> list[str]:
    lines = []
    if not every_site:
        lines.append(
            "site   with the largest I(T;Y) at the last checkpoint, chosen by that same number"
        )
    lines.append("null   upper end of the 95% band with permuted pairs")
    if "rankme" in plane:
        lines.append("rank   effective rank (RankMe), which kernel estimates follow as well")
    lines.append(
        "A claim survives noise, the null, a flat spectrum and every other width, corrected for "
        "all\nsegments, sites and concepts. Otherwise the reason names the failed test."
    )
    return lines
