"""The protocol of Qian et al. (2024), as in their reference code, and the leaks in it.

It is here to reproduce published figures and to compare them with others. Do not use it for new
results. Test statements may have twins or members of their group in the training part, and features
are scaled with test statements. The result counts these leaks for each concept.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
import sklearn
import torch
import xarray as xr
from jaxtyping import Bool, Float
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts, checked_share
from tlens_trust.concepts import Concept
from tlens_trust.concepts.floor_scores import TextFloor
from tlens_trust.concepts.grouping import near_duplicate_pairs
from tlens_trust.concepts.lint.rows import plain_text
from tlens_trust.measures.labelled import Variables, labelled, labelled_null
from tlens_trust.measures.nulls import held_out_null
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.reference_levels import chance_dataset, floor_dataset, floor_on_folds
from tlens_trust.measures.scores import score_dataset

# The share of rows that the paper trains on.
_TRAINING_SHARE = 0.8
# The Jaccard similarity of the words of two texts from which they count as near-duplicates.
_SIMILARITY = 0.6
_LEAKS = (
    "centred and scaled over training and test rows alike; split in the order of rows, without "
    "regard to groups; see leak_group and the other leak_… variables for how many test statements "
    "that concerns, and accuracy_unseen for the others"
)


@dataclass(frozen=True, eq=False)
class SplitLeaks:
    """The leaks between the training part and the test part of a sequential split.

    Attributes:
        trained: The number of training statements, which are the first ones.
        group: For each test statement, whether the training part has a statement of its group.
        duplicate: Whether the training part has the same text, character by character.
        conflict: Whether the training part has the same text with the other label.
        twin: Whether the training part has the same text except for case, punctuation and white
            space.
        near_duplicate: Whether the training part has a text that shares 0.6 of its words (Jaccard).
    """

    trained: int
    group: Bool[np.ndarray, " test"]
    duplicate: Bool[np.ndarray, " test"]
    conflict: Bool[np.ndarray, " test"]
    twin: Bool[np.ndarray, " test"]
    near_duplicate: Bool[np.ndarray, " test"]

    @property
    def unseen(self) -> Bool[np.ndarray, " test"]:
        """The test statements of which the training part has neither the group nor the text.

        A statement with a near-duplicate alone counts as unseen. Statements of one form are alike
        whatever they say.
        """
        unseen: np.ndarray = ~(self.group | self.twin)
        return unseen


def find_split_leaks(concept: Concept, *, train: float = _TRAINING_SHARE) -> SplitLeaks:
    """Find the leaks of a split into the first and the last rows, without shuffling.

    Args:
        concept: Statements in the order of their file.
        train: The share of training statements, rounded down to whole statements.

    Raises:
        ValueError: `train` leaves no statements on one side.

    Examples:
        >>> texts = ("It is so.", "It is not.", "You may.", "You may not.", "it is so")
        >>> groups = ("is", "is", "may", "may", "other")
        >>> concept = Concept("x", "x", texts, np.array([1, 0, 1, 0, 1]), groups)
        >>> leaks = find_split_leaks(concept)
        >>> leaks.group.tolist(), leaks.twin.tolist(), leaks.unseen.tolist()
        ([False], [True], [False])
    """
    train = checked_share("train", train, hint=f"The paper trains on {_TRAINING_SHARE}.")
    cut = int(len(concept) * train)
    if not 0 < cut < len(concept):
        raise ValueError(
            f"`train` must leave statements for training and for the test, got {train} of "
            f"{len(concept)}. The paper's share is {_TRAINING_SHARE}."
        )
    texts = concept.statements
    plain = [plain_text(text) for text in texts]
    labelled_texts = list(zip(texts, concept.labels.tolist(), strict=True))
    return SplitLeaks(
        trained=cut,
        group=_occurs(concept.groups, cut),
        duplicate=_occurs(texts, cut),
        conflict=np.isin(np.arange(cut, len(texts)), _conflicting_rows(labelled_texts, cut)),
        twin=_occurs(plain, cut),
        near_duplicate=_near_duplicates(texts, cut),
    )


def _occurs(names: Sequence[str], cut: int) -> Bool[np.ndarray, " test"]:
    training_names = set(names[:cut])
    return np.array([name in training_names for name in names[cut:]])


def _conflicting_rows(labelled_texts: Sequence[tuple[str, int]], cut: int) -> list[int]:
    training_set = set(labelled_texts[:cut])
    return [
        row
        for row, (text, label) in enumerate(labelled_texts)
        if row >= cut and (text, 1 - label) in training_set
    ]


# Cached, since it is the same at every checkpoint, and its time grows with the square of the number
# of statements.
@lru_cache(maxsize=32)
def _near_duplicates(texts: tuple[str, ...], cut: int) -> Bool[np.ndarray, " test"]:
    # Each pair of rows is in ascending order.
    lower_row, upper_row = near_duplicate_pairs(texts, similarity=_SIMILARITY)
    is_leak = (lower_row < cut) & (upper_row >= cut)
    has_near_duplicate: np.ndarray = np.isin(np.arange(cut, len(texts)), upper_row[is_leak])
    return has_near_duplicate


@dataclass(frozen=True)
class TracingLLMMeasure:
    """The probe of Qian et al. (2024) at every site: a `Measure`.

    Attributes:
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.
    """

    resamples: int = 1000
    permutations: int = 2000
    floor: bool = True

    def __post_init__(self) -> None:
        check_counts(self, {"resamples": 1, "permutations": 1})

    @property
    def name(self) -> str:
        """`tracingllm`."""
        return "tracingllm"

    @property
    def identity(self) -> str:
        """Give the name, every parameter, and the version of scikit-learn, whose defaults count."""
        return (
            f"{self.name}(resamples={self.resamples}, permutations={self.permutations}, "
            f"floor={self.floor}, scikit-learn={sklearn.__version__}, version=2)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Score the concept at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups, in the order of the file.
            seed: Seed of the resamples and the permutations. The protocol itself is deterministic.

        Returns:
            The variables that `tracingllm_probe` lists.

        Raises:
            ValueError: The activations are not of this concept's statements, or the first 80% or
                the last 20% of the rows lack a label.
        """
        if len(activations.values) != len(concept):
            raise ValueError(
                f"The activations hold {len(activations.values)} statements, but concept "
                f"{concept.name!r} has {len(concept)}. Collect them from this concept."
            )
        leaks = find_split_leaks(concept)
        test_part = _test_part(concept, leaks.trained)
        scores, unconverged = _fit(activations, concept, leaks.trained)
        # Training statements have no score. NaN fills their rows.
        padding = {"example": (leaks.trained, 0)}
        data = self._score(scores, test_part, activations.sites, seed).pad(padding)
        data["accuracy"].attrs["leaks"] = _LEAKS
        data["unconverged"] = (
            ("site",),
            unconverged,
            {"units": "fits", "long_name": "fits that did not reach their optimum"},
        )
        fold = np.where(np.arange(len(concept)) < leaks.trained, -1, 0)
        data["fold"] = (
            ("example",),
            fold.astype(np.int16),
            {"units": "1", "long_name": "0 for test statements, -1 for training statements"},
        )
        data = data.merge(chance_dataset(test_part)).merge(_leak_dataset(leaks))
        data = data.merge(
            self._score_unseen(scores, test_part, leaks.unseen, activations.sites, seed)
        )
        if not self.floor:
            return data
        floor = floor_on_folds(concept, fold, seed=seed)
        levels = floor_dataset(
            None if floor is None else _last_rows(floor, leaks.trained),
            test_part,
            scores,
            np.zeros(len(test_part), dtype=np.int64),
            seed=seed,
            resamples=self.resamples,
        )
        return data.merge(levels.pad(padding) if "example" in levels.dims else levels)

    def _score(
        self,
        scores: Float[np.ndarray, "test site"],
        test_part: Concept,
        sites: Sequence[str],
        seed: int,
    ) -> xr.Dataset:
        return score_dataset(
            scores,
            test_part.labels,
            np.zeros(len(test_part), dtype=np.int64),
            test_part.groups,
            sites=sites,
            seed=seed,
            resamples=self.resamples,
        )

    def _score_unseen(
        self,
        scores: Float[np.ndarray, "test site"],
        test_part: Concept,
        unseen: Bool[np.ndarray, " test"],
        sites: Sequence[str],
        seed: int,
    ) -> xr.Dataset:
        """Compute accuracy and p-values on the unseen test statements.

        There is one split, and the probe was not fitted to its test labels. So permuting them
        against the predictions is an exact test. With a twin in the training part it would not be,
        since the labels of twins depend on each other.
        """
        unknown = np.full(len(sites), np.nan)
        has_both_labels = len(set(test_part.labels[unseen].tolist())) == 2
        accuracy, interval = unknown, np.full((len(sites), 2), np.nan)
        p, p_best = unknown, unknown
        if has_both_labels:
            part = _part(test_part, unseen)
            scored = self._score(scores[unseen], part, sites, seed)
            accuracy, interval = scored["accuracy"].values, scored["accuracy_ci"].values
            fold = np.zeros(len(part), dtype=np.int64)
            permuted = permute_labels(
                part.labels, part.groups, fold, permutations=self.permutations, seed=seed
            )
            null = held_out_null(scores[unseen], permuted, fold)
            p, p_best = null.p, null.p_best
        unseen_groups = {test_part.groups[row] for row in np.flatnonzero(unseen).tolist()}
        variables = labelled(
            "accuracy_unseen",
            accuracy,
            units="fraction of statements",
            long_name="accuracy on test statements without group or text in the training part",
            interval=interval,
            n=int(unseen.sum()),
            resampling={"resamples": self.resamples, "groups": len(unseen_groups)},
        )
        variables |= labelled_null(
            "accuracy",
            long_name="decoding the labels at the site",
            permutations=self.permutations,
            p=p,
            p_best=p_best,
            p_name="permutation p-value of {}",
            attributes={
                "statements": "those without group or text in the training part",
            },
        )
        return xr.Dataset(variables, coords={"site": list(sites), "bound": ["low", "high"]})


def tracingllm_probe(
    *, resamples: int = 1000, permutations: int = 2000, floor: bool = True
) -> TracingLLMMeasure:
    """The protocol of Qian et al. (2024) as a measure, to reproduce published figures.

    The steps are those of their reference code:

    - Each feature is centred, and divided by its standard deviation (with `n - 1`), over all
      statements. A constant feature, for which the reference computes 0/0, is left out.
    - The first 80% of the statements, in file order, are the training part. The last 20% are the
      test part. There is no shuffling, and groups are ignored.
    - The probe is scikit-learn's `LogisticRegression()` with the defaults of the installed version
      (C = 1, at most 100 iterations). The reference used version 1.3.0. Nothing is random.

    The reference reads the residual stream after each block at the last token, as a sweep does by
    default. It uses all statements of its files, which `load_concepts(…, clean=False)` gives.

    The result has the accuracy, and more than the reference gives: an interval from resampled
    groups of the test part, n, the other scores, the share of the larger class of the test part,
    and the text floor on the same split.

    It also has the number of test statements with each leak. `leak_group` counts statements with
    their group in the training part. `leak_twin` counts those with the same text there, except for
    case, punctuation and white space. `leak_duplicate` counts those with the same text, character
    by character. `leak_conflict` counts those with the same text and the other label.
    `leak_near_duplicate` counts those with a text that shares 0.6 of the words. `leak_scaling`
    counts those that take part in centring and scaling, which all do.

    `accuracy_unseen` is the accuracy in test statements of which the training part has neither the
    group nor the text. The p-values are of these statements alone. Both are NaN if these statements
    lack a label. There is no null band.

    Args:
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `tracingllm`.

    Source:
        Qian et al. (2024), arXiv:2402.19465; github.com/ChnQ/TracingLLM.

    Examples:
        >>> tracingllm_probe().name
        'tracingllm'
    """
    return TracingLLMMeasure(resamples, permutations, floor)


def _fit(
    activations: Activations, concept: Concept, cut: int
) -> tuple[Float[np.ndarray, "test site"], Float[np.ndarray, " site"]]:
    """Fit the probes, and give log-odds of the test statements and which fits did not converge."""
    sites = len(activations.sites)
    scores = np.empty((len(concept) - cut, sites))
    unconverged = np.empty(sites)
    for site in range(sites):
        features = _scale(activations.values[:, site].float().cpu()).numpy()
        probe = LogisticRegression()
        with warnings.catch_warnings():
            # The result has the variable `unconverged` instead of a warning.
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(features[:cut], concept.labels[:cut])
        scores[:, site] = probe.decision_function(features[cut:])
        unconverged[site] = float((probe.n_iter_ >= probe.max_iter).any())
    return scores, unconverged


def _scale(values: Float[Tensor, "example d_model"]) -> Float[Tensor, "example d_model"]:
    """Centre and scale features over all rows, in float32. Constant features become 0.

    Test rows take part, which is one of the leaks.
    """
    centred = values - values.mean(dim=0)
    deviation = centred.std(dim=0)
    return torch.where(deviation > 0, centred / deviation, 0.0)


def _test_part(concept: Concept, cut: int) -> Concept:
    for part, labels in (("first 80%", concept.labels[:cut]), ("last 20%", concept.labels[cut:])):
        if len(set(labels.tolist())) < 2:
            raise ValueError(
                f"The {part} of {concept.name!r} hold label {labels[0]} alone, and the paper's "
                "protocol splits rows in their order. Sort them in the order of the paper's file, "
                'or use protocol="grouped", which does not depend on it.'
            )
    return _part(concept, np.arange(len(concept)) >= cut)


def _part(concept: Concept, member: Bool[np.ndarray, " example"]) -> Concept:
    rows = np.flatnonzero(member).tolist()
    return replace(
        concept,
        statements=tuple(concept.statements[row] for row in rows),
        labels=concept.labels[rows],
        groups=tuple(concept.groups[row] for row in rows),
    )


def _last_rows(floor: TextFloor, cut: int) -> TextFloor:
    return replace(
        floor,
        labels=floor.labels[cut:],
        fold=floor.fold[cut:],
        words=floor.words[cut:],
        characters=floor.characters[cut:],
        majority=floor.majority[cut:],
    )


def _leak_dataset(leaks: SplitLeaks) -> xr.Dataset:
    descriptions = {
        "leak_group": (leaks.group, "whose group is in the training part"),
        "leak_twin": (
            leaks.twin,
            "whose text is in the training part except for case, punctuation and white space",
        ),
        "leak_duplicate": (
            leaks.duplicate,
            "whose text is in the training part, character by character",
        ),
        "leak_conflict": (
            leaks.conflict,
            "whose text is in the training part with the other label",
        ),
        "leak_near_duplicate": (
            leaks.near_duplicate,
            f"with a text in the training part that shares {_SIMILARITY} of the words",
        ),
        "leak_scaling": (np.ones_like(leaks.group), "by which features are centred and scaled"),
    }
    variables: Variables = {}
    for name, (has_leak, clause) in descriptions.items():
        attributes: dict[str, object] = {
            "units": "statements",
            "long_name": f"test statements {clause}",
        }
        variables[name] = ((), float(has_leak.sum()), attributes)
    variables["trained"] = (
        (),
        float(leaks.trained),
        {"units": "statements", "long_name": "training statements"},
    )
    return xr.Dataset(variables)
