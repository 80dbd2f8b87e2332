"""Forgetting: statements that a run classifies correctly for a while, and then wrongly again."""

import os
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float

from tlens_trust.analysis.comparing.paired_intervals import paired_interval
from tlens_trust.analysis.comparing.run_scores import RunScores, read_run_scores, site_number
from tlens_trust.analysis.readings import SeriesReadings, check_readings
from tlens_trust.arguments import checked_count, checked_seed
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe
from tlens_trust.measures.cross_validation import check_probe
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.cells import cell_seed
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.run_folder import RunFolder


def find_forgetting(
    run_folder: str | os.PathLike[str],
    concept: str,
    readings: SeriesReadings | None = None,
    *,
    layer: int | None = None,
    site: str | None = None,
    patience: int = 2,
    probe: str | None = None,
    measure: ProbeMeasure | None = None,
    refits: int = 10,
    seed: int = 0,
    resamples: int = 1000,
    progress: bool = True,
) -> xr.Dataset:
    """Count statements that were known at some checkpoint, and are wrong at a later one.

    A statement is known after its held-out score was right at `patience` checkpoints in a row. It
    is forgotten at a later checkpoint where it is wrong, and `lost_for_good` where it stays wrong
    to the end of the run. It may be known again, and forgotten again.

    Most of what looks like forgetting is noise: a statement near the boundary of a probe changes
    sides when other statements are in the training folds. With `readings`, the probe is fitted anew
    at every checkpoint, on other folds, `refits` times. Let `q_t` be the share of refits at
    checkpoint `t` that classify a statement correctly. The sums run over statements known before
    `t`.

    - `Σ (1 - q_{t-1})` would be wrong if nothing had changed since the checkpoint before. These are
      the flips between two fits at one checkpoint.

    - `Σ (q_{t-1} - q_t)` are forgotten beyond that.

    The refits are independent of which statements were called known, so there is no regression to
    the mean.

    Args:
        run_folder: The `out=` of a sweep.
        concept: Its name.
        readings: Activations at the checkpoints of the run, as `collect_run` gives them; None
            leaves out everything about noise, as NaN.
        layer: The layer, where one site was read in it.
        site: Or the site. Neither: the only one.
        patience: Number of checkpoints in a row at which a known statement has to be right.
        probe: Which probe's scores, where several measures kept scores.
        measure: The probe to refit; None for the logistic probe.
        refits: Number of refits.
        seed: Seed of the refits' folds and of the resamples.
        resamples: Number of bootstrap resamples for the interval.
        progress: Whether to show a bar.

    Returns:
        Along `checkpoint`, in statements:

        - `known`: known before the checkpoint;

        - `forgotten`: those of them that are wrong at it;

        - `forgotten_noise`: those that another fit at the checkpoint before would classify wrongly;

        - `forgotten_excess`: how many more refits classify wrongly than at the checkpoint before,
          with its interval over groups (`…_ci`);

        - `forgotten_mirror`: statements wrong at `patience` checkpoints in a row that are now
          right;

        - `lost_for_good`: known statements that are wrong from here to the end.

        Along `checkpoint` and `example`: `right`, and `right_share`, the share of refits.

    Raises:
        ValueError: As `compare_checkpoints`; one site is not chosen; `readings` lack a checkpoint
            of the run, the site or the concept; or an argument is out of range.

    Source:
        Toneva et al. (2019), An empirical study of example forgetting, arXiv:1812.05159, for
        forgetting as an event.

    Examples:
        >>> readings = collect_run("run", series, "toxicity")  # doctest: +SKIP
        >>> forgetting = find_forgetting("run", "toxicity", readings, layer=2)  # doctest: +SKIP
        >>> forgetting[["forgotten", "forgotten_noise"]].to_dataframe()  # doctest: +SKIP
    """
    for name, number, minimum in (
        ("patience", patience, 1), ("refits", refits, 2), ("resamples", resamples, 1),
    ):  # fmt: skip
        checked_count(name, number, least=minimum)
    seed = checked_seed(seed)
    if measure is not None:
        check_probe(measure)
    run_scores = read_run_scores(run_folder, concept, probe=probe)
    sites = run_scores.site_coordinates["site"]
    site_place = site_number(sites, run_scores.site_coordinates["layer"][1].tolist(), layer, site)
    correct = np.stack(
        [run_scores.correct(i)[:, site_place] for i in range(len(run_scores.checkpoints))]
    )
    if np.isnan(run_scores.scores[:, :, site_place]).any():
        raise ValueError(
            f"Not every checkpoint has scores of {concept!r} yet. Call the sweep with the same "
            "arguments; it continues."
        )
    is_known = known_before(correct, patience)
    is_forgotten = is_known & ~correct
    is_mirrored = known_before(~correct, patience) & correct
    correct_share = np.full(correct.shape, np.nan)
    if readings is not None:
        stored = RunFolder.at(run_folder).read_concept(concept)
        _check_readings_of_run(readings, stored, run_scores.checkpoints, sites[site_place])
        readings = readings.select([stored])
        refitted = logistic_probe() if measure is None else measure
        correct_share = _right_share(
            run_scores, readings, sites[site_place], refitted, refits, seed, progress=progress
        )
    return _dataset(
        run_scores,
        correct,
        is_known,
        is_forgotten,
        is_mirrored,
        correct_share,
        refits,
        seed,
        resamples,
    ).assign_attrs(concept=concept, site=sites[site_place], patience=patience, seed=seed)


def known_before(
    correct: Bool[np.ndarray, "checkpoint example"], patience: int
) -> Bool[np.ndarray, "checkpoint example"]:
    """Whether a statement was right at the `patience` checkpoints just before each one.

    A statement that was forgotten has to become known anew.

    Examples:
        >>> right = np.array([[1], [1], [1], [0], [1]], dtype=bool)
        >>> known_before(right, 2).ravel().tolist()
        [False, False, True, True, False]
    """
    is_known = np.zeros_like(correct)
    streak = np.zeros(correct.shape[1], dtype=np.int64)
    for number in range(len(correct)):
        is_known[number] = streak >= patience
        streak = np.where(correct[number], streak + 1, 0)
    return is_known


def _check_readings_of_run(
    readings: SeriesReadings, concept: Concept, checkpoints: Sequence[str], site: str
) -> None:
    """Refuse readings that lack a checkpoint or the site, or that are of other statements."""
    check_readings(readings, collected_with="collect_run(run_folder, series, concept)")
    readings.concept_numbers([concept], argument="readings")
    missing_checkpoints = [name for name in checkpoints if name not in readings.checkpoints]
    if missing_checkpoints:
        raise ValueError(
            f"`readings` lack {missing_checkpoints[0]!r}, which the run holds. They have "
            f"{listed(readings.checkpoints)}. Collect them at all checkpoints of the run: "
            "`collect_run(run_folder, series, concept)`."
        )
    if site not in readings.sites:
        raise ValueError(
            f"`readings` lack the site {site!r}. They have {listed(readings.sites)}. Collect them "
            "there: `collect_run(run_folder, series, concept)`."
        )


def _right_share(
    run_scores: RunScores,
    readings: SeriesReadings,
    site: str,
    measure: ProbeMeasure,
    refits: int,
    seed: int,
    *,
    progress: bool,
) -> Float[np.ndarray, "checkpoint example"]:
    """The share of refits by which each statement is right, at each checkpoint of the run."""
    from tqdm.auto import tqdm

    (concept,) = readings.concepts
    concept_seed = cell_seed(seed, concept)
    folds_by_refit = [
        assign_folds(
            concept.labels, concept.groups, folds=measure.folds, seed=concept_seed + 1 + number
        )
        for number in range(refits)
    ]
    labels = torch.from_numpy(concept.labels.astype(np.int64))
    shares = []
    for name in tqdm(
        run_scores.checkpoints, desc="refits", unit="checkpoint", disable=not progress
    ):
        (all_sites,) = readings.at(readings.checkpoints.index(name))
        activations = all_sites.select([site])
        correct_by_refit = [
            (measure.cross_fitter(activations.values, labels, concept.groups, fold).scores > 0)
            == (concept.labels == 1)[:, None]
            for fold in folds_by_refit
        ]
        shares.append(np.mean(correct_by_refit, axis=0)[:, 0])
    return np.stack(shares)


def _dataset(
    run_scores: RunScores,
    correct: Bool[np.ndarray, "checkpoint example"],
    is_known: Bool[np.ndarray, "checkpoint example"],
    is_forgotten: Bool[np.ndarray, "checkpoint example"],
    is_mirrored: Bool[np.ndarray, "checkpoint example"],
    correct_share: Float[np.ndarray, "checkpoint example"],
    refits: int,
    seed: int,
    resamples: int,
) -> xr.Dataset:
    share_before = np.concatenate([np.full((1, correct.shape[1]), np.nan), correct_share[:-1]])
    share_before[0] = correct_share[0]  # nothing is known before the first checkpoint
    noise = is_known * (1 - share_before)
    excess = is_known * (share_before - correct_share)
    bootstrap = GroupBootstrap.draw(run_scores.groups, seed=seed, resamples=resamples)
    count = correct.shape[1]
    if np.isnan(correct_share).all():
        interval = np.full((len(correct), 2), np.nan)
    else:
        interval = count * paired_interval(excess.T, bootstrap)
        interval[~is_known.any(axis=1)] = 0.0
    wrong_from_here = np.logical_and.accumulate(~correct[::-1])[::-1]

    def counted(values: np.ndarray, long_name: str) -> tuple[object, ...]:
        return ("checkpoint",), values, {"units": "statements", "long_name": long_name}

    excess_name = "statements forgotten beyond what another fit would call wrong"
    return xr.Dataset(
        {
            "known": counted(is_known.sum(axis=1), "statements known before"),
            "forgotten": counted(is_forgotten.sum(axis=1), "known statements that are wrong"),
            "forgotten_noise": counted(
                noise.sum(axis=1),
                "known statements that another fit at the checkpoint before would call wrong",
            ),
            "forgotten_excess": counted(excess.sum(axis=1), excess_name),
            "forgotten_excess_ci": (
                ("checkpoint", "bound"),
                interval,
                {
                    "units": "statements",
                    "long_name": f"95% interval of the {excess_name}",
                    "resamples": resamples,
                    "groups": bootstrap.groups,
                },
            ),
            "forgotten_mirror": counted(
                is_mirrored.sum(axis=1),
                "statements wrong as often in a row as others were right, that are right",
            ),
            "lost_for_good": counted(
                (is_forgotten & wrong_from_here).sum(axis=1),
                "known statements that are wrong from here to the end",
            ),
            "right": (
                ("checkpoint", "example"),
                correct,
                {"units": "1", "long_name": "whether the held-out score is right"},
            ),
            "right_share": (
                ("checkpoint", "example"),
                correct_share,
                {
                    "units": "fraction of refits",
                    "long_name": "share of refits by which the held-out score is right",
                    "refits": refits,
                },
            ),
        },
        coords={
            **run_scores.checkpoint_coordinates,
            **run_scores.example_coordinates,
            "bound": ["low", "high"],
        },
    )
