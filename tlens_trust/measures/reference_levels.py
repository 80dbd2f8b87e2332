"""The levels that a probe's scores have to be held against: chance, the null, and the text."""

from collections import OrderedDict
from weakref import WeakKeyDictionary

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts import Concept, text_floor
from tlens_trust.concepts.floor_scores import TextFloor
from tlens_trust.measures.cross_fold import mean_covariance
from tlens_trust.measures.intervals import (
    clopper_pearson,
    difference_interval,
    stretched_interval,
)
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.nulls import Null
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.scores import score_dataset

_ENDS = ("", "_ci")
_SCORES = ("accuracy", "balanced_accuracy", "auroc", "cross_entropy")
_KEPT = 32
_kept: OrderedDict[tuple[str, bytes, int], TextFloor | None] = OrderedDict()
# By a floor that still exists: its own scores, which are the same at every checkpoint.
_scored: "WeakKeyDictionary[TextFloor, dict[tuple[str, bytes, int, int], xr.Dataset]]"
_scored = WeakKeyDictionary()


def null_dataset(null: Null, scored: xr.Dataset) -> xr.Dataset:
    """A null as variables beside the scores that it belongs to.

    Args:
        null: At the sites of the scores, in their order.
        scored: What `score_dataset` gives.

    Returns:
        For each score that the null has a band of, `…_null` along `site` and `bound`; `accuracy_p`
        and `accuracy_p_best` along `site`.
    """
    variables = labelled_null(
        "accuracy",
        long_name="by the AUROC, of the labels being read at the site",
        permutations=null.permutations,
        p=null.p,
        p_best=null.p_best,
        p_name="permutation p-value, {}",
    )
    for name, band in null.bands.items():
        score = scored[name].attrs
        variables |= labelled_null(
            name,
            long_name=score["long_name"],
            permutations=null.refits,
            band=band,
            units=score["units"],
        )
    return scored[["site", "bound"]].assign(variables)


def chance_dataset(concept: Concept) -> xr.Dataset:
    """The accuracy of always naming the larger class, of the cell as a whole."""
    ones = float(concept.labels.mean())
    described = {"units": "fraction of statements", "long_name": "share of the larger class"}
    return xr.Dataset({"accuracy_chance": ((), max(ones, 1 - ones), described)})


def floor_on_folds(
    concept: Concept, fold: Int[np.ndarray, " example"], *, seed: int
) -> TextFloor | None:
    """The text floor on a probe's folds, with what it takes for an interval.

    The last few are kept, since they are the same at every checkpoint.

    Args:
        concept: The statements.
        fold: The fold of each; below 0 where it is only ever trained on.
        seed: Draws the folds within the training rows.

    Returns:
        None where groups are too few to choose between words and characters within the training
        rows.
    """
    key = concept.fingerprint, np.ascontiguousarray(fold, dtype=np.int64).tobytes(), seed
    if key not in _kept:
        try:
            _kept[key] = text_floor(
                concept, fold=fold, seed=seed, fewer=bool((fold >= 0).all() and fold.max() >= 2)
            )
        except ValueError:
            # The folds themselves are sound: a probe was fitted on them.
            _kept[key] = None
        while len(_kept) > _KEPT:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def floor_dataset(
    floor: TextFloor | None,
    concept: Concept,
    scores: Float[np.ndarray, "example site"],
    fold: Int[np.ndarray, " example"],
    *,
    fewer: Float[np.ndarray, "fold example site"] | None = None,
    seed: int,
    resamples: int = 1000,
) -> xr.Dataset:
    """The floor of every score, and by how much a probe is right more often than the text.

    Statement by statement, on the same folds and the same resamples of groups: what makes a
    statement easy for both does not widen the interval of the difference.

    Args:
        floor: On the probe's folds; None where there is none, which gives NaN.
        concept: Labels and groups.
        scores: The probe's held-out log-odds of label 1, in nats.
        fold: The fold of each statement.
        fewer: The probe's log-odds without one more fold (see `score_dataset`).
        seed: Draws the resamples.
        resamples: How many.

    Returns:
        `accuracy_floor` and its interval, and likewise for the other scores, of the cell as a
        whole; `accuracy_above_floor` along `site`, and its interval; the classifier's own scores by
        statement, `score_floor`, and where they are known `score_floor_fewer` along `left_out`.
    """
    if floor is None:
        text = np.zeros(len(fold))
        text_fewer = None
    else:
        text, text_fewer = floor.score, floor.fewer
    own = _scores_of_text(floor, concept, fold, seed=seed, resamples=resamples)
    bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=resamples)
    gain, interval = accuracy_gain(
        scores, text[:, None], concept.labels, fold, bootstrap, fewer=_pair(fewer, text_fewer)
    )
    data = own.assign(
        labelled(
            "accuracy_above_floor",
            gain,
            units=own["accuracy_floor"].attrs["units"],
            long_name="accuracy above that of a classifier of the text alone",
            interval=interval,
            interval_note=", statement by statement",
            resampling={"resamples": resamples, "groups": bootstrap.groups},
        )
    )
    if floor is None:
        data = data.map(lambda values: xr.full_like(values, np.nan, dtype=float))
    return data


def _scores_of_text(
    floor: TextFloor | None,
    concept: Concept,
    fold: Int[np.ndarray, " example"],
    *,
    seed: int,
    resamples: int,
) -> xr.Dataset:
    """The floor's own scores, with intervals; the last are kept as long as the floor is."""
    scored = {} if floor is None else _scored.setdefault(floor, {})
    key = concept.fingerprint, np.asarray(fold, dtype=np.int64).tobytes(), seed, resamples
    if key not in scored:
        text = np.zeros(len(fold)) if floor is None else floor.score
        fewer = None if floor is None else floor.fewer
        own = score_dataset(
            text[:, None],
            concept.labels,
            fold,
            concept.groups,
            sites=["text"],
            seed=seed,
            fewer=None if fewer is None else fewer[:, :, None],
            resamples=resamples,
        )
        variables = {}
        named = {f"{name}_floor{suffix}": f"{name}{suffix}" for name in _SCORES for suffix in _ENDS}
        for name, score in (named | {"score_floor": "score"}).items():
            variables[name] = own[score].isel(site=0, drop=True)
        if "score_fewer" in own:
            variables["score_floor_fewer"] = own["score_fewer"].isel(site=0, drop=True)
        for variable in variables.values():
            variable.attrs["long_name"] += " of a classifier of the text alone"
        scored[key] = xr.Dataset(variables, coords={"bound": ["low", "high"]})
    return scored[key].copy(deep=True)


def accuracy_gain(
    scores: Float[np.ndarray, "example site"],
    others: Float[np.ndarray, "example other"],
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    bootstrap: GroupBootstrap,
    *,
    fewer: tuple[Float[np.ndarray, "fold example site"], Float[np.ndarray, "fold example other"]]
    | None = None,
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
    """By how much one way of telling labels is right more often than another on the same folds.

    Statement by statement, and on the same resamples of groups.

    Args:
        scores: Held-out log-odds of label 1, in nats, by the one.
        others: By the other.
        labels: 0 or 1 for each statement.
        fold: The fold of each statement, from 0.
        bootstrap: Of the statements' groups.
        fewer: Log-odds without one more fold by either (see `score_dataset`); None where they are
            not known.

    Returns:
        The difference of the accuracies, and its 95% interval. Where every group gains the same,
        as where the one is always right and the other always in one of two twins, the interval
        is that of Clopper and Pearson for the share of groups that might not. Where both are one,
        score for score, there is no doubt of the difference, and the interval is a point.
    """
    positive = labels == 1
    gain = _right(scores, positive) - _right(others, positive)
    without = None
    if fewer is not None:
        pairs = zip(*fewer, strict=True)
        without = np.stack(
            [_right(one, positive) - _right(other, positive) for one, other in pairs]
        )
    added = mean_covariance(gain, without, fold)
    value: np.ndarray = gain.mean(axis=0)
    resampled = bootstrap.means(gain)
    interval = stretched_interval(value, resampled, bootstrap.groups, added=added)
    # The same share from the lower end of all successes, whose last bit recorded traces hold.
    unseen = 1 - clopper_pearson(1.0, bootstrap.groups)[0]
    interval = difference_interval(value, interval, resampled, bootstrap.groups, unseen=unseen)
    interval[(scores == others).all(axis=0)] = 0.0
    return value, interval.clip(-1, 1)


def _pair(
    fewer: Float[np.ndarray, "fold example site"] | None,
    text_fewer: Float[np.ndarray, "fold example"] | None,
) -> tuple[np.ndarray, np.ndarray] | None:
    if fewer is None or text_fewer is None:
        return None
    return fewer, text_fewer[:, :, None]


def _right(
    scores: Float[np.ndarray, "example site"], positive: Bool[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    right: np.ndarray = ((scores > 0) == positive[:, None]).astype(np.float64)
    return right
