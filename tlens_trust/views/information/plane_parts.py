"""What figures of an information plane share: checks, labels, claimed phases, hover texts."""

from collections.abc import Iterator

import numpy as np
import xarray as xr

from tlens_trust.analysis.phases.phase_records import Phase, Phases
from tlens_trust.views.plot_text import plot_text

NAMES = {"x": "I(T;X)", "y": "I(T;Y)"}
PHASE_COLOURS = {"rises": "#009E73", "falls": "#D55E00"}


def check_plane(plane: xr.Dataset, site: str | None) -> None:
    """Check that a data set is an information plane and holds a site.

    Raises:
        ValueError: It is no plane, or lacks the site.
    """
    if not {"x", "y", "x_ci", "y_ci"} <= set(plane) or "position" not in plane.coords:
        raise ValueError(
            "This is no information plane. Draw what `information_plane` gives, with `concept`, "
            "`checkpoint` and `site` axes."
        )
    if site is not None and site not in plane["site"].values.tolist():
        sites = ", ".join(map(str, plane["site"].values.tolist()))
        raise ValueError(f"The plane holds no site {site!r}. Choose among {sites}.")


def site_of(plane: xr.Dataset, concept: str, site: str | None) -> str:
    """The site at which a concept is shown: the given one, or that of the largest last I(T;Y)."""
    if site is not None:
        return site
    # Leave out the site of X itself, and sites where either axis is unknown.
    is_known = plane[["x", "y"]].sel(concept=concept).notnull().all("checkpoint")
    last_values = plane["y"].sel(concept=concept).isel(checkpoint=-1)
    last_values = last_values.where(is_known["x"] & is_known["y"])
    if plane.attrs.get("against") == "first_block" and plane.sizes["site"] > 1:
        last_values = last_values.where(plane["site"] != "blocks.0.hook_resid_post")
    if not bool(last_values.notnull().any()):
        return str(plane["site"].values[-1])
    return str(last_values.idxmax("site").item())


def panel_name(plane: xr.Dataset, concept: str, site: str) -> str:
    """The title of a panel: its concept, and its layer or site."""
    layers = plane["layer"].values.tolist() if "layer" in plane.coords else []
    if len(set(layers)) == len(layers) == plane.sizes["site"]:
        layer = layers[plane["site"].values.tolist().index(site)]
        return f"{concept}, layer {layer}"
    return f"{concept}, {site}"


def axis_label(plane: xr.Dataset, axis: str) -> str:
    """The title of an axis: its quantity, estimator and unit; escaped for plotly."""
    unit = plane.attrs.get("units", "1")
    unit_label = "not in nats" if unit == "1" else str(unit)
    return f"{NAMES[axis]}<br>{plot_text(str(plane.attrs.get(axis, '')))} ({plot_text(unit_label)})"


def claims(phases: Phases | None, concept: str, site: str) -> Iterator[Phase]:
    """The claimed phases of one concept at one site."""
    for phase in phases or ():
        if (phase.concept, phase.site) == (concept, site) and phase.verdict != "no claim":
            yield phase


def hover_columns(part: xr.Dataset, axis: str) -> tuple[list[np.ndarray], str]:
    """Columns of hover numbers of an axis, and a format string that makes their template."""
    columns = [part[axis].values.astype(float)]
    names = [("_ci", "low"), ("_ci", "high"), ("_null", "low"), ("_null", "high")]
    for suffix, bound in names:
        name = f"{axis}{suffix}"
        columns.append(
            part[name].sel(bound=bound).values.astype(float)
            if name in part
            # A template refers to columns by number, so a missing one has to keep its place.
            else np.full(len(columns[0]), np.nan)
        )
    n = part[f"{axis}_n"] if f"{axis}_n" in part else xr.DataArray(np.nan)
    columns.append(np.broadcast_to(n.values.astype(float), columns[0].shape))
    return columns, (
        "%{{customdata[{0}]:.3f}} [%{{customdata[{1}]:.3f}}, %{{customdata[{2}]:.3f}}]"
        + ", null [%{{customdata[{3}]:.3f}}, %{{customdata[{4}]:.3f}}]" * (f"{axis}_null" in part)
        + ", n = %{{customdata[{5}]:,.0f}}"
    )
