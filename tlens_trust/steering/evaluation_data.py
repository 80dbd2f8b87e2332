"""What steering does in each condition, labelled."""

import numpy as np
import xarray as xr

from tlens_trust.steering.battery import Pass
from tlens_trust.steering.controls import RandomDirections
from tlens_trust.steering.quantities import Quantity, Resamples, described, random_p, wrong_way

CONDITIONS = ("unsteered", "steered", "opposite")


def label_evaluation(
    passes: dict[str, Pass],
    random: dict[str, RandomDirections],
    used: dict[str, float],
    confidence: float,
    resamples: int,
    seed: int,
) -> xr.Dataset:
    """Put everything that was read together.

    Args:
        passes: By condition.
        random: By control.
        used: Strengths, by condition.
        confidence: Of the intervals.
        resamples: How many bootstrap resamples.
        seed: Draws them.

    Returns:
        What `evaluate_steering` describes, but for the attributes.
    """
    variables: dict[str, xr.Variable] = {}
    for name, quantity in passes["unsteered"].reading.items():
        drawn = Resamples.of(quantity, seed=seed, resamples=resamples, confidence=confidence)
        values = np.stack([passes[condition].reading[name].values for condition in CONDITIONS])
        variables |= _across_conditions(name, quantity, values, drawn)
        if all(name in each.names for each in random.values()):
            variables |= _beside_random(name, quantity, values, random, drawn, seed)
    data = xr.Dataset(
        variables,
        coords={
            "condition": list(CONDITIONS),
            "control": list(random),
            "bound": ["low", "high"],
        },
    )
    numbers = {"units": "strength", "long_name": "strength, in the units of `steer`"}
    data["strength"] = (("condition",), [used[condition] for condition in CONDITIONS], numbers)
    data["random_strength"] = (
        ("control", "draw"),
        np.stack([each.strengths for each in random.values()]),
        numbers | {"long_name": "strength of random directions"},
    )
    for ending in ("", "_ci"):
        loss = data[f"neutral_loss{ending}"]
        data[f"perplexity{ending}"] = loss.copy(data=np.exp(loss.values)).assign_attrs(
            units="1", long_name="perplexity on neutral text"
        )
    written = passes["unsteered"].written
    if written:
        data = data.assign_coords(prompt=[each.prompt for each in written])
        data["generation"] = (
            ("condition", "prompt"),
            [[each.text for each in passes[condition].written] for condition in CONDITIONS],
            {"units": "text", "long_name": "what was written after the prompt"},
        )
    return data


def _across_conditions(
    name: str, quantity: Quantity, values: np.ndarray, drawn: Resamples
) -> dict[str, xr.Variable]:
    change = values - values[0]
    weights = drawn.weights
    along, bounds = ("condition",), ("condition", "bound")
    percent = f"{drawn.confidence:.0%} interval over groups"
    found = {
        name: described(along, np.average(values, axis=1, weights=weights), quantity),
        f"{name}_ci": described(bounds, drawn.interval(values.T), quantity, percent),
        f"{name}_n": described((), values.shape[1], quantity, "examples", "examples"),
        f"{name}_change": described(
            along, np.average(change, axis=1, weights=weights), quantity, "change by steering"
        ),
        f"{name}_change_ci": described(
            bounds, drawn.interval(change.T), quantity, f"change by steering, {percent}"
        ),
    }
    if quantity.effect:
        found[f"{name}_wrong_way"] = described(
            along,
            [wrong_way(each) for each in change],
            quantity,
            "examples that moved away from the trustworthy side",
            "fraction of examples",
        )
    return found


def _beside_random(
    name: str,
    quantity: Quantity,
    values: np.ndarray,
    random: dict[str, RandomDirections],
    drawn: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    change = values[1] - values[0]
    own = float(np.average(change, weights=drawn.weights))
    changes = [each.values(quantity) - values[0] for each in random.values()]
    means = np.stack([np.average(each, axis=1, weights=drawn.weights) for each in changes])
    found = {
        f"{name}_random": described(
            ("control", "draw"), means, quantity, "change by a random direction"
        )
    }
    if quantity.effect:
        over = own - np.nanmean(means, axis=1)
        bounds = [drawn.over_random(change, each, seed=seed) for each in changes]
        found |= {
            f"{name}_p": described(
                ("control",),
                [random_p(own, each) for each in means],
                quantity,
                "p-value of the change among random directions",
                "1",
            ),
            f"{name}_over_random": described(
                ("control",), over, quantity, "change minus that by random directions"
            ),
            f"{name}_over_random_ci": described(
                ("control", "bound"),
                bounds,
                quantity,
                "change minus that by a random direction, interval over groups and directions",
            ),
        }
    return found
