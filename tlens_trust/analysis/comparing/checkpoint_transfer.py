"""Transfer of probes between every pair of checkpoints of a series."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import xarray as xr
from einops import einsum
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.analysis.comparing.checkpoint_transfer_null import (
    CheckpointProbes,
    fit_permuted,
    null_bands,
)
from tlens_trust.analysis.comparing.paired_intervals import paired_interval, widened_interval
from tlens_trust.analysis.readings import SeriesReadings, of_one_concept
from tlens_trust.arguments import checked_count, checked_seed
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe
from tlens_trust.measures.cross_fold import cross_fold_variance
from tlens_trust.measures.cross_validation import check_probe
from tlens_trust.measures.labelled import labelled
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.scores import score_dataset
from tlens_trust.tracing.cells import cell_seed

_SCORES = ("accuracy", "auroc")
_FRACTION = "fraction of statements"
_PAIR = ("source", "target", "site")


def transfer_matrix(
    readings: SeriesReadings,
    concept: str | Concept | None = None,
    *,
    probe: ProbeMeasure | None = None,
    permutations: int = 100,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Fit probes at every checkpoint and score them at every checkpoint, on held-out groups.

    The folds are the same at all checkpoints. A statement is scored by a probe that was fitted to
    the other folds' statements only, at whatever checkpoint. So neither the statement nor its group
    was in the training set, nor in the choice of the penalty. No label of the target is used.

    A probe is a direction and a threshold, and both belong to the checkpoint that they were fitted
    at. When activations shift or grow, the threshold may fail though the direction still fits.
    Three scores tell these apart:

    - `accuracy`: the source's probe as it is, on raw activations;
    - `accuracy_restandardised`: the same weights on standardised features. The mean and deviation
      of each feature come from the target's own training folds, without any label;
    - `auroc`: any threshold, within each fold. It ignores a shift, but not a change of direction.

    Args:
        readings: Activations at the checkpoints, as `collect_series` gives them.
        concept: Which concept, by name or as a `Concept`; None where `readings` hold only one.
        probe: The measure of a linear probe; None for the logistic probe.
        permutations: Number of draws of permuted labels for the null bands. Their directions are
            kept in memory for all checkpoints, so a long series with many sites may need fewer.
        seed: Seed of the folds and resamples. With the seed of a sweep, the folds are those of the
            sweep.
        progress: Whether to show a bar.

    Returns:
        Along `source` (where the probe was fitted), `target` (where it is scored) and `site`, each
        with its interval over groups (`…_ci`) and `…_n`:

        - `accuracy` and `auroc`, raw and `…_restandardised`. The diagonal holds cross-validated
          scores.
        - `accuracy_drop`: the accuracy of the target's own probe minus that of the source's,
          statement by statement.
        - `accuracy_chance`: the share of the larger class. The AUROC of chance is one half.

        Accuracy and AUROC have a `…_null` as well: the middle 95% of the target's scores of probes
        that were fitted to permuted labels at the source. Labels are permuted within groups. Such a
        probe is the first Newton step of a logistic probe at the penalties chosen for the labels,
        or a difference of class means for probes without a penalty. Where the target's activations
        vary along the concept more than along anything else, any direction separates its labels a
        little. A few points from one half are then no sign of transfer.

        Intervals include the variance from shared training rows, as far as the source's own
        cross-validation shows it. They are intervals of single numbers and are not corrected for
        the number of pairs.

    Raises:
        ValueError: There are several concepts and none is chosen, the probe is not linear, or
            checkpoints differ in width or sites.

    Examples:
        >>> from tlens_trust.checkpoints import Checkpoint
        >>> labels = np.arange(120) % 2
        >>> texts = tuple(f"statement {row}" for row in range(120))
        >>> concept = Concept("truth", "reliability", texts, labels, texts)
        >>> def read(step, coordinate):
        ...     values = torch.randn(120, 1, 4, generator=torch.Generator().manual_seed(step))
        ...     values[:, 0, coordinate] += torch.from_numpy(4.0 * labels).float()
        ...     where = Checkpoint("planted", f"step{step}", step=step)
        ...     return Activations(values, ("blocks.0.hook_resid_post",), where, concept)
        >>> readings = SeriesReadings.from_activations([read(1, 0), read(2, 0), read(3, 1)])
        >>> matrix = transfer_matrix(readings, progress=False)
        >>> (matrix.auroc.isel(site=0) > 0.9).values.tolist()
        [[True, True, False], [True, True, False], [False, False, True]]
    """
    from tqdm.auto import tqdm

    measure = logistic_probe() if probe is None else probe
    check_probe(measure)
    seed = checked_seed(seed)
    checked_count("permutations", permutations)
    readings = of_one_concept(readings, concept)
    (only_concept,) = readings.concepts
    folds_seed = cell_seed(seed, only_concept)
    count = len(readings)
    with tqdm(total=2 * count, desc="transfer", unit="pass", disable=not progress) as bar:
        probes, permuted_probes = [], []
        for number in range(count):
            (activations,) = readings.at(number)
            probes.append(fit_probes(activations, only_concept, measure, folds_seed))
            permuted_probes.append(
                fit_permuted(activations, only_concept, probes[-1], permutations, folds_seed)
            )
            bar.update()
        _check_widths(readings.checkpoints, probes)
        columns = []
        for number in range(count):
            (activations,) = readings.at(number)
            column = _score_all(probes, number, activations, only_concept, measure, folds_seed)
            bands = [
                null_bands(source, permuted, probes[number], activations, only_concept)
                for source, permuted in zip(probes, permuted_probes, strict=True)
            ]
            columns.append(column.merge(xr.concat(bands, dim="source")))
            bar.update()
    matrix = xr.concat(columns, dim="target").transpose(*_PAIR, ...)
    ones = float(only_concept.labels.mean())
    matrix["accuracy_chance"] = (
        (),
        max(ones, 1 - ones),
        {"units": _FRACTION, "long_name": "share of the larger class"},
    )
    return matrix.assign_coords(
        readings.along("source") | readings.along("target") | readings.along_sites(activations)
    ).assign_attrs(
        concept=only_concept.name, probe=measure.name, seed=seed, folds=int(measure.folds)
    )


def fit_probes(
    activations: Activations, concept: Concept, probe: ProbeMeasure, seed: int
) -> CheckpointProbes:
    """Fit a checkpoint's probes, one for each fold, on the statements outside it."""
    held_out, fold = probe.held_out(activations, concept, seed=seed)
    if held_out.directions is None or held_out.biases is None:
        raise ValueError(
            f"The {probe.name!r} probe keeps no direction to score other checkpoints with. Choose "
            "a linear probe, `logistic_probe()` for one."
        )
    if held_out.fewer is None:
        shared_variances = {name: np.zeros(len(activations.sites)) for name in _SCORES}
    else:
        shared_variances = dict(
            cross_fold_variance(held_out.scores, held_out.fewer, concept.labels, fold)
        )
    mean, deviation = _standardisation(activations, fold)
    return CheckpointProbes(
        scores=held_out.scores,
        fewer=held_out.fewer,
        fold=fold,
        directions=held_out.directions,
        biases=held_out.biases,
        mean=mean,
        deviation=deviation,
        shared=shared_variances,
        strength=held_out.variables["C"][0] if "C" in held_out.variables else None,
    )


def _standardisation(
    activations: Activations, fold: Int[np.ndarray, " example"]
) -> tuple[Float[np.ndarray, "site fold d_model"], Float[np.ndarray, "site fold d_model"]]:
    """Mean and deviation of each feature, over all rows but those of each fold."""
    means, deviations = [], []
    for k in range(int(fold.max()) + 1):
        rows = activations.values[torch.from_numpy(fold != k)].double()
        mean = rows.mean(dim=0)
        deviation = rows.std(dim=0, correction=0)
        # A feature that varies by no more than the rounding of its numbers is constant.
        rounding = 8 * torch.finfo(activations.values.dtype).eps * mean.abs()
        means.append(mean.numpy())
        deviations.append(torch.where(deviation > rounding, deviation, 0.0).numpy())
    return np.stack(means, axis=1), np.stack(deviations, axis=1)


def _check_widths(
    checkpoints: Sequence[str], probes_by_checkpoint: Sequence[CheckpointProbes]
) -> None:
    widths = [probes.directions.shape[2] for probes in probes_by_checkpoint]
    for name, width in zip(checkpoints, widths, strict=True):
        if width != widths[0]:
            raise ValueError(
                f"{name!r} is {width} wide and {checkpoints[0]!r} {widths[0]}, so no probe of one "
                "fits the other. Compare checkpoints of one architecture."
            )


def _score_all(
    probes_by_checkpoint: Sequence[CheckpointProbes],
    target: int,
    activations: Activations,
    concept: Concept,
    probe: ProbeMeasure,
    seed: int,
) -> xr.Dataset:
    """Every checkpoint's probes on one checkpoint's activations; a column of the matrix."""
    target_probes = probes_by_checkpoint[target]
    values = activations.values.double().numpy()
    bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=probe.resamples)
    positive = (concept.labels == 1)[:, None]
    correct_at_target = ((target_probes.scores > 0) == positive).astype(np.float64)
    column = []
    for source, probes in enumerate(probes_by_checkpoint):
        raw, restandardised = transferred_scores(probes, target_probes, values)
        if source == target:
            # Equal to the sweep bit for bit, which a sum in another order would not be.
            raw = restandardised = target_probes.scores
        cell = xr.Dataset()
        for suffix, scores in (("", raw), ("_restandardised", restandardised)):
            scored_statements = score_dataset(
                scores,
                concept.labels,
                target_probes.fold,
                concept.groups,
                sites=activations.sites,
                seed=seed,
                fewer=target_probes.fewer if source == target else None,
                resamples=probe.resamples,
            )
            cell = cell.merge(
                _named(
                    scored_statements,
                    suffix,
                    probes.shared if source != target else {},
                    bootstrap.groups,
                )
            )
        drop = correct_at_target - ((raw > 0) == positive)
        shared_variance = probes.shared["accuracy"] + target_probes.shared["accuracy"]
        interval = (
            np.zeros((len(activations.sites), 2))
            if source == target
            else paired_interval(drop, bootstrap, added=shared_variance)
        )
        cell = cell.assign(
            labelled(
                "accuracy_drop",
                drop.mean(axis=0),
                units=_FRACTION,
                long_name="held-out accuracy of the target's own probe minus that of the source's",
                interval=interval.clip(-1, 1),
                interval_note=", statement by statement",
                resampling={"resamples": probe.resamples, "groups": bootstrap.groups},
            )
        )
        cell["accuracy_drop_n"] = cell["accuracy_n"]
        column.append(cell)
    return xr.concat(column, dim="source")


_READ_OFF = "example site d_model, site d_model -> example site"


def transferred_scores(
    probes: CheckpointProbes,
    target_probes: CheckpointProbes,
    values: Float[np.ndarray, "example site d_model"],
) -> tuple[Float[np.ndarray, "example site"], Float[np.ndarray, "example site"]]:
    """Log-odds of each statement by the probe of its fold: as it is, and restandardised."""
    raw, restandardised = np.empty(values.shape[:2]), np.empty(values.shape[:2])
    weights = probes.directions * probes.deviation
    offsets = probes.biases + (probes.directions * probes.mean).sum(axis=2)
    scale = np.divide(
        1.0,
        target_probes.deviation,
        out=np.zeros_like(target_probes.deviation),
        where=target_probes.deviation > 0,
    )
    for k in range(probes.biases.shape[1]):
        rows = target_probes.fold == k
        fold_values = values[rows]
        raw[rows] = einsum(fold_values, probes.directions[:, k], _READ_OFF) + probes.biases[:, k]
        scaled = (fold_values - target_probes.mean[:, k]) * scale[:, k]
        restandardised[rows] = einsum(scaled, weights[:, k], _READ_OFF) + offsets[:, k]
    return raw, restandardised


def _named(
    scored_statements: xr.Dataset,
    suffix: str,
    shared_variances: Mapping[str, Float[np.ndarray, " site"]],
    groups: int,
) -> xr.Dataset:
    """Accuracy and AUROC under their names in the matrix, intervals widened for shared folds."""
    suffix_text = ", features standardised at the target" if suffix else ""
    cell = xr.Dataset()
    for name in _SCORES:
        for ending in ("", "_ci", "_n"):
            variable = scored_statements[f"{name}{ending}"].copy()
            variable.attrs["long_name"] += suffix_text
            if ending == "_ci" and name in shared_variances:
                widened = widened_interval(
                    scored_statements[name].values,
                    variable.values,
                    shared_variances[name],
                    groups=groups,
                ).clip(0, 1)
                variable = variable.copy(data=widened)
            cell[f"{name}{suffix}{ending}"] = variable
    return cell
