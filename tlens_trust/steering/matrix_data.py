"""What sources do to targets, labelled."""

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from einops import rearrange
from jaxtyping import Float

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.steering.quantities import Quantity, Resamples, described, random_p, wrong_way
from tlens_trust.steering.targets import TargetResult
from tlens_trust.steering.vector import SteeringVector

_CELL = ("source", "target")


def label_matrix(
    results: Sequence[TargetResult],
    vectors: Sequence[SteeringVector],
    sources: Sequence[Checkpoint],
    targets: Sequence[Checkpoint],
    *,
    confidence: float,
    resamples: int,
    seed: int,
) -> xr.Dataset:
    """Put the results of all targets together.

    Args:
        results: One for each target.
        vectors: One for each source.
        sources: Where these come from.
        targets: Whom they were tried on.
        confidence: Of the intervals.
        resamples: How many bootstrap resamples.
        seed: Draws them.

    Returns:
        What `steering_matrix` describes, but for the attributes.
    """
    variables: dict[str, xr.Variable] = {}
    for name, quantity in results[0].unsteered.items():
        drawn = Resamples.of(quantity, seed=seed, resamples=resamples, confidence=confidence)
        variables |= _quantity(name, quantity, results, drawn, seed)
    strengths = np.stack([result.strengths for result in results], axis=1)
    norms = np.array([float(vector.norms.square().sum().sqrt()) for vector in vectors])
    variables["strength"] = xr.Variable(
        _CELL, strengths, {"units": "lengths of the vector", "long_name": "strength at the dose"}
    )
    variables["norm"] = xr.Variable(
        ("source",), norms, {"units": "activation", "long_name": "length of the source's vector"}
    )
    cosines = [
        [float(one.cosine(other).mean()) for other in vectors]
        if all(one.sites == other.sites for other in vectors)
        else [np.nan] * len(vectors)
        for one in vectors
    ]
    variables["cosine"] = xr.Variable(
        ("source", "other_source"),
        np.array(cosines),
        {"units": "1", "long_name": "cosine between the sources' vectors"},
    )
    coordinates = {
        **_along("source", sources),
        **_along("target", targets),
        "other_source": [checkpoint.name for checkpoint in sources],
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords=coordinates)


def _along(axis: str, checkpoints: Sequence[Checkpoint]) -> Mapping[str, object]:
    def numbers(attribute: str) -> tuple[str, np.ndarray]:
        found = [getattr(checkpoint, attribute) for checkpoint in checkpoints]
        return axis, np.array([np.nan if each is None else float(each) for each in found])

    return {
        axis: [checkpoint.name for checkpoint in checkpoints],
        f"{axis}_step": numbers("step"),
        f"{axis}_tokens": numbers("tokens"),
    }


def _quantity(
    name: str,
    quantity: Quantity,
    results: Sequence[TargetResult],
    drawn: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    weights = drawn.weights
    unsteered = np.stack([result.unsteered[name].values for result in results])
    steered = np.stack(
        [[reading[name].values for reading in result.steered] for result in results], axis=1
    )
    change = steered - unsteered

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.average(values, axis=-1, weights=weights))

    interval = f"{drawn.confidence:.0%} interval over groups"
    examples = rearrange(change, "source target example -> example source target")
    found = {
        f"{name}_unsteered": described(("target",), mean(unsteered), quantity, "unsteered"),
        f"{name}_unsteered_ci": described(
            ("target", "bound"), drawn.interval(unsteered.T), quantity, f"unsteered, {interval}"
        ),
        f"{name}_change": described(_CELL, mean(change), quantity, "change by steering"),
        f"{name}_change_ci": described(
            (*_CELL, "bound"), drawn.interval(examples), quantity, f"change by steering, {interval}"
        ),
        f"{name}_n": described((), len(weights), quantity, "examples", "examples"),
    }
    if all(result.opposite for result in results):
        back = np.stack(
            [[reading[name].values for reading in result.opposite] for result in results], axis=1
        )
        found[f"{name}_opposite"] = described(
            _CELL, mean(back - unsteered), quantity, "change by steering the other way"
        )
    if not any(name in result.random.names for result in results):
        return found
    random = np.stack([result.random.values(quantity) for result in results]) - unsteered[:, None]
    found[f"{name}_random"] = described(
        ("target", "draw"), mean(random), quantity, "change by a random direction at the dose"
    )
    if quantity.effect:
        found |= _effect(name, quantity, change, random, drawn, seed)
    if name.endswith("log_odds") or name == "likelihood_gap":
        axis = f"{name}_example"
        found |= {
            f"{name}_of_example": described(
                (*_CELL, axis), change, quantity, "change by steering, example by example"
            ),
            f"{name}_random_of_example": described(
                ("target", "draw", axis), random, quantity, "change by a random direction"
            ),
            f"{name}_unsteered_of_example": described(
                ("target", axis), unsteered, quantity, "unsteered, example by example"
            ),
            f"{name}_group": xr.Variable(
                (axis,), list(quantity.groups), {"units": "1", "long_name": "group"}
            ),
        }
    return found


def _effect(
    name: str,
    quantity: Quantity,
    change: np.ndarray,
    random: np.ndarray,
    drawn: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    sources, targets = change.shape[:2]
    weights = drawn.weights
    own = np.average(change, axis=-1, weights=weights)
    others = np.average(random, axis=-1, weights=weights)
    wrong, p = np.empty((sources, targets)), np.empty((sources, targets))
    bounds = np.empty((sources, targets, 2))
    for source, target in np.ndindex(sources, targets):
        here = change[source, target]
        wrong[source, target] = wrong_way(here)
        p[source, target] = random_p(float(own[source, target]), others[target])
        bounds[source, target] = drawn.over_random(here, random[target], seed=seed)
    away = "examples that moved away from the trustworthy side"
    beside = "change minus that by random directions"
    return {
        f"{name}_wrong_way": described(_CELL, wrong, quantity, away, "fraction of examples"),
        f"{name}_p": described(_CELL, p, quantity, "p-value among random directions", "1"),
        f"{name}_over_random": described(_CELL, own - mean_known(others), quantity, beside),
        f"{name}_over_random_ci": described(
            (*_CELL, "bound"), bounds, quantity, f"{beside}, interval over groups and directions"
        ),
    }


def mean_known(values: Float[np.ndarray, "target draw"]) -> Float[np.ndarray, " target"]:
    """Mean over the draws that are known; NaN where none is."""
    known = np.isfinite(values)
    sums = np.where(known, values, 0.0).sum(axis=1)
    means: np.ndarray = np.divide(
        sums, known.sum(axis=1), out=np.full(len(values), np.nan), where=known.any(axis=1)
    )
    return means
