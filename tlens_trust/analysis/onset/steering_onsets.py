"""Onsets of several kinds for one concept: estimated, and put on one axis."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float

from tlens_trust.analysis.onset.crossings import FirstCrossing, ResampledMeans, first_crossing
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.steering.quantities import Quantity, random_p
from tlens_trust.steering.target_evaluation import TargetResult


@dataclass(frozen=True, eq=False)
class OnsetEstimate:
    """The onset of one property of a concept, with the values behind it.

    Attributes:
        established: Number of the checkpoint by which the property is shown; None for never.
        lasting: Number of the checkpoint from which it is shown at every one; None for never.
        members: Whether each checkpoint belongs to the set of the onset.
        value: The value at each checkpoint.
        bounds: Low and high bound of each value, as the onset uses them.
        units: Unit of values and bounds.
        description: What the values are.
    """

    established: int | None
    lasting: int | None
    members: Bool[np.ndarray, " checkpoint"]
    value: Float[np.ndarray, " checkpoint"]
    bounds: Float[np.ndarray, "checkpoint bound"]
    units: str
    description: str


@dataclass(frozen=True)
class OnsetLevels:
    """Error level, resamples and seed of an onset, made once for all kinds.

    Attributes:
        level: Share of runs in which each end of the set may be wrong.
        resamples: Bootstrap resamples of groups.
        seed: Draws them.
    """

    level: float
    resamples: int
    seed: int


def steering_onset(
    results: Sequence[TargetResult], effect: str, levels: OnsetLevels, *, margin: float
) -> tuple[OnsetEstimate, Float[np.ndarray, " checkpoint"]]:
    """Estimate when a checkpoint's own vector first moves it more than random directions do.

    The value is, example by example, the change by the vector minus the mean change by random
    directions. The p-value compares the mean change with theirs.

    Args:
        results: One for each checkpoint, each steered by its own vector.
        effect: The quantity.
        levels: Error level, resamples and seed.
        margin: The largest change that counts as negligible.

    Returns:
        The onset, and the p-values.
    """
    quantity = results[0].unsteered[effect]
    changes, p_values = [], []
    for result in results:
        unsteered = result.unsteered[effect].values
        change = result.steered[0][effect].values - unsteered
        random = result.random.values(quantity) - unsteered
        random = random[np.isfinite(random).all(axis=1)]
        random_mean = random.mean(axis=0) if len(random) else np.full(len(unsteered), np.nan)
        changes.append(change - random_mean)
        p_values.append(random_p(float(change.mean()), random.mean(axis=1)))
    p = np.array(p_values)
    onset = change_onset(
        np.stack(changes),
        p,
        quantity,
        levels,
        description=f"change of the {quantity.long_name} by the checkpoint's own vector, less what "
        "random directions change",
        margin=margin,
    )
    return onset, p


def change_onset(
    changes: Float[np.ndarray, "checkpoint example"],
    p: Float[np.ndarray, " checkpoint"],
    quantity: Quantity,
    levels: OnsetLevels,
    *,
    description: str,
    margin: float,
) -> OnsetEstimate:
    """Estimate when vectors first move a quantity to the trustworthy side.

    Args:
        changes: Change of each example by each vector, minus that by random directions.
        p: The p-value of each vector's change among random directions.
        quantity: The quantity, in any condition.
        levels: Error level, resamples and seed.
        description: What the changes are.
        margin: The largest change that counts as negligible.
    """
    # Half of the level is for each way to show an onset; a little more allows for rounding.
    half_level = levels.level / 2 * (1 + 1e-9)
    crossing, bounds = _crossing(
        changes,
        quantity,
        levels,
        benjamini_hochberg(p) <= half_level,
        p <= half_level,
        margin=margin,
    )
    return _estimate(crossing, changes, bounds, quantity, description)


def expression_onset(
    results: Sequence[TargetResult], expression: str, levels: OnsetLevels, *, margin: float
) -> OnsetEstimate:
    """Estimate when the unsteered model first prefers the trustworthy side.

    Args:
        results: One for each checkpoint.
        expression: The quantity. A fraction is compared with one half, anything else with 0.
        levels: Error level, resamples and seed.
        margin: The largest value above that level that counts as negligible.
    """
    quantity = results[0].unsteered[expression]
    middle = 0.5 if "fraction" in quantity.units else 0.0
    values = np.stack([result.unsteered[expression].values for result in results]) - middle
    all_checkpoints = np.ones(len(results), dtype=bool)
    crossing, bounds = _crossing(
        values, quantity, levels, all_checkpoints, all_checkpoints, margin=margin
    )
    over = " above one half" if middle else ""
    description = f"{quantity.long_name}{over}, of the unsteered model"
    return _estimate(crossing, values, bounds, quantity, description)


def decoding_onset(onset: xr.Dataset, site: str | int, checkpoints: Sequence[str]) -> OnsetEstimate:
    """The onset of `find_onset` at one site of one concept.

    Args:
        onset: The result of `find_onset` for one concept.
        site: The site.
        checkpoints: Names of the checkpoints.

    Raises:
        ValueError: The site was not probed, or several probes were used.
    """
    name = site if isinstance(site, str) else _residual(onset, site)
    if name not in onset["site"].values:
        raise ValueError(
            f"The run was not probed at {name!r}. It was at "
            f"{', '.join(map(str, onset['site'].values))}. Choose one of these, or leave "
            "`run_folder` out."
        )
    at_site = onset.sel(site=name)
    if "probe" in at_site.dims:
        raise ValueError(
            f"The run holds several probes, {', '.join(map(str, at_site['probe'].values))}. Give a "
            "run folder of one, or leave `run_folder` out."
        )
    names = list(checkpoints)
    # A run folder may hold the checkpoints in another order.
    order = [str(checkpoint) for checkpoint in onset["checkpoint"].values]
    at_site = at_site.isel(checkpoint=[order.index(checkpoint) for checkpoint in names])

    def number(variable: str) -> int | None:
        checkpoint = str(at_site[variable].values)
        return names.index(checkpoint) if checkpoint else None

    return OnsetEstimate(
        number("onset_checkpoint"),
        number("lasting_checkpoint"),
        at_site["onset_set"].values.astype(bool),
        at_site["gain"].values,
        at_site["gain_ci"].transpose("checkpoint", "bound").values,
        str(onset["gain"].attrs.get("units", "")),
        str(onset["gain"].attrs.get("long_name", "")),
    )


def check_quantities(result: TargetResult, effect: str, expression: str) -> None:
    """Refuse quantities that were not measured.

    Raises:
        ValueError: One was not measured, or `effect` is no effect.
    """
    measured = result.unsteered
    effects = [name for name, quantity in measured.items() if quantity.effect]
    for argument, name, allowed_names in (
        ("effect", effect, effects),
        ("expression", expression, list(measured)),
    ):
        if name not in allowed_names:
            raise ValueError(
                f"`{argument}` got {name!r}, which is not measured here. Choose one of "
                f"{', '.join(allowed_names)}; `choices` adds others."
            )


def label_onsets(
    onsets: Mapping[str, OnsetEstimate],
    checkpoints: Sequence[str],
    steps: Float[np.ndarray, " checkpoint"],
    tokens: Float[np.ndarray, " checkpoint"],
    p: Float[np.ndarray, " checkpoint"],
) -> xr.Dataset:
    """Put onsets of several kinds on one axis, as `compare_onsets` describes.

    Args:
        onsets: The onset of each kind.
        checkpoints: The names of the checkpoints.
        steps: Their steps, NaN where unknown.
        tokens: The tokens they have seen, NaN where unknown.
        p: The p-values of the vectors among random directions.
    """
    estimates = tuple(onsets.values())
    counts = {"step": steps, "tokens": tokens}
    by_checkpoint = ("kind", "checkpoint")
    data = xr.Dataset(
        coords={
            "kind": list(onsets),
            "units": ("kind", [onset.units for onset in estimates]),
            "told": ("kind", [onset.description for onset in estimates]),
            "checkpoint": list(checkpoints),
            "step": ("checkpoint", counts["step"]),
            "tokens": ("checkpoint", counts["tokens"]),
            "bound": ["low", "high"],
        }
    )
    data["value"] = (by_checkpoint, np.stack([onset.value for onset in estimates]))
    data["value_ci"] = ((*by_checkpoint, "bound"), np.stack([onset.bounds for onset in estimates]))
    for name in ("value", "value_ci"):
        data[name].attrs = {
            "units": "see the coordinate",
            "long_name": "value behind the onset; the coordinate `told` describes it",
        }
    data["onset_set"] = (by_checkpoint, np.stack([onset.members for onset in estimates]))
    data["writable_p"] = (("checkpoint",), p)
    data["onset_set"].attrs = {"units": "1", "long_name": "whether the onset may lie here"}
    data["writable_p"].attrs = {"units": "1", "long_name": "p-value among random directions"}
    for word, numbers, description in (
        ("onset", [onset.established for onset in estimates], "by which it is shown"),
        ("lasting", [onset.lasting for onset in estimates], "from which on it is always shown"),
    ):
        # Never is one past the last checkpoint, where names and counts are empty.
        places = [len(checkpoints) if number is None else number for number in numbers]
        data[f"{word}_checkpoint"] = (("kind",), np.append(checkpoints, "")[places])
        data[f"{word}_checkpoint"].attrs = {"units": "1", "long_name": f"checkpoint {description}"}
        for unit, values in counts.items():
            padded = np.append(values, np.nan)
            data[f"{word}_{unit}"] = (("kind",), padded[places])
            data[f"{word}_{unit}"].attrs = {"units": unit, "long_name": f"{unit} {description}"}
            if word == "onset":
                # The high end of a set without an end is unknown.
                low = [int(onset.members.argmax()) for onset in estimates]
                data[f"onset_{unit}_ci"] = (
                    ("kind", "bound"),
                    np.stack([padded[low], padded[places]], axis=-1),
                )
                data[f"onset_{unit}_ci"].attrs = {
                    "units": unit,
                    "long_name": f"{unit} of the ends of the set",
                }
    return data


def _crossing(
    values: Float[np.ndarray, "checkpoint example"],
    quantity: Quantity,
    levels: OnsetLevels,
    shown_anywhere: Bool[np.ndarray, " checkpoint"],
    shown_alone: Bool[np.ndarray, " checkpoint"],
    *,
    margin: float,
) -> tuple[FirstCrossing, Float[np.ndarray, "checkpoint bound"]]:
    bootstrap = GroupBootstrap.draw(quantity.groups, seed=levels.seed, resamples=levels.resamples)
    is_finite = np.isfinite(values).all(axis=1)
    lower, upper, lower_alone = (np.full(len(values), np.nan) for _ in range(3))
    half_level = levels.level / 2
    if is_finite.any():
        # The bounds assume fractions: they are never narrower than the share of one group.
        is_fraction = "fraction" in quantity.units
        scale = 1.0 if is_fraction else float(values[is_finite].std()) or 1.0
        # No folds are shared: the vectors were estimated from other groups altogether.
        fold = np.zeros(values.shape[1], dtype=np.int64)
        means = ResampledMeans.of(values[is_finite][None] / scale, None, fold, bootstrap)
        lower[is_finite] = scale * means.lower(half_level, over="all")[0]
        upper[is_finite] = scale * means.upper(levels.level, over="each")[0]
        lower_alone[is_finite] = scale * means.lower(half_level, over="each")[0]
    # An unknown value is neither shown nor excluded: comparisons with NaN are false.
    crossing = first_crossing(
        anywhere=(lower > 0) & shown_anywhere,
        by_itself=(lower_alone > 0) & shown_alone,
        excluded=upper <= margin,
    )
    return crossing, np.stack([lower, upper], axis=-1)


def _estimate(
    crossing: FirstCrossing,
    values: Float[np.ndarray, "checkpoint example"],
    bounds: Float[np.ndarray, "checkpoint bound"],
    quantity: Quantity,
    description: str,
) -> OnsetEstimate:
    return OnsetEstimate(
        crossing.established,
        crossing.lasting,
        crossing.members,
        values.mean(axis=1),
        bounds,
        quantity.units,
        description,
    )


def _residual(onset: xr.Dataset, layer: int) -> str:
    layers = onset["layer"].values
    number = layer if layer >= 0 else int(np.nanmax(layers)) + 1 + layer
    return f"blocks.{number}.hook_resid_post"
