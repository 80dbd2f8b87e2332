"""Reference levels for the scores of a probe: chance, permutation null and text floor."""

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

_SUFFIXES = ("", "_ci")
_SCORES = ("accuracy", "balanced_accuracy", "auroc", "cross_entropy")
# Text floors, which are the same at every checkpoint, and how many of them are cached.
_floor_cache: OrderedDict[tuple[str, bytes, int], TextFloor | None] = OrderedDict()
_CACHED_FLOORS = 32
# The scores of each cached floor, which are the same at every checkpoint as well.
_score_cache: "WeakKeyDictionary[TextFloor, dict[tuple[str, bytes, int, int], xr.Dataset]]"
_score_cache = WeakKeyDictionary()


def null_dataset(null: Null, scored: xr.Dataset) -> xr.Dataset:
    """Label a null as variables of the scores that it belongs to.

    Args:
        null: The null at the sites of the scores, in their order.
        scored: The result of `score_dataset`.

    Returns:
        `…_null` along `site` and `bound`, for each score of which the null has a band. `accuracy_p`
        and `accuracy_p_best` along `site`.
    """
    variables = labelled_null(
        "accuracy",
        long_name="by the AUROC, of decoding the labels at the site",
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
    """Compute the accuracy of always predicting the larger class, for the whole concept."""
    ones = float(concept.labels.mean())
    attributes = {"units": "fraction of statements", "long_name": "share of the larger class"}
    return xr.Dataset({"accuracy_chance": ((), max(ones, 1 - ones), attributes)})


def floor_on_folds(
    concept: Concept, fold: Int[np.ndarray, " example"], *, seed: int
) -> TextFloor | None:
    """Compute the text floor on the folds of a probe, with the scores that its interval needs.

    The last few floors are cached, since they are the same at every checkpoint.

    Args:
        concept: The statements.
        fold: The fold of each statement. Below 0, the statement is in every training set.
        seed: Seed of the folds within the training rows.

    Returns:
        The floor. None if the training rows have too few groups to choose between words and
        characters.
    """
    key = concept.fingerprint, np.ascontiguousarray(fold, dtype=np.int64).tobytes(), seed
    if key not in _floor_cache:
        try:
            _floor_cache[key] = text_floor(
                concept, fold=fold, seed=seed, fewer=bool((fold >= 0).all() and fold.max() >= 2)
            )
        except ValueError:
            # A probe was fitted on these folds, so they are valid. The groups inside are too few.
            _floor_cache[key] = None
        while len(_floor_cache) > _CACHED_FLOORS:
            _floor_cache.popitem(last=False)
    _floor_cache.move_to_end(key)
    return _floor_cache[key]


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
    """Compute the text floor of every score, and the accuracy of a probe above it.

    The comparison is paired by statement, on the same folds and the same resamples of groups. So a
    statement that is easy for both does not widen the interval of the difference.

    Args:
        floor: The text floor on the folds of the probe. None gives NaN.
        concept: Labels and groups.
        scores: Held-out log-odds of label 1 from the probe, in nats.
        fold: The fold of each statement.
        fewer: Log-odds from probes without one more fold (see `score_dataset`).
        seed: Seed of the resamples.
        resamples: The number of bootstrap resamples.

    Returns:
        `accuracy_floor` and its interval, and the same for the other scores, for the whole concept.
        `accuracy_above_floor` and its interval along `site`. `score_floor`, the scores of the
        classifier by statement. If the floor has them, `score_floor_fewer` along `left_out`.
    """
    if floor is None:
        text = np.zeros(len(fold))
        text_fewer = None
    else:
        text, text_fewer = floor.score, floor.fewer
    floor_scores = _scores_of_text(floor, concept, fold, seed=seed, resamples=resamples)
    bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=resamples)
    gain, interval = accuracy_gain(
        scores, text[:, None], concept.labels, fold, bootstrap, fewer=_pair(fewer, text_fewer)
    )
    data = floor_scores.assign(
        labelled(
            "accuracy_above_floor",
            gain,
            units=floor_scores["accuracy_floor"].attrs["units"],
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
    """Score the text floor, with intervals. Scores are cached as long as the floor exists."""
    cached_scores = {} if floor is None else _score_cache.setdefault(floor, {})
    key = concept.fingerprint, np.asarray(fold, dtype=np.int64).tobytes(), seed, resamples
    if key not in cached_scores:
        text = np.zeros(len(fold)) if floor is None else floor.score
        fewer = None if floor is None else floor.fewer
        scored = score_dataset(
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
        sources = {
            f"{name}_floor{suffix}": f"{name}{suffix}" for name in _SCORES for suffix in _SUFFIXES
        }
        for name, score in (sources | {"score_floor": "score"}).items():
            variables[name] = scored[score].isel(site=0, drop=True)
        if "score_fewer" in scored:
            variables["score_floor_fewer"] = scored["score_fewer"].isel(site=0, drop=True)
        for variable in variables.values():
            variable.attrs["long_name"] += " of a classifier of the text alone"
        cached_scores[key] = xr.Dataset(variables, coords={"bound": ["low", "high"]})
    # A copy, so that a caller who changes it leaves the cache intact.
    return cached_scores[key].copy(deep=True)


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
    """Compute the accuracy of one classifier minus that of another, on the same folds.

    The comparison is paired by statement, on the same resamples of groups.

    Args:
        scores: Held-out log-odds of label 1 from the first classifier, in nats.
        others: The same from the second classifier.
        labels: 0 or 1 for each statement.
        fold: The fold of each statement, from 0.
        bootstrap: The resamples of the groups of the statements.
        fewer: Log-odds without one more fold, from both classifiers (see `score_dataset`).

    Returns:
        The difference of the accuracies, and its 95% interval. If the difference is the same in
        every group, the interval is that of `difference_interval`. An example is a classifier that
        is always right, compared with one that is right for one twin of each pair. If both have
        equal scores, the difference is certain, and the interval is a point.
    """
    positive = labels == 1
    gain = _is_correct(scores, positive) - _is_correct(others, positive)
    gain_fewer = None
    if fewer is not None:
        gain_fewer = np.stack(
            [
                _is_correct(part, positive) - _is_correct(other_part, positive)
                for part, other_part in zip(*fewer, strict=True)
            ]
        )
    added = mean_covariance(gain, gain_fewer, fold)
    value: np.ndarray = gain.mean(axis=0)
    resampled = bootstrap.means(gain)
    interval = stretched_interval(value, resampled, bootstrap.groups, added=added)
    # `1 - low` of all successes equals `high` of no success but for the last bit. Recorded traces
    # were made with the former.
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


def _is_correct(
    scores: Float[np.ndarray, "example site"], positive: Bool[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    is_correct: np.ndarray = ((scores > 0) == positive[:, None]).astype(np.float64)
    return is_correct
