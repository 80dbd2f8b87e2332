"""Onsets of several kinds for one concept: located, and put on one axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from tlens_trust.analysis.onset.crossings import FirstCrossing, Looks, first_crossing
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.steering.quantities import Quantity, random_p
from tlens_trust.steering.targets import TargetResult


@dataclass(frozen=True, eq=False)
class Located:
    """Since when something is so, and what says so.

    Attributes:
        established: Number of the checkpoint by which it is shown; None for never.
        lasting: From which on it is shown at every one; None for never.
        members: The checkpoints of the set.
        value: What was looked at.
        bounds: Low and high, as the answer took them.
        units: Of both.
        told: What they are.
    """

    established: int | None
    lasting: int | None
    members: Bool[np.ndarray, " checkpoint"]
    value: Float[np.ndarray, " checkpoint"]
    bounds: Float[np.ndarray, "checkpoint bound"]
    units: str
    told: str


def locate_writable(
    results: Sequence[TargetResult],
    effect: str,
    *,
    margin: float,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[Located, Float[np.ndarray, " checkpoint"]]:
    """Since when a checkpoint's own vector moves it more than random directions do.

    What is looked at is, example by example, the change by the vector minus the mean change by
    random directions, and beside it the p-value of the change among theirs.

    Args:
        results: One for each checkpoint, each steered by its own vector.
        effect: Which quantity.
        margin: What counts as hardly any change.
        level: At which each end of the set errs.
        resamples: How many bootstrap resamples.
        seed: Draws them.

    Returns:
        The answer, and the p-values.
    """
    quantity = results[0].unsteered[effect]
    changes, p = [], []
    for result in results:
        before = result.unsteered[effect].values
        change = result.steered[0][effect].values - before
        random = result.random.values(quantity) - before
        random = random[np.isfinite(random).all(axis=1)]
        typical = random.mean(axis=0) if len(random) else np.full(len(before), np.nan)
        changes.append(change - typical)
        p.append(random_p(float(change.mean()), random.mean(axis=1)))
    tests = np.array(p)
    told = f"change of the {quantity.long_name} by the checkpoint's own vector, less what random "
    located = locate_moved(
        np.stack(changes),
        tests,
        quantity,
        told=f"{told}directions change",
        margin=margin,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return located, tests


def locate_moved(
    changes: Float[np.ndarray, "checkpoint example"],
    p: Float[np.ndarray, " checkpoint"],
    quantity: Quantity,
    *,
    told: str,
    margin: float,
    level: float,
    resamples: int,
    seed: int,
) -> Located:
    """Since when vectors move a quantity to the trustworthy side.

    Args:
        changes: What each vector changes in each example, less what random directions do.
        p: The p-value of each vector's change among random directions.
        quantity: What is changed, in any condition.
        told: What the changes are.
        margin: What counts as hardly any change.
        level: At which each end of the set errs.
        resamples: How many bootstrap resamples.
        seed: Draws them.
    """
    # To be claimed at the level, with room for how fractions of whole numbers are rounded.
    half = level / 2 * (1 + 1e-9)
    crossing, bounds = _crossing(
        changes,
        quantity,
        benjamini_hochberg(p) <= half,
        p <= half,
        margin=margin,
        level=level,
        resamples=resamples,
        seed=seed,
    )
    return _located(crossing, changes, bounds, quantity, told)


def locate_expressed(
    results: Sequence[TargetResult],
    expression: str,
    *,
    margin: float,
    level: float,
    resamples: int,
    seed: int,
) -> Located:
    """Since when the unsteered model is on the trustworthy side by itself.

    Args:
        results: One for each checkpoint.
        expression: Which quantity; a fraction is held against one half, anything else against 0.
        margin: How little above that counts as hardly at all.
        level: At which each end of the set errs.
        resamples: How many bootstrap resamples.
        seed: Draws them.
    """
    quantity = results[0].unsteered[expression]
    middle = 0.5 if "fraction" in quantity.units else 0.0
    values = np.stack([result.unsteered[expression].values for result in results]) - middle
    always = np.ones(len(results), dtype=bool)
    crossing, bounds = _crossing(
        values, quantity, always, always, margin=margin, level=level, resamples=resamples, seed=seed
    )
    over = " above one half" if middle else ""
    return _located(
        crossing, values, bounds, quantity, f"{quantity.long_name}{over}, of the unsteered model"
    )


def read_located(onset: xr.Dataset, site: str | int, checkpoints: Sequence[str]) -> Located:
    """What `find_onset` says of one site of one concept, as the other answers are put.

    Args:
        onset: What it gave, of one concept.
        site: Which site.
        checkpoints: Names of those that were looked at.

    Raises:
        ValueError: The site is not among those that were probed, or several probes were.
    """
    name = site if isinstance(site, str) else _residual(onset, site)
    if name not in onset["site"].values:
        raise ValueError(
            f"The run was not probed at {name!r}. It was at "
            f"{', '.join(map(str, onset['site'].values))}. Choose one of these, or leave "
            "`run_folder` out."
        )
    here = onset.sel(site=name)
    if "probe" in here.dims:
        raise ValueError(
            f"The run holds several probes, {', '.join(map(str, here['probe'].values))}. Give a "
            "run folder of one, or leave `run_folder` out."
        )
    names = list(checkpoints)
    known = [str(each) for each in onset["checkpoint"].values]
    here = here.isel(checkpoint=[known.index(each) for each in names])

    def number(variable: str) -> int | None:
        found = str(here[variable].values)
        return names.index(found) if found else None

    return Located(
        number("onset_checkpoint"),
        number("lasting_checkpoint"),
        here["onset_set"].values.astype(bool),
        here["gain"].values,
        here["gain_ci"].transpose("checkpoint", "bound").values,
        str(onset["gain"].attrs.get("units", "")),
        str(onset["gain"].attrs.get("long_name", "")),
    )


def check_quantities(result: TargetResult, effect: str, expression: str) -> None:
    """Refuse quantities that are not there.

    Raises:
        ValueError: One is not, or `effect` is no effect.
    """
    held = result.unsteered
    effects = [name for name, quantity in held.items() if quantity.effect]
    for argument, name, known in (("effect", effect, effects), ("expression", expression, held)):
        if name not in known:
            raise ValueError(
                f"`{argument}` got {name!r}, which is not measured here. Choose one of "
                f"{', '.join(known)}; `choices` adds others."
            )


def label_kinds(
    located: Mapping[str, Located],
    names: Sequence[str],
    steps: Float[np.ndarray, " checkpoint"],
    tokens: Float[np.ndarray, " checkpoint"],
    p: Float[np.ndarray, " checkpoint"],
) -> xr.Dataset:
    """Put answers together, as `compare_onsets` describes.

    Args:
        located: Answers by kind.
        names: The checkpoints that were looked at.
        steps: Their steps, NaN where unknown.
        tokens: Tokens seen, likewise.
        p: Of the vectors, among random directions.
    """
    found = tuple(located.values())
    counts = {"step": steps, "tokens": tokens}
    data = xr.Dataset(
        coords={
            "kind": list(located),
            "units": ("kind", [each.units for each in found]),
            "told": ("kind", [each.told for each in found]),
            "checkpoint": list(names),
            "step": ("checkpoint", counts["step"]),
            "tokens": ("checkpoint", counts["tokens"]),
            "bound": ["low", "high"],
        }
    )
    data["value"] = (("kind", "checkpoint"), np.stack([each.value for each in found]))
    data["value_ci"] = (("kind", "checkpoint", "bound"), np.stack([each.bounds for each in found]))
    for name in ("value", "value_ci"):
        data[name].attrs = {"units": "see the coordinate", "long_name": "what was looked at"}
    data["onset_set"] = (("kind", "checkpoint"), np.stack([each.members for each in found]))
    data["writable_p"] = (("checkpoint",), p)
    data["onset_set"].attrs = {"units": "1", "long_name": "whether the onset may lie here"}
    data["writable_p"].attrs = {"units": "1", "long_name": "p-value among random directions"}
    for word, ends in (
        ("onset", [e.established for e in found]),
        ("lasting", [e.lasting for e in found]),
    ):
        here = [len(names) if end is None else end for end in ends]
        told = "by which it is shown" if word == "onset" else "from which on it is at every one"
        data[f"{word}_checkpoint"] = (("kind",), np.append(names, "")[here])
        data[f"{word}_checkpoint"].attrs = {"units": "1", "long_name": f"checkpoint {told}"}
        for unit, values in counts.items():
            along = np.append(values, np.nan)
            data[f"{word}_{unit}"] = (("kind",), along[here])
            data[f"{word}_{unit}"].attrs = {"units": unit, "long_name": f"{unit} {told}"}
            if word == "onset":
                # Of a set without an end, the high end is unknown.
                first = [int(each.members.argmax()) for each in found]
                bounds = np.stack([along[first], along[here]], axis=-1)
                data[f"onset_{unit}_ci"] = (("kind", "bound"), bounds)
                data[f"onset_{unit}_ci"].attrs = {
                    "units": unit,
                    "long_name": f"{unit} of the ends of the set",
                }
    return data


def _crossing(
    values: Float[np.ndarray, "checkpoint example"],
    quantity: Quantity,
    anywhere: Bool[np.ndarray, " checkpoint"],
    each: Bool[np.ndarray, " checkpoint"],
    *,
    margin: float,
    level: float,
    resamples: int,
    seed: int,
) -> tuple[FirstCrossing, Float[np.ndarray, "checkpoint bound"]]:
    bootstrap = GroupBootstrap.draw(quantity.groups, seed=seed, resamples=resamples)
    known = np.isfinite(values).all(axis=1)
    lower, upper, alone = (np.full(len(values), np.nan) for _ in range(3))
    half = level / 2
    if known.any():
        # `Looks` takes a share of groups for the least that can be told, which supposes fractions.
        scale = 1.0 if "fraction" in quantity.units else float(values[known].std()) or 1.0
        # Nothing is shared by folds here: the vectors were made of other groups altogether.
        fold = np.zeros(values.shape[1], dtype=np.int64)
        looks = Looks.of(values[known][None] / scale, None, fold, bootstrap)
        lower[known] = scale * looks.lower(half, over="all")[0]
        upper[known] = scale * looks.upper(level, over="each")[0]
        alone[known] = scale * looks.lower(half, over="each")[0]
    # What is unknown is neither shown nor excluded: comparisons with NaN are false.
    crossing = first_crossing(
        anywhere=(lower > 0) & anywhere, each=(alone > 0) & each, excluded=upper <= margin
    )
    return crossing, np.stack([lower, upper], axis=-1)


def _located(
    crossing: FirstCrossing,
    values: Float[np.ndarray, "checkpoint example"],
    bounds: Float[np.ndarray, "checkpoint bound"],
    quantity: Quantity,
    told: str,
) -> Located:
    return Located(
        crossing.established,
        crossing.lasting,
        crossing.members,
        values.mean(axis=1),
        bounds,
        quantity.units,
        told,
    )


def _residual(onset: xr.Dataset, layer: int) -> str:
    layers = onset["layer"].values
    place = layer if layer >= 0 else int(np.nanmax(layers)) + 1 + layer
    return f"blocks.{place}.hook_resid_post"
