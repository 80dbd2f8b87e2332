"""Whether a probe of one set of statements reads another set of the same concept, along training.

A probe that tells the statements that it was made with may have learned how they are made. Whether
it learned the concept shows in other statements: paraphrases, or a set of another make.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS
from tlens_trust.analysis.comparing.scored_set import FittedSet, ScoredCell, ScoredSet, difference
from tlens_trust.analysis.comparing.shared_folds import paired_interval
from tlens_trust.analysis.comparing.untrained_level import UntrainedReading, with_untrained
from tlens_trust.analysis.readings import SeriesReadings, Store, read_series
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure, logistic_probe
from tlens_trust.measures.cross_validation import check_probe
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.generalisation import check_same_matter
from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.tracing.cells import cell_seed
from tlens_trust.tracing.sweep_arguments import Concepts, checked_concepts

_SCORES = ("accuracy", "auroc")


def trace_transfer(
    series: Checkpoint | Iterable[Checkpoint] | Iterable[Activations],
    fitted_on: Concept,
    scored_on: Concepts,
    *,
    probe: ProbeMeasure | None = None,
    sites: str | int | Sequence[str | int] = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    store: Store = "default",
    seed: int = 0,
    untrained: str | None = "auto",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: bool = True,
) -> xr.Dataset:
    """Fit probes to one set of statements and score them on another, at every checkpoint.

    At each checkpoint and site, a probe is fitted to `fitted_on` without each of its folds, as in a
    sweep, its penalty chosen within the training folds. A statement of the other set whose group
    is in `fitted_on` too, by name or text, is scored by the probe that never saw that group; any
    other by the mean log-odds of all folds' probes. Of the scored set, no label and no activation
    is fitted to, scaled by or selected on.

    Accuracy may be lost for three reasons, and what stands beside it tells them apart:

    - the scored set is harder, or not known at all: then `accuracy_target`, of probes fitted to it
      and cross-validated, is low too;
    - the direction is right and the threshold is not: then `auroc` stays high;
    - what the probe reads is not there: then both fall to their null bands.

    Each model is loaded once for all sets.

    Args:
        series: Checkpoints; or `Activations` of all the sets, at each checkpoint.
        fitted_on: The set that probes are fitted to.
        scored_on: The set, or the sets, that they are scored on; with a mapping, keys are names.
            Label 1 must mean the same as in `fitted_on`: both have a trustworthy side, or both the
            same name; and both the same `dimension`.
        probe: A linear probe's measure; None for the logistic probe. Its `folds`, `resamples`,
            `permutations` and `floor` count here, too.
        sites: Where to read, as `trace_checkpoints` takes it, and so are the following.
        position: Which token of a statement to read.
        bos: Whether a beginning-of-sequence token stands before each statement.
        store: Where activations are kept.
        seed: Deals folds and draws resamples; with the seed of a sweep, its folds.
        untrained: What `…_untrained` is taken from: `"step0"`, `"random"` weights, `"auto"` for
            step 0 where it is there and else random ones where they can be drawn, or None. Of
            activations, step 0 alone.
        batch_tokens: Tokens read at once.
        progress: Whether to show a bar.

    Returns:
        Along `scored_on` (not where one Concept was given), `checkpoint` and `site`, with interval
        (`…_ci`, 95%, over groups) and `…_n`:

        - `accuracy` and `auroc` of the transferred probes. AUROC is averaged over statements
          scored by one probe.
        - `accuracy_source`, `auroc_source`: held out, in `fitted_on` itself; without `scored_on`.
        - `accuracy_target`, `auroc_target`: of probes fitted to the scored set, held out.
        - `accuracy_drop`: `accuracy_source` minus `accuracy`; groups in both are drawn together.
        - `accuracy_floor`, `auroc_floor`: of TF-IDF classifiers that were fitted to the text of
          `fitted_on` on the same folds; of each set as a whole. `accuracy_above_floor`, statement
          by statement.
        - `accuracy_untrained`, `auroc_untrained`: the same transfer in untrained weights.
          `accuracy_above_untrained`, statement by statement.
        - `accuracy_p`, by the AUROC and one-sided, the larger of two permutation p-values: that of
          `fitted_on` being read at all (as in a sweep), and that of its probes telling labels of
          the scored set, which are permuted within its groups. `accuracy_p_best`, the same by the
          null of the maximum over sites; `accuracy_q`, for the best site, corrected over sets and
          checkpoints (Benjamini and Hochberg).
        - `accuracy_null`, `auroc_null`: the middle 95% of what directions get that were fitted to
          labels of `fitted_on` permuted within groups (the first Newton step of a logistic probe;
          for other probes a difference of means). Where statements vary along the concept more than
          along anything else, any direction reads the scored set a little, in this sense or the
          other. That a score lies in the band does not make it chance; it means that the axis was
          not hard to come by, and that it is its sense, above all, that labels had to tell.
        - `accuracy_chance`, the share of the larger class, and `held_out_n`, of how many
          statements the group was held out.

        Intervals are those of the fitted probes on fresh groups of the scored set; where groups
        are in both sets, what training folds share is added. Nothing is corrected in them for how
        many are looked at.

    Raises:
        ValueError: Label 1 need not mean the same in both, a group of the scored set stands in
            several groups of the other, the probe is not linear, or whatever reading finds wrong.

    Examples:
        >>> def read(name, coordinate, step):
        ...     texts = tuple(f"{name} {row}" for row in range(80))
        ...     concept = Concept(name, "reliability", texts, np.arange(80) % 2, texts)
        ...     values = torch.randn(80, 1, 4, generator=torch.Generator().manual_seed(step))
        ...     values[:, 0, coordinate] += torch.from_numpy(4.0 * concept.labels * step).float()
        ...     where = Checkpoint("planted", f"step{step}", step=step)
        ...     return Activations(values, ("blocks.0.hook_resid_post",), where, concept)
        >>> said = [read("said", 0, step) for step in (0, 1)]
        >>> again = [read("said again", 0, step) for step in (0, 1)]
        >>> found = trace_transfer(
        ...     said + again, said[0].concept, again[0].concept, progress=False)
        >>> (found.accuracy_ci.sel(bound="low") > 0.7).values.ravel().tolist()
        [False, True]
    """
    from tqdm.auto import tqdm

    taken = logistic_probe() if probe is None else probe
    check_probe(taken)
    seed = checked_seed(seed)
    if isinstance(scored_on, Iterable) and not isinstance(scored_on, str | Concept | Mapping):
        scored_on = list(scored_on)
    named = checked_concepts(scored_on)
    for given in _listed(scored_on):
        check_same_matter(fitted_on, given)
    own = cell_seed(seed, fitted_on)
    fold = assign_folds(fitted_on.labels, fitted_on.groups, folds=taken.folds, seed=own)
    sets = [ScoredSet.of(concept, fitted_on, fold, taken, seed=seed) for concept in named]
    listing, against = with_untrained(series, untrained, seed=seed)
    readings = read_series(
        listing,
        _under_names_of_their_own(fitted_on, named),
        sites=sites,
        position=position,
        bos=bos,
        store=store,
        batch_tokens=batch_tokens,
    )
    sources, cells = [], []
    with tqdm(total=len(readings), desc="transfer", disable=not progress) as bar:
        for read in readings:
            fitted = FittedSet.fit(fitted_on, read[0], taken, seed=seed)
            sources.append(fitted.scores("source", "in the fitted set"))
            others = iter(read[1:])
            cells.append(
                [
                    each.score(fitted, read[0] if each.concept == fitted_on else next(others))
                    for each in sets
                ]
            )
            bar.update()
    shown = range(against.added, len(readings))
    by_set = []
    for number, each in enumerate(sets):
        mine = [at[number] for at in cells]
        columns = [
            mine[i].data.merge(_beside_untrained(each, mine[i], _at(mine, readings, i, against)))
            for i in shown
        ]
        by_set.append(xr.concat(columns, dim="checkpoint").merge(each.levels()))
    data = xr.concat(by_set, dim="scored_on", combine_attrs="drop_conflicts")
    data = data.merge(xr.concat([sources[i] for i in shown], dim="checkpoint"))
    data["accuracy_q"] = (
        ("scored_on", "checkpoint"),
        benjamini_hochberg(data["accuracy_p_best"].min("site").values),
        {
            "units": "1",
            "permutations": taken.permutations,
            "long_name": "p-value of the best site, by the null of the maximum over sites, "
            "corrected for the sets and checkpoints (Benjamini and Hochberg)",
        },
    )
    along = xr.Dataset(coords=readings.along("checkpoint")).isel(checkpoint=list(shown))
    data = (
        data.transpose("scored_on", "checkpoint", "site", ...)
        .assign_coords(along.coords)
        .assign_coords(readings.along_sites(read[0]))
        .assign_coords(scored_on=[concept.name for concept in named])
        .assign_attrs(fitted_on=fitted_on.name, probe=taken.name, seed=seed, folds=int(taken.folds))
    )
    return data.isel(scored_on=0) if isinstance(scored_on, Concept) else data


def _at(
    cells: Sequence[ScoredCell], readings: SeriesReadings, number: int, against: UntrainedReading
) -> ScoredCell | None:
    place = against.index(readings, number)
    return None if place is None else cells[place]


def _beside_untrained(
    scored: ScoredSet, cell: ScoredCell, untrained: ScoredCell | None
) -> xr.Dataset:
    """The scores of untrained weights, and by how much the accuracy lies above; NaN without."""
    beside = xr.Dataset()
    for name in _SCORES:
        for part in ("", "_ci"):
            own = cell.data[f"{name}{part}"]
            known = xr.full_like(own, np.nan) if untrained is None else untrained.data[own.name]
            known = known.copy()
            known.attrs = {
                **own.attrs,
                "long_name": f"{own.attrs['long_name']}, of untrained weights",
            }
            beside[f"{name}_untrained{part}"] = known
    sites = cell.right.shape[1]
    gain, interval = np.full(sites, np.nan), np.full((sites, 2), np.nan)
    if untrained is not None:
        more = cell.right - untrained.right
        gain = more.mean(axis=0)
        interval = paired_interval(more, scored.bootstrap, added=cell.shared + untrained.shared)
    beside["accuracy_above_untrained"], beside["accuracy_above_untrained_ci"] = difference(
        gain,
        interval,
        "accuracy above that of untrained weights",
        resamples=scored.resamples,
        groups=scored.bootstrap.groups,
    )
    return beside


def _listed(concepts: Any) -> list[Concept]:
    if isinstance(concepts, Concept):
        return [concepts]
    return list(concepts.values() if isinstance(concepts, Mapping) else concepts)


def _under_names_of_their_own(fitted_on: Concept, scored_on: Sequence[Concept]) -> list[Concept]:
    """Each set once; two sets of one concept may have one name, two readings may not."""
    distinct = [fitted_on]
    for concept in scored_on:
        if concept == fitted_on:
            continue
        name = concept.name
        while name in (each.name for each in (*distinct, *scored_on) if each is not concept):
            name += " (scored)"
        distinct.append(replace(concept, name=name))
    return distinct
