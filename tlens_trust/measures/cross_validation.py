"""Probes as measures: their scores on statements that they were not fitted on.

The margin, the selectivity and the information of a probe all start from its held-out scores.
`do_once` keeps these scores for further measures of the same activations. A measure stays a pure
function, since the kept result equals the one that it would compute again.
"""

from collections import OrderedDict
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from typing import TypeVar, cast
from weakref import WeakKeyDictionary

import numpy as np
import torch
import xarray as xr
from jaxtyping import Int

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts, checked_count, checked_grid
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import (
    DEFAULT_C,
    PENALTY_HINT,
    CrossFitter,
    HeldOut,
    LogisticCrossFitter,
    MassMeanCrossFitter,
    Refitter,
)
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.nulls import Null, held_out_null
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.reference_levels import (
    chance_dataset,
    floor_dataset,
    floor_on_folds,
    null_dataset,
)
from tlens_trust.measures.scores import score_dataset
from tlens_trust.threads import choose_threads, limited_threads

# Results by the activations that they belong to, and the largest number of them for each.
_results: "WeakKeyDictionary[Activations, OrderedDict[Hashable, object]]" = WeakKeyDictionary()
_MOST_RESULTS = 8
_T = TypeVar("_T")


@dataclass(frozen=True)
class ProbeMeasure:
    """Held-out scores of a probe, at every site: a `Measure`.

    Attributes:
        name: Short name; the `probe` coordinate of a `Trace`.
        cross_fitter: Fits the probes and scores the statements that they were not fitted on.
        folds: The number of folds that the groups are dealt into.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
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
        """Return the name and every parameter that changes the result."""
        return (
            f"{self.name}({self.cross_fitter.identity}; folds={self.folds}, "
            f"resamples={self.resamples}, permutations={self.permutations}, floor={self.floor}, "
            "version=7)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Score the concept at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds, the resamples and the permutations.

        Returns:
            The variables of `score_dataset` and those that the probe reports. Each score has a
            `…_null`, the middle 95% under permuted labels. `accuracy_p` is the p-value of decoding
            the labels at a site. `accuracy_p_best` is the same, corrected for all sites of this
            call: its smallest value is the p-value of the best site. `accuracy_chance` is the share
            of the larger class. Each score has a `…_floor`, the score of a classifier of the text
            alone on the same folds. `accuracy_above_floor` is the accuracy of the probe minus that
            of the classifier. Both have an interval.

        Raises:
            ValueError: The activations do not belong to this concept's statements, or its groups
                cannot be dealt into folds that hold both labels.
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
        """Compute the scores of the probes under permuted labels.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds and of the permutations.

        Raises:
            ValueError: As for calling the measure.
        """

        def compute_null() -> Null:
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
        return do_once(activations, key, compute_null)

    def held_out(
        self, activations: Activations, concept: Concept, *, seed: int
    ) -> tuple[HeldOut, Int[np.ndarray, " example"]]:
        """Deal the folds, fit the probes, and score the statements of each left-out fold.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds.

        Returns:
            Scores and probes, and the fold of each statement.

        Raises:
            ValueError: As for calling the measure.
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
        folds: The number of folds that the groups are dealt into. At least 3.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `logistic`.

    Raises:
        ValueError: `C` is empty or holds a number that is not positive, or a count is out of its
            range.

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
        folds: The number of folds that the groups are dealt into. At least 2.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `mass_mean`.

    Examples:
        >>> mass_mean_probe().name
        'mass_mean'
    """
    return ProbeMeasure("mass_mean", MassMeanCrossFitter(), folds, resamples, permutations, floor)


def check_probe(probe: object) -> None:
    """Check that a value is the measure of a probe.

    Raises:
        ValueError: It is not.
    """
    if not isinstance(probe, ProbeMeasure):
        is_name = isinstance(probe, str) and probe.isidentifier()
        raise ValueError(
            "`probe` must be the measure of a probe, such as `logistic_probe()`, got "
            f"{probe!r}."
            + (f" Call `tlens_trust.measures.{probe}_probe()`, if there is one." if is_name else "")
        )


def do_once(activations: Activations, key: Hashable, work: Callable[[], _T]) -> _T:
    """Compute a result of activations, or return the result that was computed before.

    The last few results are kept as long as the activations exist. If torch changes the values in
    place, results are computed again. If the key cannot be hashed, no result is kept.

    Args:
        activations: The activations that `work` uses.
        key: Everything else that changes the result.
        work: Computes the result.

    Examples:
        >>> import torch
        >>> activations = Activations(torch.zeros(1, 1, 1), ("blocks.0.hook_resid_post",))
        >>> do_once(activations, "sum", list) is do_once(activations, "sum", list)
        True
    """
    values = activations.values
    if values.is_inference():  # Torch does not count in-place changes of these.
        return work()
    versioned_key = (values._version, key)
    try:
        hash(versioned_key)
    except TypeError:  # A user's own cross-fitter may have no hash.
        return work()
    results = _results.setdefault(activations, OrderedDict())
    if versioned_key not in results:
        results[versioned_key] = work()
        while len(results) > _MOST_RESULTS:
            results.popitem(last=False)
    results.move_to_end(versioned_key)
    return cast(_T, results[versioned_key])
