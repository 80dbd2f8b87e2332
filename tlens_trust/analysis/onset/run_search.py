"""The search for a first checkpoint, for every concept, probe and site of a run folder."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.analysis.onset.crossings import FirstCrossing
from tlens_trust.analysis.onset.outcomes import (
    BEST,
    CELL_VARIABLES,
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
        locate: Locates the checkpoint at one site.
        name: The name of the checkpoint, such as `onset`.
        value: The name of the quantity, such as `gain`.
        descriptions: Descriptions of these, of `lasting`, and of the quantity's `…_ci`.
        floor: Whether the text classifier's outcomes are needed.
        least_p: The p-value that a single checkpoint has to reach.
        confidence: The confidence of the accuracy's intervals.
        resamples: Number of bootstrap resamples.
        seed: Seed of the resamples.
    """

    locate: Callable[[SiteOutcomes, GroupBootstrap], SiteCrossing]
    name: str
    value: str
    descriptions: Mapping[str, str]
    floor: bool
    least_p: float
    confidence: float
    resamples: int
    seed: int


def search_run(
    run: RunFolder,
    search: CrossingSearch,
    *,
    concepts: str | Sequence[str] | None,
    checkpoints: str | int | Sequence[str | int] | None,
) -> xr.Dataset:
    """Search every concept, probe and site of a run.

    Args:
        run: The run folder.
        search: What to search for.
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
    results, missing = {}, []
    for concept in axes["concept"].values.tolist():
        cells = load_run_variables(run.path, concept, CELL_VARIABLES)
        is_selected = np.isin(cells["checkpoint"].values, axes["checkpoint"].values)
        cells = cells.isel(checkpoint=is_selected)
        has_probes = "score" in cells and "probe" in cells["score"].dims
        for probe in cells["probe"].values.tolist() if has_probes else [None]:
            outcomes = probe_outcomes(cells, probe, floor=search.floor)
            if isinstance(outcomes, str):
                missing.append(f"{outcomes}, for {concept!r}{f' by {probe!r}' if probe else ''}")
                continue
            finished = cells["checkpoint"].values[outcomes.finished]
            places = np.flatnonzero(np.isin(axes["checkpoint"].values, finished))
            _check_permutations(cells["accuracy_p"].attrs.get("permutations"), search)
            results[concept, probe] = _ask(outcomes, places, axes, search)
    if not results and any(ONE_SPLIT in reason for reason in missing):
        raise ValueError(one_split_message(run.path))
    if not results:
        raise ValueError(
            f"The run folder {str(run.path)!r} holds too little: it lacks {missing[0]}. Sweep "
            "with probes into a new folder, as `probe_checkpoints` does."
        )
    probes = list(dict.fromkeys(probe for _, probe in results))
    rows = [
        [
            results.get((concept, probe)) or _ask(None, np.array([], dtype=int), axes, search)
            for probe in probes
        ]
        for concept in axes["concept"].values.tolist()
    ]
    return _labelled(rows, probes, axes, search)


def _check_permutations(permutations: int | None, search: CrossingSearch) -> None:
    """Refuse p-values that rest on too few permutations to become small enough."""
    if permutations is not None and 1 / (1 + permutations) > search.least_p:
        raise ValueError(
            f"The p-values of this run rest on {permutations} permutations, so that none lies "
            f"below {1 / (1 + permutations):.3g}; at this confidence it takes "
            f"{search.least_p:.3g}. Sweep with at least {np.ceil(1 / search.least_p):.0f} "
            "`permutations`, or ask with less `confidence`."
        )


def _ask(
    outcomes: ProbeOutcomes | None,
    checkpoint_places: Int[np.ndarray, " checkpoint"],
    axes: xr.Dataset,
    search: CrossingSearch,
) -> dict[str, np.ndarray]:
    """Search all sites of one probe; unknown where nothing was kept.

    Args:
        outcomes: The outcomes of the probe.
        checkpoint_places: The places of its checkpoints on the axis.
        axes: Checkpoints and sites.
        search: What to search for.
    """
    sites = [*axes["site"].values.tolist(), BEST]
    total = axes.sizes["checkpoint"]
    one, along = len(sites), (len(sites), total)
    name, value = search.name, search.value
    # Places of checkpoints on the axis. The place past its end means never, so that one
    # appended "" or NaN answers for it.
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
    if outcomes is not None:
        bootstrap = GroupBootstrap.draw(
            outcomes.outcomes[0].groups, seed=search.seed, resamples=search.resamples
        )
        for site, site_outcomes in outcomes:
            site_place = sites.index(site)
            site_crossing = search.locate(site_outcomes, bootstrap)
            crossing = site_crossing.crossing
            reasons[site_place] = site_crossing.reason
            places["before"][site_place] = checkpoint_places[crossing.before]
            if crossing.established is not None:
                places[name][site_place] = checkpoint_places[crossing.established]
            if crossing.lasting is not None:
                places["lasting"][site_place] = checkpoint_places[crossing.lasting]
            members = checkpoint_places[crossing.members]
            rows[f"{name}_set"][site_place, members[0] : members[-1] + 1] = True
            rows[f"{name}_at_start"][site_place] = crossing.earliest == 0
            rows[f"{name}_n"][site_place] = len(checkpoint_places)
            rows[value][site_place, checkpoint_places] = site_crossing.value
            rows[f"{value}_ci"][site_place, checkpoint_places] = site_crossing.bounds
            means, level = (
                site_outcomes.resampled_means([site_outcomes.accuracy()], bootstrap),
                (1 - search.confidence) / 2,
            )
            low, high = means.lower(level, over="each")[0], means.upper(level, over="each")[0]
            rows["accuracy"][site_place, checkpoint_places] = means.mean[0]
            rows["accuracy_ci"][site_place, checkpoint_places] = np.stack(
                [low, high], axis=-1
            ).clip(0, 1)
        if outcomes.best_sites is not None:
            for number, site in enumerate(outcomes.sites[:-1]):
                share = (outcomes.best_sites == number).mean(axis=1)
                rows["best_share"][sites.index(site), checkpoint_places] = share

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
    search: CrossingSearch,
) -> xr.Dataset:
    name, value, descriptions = search.name, search.value, search.descriptions
    attributes = {
        f"{name}_set": (
            "1",
            f"whether between the checkpoint before and the one {descriptions[name]}",
        ),
        f"{name}_at_start": (
            "1",
            f"whether the first checkpoint may be the one {descriptions[name]}",
        ),
        f"{name}_n": ("checkpoints", "checkpoints used"),
        f"{name}_reason": ("1", f"why there is no checkpoint {descriptions[name]}"),
        value: (_FRACTION, descriptions[value]),
        f"{value}_ci": (_FRACTION, descriptions[f"{value}_ci"]),
        "accuracy": (_FRACTION, "held-out accuracy"),
        "accuracy_ci": (_FRACTION, f"{search.confidence:.0%} interval of the held-out accuracy"),
        "best_share": ("fraction of folds", "folds for which the site is chosen as the best"),
    }
    for key in (name, "lasting"):
        attributes[f"{key}_checkpoint"] = ("1", f"checkpoint {descriptions[key]}")
        for unit, units in (("step", "steps"), ("tokens", "tokens")):
            attributes[f"{key}_{unit}"] = (units, f"{unit} {descriptions[key]}")
    for unit, units in (("step", "steps"), ("tokens", "tokens")):
        ends = f"{unit} of the ends of the set of checkpoints {descriptions[name]}"
        attributes[f"{name}_{unit}_ci"] = (units, ends)

    variables = {}
    for key, (units, long_name) in attributes.items():
        array = np.array([[result[key] for result in row] for row in rows])
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
