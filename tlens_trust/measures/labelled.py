"""Labelled variables: a value, its interval, number, null and p-value, each with unit and name.

A variable `accuracy` has its interval in `accuracy_ci`, the number of statements in `accuracy_n`,
the band of its null in `accuracy_null` and its p-value in `accuracy_p`. All writers of results use
these functions, so that names, units and the wording of `long_name` agree.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

# Axes, values and attributes by name, as `xarray.Dataset` takes them. Writers collect all variables
# before they assign them, since each assignment aligns the whole data set again.
Variables = dict[str, tuple[tuple[str, ...], Any, dict[str, object]]]


def labelled(
    name: str,
    value: np.ndarray | float | int,
    *,
    units: str,
    long_name: str,
    dims: tuple[str, ...] = ("site",),
    interval: np.ndarray | None = None,
    n: np.ndarray | int | None = None,
    attributes: Mapping[str, object] | None = None,
    resampling: Mapping[str, object] | None = None,
    interval_note: str = "",
    confidence: float = 0.95,
) -> Variables:
    """Label a value, and its interval and number of statements if they are given.

    Args:
        name: The name of the variable. Its interval is `…_ci` and its number `…_n`.
        value: The values along `dims`.
        units: The unit of the value and of its interval.
        long_name: A noun phrase for the value, which may follow "the".
        dims: The axes of the value.
        interval: Low and high along one more axis, `bound`.
        n: The number of statements behind the values along the first of `dims`: one number for
            all, or one for each.
        attributes: More attributes of the value.
        resampling: More attributes of the interval, such as its number of resamples.
        interval_note: Text to add to the long name of the interval.
        confidence: The confidence level of the interval.

    Examples:
        >>> variables = labelled("rms", np.ones(2), units="1", long_name="size", n=40)
        >>> variables["rms_n"][1].tolist(), variables["rms_n"][2]["long_name"]
        ([40, 40], 'statements behind the size')
    """
    variables: Variables = {
        name: (dims, value, {"units": units, "long_name": long_name, **(attributes or {})})
    }
    if interval is not None:
        variables[f"{name}_ci"] = (
            (*dims, "bound"),
            interval,
            {
                "units": units,
                "long_name": f"{confidence:.0%} interval of the {long_name}{interval_note}",
                **(resampling or {}),
            },
        )
    if n is not None:
        variables[f"{name}_n"] = (
            dims[:1],
            np.full(np.shape(value)[:1], n) if np.ndim(n) == 0 else n,
            {"units": "statements", "long_name": f"statements behind the {long_name}"},
        )
    return variables


def labelled_null(
    name: str,
    *,
    long_name: str,
    permutations: int | str,
    band: np.ndarray | None = None,
    units: str = "1",
    condition: str = "where labels are permuted",
    p: np.ndarray | None = None,
    p_best: np.ndarray | None = None,
    p_name: str = "permutation p-value of the {}",
    dims: tuple[str, ...] = ("site",),
    attributes: Mapping[str, object] | None = None,
) -> Variables:
    """Label the null of a value: its band and its p-values, if they are given.

    Args:
        name: The name of the variable that the null belongs to.
        long_name: A noun phrase for the value, which may follow "the".
        permutations: The number of permutations behind the null.
        band: The middle 95% under the null, low and high along one more axis, `bound`.
        units: The unit of the band.
        condition: A clause that says what the null permutes.
        p: The p-value, `…_p`.
        p_best: The p-value by the null of the maximum over sites, `…_p_best`.
        p_name: The long name of a p-value, with `{}` for the long name of the value.
        dims: The axes of the value.
        attributes: More attributes of all variables.

    Examples:
        >>> variables = labelled_null("gain", long_name="gain", permutations=9, p=np.ones(1))
        >>> variables["gain_p"][2]["long_name"]
        'permutation p-value of the gain'
    """
    shared_attributes = {**(attributes or {}), "permutations": permutations}
    variables: Variables = {}
    if band is not None:
        band_name = f"middle 95% of the {long_name} {condition}"
        variables[f"{name}_null"] = (
            (*dims, "bound"),
            band,
            {"units": units, "long_name": band_name, **shared_attributes},
        )
    p_long_name = p_name.format(long_name)
    for suffix, values, note in (
        ("_p", p, ""),
        ("_p_best", p_best, ", by the null of the maximum over sites"),
    ):
        if values is not None:
            p_attributes = {"units": "1", "long_name": f"{p_long_name}{note}", **shared_attributes}
            variables[f"{name}{suffix}"] = dims, values, p_attributes
    return variables
