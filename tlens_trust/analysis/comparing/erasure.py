"""Cost of erasing one concept from the activations, for every concept."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int
from scipy.stats import t as student
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.analysis.comparing.leace import check_erasure_installed, fit_eraser
from tlens_trust.analysis.comparing.overlap import check_several
from tlens_trust.analysis.comparing.paired_intervals import paired_interval
from tlens_trust.analysis.readings import SeriesReadings, check_readings
from tlens_trust.arguments import checked_count, checked_seed
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe
from tlens_trust.measures.cross_fitters import CrossFitter, HeldOut
from tlens_trust.measures.cross_fold import covariance_between_folds, fold_parts
from tlens_trust.measures.cross_validation import check_probe
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.labelled import Variables, labelled
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.cells import cell_seed

_FRACTION = "fraction of statements"
# Unit, name, and the sign that makes a loss positive.
_COSTS = {
    "accuracy": (_FRACTION, "held-out accuracy", 1.0),
    "cross_entropy": ("nats", "held-out cross-entropy", -1.0),
}


def erasure_cost(
    readings: SeriesReadings,
    *,
    probe: ProbeMeasure | None = None,
    controls: int = 10,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Erase each concept from the activations, and probe every concept in what is left.

    LEACE is the affine map that moves activations least while no linear classifier can separate the
    erased concept's labels any more, on the rows that it was fitted to: `x - W⁺P W(x - μ)`. `W`
    whitens the activations and `P` projects onto `W Cov(x, y)`. For one concept it removes one
    dimension. Then every concept's probe is fitted anew, penalty included, to what is left of its
    own statements, and scored on held-out groups. Its accuracy falls by what it drew from the
    erased concept's direction alone.

    No scored statement has a part in erasing. The eraser for a fold is fitted without the
    statements of that fold, without their groups, and without any statement of the same text. So
    the diagonal, a concept probed after its own erasure, uses the training rows for both, and no
    linear probe can be better on them than the larger class. Its accuracy is at chance by
    construction. Whether a probe fitted to other statements would recover the concept is another
    question: off the diagonal, erasers and probes are fitted to different statements.

    The control erases a meaningless concept: the statements of the erased concept with permuted
    labels, which gives a random direction within the same covariance.

    Needs the extra `erasure` (`pip install "tlens-trust[erasure]"`).

    Args:
        readings: Activations of at least two concepts, as `collect_series` gives them. Each site is
            erased by itself. One or two sites are enough for a first look, since every pair of
            concepts takes `1 + controls` probes at each.
        probe: The measure of the probe; None for the logistic probe.
        controls: Number of permutations of labels for the control, for each erased concept. At
            least 2.
        seed: Seed of folds, permuted labels and resamples. With the seed of a sweep, the folds are
            those of the sweep.
        progress: Whether to show a bar.

    Returns:
        Along `checkpoint`, `erased`, `concept` (the one that is probed) and `site`:

        - `accuracy`: held-out accuracy after erasing;
        - `accuracy_cost`: accuracy before minus accuracy after, statement by statement, with its
          interval over groups (`…_ci`) and `…_n`. `accuracy_cost_null` is where 95% of the costs of
          control erasures are expected;
        - `cross_entropy` and `cross_entropy_cost`: likewise, in nats.

        Along `checkpoint`, `concept` and `site`: `accuracy_before`, `cross_entropy_before` and
        `accuracy_chance`.

    Raises:
        ValueError: There are fewer than two concepts, or they were read at different widths.
        ImportError: concept-erasure is not installed.

    Source:
        Belrose et al. (2023), LEACE: Perfect linear concept erasure in closed form,
        arXiv:2306.03819.

    Examples:
        >>> readings = collect_series(series[-1], load_concepts(), sites=[2])  # doctest: +SKIP
        >>> cost = erasure_cost(readings)  # doctest: +SKIP
        >>> cost.accuracy_cost.squeeze().to_pandas()  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    taken = logistic_probe() if probe is None else probe
    check_probe(taken)
    seed = checked_seed(seed)
    # Without a control there is no telling a concept's direction from any other.
    checked_count("controls", controls, least=2)
    check_erasure_installed()
    check_readings(readings)
    named = readings.concepts
    check_several(named)
    total = len(readings) * len(named) ** 2
    parts = []
    with tqdm(total=total, desc="erasure", unit="pair", disable=not progress) as bar:
        for read in readings:
            rows = []
            before = [
                _Probed(*taken.held_out(each, concept, seed=cell_seed(seed, concept)))
                for each, concept in zip(read, named, strict=True)
            ]
            for erased in read:
                cells = []
                for probed, home in zip(read, before, strict=True):
                    cells.append(_cost(erased, probed, home, taken, controls, seed))
                    bar.update()
                rows.append(xr.concat(cells, dim="concept"))
            parts.append(xr.concat(rows, dim="erased").merge(_before(named, before)))
    names = [concept.name for concept in named]
    return (
        xr.concat(parts, dim="checkpoint", data_vars="all")
        .assign_coords(readings.along("checkpoint") | readings.along_sites(read[0]))
        .assign_coords(erased=names, concept=names)
        .assign_coords(dimension=("concept", [concept.dimension for concept in named]))
        .assign_attrs(probe=taken.name, controls=controls, seed=seed)
    )


@dataclass(frozen=True, eq=False)
class _Probed:
    """A concept's held-out scores, and the folds that they come of."""

    held_out: HeldOut
    fold: Int[np.ndarray, " example"]


def _cost(
    erased: Activations,
    probed: Activations,
    before: _Probed,
    probe: ProbeMeasure,
    controls: int,
    seed: int,
) -> xr.Dataset:
    """What erasing one concept costs one concept, along `site`."""
    about, concept = erased.concept, probed.concept
    if about is None or concept is None or erased.values.shape[2] != probed.values.shape[2]:
        raise ValueError(
            f"Activations to erase are {erased.values.shape[2]} wide, those to probe "
            f"{probed.values.shape[2]}. Read all concepts at the same sites of one model."
        )
    # Folds as of this concept's own probe, so that permuted labels keep each fold's balance.
    own = cell_seed(seed, about)
    fold = assign_folds(about.labels, about.groups, folds=probe.folds, seed=own)
    drawn = permute_labels(
        about.labels, about.groups, fold, permutations=controls, seed=own
    ).draws.astype(np.int64)
    kept = _unseen(about, concept, before.fold)
    after = [
        _probe_erased(erased, probed, labels, kept, before.fold, probe.cross_fitter)
        for labels in drawn
    ]
    bootstrap = GroupBootstrap.draw(
        concept.groups, seed=cell_seed(seed, concept), resamples=probe.resamples
    )
    variables: Variables = {}
    for name, (units, long_name, sign) in _COSTS.items():
        at_first = _by_statement(name, before.held_out.scores, concept.labels)
        at_last = _by_statement(name, after[0].scores, concept.labels)
        lost = sign * (at_first - at_last)
        told = f"{long_name} lost by erasing"
        random = np.stack(
            [
                sign * (at_first - _by_statement(name, each.scores, concept.labels)).mean(axis=0)
                for each in after[1:]
            ]
        )
        reach = (
            student.ppf(0.975, controls - 1)
            * random.std(axis=0, ddof=1)
            * np.sqrt(1 + 1 / controls)
        )
        interval = paired_interval(
            lost,
            bootstrap,
            added=_shared(name, before.held_out, after[0], concept.labels, before.fold),
        )
        variables |= labelled(
            name, at_last.mean(axis=0), units=units, long_name=f"{long_name} after erasing"
        )
        variables |= labelled(
            f"{name}_cost",
            lost.mean(axis=0),
            units=units,
            long_name=told,
            interval=interval,
            n=len(lost),
            resampling={"resamples": probe.resamples},
        )
        variables[f"{name}_cost_null"] = (
            ("site", "bound"),
            np.stack([random.mean(axis=0) - reach, random.mean(axis=0) + reach], axis=-1),
            {
                "units": units,
                "long_name": f"where 95% of the {told} permuted labels are expected",
                "permutations": controls,
            },
        )
    return xr.Dataset(variables, coords={"bound": ["low", "high"]})


def _before(concepts: Sequence[Concept], before: Sequence[_Probed]) -> xr.Dataset:
    """Scores before anything is erased, along `concept` and `site`."""
    data = xr.Dataset()
    for name, (units, long_name, _) in _COSTS.items():
        values = [
            _by_statement(name, home.held_out.scores, concept.labels).mean(axis=0)
            for concept, home in zip(concepts, before, strict=True)
        ]
        data[f"{name}_before"] = (
            ("concept", "site"),
            np.stack(values),
            {"units": units, "long_name": f"{long_name} before erasing"},
        )
    shares = np.array([concept.labels.mean() for concept in concepts])
    data["accuracy_chance"] = (
        ("concept",),
        np.maximum(shares, 1 - shares),
        {"units": _FRACTION, "long_name": "share of the larger class"},
    )
    return data


def _by_statement(
    name: str, scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    if name == "accuracy":
        right: np.ndarray = ((scores > 0) == (signs > 0)).astype(np.float64)
        return right
    surprise: np.ndarray = np.logaddexp(0.0, -signs * scores)
    return surprise


def _shared(
    name: str,
    before: HeldOut,
    after: HeldOut,
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " site"] | float:
    """Variance of a difference that comes from training rows which folds share."""
    if before.fewer is None or after.fewer is None:
        return 0.0
    whole = [fold_parts(each.scores, labels, fold)[name] for each in (before, after)]
    without = [
        np.stack([fold_parts(np.nan_to_num(part), labels, fold)[name] for part in each])
        for each in (before.fewer, after.fewer)
    ]
    return covariance_between_folds(whole[0] - whole[1], without[0] - without[1])


def _unseen(
    erased: Concept, probed: Concept, fold: Int[np.ndarray, " example"]
) -> Bool[np.ndarray, "fold other"]:
    """For each fold, the statements that share no group and no text with those held out."""
    kept = []
    for k in range(int(fold.max()) + 1):
        held = np.flatnonzero(fold == k)
        groups = {probed.groups[row] for row in held}
        texts = {probed.statements[row] for row in held}
        kept.append(
            [
                group not in groups and text not in texts
                for group, text in zip(erased.groups, erased.statements, strict=True)
            ]
        )
    return np.array(kept)


def _probe_erased(
    erased: Activations,
    probed: Activations,
    labels: Int[np.ndarray, " other"],
    kept: Bool[np.ndarray, "fold other"],
    fold: Int[np.ndarray, " example"],
    fitter: CrossFitter,
) -> HeldOut:
    """Held-out scores of a concept whose activations another one was erased from."""
    assert probed.concept is not None
    own = torch.from_numpy(probed.concept.labels.astype(np.int64))
    groups = probed.concept.groups
    if kept.all():
        return fitter(_erase(erased, labels, kept[0], probed.values), own, groups, fold)
    scores = np.empty(probed.values.shape[:2])
    fewer: np.ndarray | None = np.full((len(kept), *scores.shape), np.nan)
    for k, rows in enumerate(kept):
        found = fitter(_erase(erased, labels, rows, probed.values), own, groups, fold)
        held = fold == k
        scores[held] = found.scores[held]
        if fewer is not None and found.fewer is not None:
            fewer[:, held] = found.fewer[:, held]
        else:
            fewer = None
    return HeldOut(scores, fewer=fewer)


def _erase(
    erased: Activations,
    labels: Int[np.ndarray, " other"],
    rows: Bool[np.ndarray, " other"],
    values: Float[Tensor, "example site d_model"],
) -> Float[Tensor, "example site d_model"]:
    """Activations after an eraser fitted to some rows, in their own precision."""
    chosen = torch.from_numpy(rows)
    names = torch.from_numpy(labels)[chosen]
    if bool(names.all()) or not bool(names.any()):
        raise ValueError(
            "Nothing can be erased by statements of one label, which is all that is left once "
            "those of a held-out fold are left out. Give concepts that share fewer statements."
        )
    without = []
    for site in range(values.shape[1]):
        direction, readout, centre = fit_eraser(erased.values[chosen, site], names)
        here = values[:, site].double()
        without.append(here - torch.outer((here - centre) @ readout, direction))
    return torch.stack(without, dim=1).to(values.dtype)
