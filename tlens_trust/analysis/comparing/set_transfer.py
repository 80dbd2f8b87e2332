"""Transfer of probes from one set of statements to another set of the same concept, along training.

A probe that classifies the statements it was fitted to may have learned how their sentences are
made. Other statements show whether it learned the concept: paraphrases, or a set from elsewhere.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.analysis.comparing.paired_intervals import paired_interval
from tlens_trust.analysis.comparing.target_set import (
    SourceProbes,
    TargetScores,
    TargetSet,
    difference,
)
from tlens_trust.analysis.readings import SeriesReadings, check_readings
from tlens_trust.arguments import checked_seed
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe
from tlens_trust.measures.cross_validation import check_probe
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.generalisation import check_same_matter
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.tracing.cells import cell_seed

_SCORES = ("accuracy", "auroc")


def trace_transfer(
    readings: SeriesReadings,
    fitted_on: str | Concept,
    scored_on: str | Concept | Iterable[str | Concept] | None = None,
    *,
    probe: ProbeMeasure | None = None,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Fit probes to one set of statements and score them on another, at every checkpoint.

    At each checkpoint and site, a probe is fitted to `fitted_on` without each of its folds, as in a
    sweep. Its penalty is chosen within the training folds. The scored set is handled by group:

    - A statement whose group is in `fitted_on` too, by name or text, is scored by the probe that
      was fitted without that group.
    - Any other statement gets the mean log-odds of the probes of all folds.

    No label and no activation of the scored set is fitted to, scaled by or selected on.

    Accuracy may be lost for three reasons. The other variables tell them apart:

    - The scored set is harder, or the model does not know it. Then `accuracy_target` is low too: it
      comes from probes that were fitted to the scored set and cross-validated.
    - The direction fits and the threshold does not. Then `auroc` stays high.
    - What the probe detects is absent. Then both fall to their null bands.

    Args:
        readings: Activations of all the sets, as `collect_series` gives them. The weights that
            `…_untrained` is taken from are chosen there, by `untrained`.
        fitted_on: The set that probes are fitted to, by name or as a `Concept`.
        scored_on: The set, or the sets, that they are scored on; None for all others. Both sets
            need the same `dimension`. Label 1 must mean the same in both: both have a trustworthy
            side, or both have the same name.
        probe: The measure of a linear probe; None for the logistic probe. Its `folds`, `resamples`,
            `permutations` and `floor` apply here too.
        seed: Seed of the folds and resamples. With the seed of a sweep, the folds are those of the
            sweep.
        progress: Whether to show a bar.

    Returns:
        Along `scored_on` (not where one set was given), `checkpoint` and `site`, with interval
        (`…_ci`, 95%, over groups) and `…_n`:

        - `accuracy` and `auroc` of the transferred probes. AUROC is averaged over the statements
          that one probe scores.
        - `accuracy_source`, `auroc_source`: held-out scores in `fitted_on` itself, without the axis
          `scored_on`.
        - `accuracy_target`, `auroc_target`: held-out scores of probes fitted to the scored set.
        - `accuracy_drop`: `accuracy_source` minus `accuracy`. Groups in both sets are resampled
          together.
        - `accuracy_floor`, `auroc_floor`: the text-only baseline. TF-IDF classifiers are fitted to
          the text of `fitted_on` on the same folds. `accuracy_above_floor` is the difference,
          statement by statement.
        - `accuracy_untrained`, `auroc_untrained`: the same transfer in untrained weights.
          `accuracy_above_untrained` is the difference, statement by statement.
        - `accuracy_p`: a one-sided permutation p-value of the AUROC. It is the larger of two. One
          tests whether `fitted_on` can be decoded at all, as in a sweep. The other tests whether
          its probes separate the labels of the scored set, which are permuted within groups.
        - `accuracy_p_best`: the same by the null of the maximum over sites. `accuracy_q` is that of
          the best site, corrected over sets and checkpoints (Benjamini and Hochberg).
        - `accuracy_null`, `auroc_null`: the middle 95% of the scores of directions fitted to labels
          of `fitted_on` that were permuted within groups. They are the first Newton step of a
          logistic probe, or a difference of means for other probes.
        - `accuracy_chance`: the share of the larger class. `held_out_n`: the number of statements
          whose group was held out.

        A null band may be wide. Where statements vary along the concept more than along anything
        else, any direction separates the scored set a little, in one sense or the other. A score
        within the band is therefore not shown to be chance. It says that the axis was easy to find,
        and that the labels told little more than its sense.

        Intervals are those of the fitted probes on fresh groups of the scored set. Where groups are
        in both sets, the variance from shared training folds is added. Intervals are not corrected
        for the number of comparisons.

    Raises:
        ValueError: Label 1 need not mean the same in both sets, a group of the scored set is in
            several groups of the other, the probe is not linear, or the readings lack a set.

    Examples:
        >>> import torch
        >>> from tlens_trust.checkpoints import Checkpoint
        >>> def read(name, coordinate, step):
        ...     texts = tuple(f"{name} {row}" for row in range(80))
        ...     concept = Concept(name, "reliability", texts, np.arange(80) % 2, texts)
        ...     values = torch.randn(80, 1, 4, generator=torch.Generator().manual_seed(step))
        ...     values[:, 0, coordinate] += torch.from_numpy(4.0 * concept.labels * step).float()
        ...     where = Checkpoint("planted", f"step{step}", step=step)
        ...     return Activations(values, ("blocks.0.hook_resid_post",), where, concept)
        >>> said = [read("said", 0, step) for step in (0, 1)]
        >>> again = [read("said again", 0, step) for step in (0, 1)]
        >>> readings = SeriesReadings.from_activations(said + again)
        >>> found = trace_transfer(readings, "said", "said again", progress=False)
        >>> (found.accuracy_ci.sel(bound="low") > 0.7).values.ravel().tolist()
        [False, True]
    """
    from tqdm.auto import tqdm

    measure = logistic_probe() if probe is None else probe
    check_probe(measure)
    seed = checked_seed(seed)
    check_readings(readings)
    source, numbers = _choose_sets(readings, fitted_on, scored_on)
    fitted_concept = readings.concepts[source]
    scored_concepts = [readings.concepts[number] for number in numbers]
    folds_seed = cell_seed(seed, fitted_concept)
    fold = assign_folds(
        fitted_concept.labels, fitted_concept.groups, folds=measure.folds, seed=folds_seed
    )
    sets = [
        TargetSet.of(concept, fitted_concept, fold, measure, seed=seed)
        for concept in scored_concepts
    ]

    def score(activations: Sequence[Activations]) -> tuple[xr.Dataset, list[TargetScores]]:
        source_probes = SourceProbes.fit(fitted_concept, activations[source], measure, seed=seed)
        cells = [
            target_set.score(source_probes, activations[number])
            for target_set, number in zip(sets, numbers, strict=True)
        ]
        return source_probes.scores("source", "in the fitted set"), cells

    sources, cells, random_cells = [], [], None
    total = len(readings) + (readings.fetch_untrained is not None)
    with tqdm(total=total, desc="transfer", disable=not progress) as bar:
        random_weights = readings.at_untrained()
        if random_weights is not None:
            random_cells = score(random_weights)[1]
            bar.update()
        del random_weights  # so that two sets of activations are never in memory at once
        for activations in readings:
            source_scores, checkpoint_cells = score(activations)
            sources.append(source_scores)
            cells.append(checkpoint_cells)
            bar.update()
    by_set = []
    for number, target_set in enumerate(sets):
        columns = []
        for place, checkpoint_cells in enumerate(cells):
            baseline_place = readings.untrained_number(place)
            baseline = random_cells if baseline_place is None else cells[baseline_place]
            cell = checkpoint_cells[number]
            untrained = None if baseline is None else baseline[number]
            columns.append(cell.data.merge(_beside_untrained(target_set, cell, untrained)))
        by_set.append(xr.concat(columns, dim="checkpoint").merge(target_set.levels()))
    data = xr.concat(by_set, dim="scored_on", combine_attrs="drop_conflicts")
    data = data.merge(xr.concat(sources, dim="checkpoint"))
    data["accuracy_q"] = (
        ("scored_on", "checkpoint"),
        benjamini_hochberg(data["accuracy_p_best"].min("site").values),
        {
            "units": "1",
            "permutations": measure.permutations,
            "long_name": "p-value of the best site, by the null of the maximum over sites, "
            "corrected for the sets and checkpoints (Benjamini and Hochberg)",
        },
    )
    data = (
        data.transpose("scored_on", "checkpoint", "site", ...)
        .assign_coords(readings.along("checkpoint"))
        .assign_coords(readings.along_sites(activations[0]))
        .assign_coords(scored_on=[concept.name for concept in scored_concepts])
        .assign_attrs(
            fitted_on=fitted_concept.name, probe=measure.name, seed=seed, folds=int(measure.folds)
        )
    )
    return data.isel(scored_on=0) if isinstance(scored_on, str | Concept) else data


def _choose_sets(
    readings: SeriesReadings,
    fitted_on: str | Concept,
    scored_on: str | Concept | Iterable[str | Concept] | None,
) -> tuple[int, list[int]]:
    """The numbers of the fitted set and of the scored sets among the concepts."""
    (source,) = readings.concept_numbers([fitted_on], argument="fitted_on")
    targets = (
        [number for number in range(len(readings.concepts)) if number != source]
        if scored_on is None
        else readings.concept_numbers(scored_on, argument="scored_on")
    )
    if not targets:
        raise ValueError(
            f"These readings hold {fitted_on!r} alone, and no set to score. Collect the others "
            "too: `collect_series(series, [fitted_on, scored_on])`."
        )
    # Without a trustworthy side only the name says what labels mean, so the original names count.
    originals = [
        replace(concept, name=name)
        for concept, name in zip(readings.concepts, readings.original_names, strict=True)
    ]
    for target in targets:
        check_same_matter(originals[source], originals[target])
    return source, targets


def _beside_untrained(
    target_set: TargetSet, cell: TargetScores, untrained: TargetScores | None
) -> xr.Dataset:
    """Scores of untrained weights, and the accuracy above theirs; NaN where there are none."""
    untrained_data = xr.Dataset()
    for name in _SCORES:
        for ending in ("", "_ci"):
            own_scores = cell.data[f"{name}{ending}"]
            untrained_scores = (
                xr.full_like(own_scores, np.nan)
                if untrained is None
                else untrained.data[own_scores.name]
            )
            untrained_scores = untrained_scores.copy()
            untrained_scores.attrs = {
                **own_scores.attrs,
                "long_name": f"{own_scores.attrs['long_name']}, of untrained weights",
            }
            untrained_data[f"{name}_untrained{ending}"] = untrained_scores
    sites = cell.correct.shape[1]
    gain, interval = np.full(sites, np.nan), np.full((sites, 2), np.nan)
    if untrained is not None:
        differences = cell.correct - untrained.correct
        gain = differences.mean(axis=0)
        interval = paired_interval(
            differences, target_set.bootstrap, added=cell.shared + untrained.shared
        )
    return untrained_data.assign(
        difference(
            "accuracy_above_untrained",
            gain,
            interval,
            "accuracy above that of untrained weights",
            resamples=target_set.resamples,
            groups=target_set.bootstrap.groups,
        )
    )
