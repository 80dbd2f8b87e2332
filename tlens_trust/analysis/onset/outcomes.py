"""Which statements a probe classifies correctly along training, and its gain over references."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tlens_trust.analysis.onset.crossings import ResampledMeans
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.resampling import GroupBootstrap

BEST = "best"

# Permutations that estimate the smallest p-value which labels and groups allow.
_PERMUTATIONS = 400

# What is missing where a probe has one fixed split: some statements are only ever trained on.
ONE_SPLIT = "held-out scores of all statements"

# Variables of a sweep's cells that onset and saturation use.
CELL_VARIABLES = (
    "score", "score_fewer", "score_floor", "score_floor_fewer", "fold",
    "accuracy_p", "accuracy_p_best", "accuracy_chance",
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class Gain:
    """The gain of each statement over a reference.

    Attributes:
        values: 1, 0 or -1, less the reference.
        fewer: The same by probes that were fitted without one more fold, the first axis.
    """

    values: Float[np.ndarray, "checkpoint example"]
    fewer: Float[np.ndarray, "fold checkpoint example"] | None

    def at_last(self) -> "Gain":
        """The gain at the last checkpoint alone."""
        return Gain(self.values[-1:], None if self.fewer is None else self.fewer[:, -1:])


@dataclass(frozen=True, eq=False)
class SiteOutcomes:
    """One probe at one site: which held-out statements it classifies correctly, by checkpoint.

    Attributes:
        correct: Whether a statement is classified correctly.
        fewer: The same by probes that were fitted without one more fold, the first axis. Arbitrary
            where that is the statement's own fold. None where there are no such probes.
        text: The same by a classifier of the text alone; None where that is unknown.
        text_fewer: The text classifier's without one more fold.
        chance: The share of the larger class.
        p: p-value of the labels being decodable at all; NaN where unknown.
        fold: The fold of each statement, from 0.
        groups: The group of each statement.
        least_p: The smallest p-value that a permutation test of these labels can give, whatever the
            probe: the share of permutations that leave all labels as they are.
    """

    correct: Bool[np.ndarray, "checkpoint example"]
    fewer: Bool[np.ndarray, "fold checkpoint example"] | None
    text: Bool[np.ndarray, " example"] | None
    text_fewer: Bool[np.ndarray, "fold example"] | None
    chance: float
    p: Float[np.ndarray, " checkpoint"]
    fold: Int[np.ndarray, " example"]
    groups: tuple[str, ...]
    least_p: float = 0.0

    def accuracy(self) -> Gain:
        """The accuracy itself, with no reference."""
        fewer = None if self.fewer is None else self.fewer.astype(np.float64)
        return Gain(self.correct.astype(np.float64), fewer)

    def above_chance(self) -> Gain:
        """The gain over always naming the larger class."""
        accuracy = self.accuracy()
        fewer = None if accuracy.fewer is None else accuracy.fewer - self.chance
        return Gain(accuracy.values - self.chance, fewer)

    def above_text(self) -> Gain:
        """The gain over the classifier of the text, statement by statement."""
        if self.text is None:
            raise ValueError(
                "There is no classifier of the text to compare with. Sweep with `floor=True`."
            )
        accuracy = self.accuracy()
        fewer = None
        if accuracy.fewer is not None and self.text_fewer is not None:
            fewer = accuracy.fewer - self.text_fewer[:, None]
        return Gain(accuracy.values - self.text, fewer)

    def short_of_last(self) -> Gain:
        """The gain of the last checkpoint over each of the others."""
        accuracy = self.accuracy()
        fewer = None if accuracy.fewer is None else accuracy.fewer[:, -1:] - accuracy.fewer[:, :-1]
        return Gain(accuracy.values[-1] - accuracy.values[:-1], fewer)

    def resampled_means(self, gains: Sequence[Gain], bootstrap: GroupBootstrap) -> ResampledMeans:
        """Means of gains over several references, which are resampled together."""
        fewer = [gain.fewer for gain in gains if gain.fewer is not None]
        return ResampledMeans.of(
            np.stack([gain.values for gain in gains]),
            np.stack(fewer, axis=1) if len(fewer) == len(gains) else None,
            self.fold,
            bootstrap,
        )


@dataclass(frozen=True, eq=False)
class ProbeOutcomes:
    """The outcomes of one probe at all sites.

    Attributes:
        sites: Names of the sites, and `BEST` where a best one can be chosen.
        outcomes: The outcomes at each of them.
        best_sites: For each checkpoint and fold, the number of the site chosen as the best one.
        finished: The finished checkpoints, by their number.
    """

    sites: tuple[str, ...]
    outcomes: tuple[SiteOutcomes, ...]
    best_sites: Int[np.ndarray, "checkpoint fold"] | None
    finished: Int[np.ndarray, " checkpoint"]

    def __iter__(self) -> Iterator[tuple[str, SiteOutcomes]]:
        return iter(zip(self.sites, self.outcomes, strict=True))


def probe_outcomes(cells: xr.Dataset, probe: str | None, *, floor: bool) -> ProbeOutcomes | str:
    """Take the outcomes of a probe from the cells of a concept.

    Args:
        cells: The variables `CELL_VARIABLES` of the cells, as `load_run_variables` gives them.
        probe: Its name where there are several.
        floor: Whether the outcomes of the text classifier are needed.

    Returns:
        The outcomes, or the name of what is missing.
    """

    def cell_variable(name: str) -> xr.DataArray | None:
        if name not in cells:
            return None
        variable = cells[name]
        if "probe" in variable.dims:
            return variable.sel(probe=probe)
        # What one measure alone gives has no axis of probes, and says whose it is.
        return variable if probe is None or variable.attrs.get("measure", probe) == probe else None

    score, fold_variable, p, p_best, chance = (
        cell_variable(name)
        for name in ("score", "fold", "accuracy_p", "accuracy_p_best", "accuracy_chance")
    )
    if score is None or fold_variable is None or p is None or p_best is None or chance is None:
        return "held-out scores, their folds, p-values and the share of the larger class"
    scores = score.transpose("checkpoint", "site", "example").values
    finished = np.flatnonzero(~np.isnan(scores).all(axis=(1, 2)) & p.notnull().any("site").values)
    if not len(finished):
        return "p-values of the labels being read"
    fold = fold_variable.transpose("checkpoint", "example").values[finished[0]]
    if (fold < 0).any():
        # The p-values of such a probe are of other statements than its scores, so both do not fit.
        return ONE_SPLIT
    rows = np.flatnonzero((fold >= 0) & np.isfinite(scores[finished]).all(axis=(0, 1)))
    if not len(rows):
        return "statements with a held-out score at every checkpoint and site"
    fold = fold[rows].astype(np.int64)
    folds = int(fold.max()) + 1
    positive = (cells["label"].values == 1)[rows]

    def classify(variable: xr.DataArray, *dims: str) -> np.ndarray:
        if "left_out" in dims:  # another probe may have more folds
            variable = variable.isel(left_out=slice(folds))
        values = variable.isel(checkpoint=finished, example=rows).transpose(*dims, "example").values
        is_correct: np.ndarray = (values > 0) == positive
        return is_correct

    def classify_if_known(name: str, *dims: str) -> np.ndarray | None:
        variable = cell_variable(name)
        return None if variable is None or variable.isnull().all() else classify(variable, *dims)

    correct = classify(score, "checkpoint", "site")
    fewer = classify_if_known("score_fewer", "left_out", "checkpoint", "site")
    text = classify_if_known("score_floor", "checkpoint")
    text_fewer = classify_if_known("score_floor_fewer", "left_out", "checkpoint")
    if floor and text is None:
        return "scores by the text alone (`floor=False` does without)"
    common: dict[str, Any] = {
        # The text is the same at every checkpoint.
        "text": None if text is None else text[0],
        "text_fewer": None if text_fewer is None else text_fewer[:, 0],
        "chance": float(np.nanmax(chance.values)),
        "fold": fold,
        "groups": tuple(cells["group"].values[rows].tolist()),
    }
    common["least_p"] = least_p_value(positive.astype(np.int64), common["groups"], fold)
    sites = tuple(score["site"].values.tolist())
    by_site = p.transpose("checkpoint", "site").values[finished]
    outcomes = [
        SiteOutcomes(
            correct=correct[:, s],
            fewer=None if fewer is None else fewer[:, :, s],
            p=by_site[:, s],
            **common,
        )
        for s in range(len(sites))
    ]
    if folds < 2:
        return ProbeOutcomes(sites, tuple(outcomes), None, finished)
    best_sites = choose_sites(correct, fewer, fold)
    site_of_row = best_sites[:, fold]
    correct_at_best = np.take_along_axis(correct, site_of_row[:, None], axis=1)[:, 0]
    fewer_at_best = None
    if fewer is not None:
        fewer_at_best = np.take_along_axis(fewer, site_of_row[None, :, None], axis=2)[:, :, 0]
    smallest_p = np.fmin.reduce(p_best.transpose("checkpoint", "site").values[finished], axis=1)
    outcomes.append(
        SiteOutcomes(correct=correct_at_best, fewer=fewer_at_best, p=smallest_p, **common)
    )
    return ProbeOutcomes((*sites, BEST), tuple(outcomes), best_sites, finished)


def least_p_value(
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str],
    fold: Int[np.ndarray, " example"],
) -> float:
    """The share of permutations that leave all labels as they are.

    Such a permutation reaches the statistic of the labels, so no p-value lies below their share. It
    is large where there are few groups, and 1 where no group can exchange its labels with another.

    Args:
        labels: 0 or 1.
        groups: The group of each statement.
        fold: The fold of each statement, from 0.

    Examples:
        >>> labels, fold = np.array([0, 1, 1]), np.array([0, 0, 0])
        >>> least_p_value(labels, ["a", "b", "b"], fold)  # of different size: nothing to exchange
        1.0
    """
    permuted = permute_labels(labels, groups, fold, permutations=_PERMUTATIONS, seed=0)
    return float((permuted.draws[1:] == permuted.labels).all(axis=1).mean())


def choose_sites(
    correct: Bool[np.ndarray, "checkpoint site example"],
    fewer: Bool[np.ndarray, "fold checkpoint site example"] | None,
    fold: Int[np.ndarray, " example"],
) -> Int[np.ndarray, "checkpoint fold"]:
    """Choose for each fold the first site with the best accuracy on the other folds.

    The choice uses probes that were fitted without the fold too. The usual probes of the other
    folds have learned from it, and favour the site where it happens to look good.

    Args:
        correct: Whether each statement is classified correctly.
        fewer: The same by probes that were fitted without one more fold, the first axis. None where
            there are no such probes; then the usual ones choose.
        fold: The fold of each statement, from 0.
    """
    folds = int(fold.max()) + 1
    best_sites = np.empty((len(correct), folds), dtype=np.int64)
    for k in range(folds):
        correct_without_fold = correct if fewer is None else fewer[k]
        best_sites[:, k] = correct_without_fold[:, :, fold != k].mean(axis=-1).argmax(axis=1)
    return best_sites
