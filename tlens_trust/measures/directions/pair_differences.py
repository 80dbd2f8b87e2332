"""Probes along the principal direction of pair differences."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.linalg import eigh
from scipy.sparse import coo_array
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.directions.calibrated import calibrate_probe
from tlens_trust.measures.directions.cross_fitting import DirectionCrossFitter
from tlens_trust.measures.directions.fitter import FittedDirection
from tlens_trust.measures.directions.pairs import ContrastPairs, find_pairs
from tlens_trust.measures.directions.ridge_path import feature_scale
from tlens_trust.measures.probe import LinearProbe


def principal_pair_direction(
    activations: Float[Tensor, "example d_model"], pairs: ContrastPairs
) -> tuple[Float[Tensor, " d_model"], float]:
    """Compute the direction along which pairs differ most, without labels.

    The unit vector `v` maximises `Σ_p ω_p (v·(x_p⁺ - x_p⁻))²`. It is the top eigenvector of the
    second moment of the pair differences about zero. Exchanging the two statements of a pair
    changes nothing, so the result does not depend on which of them has label 1. For the same
    reason, the sign of `v` is arbitrary. The differences are not centred, unlike in principal
    component analysis: that would remove what all of them have in common.

    Args:
        activations: One row per statement.
        pairs: The rows to subtract from each other, and the weight `ω` of each pair.

    Returns:
        The direction in float64, of unit length and arbitrary sign, and the share of the second
        moment that lies along it.

    Raises:
        ValueError: The two statements of every pair have the same activations.

    Source:
        Zou et al. (2023), arXiv:2310.01405; Burns et al. (2022), arXiv:2212.03827, who call it
        CRC-TPC.
    """
    centred = activations.double() - activations.double().mean(dim=0)
    values: np.ndarray = centred.cpu().numpy()
    # The second moment is `Xᵀ L X`, with `L` the Laplacian of the graph whose edges are the pairs.
    # The differences, which can be far more than the rows, are never stored.
    positive, negative = pairs.positive.cpu().numpy(), pairs.negative.cpu().numpy()
    weight = pairs.weight.cpu().numpy()
    number, width = np.arange(len(weight)), values.shape[1]
    ends = [(weight**0.5, (number, positive)), (-(weight**0.5), (number, negative))]
    shape = (len(weight), len(values))
    edges = coo_array(ends[0], shape=shape) + coo_array(ends[1], shape=shape)
    laplacian = (edges.T @ edges).tocsr()
    laplacian_values = laplacian @ values
    total = float(np.vdot(values, laplacian_values))
    if not total > 0:
        raise ValueError(
            "The two statements of every contrast pair have the same activations, so that no "
            "direction tells them apart. Collect activations at another position, or use a probe "
            "that needs no pairs."
        )
    if width <= len(values):
        moment = values.T @ laplacian_values
        eigenvalues, vectors = eigh(moment, subset_by_index=[width - 1, width - 1])
    else:
        # A fixed start vector, since the default one is random.
        operator = LinearOperator(
            (width, width),
            matvec=lambda vector: values.T @ (laplacian @ (values @ vector)),
            dtype=np.float64,
        )
        eigenvalues, vectors = eigsh(operator, k=1, which="LA", v0=np.ones(width))
    direction = torch.from_numpy(vectors[:, -1].copy()).to(activations.device)
    return direction, float(eigenvalues[-1]) / total


def towards_label_one(
    direction: Float[Tensor, " d_model"],
    activations: Float[Tensor, "example d_model"],
    pairs: ContrastPairs,
) -> float:
    """Return the sign, 1.0 or -1.0, that makes a direction point from label 0 to label 1.

    With this sign, the weighted sum of the pair differences, label 1 minus label 0, has a positive
    projection on the direction. A projection of exactly zero gives 1.0.
    """
    projection = activations.double() @ direction.double()
    total = (pairs.weight * (projection[pairs.positive] - projection[pairs.negative])).sum()
    return -1.0 if float(total) < 0 else 1.0


def fit_pair_difference_probe(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str],
    standardise: bool = False,
) -> LinearProbe:
    """Fit the principal direction of pair differences, and calibrate it to log-odds.

    The direction is the top eigenvector of `Σ_p ω_p (x_p⁺ - x_p⁻)(x_p⁺ - x_p⁻)ᵀ` over contrast
    pairs. These are statements of one group with opposite labels, and each group has the same
    weight. Zou et al. call the direction a "reading vector". The labels of the given rows, and no
    others, are used three times:

    - they say which statements form a pair;
    - they set the sign of the direction;
    - they set slope and offset of the log-odds, by logistic regression on left-out groups.

    Deterministic. If pairs differ most in something other than the concept, the direction is that
    of the other difference.

    Args:
        activations: One row per statement, in the model's own units.
        labels: 1 where the statement is on the trustworthy side, else 0.
        groups: The group of each statement.
        standardise: Whether to scale each feature to unit variance first. The CRC-TPC of Burns et
            al. does so, the reading vector of Zou et al. does not.

    Returns:
        A probe of log-odds in nats.

    Raises:
        ValueError: `activations` holds a NaN or an infinity, `labels` lacks 0 or 1, or no
            group holds both labels.

    Source:
        Zou et al. (2023), Representation engineering, arXiv:2310.01405.

    Examples:
        >>> activations = torch.tensor([[5.0, 1.0], [5.1, 0.0], [-3.0, 1.1], [-3.1, 0.1]])
        >>> labels, groups = torch.tensor([1, 0, 1, 0]), ["a", "a", "b", "b"]
        >>> probe = fit_pair_difference_probe(activations, labels, groups=groups)
        >>> (probe.direction / probe.direction.norm()).round(decimals=1).abs().tolist()
        [0.0, 1.0]
    """
    return PairDifferenceFitter(standardise)(activations, labels, groups).probe


@dataclass(frozen=True)
class PairDifferenceFitter:
    """Fits principal directions of pair differences, with sign and scale from the training rows.

    Attributes:
        standardise: Whether to scale each feature first.
    """

    standardise: bool = False

    @property
    def identity(self) -> str:
        """Name the scaling."""
        return f"standardise={self.standardise}"

    @property
    def report_attributes(self) -> Mapping[str, dict[str, str]]:
        """Describe how much of the pair differences lies along the direction."""
        return {
            "pair_share": {
                "units": "1",
                "long_name": "share of the pair differences' second moment along their principal "
                "direction, mean over the folds",
            }
        }

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str] | None,
    ) -> FittedDirection:
        """Fit on the given rows."""
        check_training_rows(activations, labels, groups)
        # Called for its error: `calibrate_probe` would take missing groups for one group per row.
        find_pairs(labels, groups)
        shares = []

        def fit(values: Tensor, targets: Tensor, names: Sequence[str]) -> LinearProbe:
            pairs = find_pairs(targets, names)
            scale = feature_scale(values)
            if not self.standardise:
                scale = torch.ones_like(scale)
            scaled_direction, share = principal_pair_direction(values.double() / scale, pairs)
            shares.append(share)
            direction = scaled_direction / scale
            direction = direction * towards_label_one(direction, values, pairs)
            return LinearProbe(direction, -float(direction @ values.double().mean(dim=0)))

        probe = calibrate_probe(fit, activations, labels, groups)
        # The first fit is that of all rows.
        return FittedDirection(probe, {"pair_share": shares[0]})


def pair_difference_probe(
    *,
    standardise: bool = False,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """The principal direction of pair differences as a measure, cross-validated by group.

    Args:
        standardise: Whether to scale each feature to unit variance on the training rows first.
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `pair_difference`. It raises a ValueError for a concept without contrast
        pairs.

    Examples:
        >>> pair_difference_probe().name
        'pair_difference'
    """
    fitter = DirectionCrossFitter(PairDifferenceFitter(standardise))
    return ProbeMeasure("pair_difference", fitter, folds, resamples, permutations, floor)
