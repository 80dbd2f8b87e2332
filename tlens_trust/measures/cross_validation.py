"""Probes scored on statements that they were not fitted on."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import combinations
from typing import ClassVar, Protocol, runtime_checkable

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.arguments import check_counts, checked_count, checked_grid
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.nulls import Null, held_out_bands, held_out_null, refit_null
from tlens_trust.measures.permutations import PermutedLabels, permute_labels
from tlens_trust.measures.probe import fit_mass_mean_probe
from tlens_trust.measures.references import (
    chance_dataset,
    floor_dataset,
    floor_on_folds,
    null_dataset,
)
from tlens_trust.measures.scores import score_dataset
from tlens_trust.measures.shared_work import do_once
from tlens_trust.measures.solver import solve_logistic
from tlens_trust.threads import choose_threads, limited_threads

DEFAULT_C = (0.01, 0.1, 1.0, 10.0, 100.0)

# What an error says of a wrong `C`, wherever one is given.
PENALTY_HINT = "It is the inverse strength of the penalty; one alone is a list too, as [1.0]."


@dataclass(frozen=True, eq=False)
class HeldOut:
    """Scores of statements by probes that were fitted without their fold.

    Attributes:
        scores: Log-odds of label 1, in nats.
        variables: More to report along `site`: values and attributes by name.
        directions: Of the probe that scored each fold, in nats per unit of activation; None where
            probes are not linear.
        biases: Log-odds at the origin of activation space, in nats; None likewise.
        fewer: Log-odds by probes that were fitted without the statement's fold and one more, the
            first axis (NaN where the two are one); None where there are no such probes.
        fewer_norms: Lengths of those probes' directions, the fold that is scored before the one
            more; None where there are none.
    """

    scores: Float[np.ndarray, "example site"]
    variables: Mapping[str, tuple[np.ndarray, dict[str, str]]] = field(default_factory=dict)
    directions: Float[np.ndarray, "site fold d_model"] | None = None
    biases: Float[np.ndarray, "site fold"] | None = None
    fewer: Float[np.ndarray, "fold example site"] | None = None
    fewer_norms: Float[np.ndarray, "site fold fold"] | None = None


@runtime_checkable
class CrossFitter(Protocol):
    """Fits a kind of probe on all folds but one, for each fold, and scores the one.

    Attributes:
        least_folds: The fewest folds that it can be cross-validated on.
    """

    least_folds: ClassVar[int]

    @property
    def identity(self) -> str:
        """Every parameter that changes the scores."""

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
    """A `CrossFitter` that knows what its probes find where labels mean nothing."""

    def null(
        self,
        activations: Float[Tensor, "example site d_model"],
        scores: Float[np.ndarray, "example site"],
        permuted: PermutedLabels,
        fold: Int[np.ndarray, " example"],
    ) -> Null:
        """Fit, or the like, to permuted labels. `scores` are those of the labels themselves."""


@dataclass(frozen=True)
class LogisticCrossFitter:
    """Logistic probes, `C` chosen for each site and fold without looking at that fold.

    For the fold `k`, every `C` is scored by its cross-entropy on each other fold `j`, by a probe
    fitted without `j` and `k`: grouped cross-validation inside the training folds. A probe
    without `j` and `k` serves both of them, so that all of it needs `K(K-1)/2` fits for each `C`
    and not `K(K-1)`. Then the probe fitted on all but `k` with the best `C` scores `k`. Features
    are standardised on each probe's own training rows.

    Attributes:
        C: The grid to choose from, in ascending order; of equals, the smallest.
    """

    C: tuple[float, ...] = DEFAULT_C

    # One is scored, one chooses, one is trained on.
    least_folds: ClassVar[int] = 3

    def __post_init__(self) -> None:
        grid = checked_grid("C", self.C, hint=PENALTY_HINT)
        object.__setattr__(self, "C", grid)

    @property
    def identity(self) -> str:
        """The grid."""
        return f"C={list(self.C)}"

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""
        held = torch.from_numpy(np.asarray(fold, dtype=np.int64))
        folds = int(held.max()) + 1
        if folds < 3:
            raise ValueError(
                f"Choosing `C` inside the training folds takes at least 3 folds, got {folds}."
            )
        pairs = list(combinations(range(folds), 2))
        train = torch.stack(
            [(held != j) & (held != k) for j, k in pairs] + [held != k for k in range(folds)]
        )
        fits = solve_logistic(activations, labels, train=train, C=self.C)

        sites = activations.shape[1]
        scores = np.empty((len(labels), sites))
        chosen = np.empty((sites, folds), dtype=np.int64)
        directions = np.empty((sites, folds, activations.shape[2]))
        biases = np.empty((sites, folds))
        fewer = np.full((folds, len(labels), sites), np.nan)
        norms = np.full((sites, folds, folds), np.nan)
        signs = (2.0 * labels - 1).double().cpu().reshape(-1, 1, 1)
        for site in range(sites):
            values = activations[:, site].double()
            logits = torch.einsum("nd,fcd->nfc", values, fits.coef[site]) + fits.intercept[site]
            logits = logits.cpu()
            surprise = torch.nn.functional.softplus(-signs * logits)
            for k in range(folds):
                total = sum(
                    surprise[held == (i if j == k else j), number].sum(dim=0)
                    for number, (i, j) in enumerate(pairs)
                    if k in (i, j)
                )
                chosen[site, k] = int(torch.as_tensor(total).argmin())
                rows, fit = held == k, (site, len(pairs) + k, chosen[site, k])
                scores[rows.numpy(), site] = logits[rows, len(pairs) + k, chosen[site, k]]
                directions[site, k] = fits.coef[fit].cpu().numpy()
                biases[site, k] = float(fits.intercept[fit])
                for number, (i, j) in enumerate(pairs):
                    if k in (i, j):
                        other = i if j == k else j
                        found = logits[rows, number, chosen[site, k]]
                        fewer[other, rows.numpy(), site] = found
                        norms[site, k, other] = float(fits.coef[site, number, fit[2]].norm())
        strengths = np.asarray(self.C)[chosen]
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
        """Refits of the probe's first step, at every `C`."""
        return refit_null(activations, permuted, fold, C=self.C)


@dataclass(frozen=True)
class MassMeanCrossFitter:
    """Mass-mean probes: nothing to choose, one fit for each site and fold, and for every two."""

    least_folds: ClassVar[int] = 2

    @property
    def identity(self) -> str:
        """Nothing can be set."""
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
            kept = ~np.isin(fold, left_out)
            train = torch.from_numpy(kept)
            for site in range(sites):
                probe = fit_mass_mean_probe(
                    activations[train, site], labels[train], groups=names[kept].tolist()
                )
                log_odds = probe.log_odds(activations[~train, site]).cpu().numpy()
                if fewer is None or norms is None or len(left_out) == 1:
                    (k,) = left_out
                    scores[~kept, site] = log_odds
                    directions[site, k] = probe.direction.cpu().numpy()
                    biases[site, k] = probe.bias
                    continue
                for k, other in (left_out, left_out[::-1]):
                    fewer[other, fold == k, site] = log_odds[fold[~kept] == k]
                    norms[site, k, other] = float(probe.direction.norm())
        return HeldOut(scores, directions=directions, biases=biases, fewer=fewer, fewer_norms=norms)

    def null(
        self,
        activations: Float[Tensor, "example site d_model"],
        scores: Float[np.ndarray, "example site"],
        permuted: PermutedLabels,
        fold: Int[np.ndarray, " example"],
    ) -> Null:
        """Refits of the direction; its calibration is left as it is."""
        bands, draws = held_out_bands(scores, permuted, fold)
        null = refit_null(activations, permuted, fold, C=())
        return replace(null, bands={**bands, **null.bands}, refits=draws)


@dataclass(frozen=True)
class ProbeMeasure:
    """Held-out scores of a probe, at every site: a `Measure`.

    Attributes:
        name: Short name; the `probe` coordinate of a `Trace`.
        cross_fitter: Fits the probes and scores what they have not seen.
        folds: Into how many folds the groups are dealt.
        resamples: How many bootstrap resamples stand behind an interval.
        permutations: How many permutations of the labels stand behind a p-value.
        floor: Whether to classify the statements by their text alone as well.
    """

    name: str
    cross_fitter: CrossFitter
    folds: int = 5
    resamples: int = 1000
    permutations: int = 2000
    floor: bool = True

    def __post_init__(self) -> None:
        hint = f"That is how many folds the {self.name!r} probe needs."
        folds = checked_count("folds", self.folds, least=self.cross_fitter.least_folds, hint=hint)
        object.__setattr__(self, "folds", folds)
        check_counts(self, {"resamples": 1, "permutations": 1})

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result."""
        return (
            f"{self.name}({self.cross_fitter.identity}; folds={self.folds}, "
            f"resamples={self.resamples}, permutations={self.permutations}, floor={self.floor}, "
            "version=6)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Score the concept at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds, draws resamples and permutations.

        Returns:
            What `score_dataset` gives, and what the probe reports of itself. For each score a
            `…_null`, the middle 95% where labels are permuted. `accuracy_p`, the p-value of the
            labels being read at a site at all, and `accuracy_p_best`, the same among all the
            sites of this call: its least is the p-value of the best site. `accuracy_chance`, the
            share of the larger class. For each score a `…_floor`, what a classifier of the text
            alone gets on the same folds, and `accuracy_above_floor`, by how much the probe is right
            more often, both with an interval.

        Raises:
            ValueError: The activations are not of this concept's statements, or its groups and
                labels do not fill the folds.
        """
        held_out, fold = self.held_out(activations, concept, seed=seed)
        data = score_dataset(
            held_out.scores,
            concept.labels,
            fold,
            concept.groups,
            sites=activations.sites,
            seed=seed,
            fewer=held_out.fewer,
            resamples=self.resamples,
        )
        data = data.assign(
            {
                name: (("site",), array, attributes)
                for name, (array, attributes) in held_out.variables.items()
            }
        )
        null = self.null(activations, concept, seed=seed)
        data = data.merge(null_dataset(null, data)).merge(chance_dataset(concept))
        if not self.floor:
            return data
        return data.merge(
            floor_dataset(
                floor_on_folds(concept, fold, seed=seed),
                concept,
                held_out.scores,
                fold,
                fewer=held_out.fewer,
                seed=seed,
                resamples=self.resamples,
            )
        )

    def null(self, activations: Activations, concept: Concept, *, seed: int) -> Null:
        """What the probes find where labels mean nothing.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds, draws permutations.

        Raises:
            ValueError: As calling the measure.
        """

        def find() -> Null:
            held_out, fold = self.held_out(activations, concept, seed=seed)
            permuted = permute_labels(
                concept.labels, concept.groups, fold, permutations=self.permutations, seed=seed
            )
            values, scores = activations.values, held_out.scores
            if not isinstance(self.cross_fitter, Refitter):
                return held_out_null(scores, permuted, fold)
            with limited_threads(choose_threads(values)):
                return self.cross_fitter.null(values, scores, permuted, fold)

        key = "null", self.cross_fitter, self.folds, self.permutations, concept.fingerprint, seed
        return do_once(activations, key, find)

    def held_out(
        self, activations: Activations, concept: Concept, *, seed: int
    ) -> tuple[HeldOut, Int[np.ndarray, " example"]]:
        """Deal the folds, fit the probes, and score what they have not seen.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds.

        Returns:
            Scores and probes, and the fold of each statement.

        Raises:
            ValueError: As calling the measure.
        """
        values = activations.values
        if len(values) != len(concept):
            raise ValueError(
                f"The activations hold {len(values)} statements, but concept {concept.name!r} "
                f"has {len(concept)}. Collect them from this concept."
            )
        fold = assign_folds(concept.labels, concept.groups, folds=self.folds, seed=seed)
        labels = torch.from_numpy(concept.labels.copy()).to(values.device)

        def fit() -> HeldOut:
            with limited_threads(choose_threads(values)):
                return self.cross_fitter(values, labels, concept.groups, fold)

        key = "held out", self.cross_fitter, self.folds, concept.fingerprint, seed
        return do_once(activations, key, fit), fold


def logistic_probe(
    *,
    C: Sequence[float] = DEFAULT_C,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """The logistic probe as a measure: grouped cross-validation at every site.

    Args:
        C: Inverse penalty strengths to choose from, inside the training folds.
        folds: Into how many folds the groups are dealt. At least 3.
        resamples: How many bootstrap resamples stand behind an interval.
        permutations: How many permutations of the labels stand behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `logistic`.

    Raises:
        ValueError: `C` is empty or holds a number that is not positive.

    Examples:
        >>> logistic_probe(folds=3).name
        'logistic'
    """
    cross_fitter = LogisticCrossFitter(checked_grid("C", C, hint=PENALTY_HINT))
    return ProbeMeasure("logistic", cross_fitter, folds, resamples, permutations, floor)


def mass_mean_probe(
    *, folds: int = 5, resamples: int = 1000, permutations: int = 2000, floor: bool = True
) -> ProbeMeasure:
    """The mass-mean probe as a measure: grouped cross-validation at every site.

    Args:
        folds: Into how many folds the groups are dealt.
        resamples: How many bootstrap resamples stand behind an interval.
        permutations: How many permutations of the labels stand behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `mass_mean`.

    Examples:
        >>> mass_mean_probe().name
        'mass_mean'
    """
    return ProbeMeasure("mass_mean", MassMeanCrossFitter(), folds, resamples, permutations, floor)


def check_probe(probe: object) -> None:
    """Refuse what is no measure of a probe, before a sweep has begun.

    Raises:
        ValueError: It is none.
    """
    if not isinstance(probe, ProbeMeasure):
        named = isinstance(probe, str) and probe.isidentifier()
        raise ValueError(
            "`probe` must be the measure of a probe itself, as `logistic_probe()` makes one, got "
            f"{probe!r}."
            + (f" Call `tlens_trust.measures.{probe}_probe()`, if there is one." if named else "")
        )
