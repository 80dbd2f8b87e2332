"""Log-odds from projections: the one-dimensional part of a probe."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.solver import solve_logistic


def fit_log_odds(
    scores: Float[Tensor, " example"], labels: Int[Tensor, " example"]
) -> tuple[float, float]:
    """Fit a slope and an offset that turn scores into the log-odds of label 1.

    This is a logistic regression on the score (Platt scaling). The scores should be of rows that
    the direction was not fitted on. Otherwise the log-odds are too far from zero. The slope is
    always positive, so that the sign of the direction keeps its meaning. If the fit gives a slope
    below 1e-3 per standard deviation, the slope is set to this and the offset to the prior
    log-odds.

    Args:
        scores: One number per row, in any unit.
        labels: 0 or 1 for each row. Both occur.

    Returns:
        The slope in nats per unit of score, and the offset in nats.

    Source:
        Platt (1999), Probabilistic outputs for support vector machines.

    Examples:
        >>> scores = torch.linspace(-3, 3, 600, dtype=torch.float64)
        >>> chance = torch.sigmoid(2 * scores + 1)
        >>> labels = (torch.arange(600) * 0.618 % 1 < chance).long()
        >>> slope, offset = fit_log_odds(scores, labels)
        >>> round(slope), round(offset)
        (2, 1)
    """
    spread = float(scores.std(correction=0))
    # The ridge is weak, but keeps the fit finite if the scores separate the labels.
    fits = solve_logistic(
        scores.double().reshape(-1, 1, 1),
        labels,
        train=torch.ones(1, len(labels), dtype=torch.bool),
        C=[100.0],
    )
    minimum = 1e-3 / spread if spread > 0 else 0.0
    slope = float(fits.coef)
    if slope >= minimum:
        return slope, float(fits.intercept)
    positive = float(labels.double().mean())
    return minimum, math.log(positive) - math.log1p(-positive)
