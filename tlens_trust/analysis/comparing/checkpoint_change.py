"""Change between two checkpoints of one run, statement by statement, from the scores of a sweep."""

import os
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.analysis.comparing.paired_intervals import paired_interval, shared_variance
from tlens_trust.analysis.comparing.run_scores import RunScores, read_run_scores, site_number
from tlens_trust.arguments import checked_count, checked_seed
from tlens_trust.measures.cross_fold import covariance_between_folds
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.provenance import listed

if TYPE_CHECKING:
    import pandas

_FRACTION = "fraction of statements"


def compare_checkpoints(
    run_folder: str | os.PathLike[str],
    concept: str,
    before: str | int,
    after: str | int,
    *,
    probe: str | None = None,
    permutations: int = 10_000,
    resamples: int = 1000,
    seed: int = 0,
) -> xr.Dataset:
    """Test whether a concept is decoded better at one checkpoint than at another.

    The test is paired and keeps groups whole. Every statement is classified correctly or not at
    either checkpoint. If the checkpoints do not differ, a group's gain is as likely to be a loss.
    So the signs of the groups' gains are flipped at random, for all sites together, and the
    observed difference is compared with the resulting ones.

    The test is exact for the probes as they were fitted. Probes of different folds share training
    rows, so that a cross-validated accuracy varies more than its statements show, above all near
    chance. The test is widened for that. The scores without one more fold show by how much, where
    the sweep kept them. Otherwise the interval of each accuracy does; both checkpoints' shares are
    then added as if they were independent.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Its name.
        before: The earlier checkpoint: a name, or a training step.
        after: The later one.
        probe: Which probe's scores, where several measures kept scores.
        permutations: Number of random flips. The smallest p-value is `1 / (1 + permutations)`.
        resamples: Number of bootstrap resamples for the interval.
        seed: Seed of both.

    Returns:
        Along `site`:

        - `accuracy_before` and `accuracy_after`;

        - `accuracy_difference`, after minus before, with its interval over groups (`…_ci`), `…_n`,
          the band of it where nothing changed (`…_null`), and a two-sided p-value (`…_p`). The
          p-value `…_p_best` is corrected for the choice among all sites, by the null of the largest
          difference in standard deviations;

        - `learned` and `forgotten`, the number of statements that became right, and wrong.

        Along `site` and `example`: `score_before` and `score_after`, held-out log-odds of label 1,
        and `flip`, 1 for learned, -1 for forgotten, 0 for neither. `list_flips` makes a table of
        these.

    Raises:
        ValueError: The run folder does not hold the concept or the checkpoints, several probes
            kept scores and none was chosen, or the sweep used one split
            (`protocol="tracingllm"`), which trains on most statements.

    Source:
        Fisher (1935), The Design of Experiments, for the sign-flip test; Westfall and Young
        (1993), Resampling-Based Multiple Testing, for the null of the maximum.

    Examples:
        >>> change = compare_checkpoints("run", "toxicity", 64, 512)  # doctest: +SKIP
        >>> change.accuracy_difference_p_best.min()  # doctest: +SKIP
        >>> list_flips(change, layer=2).head()  # doctest: +SKIP
    """
    checked_count("permutations", permutations)
    checked_count("resamples", resamples)
    seed = checked_seed(seed)
    run_scores = read_run_scores(run_folder, concept, probe=probe)
    numbers = [run_scores.checkpoint_number(which) for which in (before, after)]
    if numbers[0] == numbers[1]:
        raise ValueError(
            f"{before!r} and {after!r} are one checkpoint, {run_scores.checkpoints[numbers[0]]!r}. "
            f"Choose two of {', '.join(run_scores.checkpoints)}."
        )
    correct = [run_scores.correct(number).astype(np.float64) for number in numbers]
    gain = correct[1] - correct[0]
    bootstrap = GroupBootstrap.draw(run_scores.groups, seed=seed, resamples=resamples)
    shared_variance = shared_by_folds(run_scores, numbers, correct, bootstrap)
    difference = gain.mean(axis=0)
    interval = paired_interval(gain, bootstrap, added=shared_variance).clip(-1, 1)
    p, p_best, band = flip_signs(gain, bootstrap.group, shared_variance, permutations, seed)

    change = "held-out accuracy after minus before"
    variables = labelled(
        "accuracy_difference",
        difference,
        units=_FRACTION,
        long_name=change,
        interval=interval,
        n=len(gain),
        resampling={"resamples": resamples, "groups": bootstrap.groups},
    )
    variables |= labelled_null(
        "accuracy_difference",
        long_name=change,
        permutations=permutations,
        band=band,
        units=_FRACTION,
        condition="where groups' signs are flipped",
        p=p,
        p_best=p_best,
        p_name="two-sided p-value of the {}",
        attributes={"groups": bootstrap.groups},
    )
    for name, values, units, long_name in (
        ("accuracy_before", correct[0].mean(axis=0), _FRACTION, "held-out accuracy before"),
        ("accuracy_after", correct[1].mean(axis=0), _FRACTION, "held-out accuracy after"),
        (
            "learned",
            (gain > 0).sum(axis=0),
            "statements",
            "statements that were wrong and became right",
        ),
        (
            "forgotten",
            (gain < 0).sum(axis=0),
            "statements",
            "statements that were right and became wrong",
        ),
    ):
        variables |= labelled(name, values, units=units, long_name=long_name)
    variables["flip"] = (
        ("site", "example"),
        gain.T.astype(np.int8),
        {"units": "1", "long_name": "1 learned, -1 forgotten, 0 neither"},
    )
    data = xr.Dataset(
        variables,
        coords={
            **run_scores.site_coordinates,
            "bound": ["low", "high"],
            **run_scores.example_coordinates,
        },
    )
    for name, number in zip(("before", "after"), numbers, strict=True):
        data[f"score_{name}"] = (
            ("site", "example"),
            run_scores.scores[number].T,
            {"units": "nats", "long_name": f"held-out log-odds of label 1 {name}"},
        )
    return data.assign_attrs(
        concept=concept,
        before=run_scores.checkpoints[numbers[0]],
        after=run_scores.checkpoints[numbers[1]],
        seed=seed,
    )


def list_flips(
    comparison: xr.Dataset, *, layer: int | None = None, site: str | None = None
) -> "pandas.DataFrame":
    """List the statements that flipped between two checkpoints, at one site.

    Args:
        comparison: The result of `compare_checkpoints`.
        layer: The layer, where one site was read in it.
        site: Or the site. Neither: the only one.

    Returns:
        One row per statement: `statement`, `label`, `group`, `flip` (`"learned"`, `"forgotten"`),
        `score_before` and `score_after` in nats. The largest change of score comes first.

    Raises:
        ValueError: `comparison` is no comparison of two checkpoints, or it holds no such site, or
            several and none was chosen.

    Examples:
        >>> data = xr.Dataset(
        ...     {"flip": (("site", "example"), [[1, 0, -1]]),
        ...      "score_before": (("site", "example"), [[-1.0, 2.0, 0.5]]),
        ...      "score_after": (("site", "example"), [[3.0, 2.0, -0.5]])},
        ...     coords={"site": ["blocks.0.hook_resid_post"], "layer": ("site", [0]),
        ...             "statement": ("example", ["Yes.", "Aye.", "Sure."]),
        ...             "label": ("example", [1, 1, 1]), "group": ("example", ["a", "a", "b"])})
        >>> list_flips(data)[["statement", "flip"]].values.tolist()
        [['Yes.', 'learned'], ['Sure.', 'forgotten']]
    """
    import pandas as pd

    needed = ("flip", "score_before", "score_after", "statement")
    if not isinstance(comparison, xr.Dataset) or any(name not in comparison for name in needed):
        got = f"a {type(comparison).__name__}"
        if isinstance(comparison, xr.Dataset):
            got = f"a Dataset of {listed(list(comparison.data_vars))}"
        raise ValueError(
            f"`list_flips` takes what `compare_checkpoints` gives, got {got}. Call "
            "`list_flips(compare_checkpoints(run_folder, concept, before, after), layer=…)`."
        )
    number = site_number(
        comparison["site"].values.tolist(), comparison["layer"].values.tolist(), layer, site
    )
    at_site = comparison.isel(site=number)
    flipped = np.flatnonzero(at_site["flip"].values)
    scores_before, scores_after = (
        at_site["score_before"].values[flipped],
        at_site["score_after"].values[flipped],
    )
    order = np.argsort(-np.abs(scores_after - scores_before), kind="stable")
    rows = flipped[order]
    return pd.DataFrame(
        {
            "statement": at_site["statement"].values[rows],
            "label": at_site["label"].values[rows],
            "group": at_site["group"].values[rows],
            "flip": np.where(at_site["flip"].values[rows] > 0, "learned", "forgotten"),
            "score_before": scores_before[order],
            "score_after": scores_after[order],
        }
    )


def shared_by_folds(
    run_scores: RunScores,
    numbers: list[int],
    correct_by_checkpoint: list[np.ndarray],
    bootstrap: GroupBootstrap,
) -> Float[np.ndarray, " site"]:
    """Variance of the difference that comes from shared folds.

    It is taken from the scores without one more fold where they were kept. Otherwise the intervals
    give an upper bound.
    """
    fewer = None if run_scores.fewer is None else run_scores.fewer[numbers]
    # A fold's own probe is among those without it for no other fold, and stays unknown.
    if fewer is not None and run_scores.fold is not None and np.isfinite(fewer).any(axis=1).all():
        folds = fewer.shape[1]
        member = (run_scores.fold == np.arange(folds)[:, None]) / len(run_scores.fold)
        positive = (run_scores.labels == 1)[:, None]
        without = [(scores > 0) == positive for scores in fewer]
        change = without[1].astype(np.float64) - without[0]
        return covariance_between_folds(
            member @ (correct_by_checkpoint[1] - correct_by_checkpoint[0]),
            np.stack([member @ scores for scores in change]),
        )
    total = np.zeros(correct_by_checkpoint[0].shape[1])
    for number, correct in zip(numbers, correct_by_checkpoint, strict=True):
        interval = run_scores.interval(number)
        if interval is not None:
            resampled = bootstrap.means(correct).var(axis=0)
            total += shared_variance(interval, resampled, groups=bootstrap.groups)
    return total


def flip_signs(
    gain: Float[np.ndarray, "example site"],
    group: Int[np.ndarray, " example"],
    shared_variance: Float[np.ndarray, " site"],
    permutations: int,
    seed: int,
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
    """Compare mean gains with those where groups' signs are flipped, for all sites together.

    Args:
        gain: The gain of each statement.
        group: The number of its group.
        shared_variance: Variance of the mean that flipping does not show; it widens the null.
        permutations: Number of flips.
        seed: Seed of the flips.

    Returns:
        Two-sided p-values of each site, p-values by the null of the maximum over sites, and the
        middle 95% of the mean gain.
    """
    totals = np.zeros((int(group.max()) + 1, gain.shape[1]))
    np.add.at(totals, group, gain)
    totals /= len(gain)
    # Flipping signs gives a mean of 0 and this variance, exactly.
    variance = np.square(totals).sum(axis=0)
    wider = np.sqrt(
        np.divide(
            variance + shared_variance, variance, out=np.ones_like(variance), where=variance > 0
        )
    )
    scale = np.sqrt(variance + shared_variance)
    scale[scale == 0] = 1.0
    observed = np.abs(totals.sum(axis=0)) / scale

    generator = np.random.default_rng([seed, 2])
    exceedances = np.ones(gain.shape[1])
    best_exceedances = np.ones(gain.shape[1])
    null_batches = []
    remaining = permutations
    while remaining:
        count = min(remaining, max(1, 4_000_000 // len(totals)))
        signs = 2.0 * generator.integers(0, 2, size=(count, len(totals))) - 1
        flipped = (signs @ totals) * wider
        null_batches.append(flipped)
        sizes = np.abs(flipped) / scale
        # Differences are multiples of 1/n: what is equal but for rounding counts as equal.
        exceedances += (sizes >= observed - 1e-9).sum(axis=0)
        best_exceedances += (sizes.max(axis=1)[:, None] >= observed - 1e-9).sum(axis=0)
        remaining -= count
    band = np.quantile(np.concatenate(null_batches), [0.025, 0.975], axis=0).T
    return exceedances / (1 + permutations), best_exceedances / (1 + permutations), band
