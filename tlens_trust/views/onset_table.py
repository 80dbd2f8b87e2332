"""Onsets and saturations in a few lines of text."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from tlens_trust.views.onset_text import explain_onset, onset_text, token_text
from tlens_trust.views.text_tables import Column, lay_out, with_heading


def onset_table(
    onset: xr.Dataset, saturation: xr.Dataset | None = None, *, every_site: bool = False
) -> str:
    """When each concept becomes decodable, and when no better, laid out for a terminal.

    Args:
        onset: What `find_onset` gives.
        saturation: What `find_saturation` gives for the same run folder.
        every_site: Whether to tell of every site, and not of the best one alone.

    Raises:
        ValueError: The two are not of the same concepts, sites and probes.

    Examples:
        >>> from tlens_trust.analysis import find_onset, find_saturation
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
    texts = {"onset": [onset_text(each) for _, each in chosen]}
    columns.append(("onset", texts["onset"]))
    if any(np.isfinite(float(each.onset_tokens)) for _, each in chosen):
        columns.append(("tokens", [token_text(each) for _, each in chosen]))
    if saturation is not None:
        texts["saturation"] = [
            onset_text(saturation.sel(place), "saturation") for place, _ in chosen
        ]
        columns.append(("saturation", texts["saturation"]))
    left = ("concept", "probe", "site", "onset", "tokens", "saturation")
    legend = _legend(onset, saturation, every_site, texts)
    return "\n".join([*lay_out(columns, left=left), "", *legend])


def _each(found: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    for concept in _names(found, "concept"):
        for probe in _names(found, "probe") or [""]:
            for site in _names(found, "site"):
                place = {"concept": concept, "site": site} | ({"probe": probe} if probe else {})
                yield place, found.sel(place)


def _names(found: xr.Dataset, axis: str) -> list[str]:
    return [str(name) for name in found[axis].values] if axis in found.dims else []


def _legend(
    onset: xr.Dataset,
    saturation: xr.Dataset | None,
    every_site: bool,
    texts: Mapping[str, Sequence[str]],
) -> list[str]:
    lines = with_heading("onset", explain_onset(onset, texts["onset"]))
    if saturation is not None:
        sentences = explain_onset(saturation, texts["saturation"], "saturation")
        lines += with_heading("saturation", sentences)
    told = "" if every_site else "each at the best site, "
    return [*lines, *with_heading("best", [f"{told}chosen on folds that it is not scored on"])]
