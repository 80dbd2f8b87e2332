"""Onset and saturation of a concept, from the scores that a sweep kept.

`tlens_trust.analysis.onset.crossings` says how the two ends of a set are found and why they hold,
`tlens_trust.analysis.onset.outcomes` which site is the best one.
"""

import os
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from tlens_trust.analysis.onset.crossings import FirstCrossing, first_crossing
from tlens_trust.analysis.onset.outcomes import SiteOutcomes
from tlens_trust.analysis.onset.reasons import (
    NOT_DECODABLE_AT_END,
    NOT_MEASURED,
    STILL_RISING,
    find_reason,
)
from tlens_trust.analysis.onset.run_search import CrossingSearch, SiteCrossing, search_run
from tlens_trust.arguments import checked_count, checked_seed, checked_share
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.run_folder import RunFolder


def find_onset(
    run_folder: str | os.PathLike[str],
    *,
    concepts: str | Sequence[str] | None = None,
    checkpoints: str | int | Sequence[str | int] | None = None,
    margin: float = 0.15,
    floor: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Find the first checkpoint at which a concept is decodable above its null and its text floor.

    The gain at a checkpoint is the accuracy on fresh statements above always naming the larger
    class, or above a classifier of the text alone. The smaller of the two counts. The onset is the
    first checkpoint at which both gains are shown to be above 0 and the permutation p-value shows
    that labels can be decoded at all. It is shown in one of two ways:

    - by bounds that hold for all checkpoints and both gains at once, and a p-value corrected over
      the checkpoints (Benjamini and Hochberg). So one lucky checkpoint among many makes no onset;

    - at every single checkpoint from there to the last one (`lasting_…` is the first of them).

    A concept that is decodable and lost again has an onset and nothing that lasts.

    The answer is a set of neighbouring checkpoints. It ends with the onset. It begins with the last
    checkpoint up to which the gain is shown to be at most `margin` everywhere. So the concept
    became decodable after the first checkpoint of the set, and by the last one. Each end errs in at
    most `(1 - confidence) / 2` of runs. A gain larger than the margin that comes all at once lies
    in the set in `confidence` of all runs. Of a gain that grows slowly, some part between its first
    trace and the margin does.

    No number of statements shows that there was no gain at all before, only that it was small. How
    small depends on their number. About a hundred groups exclude a gain of 0.15, a thousand exclude
    0.05. Where it cannot be excluded, the set begins with the first checkpoint.

    The best site is given as well (`site="best"`). It is chosen anew at every checkpoint and for
    each fold, by the accuracy on the other folds of probes that were fitted without the fold. Its
    p-values are by the null of the maximum over sites. Results are not corrected for the number of
    sites and concepts.

    Where several probes were swept together, one of a single split is left out. It was trained on
    most of the statements, and its p-values are of other statements than its scores.

    Args:
        run_folder: The `out=` of a sweep with probes.
        concepts: One or several names; None for all that the run folder holds.
        checkpoints: Names or training steps of the checkpoints to use; None for all.
        margin: The gain to be excluded before the set, as a fraction of statements.
        floor: Whether a concept has to be decodable above its text floor too.
        confidence: The confidence of the set.
        resamples: Number of bootstrap resamples of groups, the same ones at every checkpoint.
        seed: Seed of the resamples.

    Returns:
        Along `concept` and `site`, the best one last (and `probe` where there are several):

        - `onset_checkpoint` ("" for never), `onset_step` and `onset_tokens` (NaN for never, and
          where the checkpoint's own are unknown). Of the latter two, `…_ci` holds the ends of the
          set along `bound`; `high` is NaN where the set has no end;

        - `onset_set`, along `checkpoint`: the members of the set;

        - `onset_at_start`: whether the first checkpoint may be the onset itself, and not only the
          checkpoint before it;

        - `onset_n`: the number of checkpoints used; 0 where nothing is known;

        - `onset_reason`: "" where there is an onset, else why there is none. With "text alone
          reaches as much", every checkpoint is shown to gain at most `margin`, and the text bounds
          the gain. With "not above the null", the larger class bounds it. With "too few
          statements", neither a gain nor its absence is shown, or even an accuracy of 1 would not
          be shown. The last one is "not measured";

        - `lasting_checkpoint`, `lasting_step` and `lasting_tokens`: the checkpoint from which on it
          is decodable at every one. It is later than the onset where the concept is lost in
          between, and unknown ("" or NaN) where it is not shown at the last checkpoint.

        Along `checkpoint` too: `gain` with the bounds behind the onset (`gain_ci`), and `accuracy`
        with the interval of each checkpoint by itself (`accuracy_ci`). `best_share`, by checkpoint
        and site, is the share of the folds for which a site was chosen as the best.

    Raises:
        ValueError: The folder is no run folder or lacks a concept or a checkpoint. Or no probe kept
            the scores that are needed, as after a sweep with one split (`protocol="tracingllm"`).
            Or p-values rest on too few permutations for the confidence. Or an argument is out of
            range.

    Source:
        Romano and Wolf (2005), Econometrica 73; Hsu and Berger (1999), Journal of the American
        Statistical Association 94.

    Examples:
        >>> onset = find_onset("run")  # doctest: +SKIP
        >>> onset.sel(site="best").onset_step_ci  # doctest: +SKIP
    """
    run = RunFolder.at(run_folder)
    _check_arguments(margin, confidence, resamples)
    seed = checked_seed(seed)
    level = (1 - confidence) / 2

    def locate(outcomes: SiteOutcomes, bootstrap: GroupBootstrap) -> SiteCrossing:
        return locate_onset(outcomes, bootstrap, margin=margin, floor=floor, level=level)

    and_text = " and a classifier of the text alone" if floor else ""
    search = CrossingSearch(
        locate,
        name="onset",
        value="gain",
        descriptions={
            "onset": "at which the concept is first read above its null"
            + (" and its text floor" if floor else ""),
            "lasting": "from which on it is at every checkpoint",
            "gain": f"accuracy above the larger class{and_text}",
            "gain_ci": "bounds of the gain, low for all checkpoints at once",
        },
        floor=floor,
        least_p=level / 2,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    onsets = search_run(run, search, concepts=concepts, checkpoints=checkpoints)
    return onsets.assign_attrs(_as_attributes(margin, floor, confidence, resamples, seed))


def find_saturation(
    run_folder: str | os.PathLike[str],
    *,
    concepts: str | Sequence[str] | None = None,
    checkpoints: str | int | Sequence[str | int] | None = None,
    margin: float = 0.1,
    floor: bool = True,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Find the first checkpoint at which a concept is decoded about as well as at the end.

    The shortfall at a checkpoint is the accuracy of the last checkpoint's probes above that of its
    own, on fresh statements, statement by statement. Saturation is the first checkpoint at which
    the shortfall is less than `margin`, by upper bounds that hold for all checkpoints at once.

    The set ends with it, and begins with the last checkpoint up to which a shortfall is shown
    everywhere. Each end errs in at most `(1 - confidence) / 2` of runs. A plateau that is reached
    all at once, from more than the margin below, lies in the set in `confidence` of all runs.

    The answer is "never" in two cases. No checkpoint before the last one is shown to come within
    the margin (`saturation_reason` is then "not level before the last checkpoint"). Or the concept
    is not decodable at the last checkpoint, above its null and, with `floor`, above its text floor
    ("not decodable at the last checkpoint").

    Args:
        run_folder: As for `find_onset`, and so are the others.
        concepts: One or several names.
        checkpoints: Names or steps of the checkpoints to use, of which the last one is the end.
        margin: The shortfall that still counts as none, as a fraction of statements.
        floor: Whether a concept has to be decodable above its text floor at the end.
        confidence: The confidence of the set.
        resamples: Number of bootstrap resamples of groups.
        seed: Seed of the resamples.

    Returns:
        As `find_onset`, with `saturation_…` in place of `onset_…`, and `shortfall` with its bounds
        in place of the gain. `lasting_…` is the checkpoint from which on the shortfall is less than
        the margin at every one.

    Raises:
        ValueError: As `find_onset`.

    Examples:
        >>> find_saturation("run").sel(site="best").saturation_step_ci  # doctest: +SKIP
    """
    run = RunFolder.at(run_folder)
    _check_arguments(margin, confidence, resamples)
    seed = checked_seed(seed)
    level = (1 - confidence) / 2

    def locate(outcomes: SiteOutcomes, bootstrap: GroupBootstrap) -> SiteCrossing:
        return locate_saturation(outcomes, bootstrap, margin=margin, floor=floor, level=level)

    search = CrossingSearch(
        locate,
        name="saturation",
        value="shortfall",
        descriptions={
            "saturation": "at which the concept is first read about as well as in the end",
            "lasting": "from which on it is at every checkpoint",
            "shortfall": "accuracy below that of the last checkpoint",
            "shortfall_ci": "bounds of the shortfall, high for all checkpoints at once",
        },
        floor=floor,
        least_p=level,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )
    saturations = search_run(run, search, concepts=concepts, checkpoints=checkpoints)
    return saturations.assign_attrs(_as_attributes(margin, floor, confidence, resamples, seed))


def locate_onset(
    outcomes: SiteOutcomes, bootstrap: GroupBootstrap, *, margin: float, floor: bool, level: float
) -> SiteCrossing:
    """Find the onset of one probe at one site, as `find_onset` describes.

    Args:
        outcomes: Outcomes by checkpoint and statement.
        bootstrap: Resamples of the statements.
        margin: The gain to be excluded before the set.
        floor: Whether the text is a reference too.
        level: The error rate of each end.
    """
    gains = [outcomes.above_chance(), *([outcomes.above_text()] if floor else [])]
    means = outcomes.resampled_means(gains, bootstrap)
    q = benjamini_hochberg(np.nan_to_num(outcomes.p, nan=1.0))
    half_level = level / 2
    lower, upper = means.lower(half_level, over="all"), means.upper(level, over="references")
    is_excluded: np.ndarray = np.logical_or.reduce(upper <= margin, axis=0)
    crossing = first_crossing(
        anywhere=(lower > 0).all(axis=0) & (q <= half_level),
        by_itself=(means.lower(half_level, over="each") > 0).all(axis=0)
        & (outcomes.p <= half_level),
        excluded=is_excluded,
    )
    bounds = np.stack([lower.min(axis=0), upper.min(axis=0)], axis=-1)
    reason = ""
    if crossing.established is None:
        reason = find_reason(outcomes, means, bootstrap, q, margin=margin, level=level)
    return SiteCrossing(crossing, means.mean.min(axis=0), bounds, reason)


def locate_saturation(
    outcomes: SiteOutcomes, bootstrap: GroupBootstrap, *, margin: float, floor: bool, level: float
) -> SiteCrossing:
    """Find the saturation of one probe at one site, as `find_saturation` describes.

    Args:
        outcomes: Outcomes by checkpoint and statement.
        bootstrap: Resamples of the statements.
        margin: The shortfall that counts as none.
        floor: Whether the text is a reference at the last checkpoint.
        level: The error rate of each end.
    """
    total = len(outcomes.correct)
    if total < 2:
        alone = FirstCrossing(None, 0, None, total)
        return SiteCrossing(alone, np.zeros(total), np.zeros((total, 2)), STILL_RISING)
    gains = [outcomes.above_chance(), *([outcomes.above_text()] if floor else [])]
    means_at_end = outcomes.resampled_means([gain.at_last() for gain in gains], bootstrap)
    is_above = means_at_end.lower(level, over="each") > 0
    is_decodable = bool(is_above.all() and outcomes.p[-1] <= level)
    means = outcomes.resampled_means([outcomes.short_of_last()], bootstrap)
    lower, upper = means.lower(level, over="each")[0], means.upper(level / 2, over="all")[0]
    crossing = first_crossing(
        anywhere=(upper < margin) & is_decodable,
        by_itself=(means.upper(level / 2, over="each")[0] < margin) & is_decodable,
        excluded=lower > 0,
    )
    reason = ""
    if crossing.established is None:
        is_unknown = bool(np.isnan(outcomes.p[-1]))
        reason = (
            NOT_MEASURED if is_unknown else STILL_RISING if is_decodable else NOT_DECODABLE_AT_END
        )
    return SiteCrossing(
        replace(crossing, checkpoints=total),
        np.append(means.mean[0], 0.0),
        np.append(np.stack([lower, upper], axis=-1), [[0.0, 0.0]], axis=0),
        reason,
    )


def _check_arguments(margin: float, confidence: float, resamples: int) -> None:
    hint = "It is a fraction of statements: 0.1 is ten in a hundred."
    checked_share("margin", margin, hint=hint)
    checked_share("confidence", confidence, hint="The usual one is 0.95.")
    if checked_count("resamples", resamples) * (1 - confidence) / 2 < 10:
        raise ValueError(
            f"{resamples} `resamples` are too few for a confidence of {confidence:.0%}. Draw at "
            f"least {np.ceil(20 / (1 - confidence)):.0f}."
        )


def _as_attributes(
    margin: float, floor: bool, confidence: float, resamples: int, seed: int
) -> dict[str, object]:
    return {
        "margin": margin,
        "floor": str(floor),
        "confidence": confidence,
        "resamples": resamples,
        "seed": seed,
    }
