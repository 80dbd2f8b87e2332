"""Cross-fitters: each fits one kind of probe on all folds but one, and scores the other fold."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_grid
from tlens_trust.measures.nulls import Null, held_out_bands, refit_null
from tlens_trust.measures.permutations import PermutedLabels
from tlens_trust.measures.probe import fit_mass_mean_probe
from tlens_trust.measures.solver import solve_logistic

DEFAULT_C = (0.01, 0.1, 1.0, 10.0, 100.0)

# Ends the error message about a wrong `C`.
PENALTY_HINT = (
    "It is the inverse strength of the penalty. Give a single value as a list too: [1.0]."
)


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of statements by probes that were fitted without their fold.

    Attributes:
        scores: Log-odds of label 1, in nats.
        variables: Further results along `site`: values and attributes by name.
        directions: Direction of the probe that scored each fold, in nats per unit of activation;
            None if the probes are not linear.
        biases: Log-odds at the origin of activation space, in nats; None if the probes are not
            linear.
        fewer: Log-odds by probes that were fitted without two folds: the statement's own and the
            one along the first axis. NaN where both are the same fold; None without such probes.
        fewer_norms: Lengths of those probes' directions, by the scored fold and then the second
            fold; None without such probes.
    """

    scores: Float[np.ndarray, "example site"]
    variables: Mapping[str, tuple[np.ndarray, dict[str, str]]] = field(default_factory=dict)
    directions: Float[np.ndarray, "site fold d_model"] | None = None
    biases: Float[np.ndarray, "site fold"] | None = None
    fewer: Float[np.ndarray, "fold example site"] | None = None
    fewer_norms: Float[np.ndarray, "site fold fold"] | None = None


@runtime_checkable
class CrossFitter(Protocol):
    """Fits a kind of probe on all folds but one, for each fold, and scores the left-out fold.

    Attributes:
        least_folds: The smallest number of folds that it can be cross-validated on.
    """

    least_folds: ClassVar[int]

    @property
    def identity(self) -> str:
        """Name every parameter that changes the scores."""

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""


@runtime_checkable
class Refitter(CrossFitter, Protocol):
    """A `CrossFitter` that can also score its probes under permuted labels."""

    def null(
        self,
        activations: Float[Tensor, "example site d_model"],
        scores: Float[np.ndarray, "example site"],
        permuted: PermutedLabels,
        fold: Int[np.ndarray, " example"],
    ) -> Null:
        """Compute the null of the scores.

        Args:
            activations: One row per statement and site.
            scores: Held-out scores of the probes of the true labels.
            permuted: The true labels and draws of permuted ones.
            fold: The fold of each statement.
        """


@dataclass(frozen=True)
class LogisticCrossFitter:
    """Fits logistic probes whose `C` is chosen for each site and fold without that fold.

    This is grouped cross-validation inside the training folds. For the fold `k`, every `C` is
    scored by its cross-entropy on each other fold `j`, with a probe fitted without `j` and `k`.
    Such a probe serves both folds, so that each `C` needs `K(K-1)/2` fits and not `K(K-1)`. Then
    the probe fitted on all folds but `k` with the best `C` scores `k`. Features are standardised
    on the training rows of each probe.

    Attributes:
        C: The grid to choose from, in ascending order. Of equally good values, the smallest is
            chosen.
    """

    C: tuple[float, ...] = DEFAULT_C

    # One fold to score, one to choose `C` on, and one to train on.
    least_folds: ClassVar[int] = 3

    def __post_init__(self) -> None:
        grid = checked_grid("C", self.C, hint=PENALTY_HINT)
        object.__setattr__(self, "C", grid)

    @property
    def identity(self) -> str:
        """Name the grid."""
        return f"C={list(self.C)}"

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""
        fold_of = torch.from_numpy(np.asarray(fold, dtype=np.int64))
        folds = int(fold_of.max()) + 1
        if folds < self.least_folds:
            raise ValueError(
                f"Choosing `C` inside the training folds needs at least {self.least_folds} folds, "
                f"got {folds}. "
                "Deal the statements into more folds."
            )
        pairs = list(combinations(range(folds), 2))
        train = torch.stack(
            [(fold_of != j) & (fold_of != k) for j, k in pairs]
            + [fold_of != k for k in range(folds)]
        )
        fits = solve_logistic(activations, labels, train=train, C=self.C)

        sites = activations.shape[1]
        scores = np.empty((len(labels), sites))
        best_C = np.empty((sites, folds), dtype=np.int64)
        directions = np.empty((sites, folds, activations.shape[2]))
        biases = np.empty((sites, folds))
        fewer = np.full((folds, len(labels), sites), np.nan)
        norms = np.full((sites, folds, folds), np.nan)
        signs = (2.0 * labels - 1).double().cpu().reshape(-1, 1, 1)
        for site in range(sites):
            values = activations[:, site].double()
            logits = torch.einsum("nd,fcd->nfc", values, fits.coef[site]) + fits.intercept[site]
            logits = logits.cpu()
            cross_entropy = torch.nn.functional.softplus(-signs * logits)
            for k in range(folds):
                # The folds `i` and `j` are left out of fit `number`. If one of them is `k`, the
                # other one scores the `C`.
                total = sum(
                    cross_entropy[fold_of == (i if j == k else j), number].sum(dim=0)
                    for number, (i, j) in enumerate(pairs)
                    if k in (i, j)
                )
                best_C[site, k] = int(torch.as_tensor(total).argmin())
                rows, fit = fold_of == k, (site, len(pairs) + k, best_C[site, k])
                scores[rows.numpy(), site] = logits[rows, len(pairs) + k, best_C[site, k]]
                directions[site, k] = fits.coef[fit].cpu().numpy()
                biases[site, k] = float(fits.intercept[fit])
                for number, (i, j) in enumerate(pairs):
                    if k in (i, j):
                        other = i if j == k else j
                        fewer[other, rows.numpy(), site] = logits[rows, number, best_C[site, k]]
                        norms[site, k, other] = float(fits.coef[site, number, fit[2]].norm())
        strengths = np.asarray(self.C)[best_C]
        unconverged = (~fits.converged).flatten(1).sum(dim=1).cpu().numpy()
        return HeldOut(
            scores,
            {
                "C": (
                    np.exp(np.log(strengths).mean(axis=1)),
                    {
                        "units": "1",
                        "long_name": "chosen inverse strength of the penalty, "
                        "geometric mean over the folds",
                    },
                ),
                "unconverged": (
                    unconverged,
                    {"units": "fits", "long_name": "fits that did not reach their optimum"},
                ),
            },
            directions,
            biases,
            fewer,
            norms,
        )

    def null(
        self,
        activations: Float[Tensor, "example site d_model"],
        scores: Float[np.ndarray, "example site"],
        permuted: PermutedLabels,
        fold: Int[np.ndarray, " example"],
    ) -> Null:
        """Refit the first step of the probe to permuted labels, at every `C`."""
        return refit_null(activations, permuted, fold, C=self.C)


@dataclass(frozen=True)
class MassMeanCrossFitter:
    """Fits mass-mean probes, which have nothing to choose, for each site and left-out fold.

    The intervals need a further fit without every two folds.
    """

    least_folds: ClassVar[int] = 2

    @property
    def identity(self) -> str:
        """Return an empty text, since there are no parameters."""
        return ""

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""
        rows, sites, width = activations.shape
        folds = int(fold.max()) + 1
        scores = np.empty((rows, sites))
        directions, biases = np.empty((sites, folds, width)), np.empty((sites, folds))
        fewer = np.full((folds, rows, sites), np.nan) if folds > 2 else None
        norms = None if fewer is None else np.full((sites, folds, folds), np.nan)
        names = np.asarray(groups, dtype=str)
        pairs = combinations(range(folds), 2) if folds > 2 else ()
        for left_out in [*((k,) for k in range(folds)), *pairs]:
            in_training = ~np.isin(fold, left_out)
            train = torch.from_numpy(in_training)
            for site in range(sites):
                probe = fit_mass_mean_probe(
                    activations[train, site], labels[train], groups=names[in_training].tolist()
                )
                log_odds = probe.log_odds(activations[~train, site]).cpu().numpy()
                if fewer is None or norms is None or len(left_out) == 1:
                    (k,) = left_out
                    scores[~in_training, site] = log_odds
                    directions[site, k] = probe.direction.cpu().numpy()
                    biases[site, k] = probe.bias
                    continue
                # A probe without two folds scores both of them.
                for k, other in (left_out, left_out[::-1]):
                    fewer[other, fold == k, site] = log_odds[fold[~in_training] == k]
                    norms[site, k, other] = float(probe.direction.norm())
        return HeldOut(scores, directions=directions, biases=biases, fewer=fewer, fewer_norms=norms)

    def null(
        self,
        activations: Float[Tensor, "example site d_model"],
        scores: Float[np.ndarray, "example site"],
        permuted: PermutedLabels,
        fold: Int[np.ndarray, " example"],
    ) -> Null:
        """Refit the direction to permuted labels, without its calibration."""
        bands, draws = held_out_bands(scores, permuted, fold)
        null = refit_null(activations, permuted, fold, C=())
        return replace(null, bands={**bands, **null.bands}, refits=draws)
