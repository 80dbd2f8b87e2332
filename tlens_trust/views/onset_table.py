"""Onsets and saturations as a table for a terminal."""

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
import xarray as xr

from tlens_trust.views.onset_text import explain_onset, onset_text, token_text
from tlens_trust.views.text_tables import Column, lay_out, with_heading


def onset_table(
    onset: xr.Dataset, saturation: xr.Dataset | None = None, *, every_site: bool = False
) -> str:
    """Lay out for a terminal when each concept becomes decodable, and when it stops improving.

    Args:
        onset: What `find_onset` gives.
        saturation: What `find_saturation` gives for the same run folder.
        every_site: Whether to list every site instead of the best one only.

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
                    f"{', '.join(_names(saturation, axis))}. Find both in one run folder, for the "
                    "same concepts."
                )
    sites = onset["site"].values.tolist() if every_site else ["best"]
    rows = [(place, cell) for place, cell in _cells(onset) if place["site"] in sites]
    columns: list[Column] = [("concept", [place["concept"] for place, _ in rows])]
    if "probe" in onset.dims:
        columns.append(("probe", [place["probe"] for place, _ in rows]))
    if every_site:
        columns.append(("site", [place["site"] for place, _ in rows]))
    texts = {"onset": [onset_text(cell) for _, cell in rows]}
    columns.append(("onset", texts["onset"]))
    if any(np.isfinite(float(cell.onset_tokens)) for _, cell in rows):
        columns.append(("tokens", [token_text(cell) for _, cell in rows]))
    if saturation is not None:
        texts["saturation"] = [onset_text(saturation.sel(place), "saturation") for place, _ in rows]
        columns.append(("saturation", texts["saturation"]))
    text_columns = ("concept", "probe", "site", "onset", "tokens", "saturation")
    legend = _legend(onset, saturation, every_site, texts)
    return "\n".join([*lay_out(columns, left=text_columns), "", *legend])


def _cells(data: xr.Dataset) -> Iterator[tuple[dict[str, str], xr.Dataset]]:
    for concept in _names(data, "concept"):
        # Of a single probe, the data have no axis of probes to select on.
        for probe in _names(data, "probe") or [""]:
            for site in _names(data, "site"):
                place = {"concept": concept, "site": site} | ({"probe": probe} if probe else {})
                yield place, data.sel(place)


def _names(data: xr.Dataset, axis: str) -> list[str]:
    return [str(name) for name in data[axis].values] if axis in data.dims else []


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
    scope = "" if every_site else "each at the best site, "
    return [*lines, *with_heading("best", [f"{scope}chosen on folds that it is not scored on"])]
