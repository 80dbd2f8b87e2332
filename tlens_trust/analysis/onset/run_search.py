"""The search for a first checkpoint, for every concept, probe and site of a run folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.analysis.onset.crossings import FirstCrossing
from tlens_trust.analysis.onset.outcomes import (
    BEST,
    KEPT,
    ONE_SPLIT,
    ProbeOutcomes,
    SiteOutcomes,
    probe_outcomes,
)
from tlens_trust.analysis.onset.reasons import NOT_MEASURED
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.run_folder import RunFolder
from tlens_trust.tracing.selection import checkpoint_numbers, select
from tlens_trust.tracing.statement_scores import load_run_variables, one_split_message

_FRACTION = "fraction of statements"


@dataclass(frozen=True, eq=False)
class SiteCrossing:
    """The first checkpoint at one site, with the quantity and bounds that show it.

    Attributes:
        crossing: The checkpoint and its set.
        value: The quantity at every checkpoint.
        bounds: Its low and high bounds.
        reason: Why there is none, in the words of `tlens_trust.analysis.onset.reasons`; "" where
            there is one.
    """

    crossing: FirstCrossing
    value: Float[np.ndarray, " checkpoint"]
    bounds: Float[np.ndarray, "checkpoint bound"]
    reason: str


@dataclass(frozen=True)
class CrossingSearch:
    """What is searched for at every site, and how the result is labelled.

    Attributes:
        look: Locates the checkpoint at one site.
        name: The name of the checkpoint, such as `onset`.
        value: The name of the quantity, such as `gain`.
        told: Descriptions of these, of `lasting`, and of the quantity's `…_ci`.
        floor: Whether the text classifier's outcomes are needed.
        least_p: The p-value that a single checkpoint has to reach.
        confidence: The confidence of the accuracy's intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
    """

    look: Callable[[SiteOutcomes, GroupBootstrap], SiteCrossing]
    name: str
    value: str
    told: Mapping[str, str]
    floor: bool
    least_p: float
    confidence: float
    resamples: int
    seed: int


def search_run(
    run: RunFolder,
    question: CrossingSearch,
    *,
    concepts: str | Sequence[str] | None,
    checkpoints: str | int | Sequence[str | int] | None,
) -> xr.Dataset:
    """Search every concept, probe and site of a run.

    Args:
        run: The run folder.
        question: What to search for.
        concepts: One or several names; None for all.
        checkpoints: Names or steps of the checkpoints; None for all.

    Returns:
        The data set that `find_onset` describes.

    Raises:
        ValueError: As `find_onset`.
    """
    axes = select(run.trace_data(), concept=concepts)
    if checkpoints is not None:
        names, steps = axes["checkpoint"].values.tolist(), axes["step"].values
        axes = axes.isel(checkpoint=sorted(set(checkpoint_numbers(names, steps, checkpoints))))
    kept, lacking = {}, []
    for concept in axes["concept"].values.tolist():
        cells = load_run_variables(run.path, concept, KEPT)
        asked = np.isin(cells["checkpoint"].values, axes["checkpoint"].values)
        cells = cells.isel(checkpoint=asked)
        several = "score" in cells and "probe" in cells["score"].dims
        for probe in cells["probe"].values.tolist() if several else [None]:
            answers = probe_outcomes(cells, probe, floor=question.floor)
            if isinstance(answers, str):
                lacking.append(f"{answers}, for {concept!r}{f' by {probe!r}' if probe else ''}")
                continue
            finished = cells["checkpoint"].values[answers.finished]
            where = np.flatnonzero(np.isin(axes["checkpoint"].values, finished))
            _check_permutations(cells["accuracy_p"].attrs.get("permutations"), question)
            kept[concept, probe] = _ask(answers, where, axes, question)
    if not kept and any(ONE_SPLIT in each for each in lacking):
        raise ValueError(one_split_message(run.path))
    if not kept:
        raise ValueError(
            f"The run folder {str(run.path)!r} holds too little: it lacks {lacking[0]}. Sweep "
            "with probes into a new folder, as `probe_checkpoints` does."
        )
    probes = list(dict.fromkeys(probe for _, probe in kept))
    rows = [
        [
            kept.get((concept, probe)) or _ask(None, np.array([], dtype=int), axes, question)
            for probe in probes
        ]
        for concept in axes["concept"].values.tolist()
    ]
    return _labelled(rows, probes, axes, question)


def _check_permutations(permutations: int | None, question: CrossingSearch) -> None:
    """Refuse p-values that rest on too few permutations to become small enough."""
    if permutations is not None and 1 / (1 + permutations) > question.least_p:
        raise ValueError(
            f"The p-values of this run rest on {permutations} permutations, so that none lies "
            f"below {1 / (1 + permutations):.3g}; at this confidence it takes "
            f"{question.least_p:.3g}. Sweep with at least {np.ceil(1 / question.least_p):.0f} "
            "`permutations`, or ask with less `confidence`."
        )


def _ask(
    answers: ProbeOutcomes | None,
    where: Int[np.ndarray, " checkpoint"],
    axes: xr.Dataset,
    question: CrossingSearch,
) -> dict[str, np.ndarray]:
    """Search all sites of one probe; unknown where nothing was kept.

    Args:
        answers: The outcomes of the probe.
        where: The places of its checkpoints on the axis.
        axes: Checkpoints and sites.
        question: What to search for.
    """
    sites = [*axes["site"].values.tolist(), BEST]
    total = axes.sizes["checkpoint"]
    one, along = len(sites), (len(sites), total)
    name, value = question.name, question.value
    # The places of checkpoints on the axis; the one past its end stands for never.
    places = {key: np.full(one, total) for key in (name, "before", "lasting")}
    reasons = [NOT_MEASURED] * one
    rows = {
        f"{name}_at_start": np.zeros(one, dtype=bool),
        f"{name}_n": np.zeros(one, dtype=np.int64),
        f"{name}_set": np.zeros(along, dtype=bool),
        value: np.full(along, np.nan),
        f"{value}_ci": np.full((*along, 2), np.nan),
        "accuracy": np.full(along, np.nan),
        "accuracy_ci": np.full((*along, 2), np.nan),
        "best_share": np.full(along, np.nan),
    }
    if answers is not None:
        bootstrap = GroupBootstrap.draw(
            answers.answers[0].groups, seed=question.seed, resamples=question.resamples
        )
        for site, own in answers:
            here = sites.index(site)
            found = question.look(own, bootstrap)
            crossing = found.crossing
            reasons[here] = found.reason
            places["before"][here] = where[crossing.before]
            if crossing.established is not None:
                places[name][here] = where[crossing.established]
            if crossing.lasting is not None:
                places["lasting"][here] = where[crossing.lasting]
            members = where[crossing.members]
            rows[f"{name}_set"][here, members[0] : members[-1] + 1] = True
            rows[f"{name}_at_start"][here] = crossing.earliest == 0
            rows[f"{name}_n"][here] = len(where)
            rows[value][here, where] = found.value
            rows[f"{value}_ci"][here, where] = found.bounds
            means, level = (
                own.resampled_means([own.accuracy()], bootstrap),
                (1 - question.confidence) / 2,
            )
            low, high = means.lower(level, over="each")[0], means.upper(level, over="each")[0]
            rows["accuracy"][here, where] = means.mean[0]
            rows["accuracy_ci"][here, where] = np.stack([low, high], axis=-1).clip(0, 1)
        if answers.chosen is not None:
            for number, site in enumerate(answers.sites[:-1]):
                share = (answers.chosen == number).mean(axis=1)
                rows["best_share"][sites.index(site), where] = share

    rows[f"{name}_reason"] = np.array(reasons)
    names = np.append(axes["checkpoint"].values, "")
    for key in (name, "lasting"):
        rows[f"{key}_checkpoint"] = names[places[key]]
        for unit in ("step", "tokens"):
            counts = np.append(axes[unit].values.astype(float), np.nan)
            rows[f"{key}_{unit}"] = counts[places[key]]
            if key == name:
                ends = [counts[places["before"]], counts[places[key]]]
                rows[f"{key}_{unit}_ci"] = np.stack(ends, axis=-1)
    return rows


def _labelled(
    rows: Sequence[Sequence[Mapping[str, np.ndarray]]],
    probes: Sequence[str | None],
    axes: xr.Dataset,
    question: CrossingSearch,
) -> xr.Dataset:
    name, value, told = question.name, question.value, question.told
    described = {
        f"{name}_set": ("1", f"whether between the checkpoint before and the one {told[name]}"),
        f"{name}_at_start": ("1", f"whether the first checkpoint may be the one {told[name]}"),
        f"{name}_n": ("checkpoints", "checkpoints looked at"),
        f"{name}_reason": ("1", f"why there is no checkpoint {told[name]}"),
        value: (_FRACTION, told[value]),
        f"{value}_ci": (_FRACTION, told[f"{value}_ci"]),
        "accuracy": (_FRACTION, "held-out accuracy"),
        "accuracy_ci": (_FRACTION, f"{question.confidence:.0%} interval of the held-out accuracy"),
        "best_share": ("fraction of folds", "folds for which the site is chosen as the best"),
    }
    for key in (name, "lasting"):
        described[f"{key}_checkpoint"] = ("1", f"checkpoint {told[key]}")
        for unit, units in (("step", "steps"), ("tokens", "tokens")):
            described[f"{key}_{unit}"] = (units, f"{unit} {told[key]}")
    for unit, units in (("step", "steps"), ("tokens", "tokens")):
        ends = f"{unit} of the ends of the set of checkpoints {told[name]}"
        described[f"{name}_{unit}_ci"] = (units, ends)

    variables = {}
    for key, (units, long_name) in described.items():
        array = np.array([[each[key] for each in row] for row in rows])
        bound = ["bound"] if key.endswith("_ci") else []
        along = ["checkpoint"] if array.ndim > 3 + len(bound) else []
        dims = ["concept", "probe", "site", *along, *bound]
        variables[key] = (dims, array, {"units": units, "long_name": long_name})
    data = xr.Dataset(
        variables, coords={"site": [*axes["site"].values.tolist(), BEST], "bound": ["low", "high"]}
    )
    for coordinate in ("layer", "head", "depth"):
        if coordinate not in axes.coords:
            continue
        numbers = np.append(axes[coordinate].values.astype(float), np.nan)
        data = data.assign_coords({coordinate: ("site", numbers, axes[coordinate].attrs)})
    data = data.assign_coords(
        {key: c for key, c in axes.coords.items() if c.dims in (("concept",), ("checkpoint",))}
    )
    return data.isel(probe=0) if probes == [None] else data.assign_coords(probe=list(probes))
