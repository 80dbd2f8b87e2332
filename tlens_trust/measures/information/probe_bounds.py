"""Bounds of `I(T; Y)` for any two arrays, from the held-out scores of a cross-validated probe."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.arguments import checked_choice, checked_count, checked_seed
from tlens_trust.measures.cross_fitters import DEFAULT_C, CrossFitter, LogisticCrossFitter
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.information.estimate import InformationEstimate, Kind
from tlens_trust.measures.information.label_bounds import (
    Bound,
    HeldOutScores,
    answer_information,
    barber_agakov,
    fano,
)
from tlens_trust.measures.information.usable import usable_beyond_text
from tlens_trust.measures.mlp import MLPCrossFitter, MLPTrainer

Probe = Literal["linear", "mlp"]

# Below this number of groups, estimates warn that a bootstrap of groups is unreliable.
_FEW_GROUPS = 30


def cross_fitter_of(probe: str, *, seed: int) -> CrossFitter:
    """Make the cross-fitter of a linear probe or of a multi-layer perceptron.

    Raises:
        ValueError: `probe` is neither of the two.
    """
    checked_choice("probe", probe, get_args(Probe))
    if probe == "linear":
        return LogisticCrossFitter(DEFAULT_C)
    return MLPCrossFitter(MLPTrainer(64, 200, 10, 0.3, seed))


def _check_options(probe: str, folds: object, seed: object) -> None:
    checked_seed(seed)
    minimum_folds = cross_fitter_of(probe, seed=0).least_folds
    checked_count(
        "folds", folds, least=minimum_folds, hint="That is how many folds this probe needs."
    )


def score_held_out(
    x: Float[Tensor, "example d"],
    labels: Int[Tensor, " example"],
    *,
    groups: Sequence[str] | None = None,
    probe: Probe = "linear",
    folds: int = 5,
    seed: int = 0,
) -> HeldOutScores:
    """Cross-validate a probe over groups.

    Args:
        x: One row per example.
        labels: 0 or 1.
        groups: The group of each row; None where each row is a group of its own.
        probe: `"linear"` (logistic regression, its penalty chosen inside the training folds) or
            `"mlp"` (one hidden layer, see `MLPCrossFitter`).
        folds: The number of folds. At least 3.
        seed: Deals the folds, draws resamples, half samples and network weights.

    Raises:
        ValueError: There are too few groups for the folds, or `probe` is unknown.
    """
    _check_options(probe, folds, seed)
    names = [str(row) for row in range(len(labels))] if groups is None else list(groups)
    targets = labels.cpu().numpy()
    fold = assign_folds(targets, names, folds=folds, seed=seed)
    fit = cross_fitter_of(probe, seed=seed)(x.unsqueeze(1), labels, names, fold)
    return HeldOutScores.of(fit.scores, targets, fold, names, fewer=fit.fewer, seed=seed)


def _estimate(bound: Bound, held_out: HeldOutScores, kind: Kind) -> InformationEstimate:
    value = float(bound.value[0])
    low, high = bound.interval[0].tolist()
    warnings = []
    groups = held_out.bootstrap.groups
    if groups < _FEW_GROUPS:
        warnings.append(f"Only {groups} groups: the interval rests on few independent examples.")
    if value <= 0:
        warnings.append("Not above zero: this probe's scores show no information.")
    return InformationEstimate(value, (low, high), len(held_out.labels), kind, tuple(warnings))


@dataclass(frozen=True)
class BarberAgakov:
    """Bound information by `I(T; Y) ≥ H(Y) - CE`, from a cross-validated probe.

    On held-out examples the probe's cross-entropy exceeds `H(Y | T)` by the divergence of its
    probabilities from the true ones. So the bound is tight only for a perfect probe. It is negative
    for a probe that predicts worse than the label shares. It is at most `ln 2` nats for two labels.

    Attributes:
        probe: `"linear"` or `"mlp"`.
        folds: The number of folds that the groups are dealt into. At least 3.
        seed: Deals the folds, draws resamples and network weights.

    Source:
        Barber and Agakov (2003), The IM algorithm, NeurIPS 16.

    Examples:
        >>> import torch
        >>> labels = torch.arange(200) % 2
        >>> x = torch.randn(200, 2, generator=torch.Generator().manual_seed(0))
        >>> x[:, 0] += 4 * labels
        >>> found = BarberAgakov()(x, labels)
        >>> 0.6 < found.bits < 1.0
        True
    """

    probe: Probe = "linear"
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_options(self.probe, self.folds, self.seed)

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        labels: Int[Tensor, " example"],
        *,
        groups: Sequence[str] | None = None,
    ) -> InformationEstimate:
        """Bound the information of `x` about the labels, in nats."""
        held_out = score_held_out(
            x, labels, groups=groups, probe=self.probe, folds=self.folds, seed=self.seed
        )
        return _estimate(barber_agakov(held_out), held_out, "lower bound")


@dataclass(frozen=True)
class Fano:
    """Bound information by `I(T; Y) ≥ H(Y) - h(e)`, from a cross-validated probe's error rate.

    The value is the bound at the measured error rate. The low end of the interval is the bound at
    the upper limit of that rate, and is what can be claimed. See `fano_information`.

    Attributes:
        probe: `"linear"` or `"mlp"`.
        folds: The number of folds that the groups are dealt into. At least 3.
        seed: Deals the folds, draws resamples and network weights.
    """

    probe: Probe = "linear"
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_options(self.probe, self.folds, self.seed)

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        labels: Int[Tensor, " example"],
        *,
        groups: Sequence[str] | None = None,
    ) -> InformationEstimate:
        """Bound the information of `x` about the labels, in nats."""
        held_out = score_held_out(
            x, labels, groups=groups, probe=self.probe, folds=self.folds, seed=self.seed
        )
        return _estimate(fano(held_out), held_out, "lower bound")


@dataclass(frozen=True)
class AnswerInformation:
    """Estimate `I(Ŷ; Y)` of a cross-validated probe's answers, which is at most `I(T; Y)`.

    Miller and Madow's correction is applied; see `confusion_information`.

    Attributes:
        probe: `"linear"` or `"mlp"`.
        folds: The number of folds that the groups are dealt into. At least 3.
        seed: Deals the folds, draws resamples and network weights.
    """

    probe: Probe = "linear"
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_options(self.probe, self.folds, self.seed)

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        labels: Int[Tensor, " example"],
        *,
        groups: Sequence[str] | None = None,
    ) -> InformationEstimate:
        """Estimate the information of the answers about the labels, in nats."""
        held_out = score_held_out(
            x, labels, groups=groups, probe=self.probe, folds=self.folds, seed=self.seed
        )
        return _estimate(answer_information(held_out), held_out, "lower bound")


@dataclass(frozen=True)
class UsableInformation:
    """Estimate what a probe says about the labels beyond a probe of other features, the baseline.

    `CE(Y | baseline) - CE(Y | baseline, T)` on held-out examples, in nats. Each cross-entropy is
    that of a logistic function of the probes' held-out scores; see `usable_beyond_text`. The value
    is negative where the probe of `x` only adds noise.

    Attributes:
        probe: `"linear"` or `"mlp"`, for both.
        folds: The number of folds that the groups are dealt into. At least 3.
        seed: Deals the folds, draws resamples and network weights.

    Source:
        Xu et al. (2020), arXiv:2002.10689; Hewitt et al. (2021), arXiv:2109.09234.
    """

    probe: Probe = "linear"
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        _check_options(self.probe, self.folds, self.seed)

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        labels: Int[Tensor, " example"],
        baseline: Float[Tensor, "example other"],
        *,
        groups: Sequence[str] | None = None,
    ) -> InformationEstimate:
        """Estimate the information of `x` about the labels beyond that of `baseline`, in nats."""
        held_out, baseline_scores = (
            score_held_out(
                features, labels, groups=groups, probe=self.probe, folds=self.folds, seed=self.seed
            )
            for features in (x, baseline)
        )
        assert baseline_scores.fewer is not None
        bound = usable_beyond_text(
            held_out, baseline_scores.scores[:, 0], baseline_scores.fewer[..., 0]
        )
        return _estimate(bound, held_out, "estimate")
