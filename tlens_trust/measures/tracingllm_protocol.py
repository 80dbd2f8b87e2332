"""The protocol of Qian et al. (2024), as their reference code has it, and what leaks in it.

It is here so that published figures can be reproduced and set beside others, not because it should
be used: test statements are twins and group-mates of training statements, and features are scaled
by them. What of that is so for a concept is counted, and stands in the result.
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
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.nulls import held_out_null
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.reference_levels import chance_dataset, floor_dataset, floor_on_folds
from tlens_trust.measures.scores import score_dataset

_TRAINING_PART = 0.8
_SIMILARITY = 0.6
_LEAKS = (
    "centred and scaled over training and test rows alike; split in the order of rows, without "
    "regard to groups; see leak_group and the other leak_… variables for how many test statements "
    "that concerns, and accuracy_unseen for the others"
)


@dataclass(frozen=True, eq=False)
class SplitLeaks:
    """What of a sequential split's test part its training part knows already.

    Attributes:
        trained: How many statements, the first ones, are trained on.
        group: For each test statement, whether one of its group is trained on.
        duplicate: Whether the same text is trained on, letter by letter.
        conflict: Whether it is trained on with the other label.
        twin: Whether the same text is trained on but for case, punctuation and white space.
        near_duplicate: Whether a text is trained on that shares 0.6 of its words (Jaccard).
    """

    trained: int
    group: Bool[np.ndarray, " test"]
    duplicate: Bool[np.ndarray, " test"]
    conflict: Bool[np.ndarray, " test"]
    twin: Bool[np.ndarray, " test"]
    near_duplicate: Bool[np.ndarray, " test"]

    @property
    def unseen(self) -> Bool[np.ndarray, " test"]:
        """Test statements of which neither the group nor the text is trained on.

        A near-duplicate alone is no reason to count a statement as seen: statements of one form
        are alike whatever they say.
        """
        unseen: np.ndarray = ~(self.group | self.twin)
        return unseen


def find_split_leaks(concept: Concept, *, train: float = _TRAINING_PART) -> SplitLeaks:
    """What a split into the first and the last rows, without shuffling, has on both sides.

    Args:
        concept: In the order of its file.
        train: The part that is trained on, rounded down to whole statements.

    Raises:
        ValueError: `train` leaves nothing on one side.

    Examples:
        >>> said = ("It is so.", "It is not.", "You may.", "You may not.", "it is so")
        >>> groups = ("is", "is", "may", "may", "other")
        >>> concept = Concept("x", "x", said, np.array([1, 0, 1, 0, 1]), groups)
        >>> leaks = find_split_leaks(concept)
        >>> leaks.group.tolist(), leaks.twin.tolist(), leaks.unseen.tolist()
        ([False], [True], [False])
    """
    train = checked_share("train", train, hint=f"The paper trains on {_TRAINING_PART}.")
    cut = int(len(concept) * train)
    if not 0 < cut < len(concept):
        raise ValueError(
            f"`train` must leave statements to train on and to test with, got {train} of "
            f"{len(concept)}. The paper's is {_TRAINING_PART}."
        )
    texts = concept.statements
    plain = [plain_text(text) for text in texts]
    said = list(zip(texts, concept.labels.tolist(), strict=True))
    return SplitLeaks(
        trained=cut,
        group=_occurs(concept.groups, cut),
        duplicate=_occurs(texts, cut),
        conflict=np.isin(np.arange(cut, len(said)), _contradicted(said, cut)),
        twin=_occurs(plain, cut),
        near_duplicate=_near_duplicates(texts, cut),
    )


def _occurs(names: Sequence[str], cut: int) -> Bool[np.ndarray, " test"]:
    seen = set(names[:cut])
    return np.array([name in seen for name in names[cut:]])


def _contradicted(said: Sequence[tuple[str, int]], cut: int) -> list[int]:
    seen = set(said[:cut])
    return [row for row in range(cut, len(said)) if (said[row][0], 1 - said[row][1]) in seen]


# The same at every checkpoint, and its time grows with the square of the number of statements.
@lru_cache(maxsize=32)
def _near_duplicates(texts: tuple[str, ...], cut: int) -> Bool[np.ndarray, " test"]:
    first, second = near_duplicate_pairs(texts, similarity=_SIMILARITY)
    alike: np.ndarray = np.isin(np.arange(cut, len(texts)), second[(first < cut) & (second >= cut)])
    return alike


@dataclass(frozen=True)
class TracingLLMMeasure:
    """The probe of Qian et al. (2024) at every site: a `Measure`.

    Attributes:
        resamples: How many bootstrap resamples stand behind an interval.
        permutations: How many permutations of the labels stand behind a p-value.
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
        """Every parameter, and the release of scikit-learn, whose defaults are part of it."""
        return (
            f"{self.name}(resamples={self.resamples}, permutations={self.permutations}, "
            f"floor={self.floor}, scikit-learn={sklearn.__version__}, version=2)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Score the concept at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups, in the order of the file.
            seed: Draws resamples and permutations. The protocol itself draws nothing.

        Returns:
            What `tracingllm_probe` says.

        Raises:
            ValueError: The activations are not of this concept's statements, or one label alone
                stands in the first 80% or in the last 20% of the rows.
        """
        if len(activations.values) != len(concept):
            raise ValueError(
                f"The activations hold {len(activations.values)} statements, but concept "
                f"{concept.name!r} has {len(concept)}. Collect them from this concept."
            )
        leaks = find_split_leaks(concept)
        tested = _tested(concept, leaks.trained)
        scores, stopped = _fit(activations, concept, leaks.trained)
        # Statements that are trained on have no score.
        on_all = {"example": (leaks.trained, 0)}
        data = self._scored(scores, tested, activations.sites, seed).pad(on_all)
        data["accuracy"].attrs["leaks"] = _LEAKS
        data["unconverged"] = (
            ("site",),
            stopped,
            {"units": "fits", "long_name": "fits that did not reach their optimum"},
        )
        fold = np.where(np.arange(len(concept)) < leaks.trained, -1, 0)
        data["fold"] = (
            ("example",),
            fold.astype(np.int16),
            {"units": "1", "long_name": "0 where the statement is tested, -1 where trained on"},
        )
        data = data.merge(chance_dataset(tested)).merge(_leak_dataset(leaks))
        data = data.merge(self._of_unseen(scores, tested, leaks.unseen, activations.sites, seed))
        if not self.floor:
            return data
        floor = floor_on_folds(concept, fold, seed=seed)
        levels = floor_dataset(
            None if floor is None else _last_rows(floor, leaks.trained),
            tested,
            scores,
            np.zeros(len(tested), dtype=np.int64),
            seed=seed,
            resamples=self.resamples,
        )
        return data.merge(levels.pad(on_all) if "example" in levels.dims else levels)

    def _scored(
        self,
        scores: Float[np.ndarray, "test site"],
        tested: Concept,
        sites: Sequence[str],
        seed: int,
    ) -> xr.Dataset:
        return score_dataset(
            scores,
            tested.labels,
            np.zeros(len(tested), dtype=np.int64),
            tested.groups,
            sites=sites,
            seed=seed,
            resamples=self.resamples,
        )

    def _of_unseen(
        self,
        scores: Float[np.ndarray, "test site"],
        tested: Concept,
        unseen: Bool[np.ndarray, " test"],
        sites: Sequence[str],
        seed: int,
    ) -> xr.Dataset:
        """Accuracy and p-values where nothing of a test statement is trained on.

        With one split, whose test labels no fit has seen, permuting them against the predictions
        is exact. It is not where a twin is trained on: labels of twins are not drawn apart.
        """
        empty = np.full(len(sites), np.nan)
        both = len(set(tested.labels[unseen].tolist())) == 2
        accuracy, interval = empty, np.full((len(sites), 2), np.nan)
        p, p_best = empty, empty
        if both:
            part = _part(tested, unseen)
            scored = self._scored(scores[unseen], part, sites, seed)
            accuracy, interval = scored["accuracy"].values, scored["accuracy_ci"].values
            fold = np.zeros(len(part), dtype=np.int64)
            permuted = permute_labels(
                part.labels, part.groups, fold, permutations=self.permutations, seed=seed
            )
            null = held_out_null(scores[unseen], permuted, fold)
            p, p_best = null.p, null.p_best
        told = "accuracy in test statements of which neither group nor text is trained on"
        groups = {"groups": len({g for g, new in zip(tested.groups, unseen, strict=True) if new})}
        variables = labelled(
            "accuracy_unseen",
            accuracy,
            units="fraction of statements",
            long_name=told,
            interval=interval,
            n=int(unseen.sum()),
            resampling={"resamples": self.resamples} | groups,
        )
        variables |= labelled_null(
            "accuracy",
            long_name="labels being read at the site",
            permutations=self.permutations,
            p=p,
            p_best=p_best,
            attributes={
                "statements": "those of which neither group nor text is trained on",
            },
        )
        return xr.Dataset(variables, coords={"site": list(sites), "bound": ["low", "high"]})


def tracingllm_probe(
    *, resamples: int = 1000, permutations: int = 2000, floor: bool = True
) -> TracingLLMMeasure:
    """The protocol of Qian et al. (2024) as a measure, to reproduce published figures with.

    As their reference code has it: each feature is centred, and divided by its standard deviation
    (with `n - 1`), over all statements; the first 80% of them, in the order of the file, are
    trained on and the last 20% tested, without shuffling and without regard to groups; the probe is
    scikit-learn's `LogisticRegression()`, its defaults (C = 1, at most 100 iterations) being those
    of the release that is installed (theirs was 1.3.0). Nothing is drawn, so there is no seed. A
    feature that never varies, by which the reference divides nought by nought, is left out.

    The reference reads the residual stream after each block at the last token, which is what a
    sweep does by default, and all statements as its files have them: `load_concepts(…,
    clean=False)` gives these.

    Beside the accuracy stands what the reference does not give: an interval from resampled groups
    of the test part, n, the other scores, the larger class of the test part, the text floor on the
    same split; and what leaks, in numbers of test statements: `leak_group` (a statement of the same
    group is trained on), `leak_twin` (the same text but for case, punctuation and white space),
    `leak_duplicate` (letter by letter), `leak_conflict` (a duplicate with the other label),
    `leak_near_duplicate`, and `leak_scaling` (those that centring and scaling have seen: all).
    `accuracy_unseen` is the accuracy in test statements of which neither group nor text is trained
    on, and the p-values are theirs alone; NaN where there are none of both labels. There is no null
    band.

    Args:
        resamples: How many bootstrap resamples stand behind an interval.
        permutations: How many permutations of the labels stand behind a p-value.
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
    """Log-odds of the test statements, and which fits stopped at the limit of iterations."""
    sites = len(activations.sites)
    scores = np.empty((len(concept) - cut, sites))
    stopped = np.empty(sites)
    for site in range(sites):
        features = _scaled(activations.values[:, site].float().cpu()).numpy()
        probe = LogisticRegression()
        with warnings.catch_warnings():
            # It is reported instead.
            warnings.simplefilter("ignore", ConvergenceWarning)
            probe.fit(features[:cut], concept.labels[:cut])
        scores[:, site] = probe.decision_function(features[cut:])
        stopped[site] = float((probe.n_iter_ >= probe.max_iter).any())
    return scores, stopped


def _scaled(values: Float[Tensor, "example d_model"]) -> Float[Tensor, "example d_model"]:
    """Over all rows, in float32, which is what leaks; a feature that never varies becomes 0."""
    about = values - values.mean(dim=0)
    deviation = about.std(dim=0)
    return torch.where(deviation > 0, about / deviation, 0.0)


def _tested(concept: Concept, cut: int) -> Concept:
    for part, labels in (("first 80%", concept.labels[:cut]), ("last 20%", concept.labels[cut:])):
        if len(set(labels.tolist())) < 2:
            raise ValueError(
                f"The {part} of {concept.name!r} hold label {labels[0]} alone, and the paper's "
                "protocol splits rows in their order. Put them in the order of the paper's file, "
                'or use protocol="grouped", which does not depend on it.'
            )
    return _part(concept, np.arange(len(concept)) >= cut)


def _part(concept: Concept, kept: Bool[np.ndarray, " example"]) -> Concept:
    rows = np.flatnonzero(kept).tolist()
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
    told = {
        "leak_group": (leaks.group, "of whose group one is trained on"),
        "leak_twin": (
            leaks.twin,
            "whose text is trained on, the same but for case, punctuation and white space",
        ),
        "leak_duplicate": (leaks.duplicate, "whose text is trained on, letter by letter"),
        "leak_conflict": (leaks.conflict, "whose text is trained on with the other label"),
        "leak_near_duplicate": (
            leaks.near_duplicate,
            f"of which a text is trained on that shares {_SIMILARITY} of the words",
        ),
        "leak_scaling": (np.ones_like(leaks.group), "by which features are centred and scaled"),
    }
    counted = {
        name: ((), float(found.sum()), {"units": "statements", "long_name": f"test statements {s}"})
        for name, (found, s) in told.items()
    }
    trained = {"units": "statements", "long_name": "statements that are trained on"}
    return xr.Dataset(counted | {"trained": ((), float(leaks.trained), trained)})
