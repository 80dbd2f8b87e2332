"""Onsets and saturations in a few lines of text."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.text import Column, lay_out

# Read as absence, it would claim what nobody has tested.
NEVER = "never: shown at no step, which is no proof of absence: few statements show little"


def onset_table(
    onset: xr.Dataset, saturation: xr.Dataset | None = None, *, every_site: bool = False
) -> str:
    """Since when each concept is read, and since when no better, laid out for a terminal.

    Args:
        onset: What `find_onset` gives.
        saturation: What `find_saturation` gives for the same run folder.
        every_site: Whether to tell of every site, and not of the best one alone.

    Raises:
        ValueError: The two are not of the same concepts, sites and probes.

    Examples:
        >>> from tlens_trust.tracing import find_onset, find_saturation
        >>> print(onset_table(find_onset("run"), find_saturation("run")))  # doctest: +SKIP
    """
    if saturation is not None:
        for axis in ("concept", "site", "probe"):
            if not _names(onset, axis) == _names(saturation, axis):
                raise ValueError(
                    f"`onset` and `saturation` are not of the same {axis}s: "
                    f"{', '.join(_names(onset, axis))}, and "
                    f"{', '.join(_names(saturation, axis))}. Find both in one run folder, of the "
                    "same concepts."
                )
    sites = onset["site"].values.tolist() if every_site else ["best"]
    chosen = [(place, each) for place, each in _each(onset) if place["site"] in sites]
    columns: list[Column] = [("concept", [place["concept"] for place, _ in chosen])]
    if "probe" in onset.dims:
        columns.append(("probe", [place["probe"] for place, _ in chosen]))
    if every_site:
        columns.append(("site", [place["site"] for place, _ in chosen]))
    onsets = [since(each, "onset") for _, each in chosen]
    columns.append(("onset", onsets))
    if any(np.isfinite(float(each.onset_tokens)) for _, each in chosen):
        columns.append(("tokens", [_tokens(each) for _, each in chosen]))
    columns.append(("lasting", [_lasting(each) for _, each in chosen]))
    if saturation is not None:
        columns.append(
            ("saturation", [since(saturation.sel(place), "saturation") for place, _ in chosen])
        )
    left = ("concept", "probe", "site", "onset", "saturation")
    legend = _legend(onset, saturation, every_site, never="never" in onsets)
    return "\n".join([*lay_out(columns, left=left), "", *legend])


def since(found: xr.Dataset, name: str) -> str:
    """The set of checkpoints of one concept at one site, as it is read aloud.

    Args:
        found: Of one concept, site and probe.
        name: `"onset"` or `"saturation"`.
    """
    if not int(found[f"{name}_n"]):
        return "unknown"
    by = str(found[f"{name}_checkpoint"].item())
    if not by:
        return "never"
    first = str(found["checkpoint"].values[found[f"{name}_set"].values][0])
    told = _at(by, float(found[f"{name}_step"]))
    if not bool(found[f"{name}_at_start"]):
        after = float(found[f"{name}_step_ci"].sel(bound="low"))
        return f"{told} (after {_at(first, after)})"
    return f"{told} (from the start)" if by == first else f"{told} (or before)"


def _at(checkpoint: str, step: float) -> str:
    return checkpoint.split("@")[-1] if np.isnan(step) else f"{step:.0f}"


def _each(found: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    for concept in _names(found, "concept"):
        for probe in _names(found, "probe") or [""]:
            for site in _names(found, "site"):
                place = {"concept": concept, "site": site} | ({"probe": probe} if probe else {})
                yield place, found.sel(place)


def _names(found: xr.Dataset, axis: str) -> list[str]:
    return [str(name) for name in found[axis].values] if axis in found.dims else []


def _tokens(found: xr.Dataset) -> str:
    tokens = float(found.onset_tokens)
    return "" if np.isnan(tokens) else format_count(tokens)


def _lasting(found: xr.Dataset) -> str:
    checkpoint = str(found.lasting_checkpoint.item())
    return _at(checkpoint, float(found.lasting_step)) if checkpoint else ""


def _legend(
    onset: xr.Dataset, saturation: xr.Dataset | None, every_site: bool, *, never: bool
) -> list[str]:
    def told(found: xr.Dataset) -> tuple[dict[str, Any], str]:
        level = (1 + float(found.attrs["confidence"])) / 2
        return dict(found.attrs), f"{level:.1%}"

    attributes, level = told(onset)
    against = "null and text floor" if attributes["floor"] == "True" else "null"
    lines = [
        f"onset       step by which it is read above {against}, and the step after which: up to",
        f"            there, by at most {float(attributes['margin']):g} (each {level} sure, over "
        "all steps looked at)",
        "lasting     step from which on it is read at every checkpoint",
    ]
    if saturation is not None:
        attributes, level = told(saturation)
        lines += [
            "saturation  step by which it is less than "
            f"{float(attributes['margin']):g} below the last one, and the step after which: up to",
            f"            there, it is below the last one (each {level} sure)",
        ]
    told_of = "best        the site" if every_site else "            each at the best site,"
    if never:
        lines.append(f"            {NEVER}")
    return [*lines, f"{told_of} chosen on folds that it is not scored on"]
