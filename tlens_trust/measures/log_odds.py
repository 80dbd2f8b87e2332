"""From a projection to log-odds: the one-dimensional part of a probe."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.measures.solver import solve_logistic


def fit_log_odds(
    scores: Float[Tensor, " example"], labels: Int[Tensor, " example"]
) -> tuple[float, float]:
    """Slope and offset that turn scores into the log-odds of label 1.

    A logistic regression on the one score (Platt scaling). The scores should be of rows that the
    direction was not fitted on, or the log-odds come out too sure. The slope is kept positive, so
    that the direction behind the scores keeps its sense: where the scores say nothing, or the
    contrary, the slope is 1e-3 per standard deviation and the offset the prior log-odds.

    Args:
        scores: One number per row, in any unit.
        labels: 0 or 1; both occur.

    Returns:
        Slope in nats per unit of score, and offset in nats.

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
    # In float64 and on the order of one: the ridge of the fit, weak as it is, needs a unit.
    fits = solve_logistic(
        scores.double().reshape(-1, 1, 1),
        labels,
        train=torch.ones(1, len(labels), dtype=torch.bool),
        C=[100.0],
    )
    least = 1e-3 / spread if spread > 0 else 0.0
    slope = float(fits.coef)
    if slope >= least:
        return slope, float(fits.intercept)
    positive = float(labels.double().mean())
    return least, math.log(positive) - math.log1p(-positive)
