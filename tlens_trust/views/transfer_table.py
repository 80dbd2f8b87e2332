"""Transfer between sets of statements in a few lines of text, and the site that is shown of it."""

import numpy as np
import xarray as xr

from tlens_trust.views.text import Column, lay_out, number, small_number, with_interval


def transfer_table(transfer: xr.Dataset, *, site: str | int | None = None) -> str:
    """What `trace_transfer` gives, checkpoint by checkpoint at one site, laid out for a terminal.

    Args:
        transfer: What it gives.
        site: A layer or the name of a site. By default the one that reads the fitted set best, over
            all checkpoints: so it is not chosen by what is shown.

    Raises:
        ValueError: It is no result of `trace_transfer`, or there is no such site.

    Examples:
        >>> from tlens_trust.analysis import trace_transfer
        >>> print(transfer_table(trace_transfer(series, one, other)))  # doctest: +SKIP
    """
    several = by_set(transfer)
    place = chosen_site(several, "accuracy", site)
    sections = [
        f"Probes fitted to {transfer.attrs['fitted_on']!r}, accuracy at "
        f"{several['site'].values[place]}"
    ]
    for name in several["scored_on"].values.tolist():
        panel = several.sel(scored_on=name).isel(site=place)
        low, high = (panel.accuracy_ci.sel(bound=bound).values for bound in ("low", "high"))
        columns: list[Column] = [
            ("checkpoint", [str(each) for each in panel["checkpoint"].values]),
            ("own", [number(each) for each in panel.accuracy_source.values]),
            (
                "transferred [95% interval]",
                [
                    with_interval(*each)
                    for each in zip(panel.accuracy.values, low, high, strict=True)
                ],
            ),
            ("auroc", [number(each) for each in panel.auroc.values]),
            ("refitted", [number(each) for each in panel.accuracy_target.values]),
            ("untrained", [number(each) for each in panel.accuracy_untrained.values]),
            ("p", [small_number(each) for each in panel.accuracy_p.values]),
            ("q", [small_number(each) for each in panel.accuracy_q.values]),
        ]
        counted = int(panel.accuracy_n.values[0])
        sections += [
            "",
            f"to {name!r}: {counted} statements, {int(panel.held_out_n)} of them in groups of the "
            f"fitted set, scored without these; text alone {number(float(panel.accuracy_floor))}",
            *lay_out(columns, left=("checkpoint",)),
        ]
    return "\n".join(
        [
            *sections,
            "",
            "own        held out in the fitted set; refitted: probes of the scored set's own",
            "p          of the fitted set being read, and its probes telling the other's labels",
            "q          of the best site, corrected for sites, checkpoints and sets",
        ]
    )


def by_set(transfer: xr.Dataset) -> xr.Dataset:
    """With an axis of scored sets, where there is one set too.

    Raises:
        ValueError: It is no result of `trace_transfer`.
    """
    if "accuracy_source" not in transfer:
        held = ", ".join(str(name) for name in transfer) or "nothing"
        raise ValueError(f"This shows what `trace_transfer` gives, got a data set of {held}.")
    if "scored_on" in transfer.dims:
        return transfer
    common = [name for name in transfer if "_source" in str(name)]
    return (
        transfer.drop_vars(common)
        .expand_dims("scored_on")
        .merge(transfer[common].drop_vars("scored_on"))
    )


def chosen_site(transfer: xr.Dataset, variable: str, site: str | int | None) -> int:
    """The number of a site; of the one that reads the fitted set best for None.

    Raises:
        ValueError: There is no such site.
    """
    if site is None:
        return int(np.argmax(transfer[f"{variable}_source"].mean("checkpoint").values))
    kind = "site" if isinstance(site, str) else "layer"
    held = transfer[kind].values.tolist()
    if site not in held:
        raise ValueError(f"There is no {kind} {site!r} here. Choose among {sorted(set(held))}.")
    place: int = held.index(site)
    return place
