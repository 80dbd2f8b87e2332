"""Random halves of the groups: how sure an estimate is that a bootstrap would mislead.

A bootstrap draws examples twice, and an estimator of dependence or of entropy takes the two copies
for a coincidence that means something. A half sample holds half of the groups, none twice.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int

from tlens_trust.measures.arguments import checked_count, checked_seed
from tlens_trust.measures.quantiles import student_quantile

_TRIES = 1000


def half_samples(
    groups: Sequence[str],
    *,
    resamples: int,
    seed: int,
    labels: Int[np.ndarray, " example"] | None = None,
) -> Bool[np.ndarray, "resample example"]:
    """Draw halves of the groups, whose names and the seed alone tell them.

    So they are the same at every site and every checkpoint, and the difference of two checkpoints
    can be taken half by half.

    The delete-half jackknife: of a smooth statistic, the spread of its values on random halves
    about its value on all has the variance of the latter's own sampling error, since the mean over
    `h` of `G` groups drawn without replacement has the variance `s²/h (1 - h/G)` about the mean
    over all, which is `s²/G` at `h = G/2`. It needs neither a formula nor that anything be drawn
    twice. Of what depends on how many examples there are (an estimate with a bias of order `1/n`,
    or one that is capped at `ln n`) the values on halves are off to one side, and it is their
    spread about their own mean that counts: see `replicates_about`. Of a degenerate statistic (an
    estimate of what is zero that never goes below zero) the spread is too large, not too small.

    Args:
        groups: The group of each example; their order does not matter.
        resamples: How many halves.
        seed: Draws them.
        labels: Where given, a half without one of the labels is drawn again.

    Returns:
        Whether each half holds each example. A half holds `G // 2` groups.

    Raises:
        ValueError: There are fewer than 4 groups, `resamples` is less than 2, or no half with
            both labels was found.

    Source:
        Shao and Wu (1989), Annals of Statistics 17, on the delete-d jackknife; Politis and Romano
        (1994), Annals of Statistics 22, on subsampling.

    Examples:
        >>> halves = half_samples(list("aabbccdd"), resamples=3, seed=0)
        >>> halves.sum(axis=1).tolist()
        [4, 4, 4]
    """
    resamples, seed = checked_count("resamples", resamples, least=2), checked_seed(seed)
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < 4:
        raise ValueError(
            f"Half samples take at least 4 groups, got {len(names)}. Without more there is no "
            "telling how sure an estimate is."
        )
    generator = np.random.default_rng([seed, 7])

    def draw(count: int) -> Bool[np.ndarray, "draw example"]:
        keys = generator.random((count, len(names)))
        taken = np.argsort(np.argsort(keys, axis=1), axis=1) < len(names) // 2
        drawn: np.ndarray = taken[:, group]
        return drawn

    halves = draw(resamples)
    if labels is None:
        return halves
    ones = np.asarray(labels) == 1
    for _ in range(_TRIES):
        lacking = ~((halves & ones).any(axis=1) & (halves & ~ones).any(axis=1))
        if not lacking.any():
            return halves
        halves[lacking] = draw(int(lacking.sum()))
    raise ValueError(
        f"No half of the {len(names)} groups with both labels was found. Give more groups that "
        "hold the rarer label."
    )


def replicates_about(
    value: Float[np.ndarray, "..."],
    on_halves: Float[np.ndarray, "... resample"],
    *,
    groups: int,
) -> Float[np.ndarray, "... resample"]:
    """Values on halves, moved so that their mean is the value on all.

    Args:
        value: On all examples.
        on_halves: On each half.
        groups: How many groups there are; an odd number leaves halves a little short, which is
            made good.

    Examples:
        >>> moved = replicates_about(np.array(1.0), np.array([4.0, 6.0]), groups=10)
        >>> moved.tolist()
        [0.0, 2.0]
    """
    half = groups // 2
    stretch = np.sqrt(half / (groups - half))
    about = on_halves - on_halves.mean(axis=-1, keepdims=True)
    replicates: np.ndarray = np.asarray(value)[..., None] + stretch * about
    return replicates


def half_sample_interval(
    value: Float[np.ndarray, "..."],
    replicates: Float[np.ndarray, "... resample"],
    *,
    groups: int,
    confidence: float = 0.95,
) -> Float[np.ndarray, "... bound"]:
    """Value plus and minus Student's quantile times the replicates' standard deviation.

    Args:
        value: On all examples.
        replicates: As `replicates_about` gives them.
        groups: How many groups there are.
        confidence: Of the interval.

    Examples:
        >>> halves = np.random.default_rng(0).standard_normal(2000)
        >>> interval = half_sample_interval(np.array(0.0), halves, groups=5000)
        >>> interval.round(1).tolist()
        [-2.0, 2.0]
    """
    freedom = min(replicates.shape[-1], groups) - 1
    width = student_quantile((1 + confidence) / 2, freedom) * replicates.std(axis=-1, ddof=1)
    value = np.asarray(value)
    return np.stack([value - width, value + width], axis=-1)
