"""A measure of information in nats at every site of a checkpoint, from the probe of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts, checked_grid
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import DEFAULT_C, Refitter
from tlens_trust.measures.cross_validation import ProbeMeasure, check_probe, logistic_probe
from tlens_trust.measures.information.bound_variables import (
    empty_dataset,
    label_band,
    label_bound,
    label_null,
)
from tlens_trust.measures.information.label_bounds import (
    Bound,
    HeldOutScores,
    answer_information,
    barber_agakov,
    confusion_information,
    fano,
    fano_information,
    label_entropy,
)
from tlens_trust.measures.information.noised_sites import noised_dataset
from tlens_trust.measures.information.refits import refit_scores
from tlens_trust.measures.information.usable import (
    usable_beyond_text,
    usable_under_permutation,
)
from tlens_trust.measures.labelled import Variables
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.reference_levels import floor_on_folds
from tlens_trust.measures.text_features import represent_text

NOISE = (0.1, 0.2, 0.4)
_BOUNDS: dict[str, tuple[Callable[[HeldOutScores], Bound], str]] = {
    "ba": (barber_agakov, "lower bound of I(T;Y), by Barber and Agakov"),
    "fano": (fano, "lower bound of I(T;Y), by Fano's inequality"),
    "confusion": (answer_information, "I(Ŷ;Y) of the probe's answers, bias-corrected"),
}
_NOISE_HINT = "They are fractions of the activations' root mean square."
_USABLE = "usable information of the activations on the labels, beyond the text"
_Null = Mapping[str, Float[np.ndarray, "site draw"]]


@dataclass(frozen=True)
class ProbeInformation:
    """Measure what a probe's held-out scores show about the information on labels: a `Measure`.

    Attributes:
        name: The measure's short name; the `probe` coordinate where several such measures are
            taken.
        probe: The probe. If it is also measured in the same cell, it is fitted only once.
        resamples: The number of half samples for the replicates.
        beyond_text: Whether to measure usable information beyond the text.
        noise: The noise levels for `I(T + Z; X)`; an empty tuple leaves it out.
        examples: The largest number of statements for `I(T + Z; X)`. Of more statements, whole
            groups are drawn at random, the same ones at every checkpoint.
        usable_permutations: The number of permutations for the null of usable information; 0 leaves
            it out.
        refits: For a probe without a fast refit, the number of label permutations it is fitted to
            for a null; 0 leaves it out.
    """

    name: str
    probe: ProbeMeasure
    resamples: int = 32
    beyond_text: bool = True
    noise: tuple[float, ...] = NOISE
    examples: int = 1024
    usable_permutations: int = 60
    refits: int = 0

    def __post_init__(self) -> None:
        check_probe(self.probe)
        check_counts(self, {"resamples": 2, "examples": 16, "usable_permutations": 0, "refits": 0})
        levels = checked_grid("noise", self.noise, empty=True, hint=_NOISE_HINT)
        object.__setattr__(self, "noise", levels)

    @property
    def identity(self) -> str:
        """The name and every parameter that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; resamples={self.resamples}, "
            f"beyond_text={self.beyond_text}, noise={list(self.noise)}, "
            f"examples={self.examples}, usable_permutations={self.usable_permutations}, "
            f"refits={self.refits}, version=5)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure the information at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The statements, labels and groups.
            seed: Deals the folds, and draws resamples, half samples, permutations and noise, the
                same ones at every checkpoint.

        Returns:
            See `probe_information`.

        Raises:
            ValueError: The activations do not belong to this concept's statements, or the concept
                has too few groups.
        """
        fit, fold = self.probe.held_out(activations, concept, seed=seed)
        held_out = HeldOutScores.of(
            fit.scores,
            concept.labels,
            fold,
            concept.groups,
            fewer=fit.fewer,
            seed=seed,
            resamples=self.probe.resamples,
            halves=self.resamples,
        )
        variables: Variables = {}
        null = self.null_draws(activations, concept, seed=seed)
        resampling = {"resamples": self.probe.resamples, "groups": held_out.bootstrap.groups}
        for short_name, (bound, long_name) in _BOUNDS.items():
            name = f"information_{short_name}"
            variables |= label_bound(name, long_name, bound(held_out), len(concept), resampling)
            if short_name in null:
                variables |= label_null(name, long_name, null[short_name])
        variables["label_entropy"] = (
            (),
            label_entropy(concept.labels),
            {"units": "nats", "long_name": "entropy of the labels' shares"},
        )
        if self.beyond_text:
            usable = self._usable(held_out, concept, seed)
            variables |= label_bound(
                "information_usable", _USABLE, usable, len(concept), resampling
            )
            if null and self.usable_permutations:
                strengths = fit.variables["C"][0] if "C" in fit.variables else None
                draws = self._usable_null(activations, concept, fold, strengths, seed)
                variables |= label_band("information_usable", _USABLE, draws)
        data = empty_dataset(activations.sites, self.resamples).assign(variables)
        if self.noise:
            data = data.merge(
                noised_dataset(
                    activations,
                    concept,
                    noise=self.noise,
                    resamples=self.resamples,
                    examples=self.examples,
                    seed=seed,
                )
            )
        return data

    def null_draws(self, activations: Activations, concept: Concept, *, seed: int) -> _Null:
        """Compute the bounds for permuted labels, the values for the actual labels first."""
        if not isinstance(self.probe.cross_fitter, Refitter):
            return self._refits(activations, concept, seed) if self.refits else {}
        draws = self.probe.null(activations, concept, seed=seed).draws
        return (
            {} if draws is None or "recall" not in draws else draws_in_nats(draws, concept.labels)
        )

    def _refits(self, activations: Activations, concept: Concept, seed: int) -> _Null:
        fold = self.probe.held_out(activations, concept, seed=seed)[1]
        permuted = permute_labels(
            concept.labels, concept.groups, fold, permutations=self.refits, seed=seed
        )
        scores = []
        for draw in permuted.draws.astype(np.int64):
            fit = self.probe.cross_fitter(
                activations.values, torch.from_numpy(draw), concept.groups, fold
            )
            # The same scores as the fast refits give, so that `draws_in_nats` serves both.
            is_correct = (fit.scores > 0) == (draw == 1)[:, None]
            surprise = np.logaddexp(0.0, (1 - 2 * draw)[:, None] * fit.scores)
            scores.append(
                {
                    "accuracy": is_correct.mean(axis=0),
                    "recall": is_correct[draw == 1].mean(axis=0),
                    "cross_entropy": surprise.mean(axis=0),
                }
            )
        draws = {
            name: np.stack([draw_scores[name] for draw_scores in scores], axis=1)
            for name in scores[0]
        }
        return draws_in_nats(draws, concept.labels)

    def _usable_null(
        self,
        activations: Activations,
        concept: Concept,
        fold: Int[np.ndarray, " example"],
        strengths: np.ndarray | None,
        seed: int,
    ) -> Float[np.ndarray, "site draw"]:
        permuted = permute_labels(
            concept.labels,
            concept.groups,
            fold,
            permutations=self.usable_permutations,
            seed=seed,
        )
        draws = permuted.draws[1:]
        text = refit_scores(represent_text(concept.statements), draws, fold, C=1.0)
        null_of_sites = []
        for site in range(len(activations.sites)):
            C = 1.0 if strengths is None else float(strengths[site])
            probe = refit_scores(activations.values[:, site], draws, fold, C=C)
            null_of_sites.append(usable_under_permutation(text, probe, draws, fold))
        return np.stack(null_of_sites)

    def _usable(self, held_out: HeldOutScores, concept: Concept, seed: int) -> Bound:
        floor = floor_on_folds(concept, held_out.fold, seed=seed)
        if floor is None or floor.fewer is None or held_out.fewer is None:
            sites = held_out.scores.shape[1]
            return Bound(
                np.full(sites, np.nan),
                np.full((sites, 2), np.nan),
                np.full((sites, held_out.halves.resamples), np.nan),
            )
        return usable_beyond_text(held_out, floor.score, floor.fewer)


def draws_in_nats(
    draws: Mapping[str, Float[np.ndarray, "site draw"]], labels: Int[np.ndarray, " example"]
) -> dict[str, Float[np.ndarray, "site draw"]]:
    """Convert the scores of refits to information; every draw has as many labels of each kind.

    Args:
        draws: `accuracy`, `recall` of label 1 and `cross_entropy` of each draw's refits.
        labels: 0 or 1.
    """
    entropy = label_entropy(labels)
    ones = int(labels.sum())
    correct = draws["accuracy"] * len(labels)
    correct_ones = draws["recall"] * ones
    zeros = len(labels) - ones
    correct_zeros = correct - correct_ones
    # Accuracy and recall determine the table of labels and answers. Rounding restores counts.
    table = (
        np.stack([correct_zeros, zeros - correct_zeros, ones - correct_ones, correct_ones], axis=-1)
        .round()
        .clip(0)
    )
    return {
        "ba": entropy - draws["cross_entropy"],
        "fano": fano_information((1 - draws["accuracy"]).clip(0, 1), entropy),
        "confusion": confusion_information(table.reshape(*correct.shape, 2, 2)),
    }


def probe_information(
    *,
    C: Sequence[float] = DEFAULT_C,
    folds: int = 5,
    resamples: int = 32,
    permutations: int = 2000,
    noise: Sequence[float] = NOISE,
    beyond_text: bool = True,
    examples: int = 1024,
) -> ProbeInformation:
    """Measure information in nats from the logistic probe, and the input information under noise.

    For the labels `Y`, four values come from held-out scores. They are in nats (divide by `ln 2`
    for bits) and at most `label_entropy`. They may be negative, and are not clipped:

    - `information_ba`: `H(Y) - CE`, Barber and Agakov's lower bound of `I(T; Y)`;
    - `information_fano`: `H(Y) - h(e)`, Fano's bound at the held-out error rate. The low end of its
      interval is what can be claimed;
    - `information_confusion`: `I(Ŷ; Y)` of the answers, with Miller and Madow's correction;
    - `information_usable`: what the probe adds to a classifier of the text (`usable_beyond_text`).

    Each has a 95% interval `…_ci`, from a bootstrap of groups that allows for shared training rows.
    Each has half-sample replicates `…_draws`, with the same halves at every checkpoint, and a
    number of statements `…_n`.

    The first three have `…_null`, the middle 95% where labels are permuted and discriminants are
    refitted (see `refit_null`). Their p-values `…_p` and `…_p_best` are exact at their level.

    `information_usable` has a `…_null` from fewer permutations, but no p-value. Permuting labels
    also removes the text's information, so it does not answer the question. Compare its interval
    with 0, and its value with the band. Where activations add nothing, 1 to 2.5% of values lie
    above the band and 4 to 5% below. The band is not exact because the probe chooses its penalty
    and the discriminants of the band do not.

    For the statement `X`, `information_x` is `I(T + Z; X)`. `X` is one of the `n` statements and
    `Z` is Gaussian noise. Its axes are `noise` (the levels) and `variant`: `"raw"`, or
    `"rank_matched"` for whitened principal components. A change that shows in only one variant is a
    change of the spectrum.

    All components are whitened where there are at least twice as many statements as directions.
    Otherwise their number is an eighth of the statements; `information_x_matched_share` gives the
    share of directions.

    The value is at most `ln n`. In expectation it is at most `…_ceiling`, the limit for every
    representation with the same covariance. `I(T; X)` itself is infinite for any continuous `T`
    computed from `X` without noise. There is no permutation null, since exchanging statements does
    not change the value. Compare it with untrained weights and with the ceiling.

    Args:
        C: Inverse penalty strengths to choose from, inside the training folds.
        folds: The number of folds that the groups are dealt into. At least 3.
        resamples: The number of half samples for the replicates.
        permutations: The number of label permutations for the nulls.
        noise: Standard deviations of `Z` along any direction, as fractions of the activations' root
            mean square distance from their mean at the site. An empty sequence leaves `I(T + Z; X)`
            out.
        beyond_text: Whether to measure usable information beyond the text.
        examples: The largest number of statements for `I(T + Z; X)`; of more statements, whole
            groups are drawn at random.

    Returns:
        A measure named `probe_information`. Together with `logistic_probe` of the same settings, it
        fits nothing again.

    Raises:
        ValueError: A number is out of range.

    Examples:
        >>> probe_information().name
        'probe_information'
    """
    probe = logistic_probe(C=C, folds=folds, permutations=permutations)
    levels = checked_grid("noise", noise, empty=True, hint=_NOISE_HINT)
    return ProbeInformation("probe_information", probe, resamples, beyond_text, levels, examples)
