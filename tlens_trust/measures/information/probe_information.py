"""Information in nats at every site of a checkpoint, from the probe of a sweep."""

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
    """What a probe's held-out scores show that activations tell of labels: a `Measure`.

    Attributes:
        name: Short name; the `probe` coordinate where several such measures are taken.
        probe: Whose scores. Where it is measured in the same cell, it is fitted once.
        resamples: How many half samples stand behind replicates.
        beyond_text: Whether to ask what is usable beyond the text.
        noise: Levels of noise for `I(T + Z; X)`; none leaves it out.
        examples: Of more statements than this, `I(T + Z; X)` is that of whole groups drawn at
            random, the same ones at every checkpoint.
        usable_permutations: How many permutations stand behind the null of what is usable beyond
            the text; 0 leaves it out.
        refits: Of a probe without a shortcut, how many times it is fitted again to permuted labels
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
        """Name and every parameter that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; resamples={self.resamples}, "
            f"beyond_text={self.beyond_text}, noise={list(self.noise)}, "
            f"examples={self.examples}, usable_permutations={self.usable_permutations}, "
            f"refits={self.refits}, version=5)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Statements, labels and groups.
            seed: Deals the folds, draws resamples, half samples, permutations and noise, the same
                ones at every checkpoint.

        Returns:
            See `probe_information`.

        Raises:
            ValueError: The activations are not of this concept's statements, or its groups are too
                few.
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
        """What refits to permuted labels give, those to the labels themselves first."""
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
    """The scores of refits as information; every draw has as many labels of each kind.

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
    """Information in nats from the logistic probe, and what noise leaves of the input: a measure.

    Of the labels `Y`, from held-out scores, in nats and at most `label_entropy` (in bits: divide by
    `ln 2`). They may be negative, and are not clipped:

    - `information_ba`: `H(Y) - CE`, Barber and Agakov's lower bound of `I(T; Y)`;
    - `information_fano`: `H(Y) - h(e)`, Fano's at the held-out error; the low end of its interval
      is what can be claimed;
    - `information_confusion`: `I(Ŷ; Y)` of the answers, by Miller and Madow's correction;
    - `information_usable`: what the probe adds to a classifier of the text (`usable_beyond_text`).

    Each with `…_ci` (of 95%, a bootstrap of groups that allows for shared training rows), `…_draws`
    (half-sample replicates, the same halves at every checkpoint), `…_n`, and the first three with
    `…_null` (the middle 95% where labels are permuted and discriminants refitted, see
    `refit_null`), `…_p` and `…_p_best`, exact at their level. Information beyond the text has a
    `…_null` too, of fewer permutations, but no p-value: permuting labels takes the text's
    information away as well, which is not the question. Its interval is to be held against 0, and
    the value against that band: where activations add nothing, 1 to 2.5% of values lie above it,
    and 4 to 5% below, since the probe chooses its penalty and the band's discriminants do not.

    Of the statement `X`: `information_x` is `I(T + Z; X)` with `X` one of the `n` statements and
    `Z` Gaussian noise, along `noise` (its levels) and `variant` (`"raw"`, and `"rank_matched"` for
    whitened principal components: a change that is not in both is one of spectrum). Whitened are
    all of them where statements are at least twice as many, else as many as an eighth of the
    statements; `information_x_matched_share` says which share of the directions that is.
    At most `ln n`, and in expectation no more than `…_ceiling`, what no reading with the same
    covariance exceeds. `I(T; X)` itself is infinite for any `T` that is computed from `X` without
    noise and takes continuous values. There is no null by permutation, since exchanging statements
    leaves it as it is: hold it against untrained weights and the ceiling.

    Args:
        C: Inverse penalty strengths to choose from, inside the training folds.
        folds: Into how many folds the groups are dealt. At least 3.
        resamples: How many half samples stand behind replicates.
        permutations: How many permutations of the labels stand behind nulls.
        noise: Standard deviations of `Z` along any direction, as fractions of the readings' root
            mean square distance from their mean at the site; none leaves `I(T + Z; X)` out.
        beyond_text: Whether to ask what is usable beyond the text.
        examples: Of more statements, `I(T + Z; X)` takes whole groups drawn at random.

    Returns:
        A measure named `probe_information`. Beside `logistic_probe` with the same settings, it fits
        nothing again.

    Raises:
        ValueError: A number is out of its range.

    Examples:
        >>> probe_information().name
        'probe_information'
    """
    probe = logistic_probe(C=C, folds=folds, permutations=permutations)
    levels = checked_grid("noise", noise, empty=True, hint=_NOISE_HINT)
    return ProbeInformation("probe_information", probe, resamples, beyond_text, levels, examples)
