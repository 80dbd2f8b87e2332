"""Training axes: steps and tokens as numbers and positions; and the colours of concepts."""

import math

import numpy as np
import xarray as xr

# The hues of Okabe and Ito's palette, which colour-blind readers can tell apart. Their lightness
# differs by ten steps (L* of 30, 40, 49, 59 and 69), so that they also differ in grey.
DIMENSION_COLOURS = {
    "reliability": "#034A76",
    "toxicity": "#9D4402",
    "robustness": "#B7518D",
    "fairness": "#0CA176",
    "privacy": "#E09B09",
}

# For a concept of another dimension: a colour of the same palette, and not the grey of references.
OTHER_COLOUR = "#56B4E9"

TRAINING_AXES = {
    "step": "training step", "tokens": "tokens seen", "loss": "training loss (nats/token)",
}  # fmt: skip
_AXIS_NOUNS = {"step": "number of steps", "tokens": "number of tokens", "loss": "training loss"}


def format_count(count: float | int) -> str:
    """Format a number of steps or tokens: `512`, `1k`, `143k`, `2.1B`.

    Examples:
        >>> [format_count(n) for n in (0, 512, 1000, 143_000, 2_097_152_000)]
        ['0', '512', '1k', '143k', '2.1B']
    """
    if not math.isfinite(count):
        return "?"
    # Powers of 1000, as papers count steps and tokens.
    for size, letter in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g}{letter}"
    return f"{count:g}"


def training_axis(data: xr.Dataset, x: str) -> np.ndarray:
    """Values of the training axis, one per checkpoint; of several runs, their mean.

    Raises:
        ValueError: `x` is not "step", "tokens" or "loss", or is unknown for some checkpoint.
    """
    if x not in TRAINING_AXES:
        raise ValueError(f"No training axis named {x!r}. Choose 'step', 'tokens' or 'loss'.")
    values = np.full(data.sizes["checkpoint"], np.nan)
    if x in data.coords:
        coordinate = data.coords[x].astype(float)
        # Runs that are matched by step may differ in tokens and in loss at that step.
        coordinate = coordinate.mean("run") if "run" in coordinate.dims else coordinate
        values = np.asarray(coordinate.values, dtype=float)
    unknown_places = np.flatnonzero(~np.isfinite(values))
    if len(unknown_places):
        names = [str(data.coords["checkpoint"].values[i]) for i in unknown_places[:3]]
        raise ValueError(
            f"The {_AXIS_NOUNS[x]} is unknown for {len(unknown_places)} of {len(values)} "
            f"checkpoints ({', '.join(names)}). Draw over "
            f"x={'tokens' if x == 'step' else 'step'!r} instead."
        )
    return values


def log_positions(values: np.ndarray) -> np.ndarray:
    """Positions of counts on a logarithmic axis, which has no zero.

    The untrained model (count 0) is drawn left of the first trained checkpoint. Its distance is
    that of the closest pair of checkpoints, but at least a factor of two.

    Examples:
        >>> log_positions(np.array([0, 1, 2, 4])).tolist()
        [0.5, 1.0, 2.0, 4.0]
    """
    values = np.asarray(values, dtype=float)
    counts = np.unique(values[values > 0])
    if not len(counts):
        return np.ones_like(values)
    factor = max(2.0, float(np.min(counts[1:] / counts[:-1]))) if len(counts) > 1 else 2.0
    return np.where(values > 0, values, counts[0] / factor)
