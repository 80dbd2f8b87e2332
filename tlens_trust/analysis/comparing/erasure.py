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

    measure = logistic_probe() if probe is None else probe
    check_probe(measure)
    seed = checked_seed(seed)
    # Without a control there is no telling a concept's direction from any other.
    checked_count("controls", controls, least=2)
    check_erasure_installed()
    check_readings(readings)
    concepts = readings.concepts
    check_several(concepts)
    total = len(readings) * len(concepts) ** 2
    parts = []
    with tqdm(total=total, desc="erasure", unit="pair", disable=not progress) as bar:
        for checkpoint_activations in readings:
            rows = []
            probed_before = [
                _Probed(*measure.held_out(activations, concept, seed=cell_seed(seed, concept)))
                for activations, concept in zip(checkpoint_activations, concepts, strict=True)
            ]
            for erased in checkpoint_activations:
                cells = []
                for probed, probed_concept in zip(
                    checkpoint_activations, probed_before, strict=True
                ):
                    cells.append(_cost(erased, probed, probed_concept, measure, controls, seed))
                    bar.update()
                rows.append(xr.concat(cells, dim="concept"))
            parts.append(xr.concat(rows, dim="erased").merge(_before(concepts, probed_before)))
    names = [concept.name for concept in concepts]
    return (
        xr.concat(parts, dim="checkpoint", data_vars="all")
        .assign_coords(
            readings.along("checkpoint") | readings.along_sites(checkpoint_activations[0])
        )
        .assign_coords(erased=names, concept=names)
        .assign_coords(dimension=("concept", [concept.dimension for concept in concepts]))
        .assign_attrs(probe=measure.name, controls=controls, seed=seed)
    )


@dataclass(frozen=True, eq=False)
class _Probed:
    """The held-out scores of a concept before erasing, and their folds."""

    held_out: HeldOut
    fold: Int[np.ndarray, " example"]


def _cost(
    erased: Activations,
    probed: Activations,
    probed_before: _Probed,
    probe: ProbeMeasure,
    controls: int,
    seed: int,
) -> xr.Dataset:
    """What erasing one concept costs one concept, along `site`."""
    erased_concept, concept = erased.concept, probed.concept
    if (
        erased_concept is None
        or concept is None
        or erased.values.shape[2] != probed.values.shape[2]
    ):
        raise ValueError(
            f"Activations to erase are {erased.values.shape[2]} wide, those to probe "
            f"{probed.values.shape[2]}. Read all concepts at the same sites of one model."
        )
    # The folds of this concept's own probe, so that permuted labels keep each fold's balance.
    folds_seed = cell_seed(seed, erased_concept)
    fold = assign_folds(
        erased_concept.labels, erased_concept.groups, folds=probe.folds, seed=folds_seed
    )
    permuted_labels = permute_labels(
        erased_concept.labels, erased_concept.groups, fold, permutations=controls, seed=folds_seed
    ).draws.astype(np.int64)
    eraser_rows = _unseen(erased_concept, concept, probed_before.fold)
    held_out_after = [
        _probe_erased(erased, probed, labels, eraser_rows, probed_before.fold, probe.cross_fitter)
        for labels in permuted_labels
    ]
    bootstrap = GroupBootstrap.draw(
        concept.groups, seed=cell_seed(seed, concept), resamples=probe.resamples
    )
    variables: Variables = {}
    for name, (units, long_name, sign) in _COSTS.items():
        values_before = _by_statement(name, probed_before.held_out.scores, concept.labels)
        values_after = _by_statement(name, held_out_after[0].scores, concept.labels)
        loss = sign * (values_before - values_after)
        loss_name = f"{long_name} lost by erasing"
        control_losses = np.stack(
            [
                sign
                * (values_before - _by_statement(name, control.scores, concept.labels)).mean(axis=0)
                for control in held_out_after[1:]
            ]
        )
        reach = (
            student.ppf(0.975, controls - 1)
            * control_losses.std(axis=0, ddof=1)
            * np.sqrt(1 + 1 / controls)
        )
        interval = paired_interval(
            loss,
            bootstrap,
            added=_shared(
                name, probed_before.held_out, held_out_after[0], concept.labels, probed_before.fold
            ),
        )
        variables |= labelled(
            name, values_after.mean(axis=0), units=units, long_name=f"{long_name} after erasing"
        )
        variables |= labelled(
            f"{name}_cost",
            loss.mean(axis=0),
            units=units,
            long_name=loss_name,
            interval=interval,
            n=len(loss),
            resampling={"resamples": probe.resamples},
        )
        variables[f"{name}_cost_null"] = (
            ("site", "bound"),
            np.stack(
                [control_losses.mean(axis=0) - reach, control_losses.mean(axis=0) + reach], axis=-1
            ),
            {
                "units": units,
                "long_name": f"where 95% of the {loss_name} permuted labels are expected",
                "permutations": controls,
            },
        )
    return xr.Dataset(variables, coords={"bound": ["low", "high"]})


def _before(concepts: Sequence[Concept], probed_before: Sequence[_Probed]) -> xr.Dataset:
    """Scores before anything is erased, along `concept` and `site`."""
    data = xr.Dataset()
    for name, (units, long_name, _) in _COSTS.items():
        values = [
            _by_statement(name, home.held_out.scores, concept.labels).mean(axis=0)
            for concept, home in zip(concepts, probed_before, strict=True)
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
        correct: np.ndarray = ((scores > 0) == (signs > 0)).astype(np.float64)
        return correct
    surprise: np.ndarray = np.logaddexp(0.0, -signs * scores)
    return surprise


def _shared(
    name: str,
    held_out_before: HeldOut,
    held_out_after: HeldOut,
    labels: Int[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
) -> Float[np.ndarray, " site"] | float:
    """Variance of a difference that comes from training rows which folds share."""
    if held_out_before.fewer is None or held_out_after.fewer is None:
        return 0.0
    full_parts = [
        fold_parts(held_out.scores, labels, fold)[name]
        for held_out in (held_out_before, held_out_after)
    ]
    parts_without_fold = [
        np.stack([fold_parts(np.nan_to_num(scores), labels, fold)[name] for scores in held_out])
        for held_out in (held_out_before.fewer, held_out_after.fewer)
    ]
    return covariance_between_folds(
        full_parts[0] - full_parts[1], parts_without_fold[0] - parts_without_fold[1]
    )


def _unseen(
    erased: Concept, probed: Concept, fold: Int[np.ndarray, " example"]
) -> Bool[np.ndarray, "fold other"]:
    """For each fold, the statements that share no group and no text with those held out."""
    unseen_rows = []
    for k in range(int(fold.max()) + 1):
        held_out_rows = np.flatnonzero(fold == k)
        groups = {probed.groups[row] for row in held_out_rows}
        texts = {probed.statements[row] for row in held_out_rows}
        unseen_rows.append(
            [
                group not in groups and text not in texts
                for group, text in zip(erased.groups, erased.statements, strict=True)
            ]
        )
    return np.array(unseen_rows)


def _probe_erased(
    erased: Activations,
    probed: Activations,
    labels: Int[np.ndarray, " other"],
    eraser_rows: Bool[np.ndarray, "fold other"],
    fold: Int[np.ndarray, " example"],
    fitter: CrossFitter,
) -> HeldOut:
    """Held-out scores of a concept whose activations another one was erased from."""
    assert probed.concept is not None
    probed_labels = torch.from_numpy(probed.concept.labels.astype(np.int64))
    groups = probed.concept.groups
    if eraser_rows.all():
        return fitter(
            _erase(erased, labels, eraser_rows[0], probed.values), probed_labels, groups, fold
        )
    scores = np.empty(probed.values.shape[:2])
    fewer: np.ndarray | None = np.full((len(eraser_rows), *scores.shape), np.nan)
    for k, rows in enumerate(eraser_rows):
        held_out = fitter(_erase(erased, labels, rows, probed.values), probed_labels, groups, fold)
        is_in_fold = fold == k
        scores[is_in_fold] = held_out.scores[is_in_fold]
        if fewer is not None and held_out.fewer is not None:
            fewer[:, is_in_fold] = held_out.fewer[:, is_in_fold]
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
    row_mask = torch.from_numpy(rows)
    eraser_labels = torch.from_numpy(labels)[row_mask]
    if bool(eraser_labels.all()) or not bool(eraser_labels.any()):
        raise ValueError(
            "Nothing can be erased by statements of one label, which is all that is left once "
            "those of a held-out fold are left out. Give concepts that share fewer statements."
        )
    erased_values = []
    for site in range(values.shape[1]):
        direction, readout, centre = fit_eraser(erased.values[row_mask, site], eraser_labels)
        site_values = values[:, site].double()
        erased_values.append(site_values - torch.outer((site_values - centre) @ readout, direction))
    return torch.stack(erased_values, dim=1).to(values.dtype)
