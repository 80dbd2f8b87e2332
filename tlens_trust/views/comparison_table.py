"""Two checkpoints beside each other in a few lines of text."""

import xarray as xr

from tlens_trust.views.text import Column, lay_out, number, small_number, with_interval


def comparison_table(comparison: xr.Dataset) -> str:
    """What `compare_checkpoints` gives, site by site, laid out for a terminal.

    Args:
        comparison: What it gives.

    Examples:
        >>> from tlens_trust.analysis import compare_checkpoints
        >>> print(comparison_table(compare_checkpoints("run", "privacy", 0, 512)))  # doctest: +SKIP
    """
    values = comparison
    difference = values.accuracy_difference.values.tolist()
    interval = values.accuracy_difference_ci.sel(bound=["low", "high"]).values.tolist()
    columns: list[Column] = [
        ("site", [str(site) for site in values["site"].values]),
        ("before", [number(each) for each in values.accuracy_before.values]),
        ("after", [number(each) for each in values.accuracy_after.values]),
        (
            "after - before [95% interval]",
            [with_interval(d, *ends) for d, ends in zip(difference, interval, strict=True)],
        ),
        ("p", [small_number(each) for each in values.accuracy_difference_p.values]),
        ("p best", [small_number(each) for each in values.accuracy_difference_p_best.values]),
        ("learned", [f"{each:.0f}" for each in values.learned.values]),
        ("forgotten", [f"{each:.0f}" for each in values.forgotten.values]),
    ]
    tested = comparison.accuracy_difference_p.attrs
    return "\n".join(
        [
            f"{comparison.attrs['concept']}: {comparison.attrs['before']} to "
            f"{comparison.attrs['after']}, held-out accuracy of "
            f"{int(comparison.accuracy_difference_n.values[0])} statements in "
            f"{tested['groups']} groups",
            "",
            *lay_out(columns, left=("site",)),
            "",
            "p        two-sided, of no change at that site (groups' signs flipped)",
            "p best   corrected for the choice among the sites; learned, forgotten: statements",
        ]
    )
