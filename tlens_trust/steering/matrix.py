"""Whether a vector of one checkpoint steers another: every source on every target."""

import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import xarray as xr
from einops import rearrange
from jaxtyping import Float

from tlens_trust.activations.model_source import is_stored
from tlens_trust.activations.sites import site_layer
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.model_cache import ModelCache, check_loaded_at_once, same_model
from tlens_trust.concepts import Concept
from tlens_trust.steering.compatibility import check_fits, check_other_model
from tlens_trust.steering.estimation_options import EstimationOptions
from tlens_trust.steering.evaluated_model import EvaluatedModel
from tlens_trust.steering.extraction import estimate_vector
from tlens_trust.steering.intervention import Intervention, checked_dose
from tlens_trust.steering.quantities import (
    Quantity,
    Resamples,
    labelled_quantity,
    random_p,
    wrong_way,
)
from tlens_trust.steering.random_directions import describe_draws
from tlens_trust.steering.sampling import SamplingOptions
from tlens_trust.steering.target_evaluation import TargetResult, evaluate_target
from tlens_trust.steering.tasks import SteeringTasks
from tlens_trust.steering.training_rows import (
    check_polarity,
    checked_rows,
    evaluation_concept,
    training_rows,
)
from tlens_trust.steering.vector import SteeringVector

_CELL = ("source", "target")
_STRENGTH_UNITS = {"vector": "lengths of the vector", "rms": "lengths of the residual stream"}


def steering_matrix(
    sources: Checkpoint | Iterable[Checkpoint],
    targets: Checkpoint | Iterable[Checkpoint],
    concept: Concept,
    estimation: EstimationOptions,
    *,
    intervention: Intervention,
    tasks: SteeringTasks | None = None,
    sampling: SamplingOptions | None = None,
    opposite: bool = False,
    seed: int = 0,
    loaded_at_once: int | None = None,
    other_model: str = "warn",
    progress: bool = True,
) -> xr.Dataset:
    """Steer each target by a vector of each source, all at one dose, on held-out statements.

    The strength of each vector is the one that moves the target's own predictions on neutral text
    by the dose. Random directions at the same dose are the control. If a vector steers another
    checkpoint than its own, the direction existed in its checkpoint and had the same meaning there.
    If it does not, the direction may lie elsewhere, or have no meaning.

    Each target is run once without steering, and once for each source (twice with `opposite`) and
    each random direction. Random directions of equal norm are not among the controls, since they
    would double the number of passes; `evaluate_steering` has them.

    Args:
        sources: Checkpoints whose vectors steer.
        targets: Checkpoints that are steered. A fine-tuned model of the same width may be among
            them.
        concept: The whole concept. Half of its groups are for the vectors, the others for their
            evaluation.
        estimation: How vectors are estimated, and at which site. Without `rows`, they are estimated
            from half of the groups, drawn by the seed (`training_rows`). The groups of `rows` are
            left out of the evaluation.
        intervention: How the vectors are used, with a dose, such as `Intervention(target_kl=0.1)`.
        tasks: What targets are evaluated on besides the statements, without prompts. None for the
            defaults of `SteeringTasks`.
        sampling: How many random directions to draw for each target, and how many resamples. None
            for the defaults of `SamplingOptions`.
        opposite: Whether to steer with the sign reversed too.
        seed: Deals groups, and draws directions and resamples.
        loaded_at_once: How many checkpoints may be loaded at the same time. None: as many as fit in
            a quarter of the free memory, and at least one.
        other_model: What to do if a source is known to be of another run than a target: `"warn"`
            (once for each target), `"allow"` or `"refuse"`. Give `"allow"` for a target that was
            fine-tuned from the run.
        progress: Whether to show a progress bar.

    Returns:
        For each quantity `q` of `evaluate_steering`, along `source` and `target`: `q_change` with
        `q_change_ci`; along `target`: `q_unsteered`. For effects also `q_wrong_way`, `q_p`,
        `q_over_random` with `q_over_random_ci`, and `q_random`, the change by each random direction
        (along `target` and `draw`). With `opposite`: `q_opposite`.

        For log-odds, example by example: `q_of_example`, `q_random_of_example` and
        `q_unsteered_of_example`. Also `strength` and the `kl_change` at it, the `norm` of each
        source's vector, and the `cosine` between the vectors of two sources (`source`,
        `other_source`).

        Intervals are those of single cells, not corrected for the number of cells.

    Raises:
        ValueError: As `evaluate_steering`; or the intervention has no dose, there are prompts, two
            checkpoints of one axis share a name, or a target has another width.

    Warns:
        UserWarning: Vectors come from another run than a target.

    Source:
        Qian et al. (2024), arXiv:2402.19465.

    Examples:
        >>> matrix = steering_matrix(
        ...     series,
        ...     [series[-1]],
        ...     concept,
        ...     EstimationOptions(sites=2),
        ...     intervention=Intervention(target_kl=0.1),
        ... )  # doctest: +SKIP
        >>> matrix.log_odds_over_random.isel(target=0)  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    tasks = SteeringTasks() if tasks is None else tasks
    sampling = SamplingOptions() if sampling is None else sampling
    target_kl = checked_dose(intervention)
    tasks.check_writes_nothing("steering_matrix")
    checked_seed(seed)
    check_loaded_at_once(loaded_at_once)
    check_other_model(other_model)
    check_polarity(concept)
    source_axis = _checked_axis(sources, "sources")
    target_axis = _checked_axis(targets, "targets")
    rows = training_rows(concept, seed=seed) if estimation.rows is None else estimation.rows
    numbers = checked_rows(rows, concept)
    estimation = replace(estimation, rows=numbers)
    statements = evaluation_concept(concept, numbers)
    # Free memory is measured on the device to which checkpoints will be loaded.
    loading = next(
        (point.loading for point in (*source_axis, *target_axis) if point.in_memory is None),
        Loading(),
    )
    total = len(source_axis) + len(target_axis) * (1 + len(source_axis) + sampling.draws)
    with (
        ModelCache(loading, loaded_at_once) as models,
        tqdm(total=total, desc="steering", unit="pass", disable=not progress) as bar,
    ):

        def vector_of(source: Checkpoint, *, keep: bool) -> SteeringVector:
            if source.in_memory is not None or is_stored(source, concept, estimation):
                return estimate_vector(source, concept, estimation, seed=seed)
            with models.open_model(source, keep=keep) as model:
                return estimate_vector(model, concept, estimation, seed=seed, checkpoint=source)

        is_target = [
            any(same_model(source, target) for target in target_axis) for source in source_axis
        ]
        by_source: dict[int, SteeringVector] = {}
        # Sources that are no targets come first, while no model is kept that they could displace.
        for number in sorted(range(len(source_axis)), key=is_target.__getitem__):
            by_source[number] = vector_of(source_axis[number], keep=is_target[number])
            bar.update()
        vectors = [by_source[number] for number in range(len(source_axis))]
        by_target: dict[int, TargetResult] = {}
        for number in models.order_loaded_first(target_axis):
            with models.open_model(target_axis[number]) as model:
                notes = [check_fits(vector, model, other_model=other_model) for vector in vectors]
                warning = next((note for note in notes if note is not None), None)
                if warning is not None:
                    warnings.warn(warning, stacklevel=2)
                by_target[number] = evaluate_target(
                    EvaluatedModel(model, statements, tasks),
                    vectors,
                    intervention,
                    draws=sampling.draws,
                    seed=seed,
                    opposite=opposite,
                    advance=bar.update,
                )
        results = [by_target[number] for number in range(len(target_axis))]
    data = _labelled(results, vectors, source_axis, target_axis, sampling=sampling, seed=seed)
    data["strength"].attrs["units"] = _STRENGTH_UNITS[intervention.units]
    return data.assign_coords(
        site=", ".join(vectors[0].sites), layer=site_layer(vectors[0].sites[0])
    ).assign_attrs(
        concept=concept.name,
        method=vectors[0].method,
        mode=intervention.mode,
        positions=str(intervention.positions),
        target_kl=float(target_kl),
        draws=sampling.draws,
        random=describe_draws(sampling.draws),
        confidence=sampling.confidence,
        resamples=sampling.resamples,
        seed=seed,
        statements=len(statements),
    )


def _checked_axis(
    checkpoints: Checkpoint | Iterable[Checkpoint], axis: str
) -> tuple[Checkpoint, ...]:
    points = (checkpoints,) if isinstance(checkpoints, Checkpoint) else tuple(checkpoints)
    non_checkpoints = [point for point in points if not isinstance(point, Checkpoint)]
    if non_checkpoints or not points:
        got = f"a {type(non_checkpoints[0]).__name__}" if non_checkpoints else "none"
        raise ValueError(
            f"`{axis}` holds at least one Checkpoint, and nothing else, got {got}. Give a series, "
            "or a list such as `[series[-1]]`."
        )
    names = [point.name for point in points]
    repeated_names = [name for name in names if names.count(name) > 1]
    if repeated_names:
        raise ValueError(
            f"`{axis}` holds two checkpoints named {repeated_names[0]!r}. Take each once."
        )
    return points


def _labelled(
    results: Sequence[TargetResult],
    vectors: Sequence[SteeringVector],
    sources: Sequence[Checkpoint],
    targets: Sequence[Checkpoint],
    *,
    sampling: SamplingOptions,
    seed: int,
) -> xr.Dataset:
    """The data set that `steering_matrix` describes, without its attributes."""
    variables: dict[str, xr.Variable] = {}
    for name, quantity in results[0].unsteered.items():
        resamples = Resamples.of(quantity, sampling, seed=seed)
        variables |= _labelled_cells(name, quantity, results, resamples, seed)
    strengths = np.stack([result.strengths for result in results], axis=1)
    norms = np.array([float(vector.norms.square().sum().sqrt()) for vector in vectors])
    variables["strength"] = xr.Variable(
        _CELL, strengths, {"units": "lengths of the vector", "long_name": "strength at the dose"}
    )
    variables["norm"] = xr.Variable(
        ("source",), norms, {"units": "activation", "long_name": "length of the source's vector"}
    )
    # The method `iti` may choose other heads at each source, and then no cosine is defined.
    cosines = [
        [float(vector.cosine(partner).mean()) for partner in vectors]
        if all(vector.sites == partner.sites for partner in vectors)
        else [np.nan] * len(vectors)
        for vector in vectors
    ]
    variables["cosine"] = xr.Variable(
        ("source", "other_source"),
        np.array(cosines),
        {"units": "1", "long_name": "cosine between the sources' vectors"},
    )
    coordinates = {
        **_along("source", sources),
        **_along("target", targets),
        "other_source": [checkpoint.name for checkpoint in sources],
        "bound": ["low", "high"],
    }
    return xr.Dataset(variables, coords=coordinates)


def _along(axis: str, checkpoints: Sequence[Checkpoint]) -> Mapping[str, object]:
    def numbers(attribute: str) -> tuple[str, np.ndarray]:
        counts = [getattr(checkpoint, attribute) for checkpoint in checkpoints]
        return axis, np.array([np.nan if count is None else float(count) for count in counts])

    return {
        axis: [checkpoint.name for checkpoint in checkpoints],
        f"{axis}_step": numbers("step"),
        f"{axis}_tokens": numbers("tokens"),
    }


def _labelled_cells(
    name: str,
    quantity: Quantity,
    results: Sequence[TargetResult],
    resamples: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    weights = resamples.weights
    unsteered = np.stack([result.unsteered[name].values for result in results])
    steered = np.stack(
        [[quantities[name].values for quantities in result.steered] for result in results], axis=1
    )
    change = steered - unsteered

    def mean(values: np.ndarray) -> np.ndarray:
        return np.asarray(np.average(values, axis=-1, weights=weights))

    interval = f"{resamples.confidence:.0%} interval over groups"
    examples = rearrange(change, "source target example -> example source target")
    variables = {
        f"{name}_unsteered": labelled_quantity(("target",), mean(unsteered), quantity, "unsteered"),
        f"{name}_unsteered_ci": labelled_quantity(
            ("target", "bound"), resamples.interval(unsteered.T), quantity, f"unsteered, {interval}"
        ),
        f"{name}_change": labelled_quantity(_CELL, mean(change), quantity, "change by steering"),
        f"{name}_change_ci": labelled_quantity(
            (*_CELL, "bound"),
            resamples.interval(examples),
            quantity,
            f"change by steering, {interval}",
        ),
        f"{name}_n": labelled_quantity((), len(weights), quantity, "examples", "examples"),
    }
    if all(result.opposite for result in results):
        reversed_sign = np.stack(
            [[quantities[name].values for quantities in result.opposite] for result in results],
            axis=1,
        )
        variables[f"{name}_opposite"] = labelled_quantity(
            _CELL,
            mean(reversed_sign - unsteered),
            quantity,
            "change by steering with the sign reversed",
        )
    if not any(name in result.random.names for result in results):
        return variables
    random = np.stack([result.random.values(quantity) for result in results]) - unsteered[:, None]
    variables[f"{name}_random"] = labelled_quantity(
        ("target", "draw"), mean(random), quantity, "change by a random direction at the dose"
    )
    if quantity.effect:
        variables |= _effect(name, quantity, change, random, resamples, seed)
    # `find_steering_onset` resamples examples itself, so it needs their values.
    if name.endswith("log_odds") or name == "likelihood_gap":
        axis = f"{name}_example"
        variables |= {
            f"{name}_of_example": labelled_quantity(
                (*_CELL, axis), change, quantity, "change by steering, example by example"
            ),
            f"{name}_random_of_example": labelled_quantity(
                ("target", "draw", axis), random, quantity, "change by a random direction"
            ),
            f"{name}_unsteered_of_example": labelled_quantity(
                ("target", axis), unsteered, quantity, "unsteered, example by example"
            ),
            f"{name}_group": xr.Variable(
                (axis,), list(quantity.groups), {"units": "1", "long_name": "group"}
            ),
        }
    return variables


def _effect(
    name: str,
    quantity: Quantity,
    change: np.ndarray,
    random: np.ndarray,
    resamples: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    sources, targets = change.shape[:2]
    weights = resamples.weights
    means = np.average(change, axis=-1, weights=weights)
    random_means = np.average(random, axis=-1, weights=weights)
    wrong_shares, p = np.empty((sources, targets)), np.empty((sources, targets))
    bounds = np.empty((sources, targets, 2))
    for source, target in np.ndindex(sources, targets):
        cell = change[source, target]
        wrong_shares[source, target] = wrong_way(cell)
        p[source, target] = random_p(float(means[source, target]), random_means[target])
        bounds[source, target] = resamples.over_random(cell, random[target], seed=seed)
    away = "examples that moved away from the trustworthy side"
    over_random = "change minus that by random directions"
    return {
        f"{name}_wrong_way": labelled_quantity(
            _CELL, wrong_shares, quantity, away, "fraction of examples"
        ),
        f"{name}_p": labelled_quantity(_CELL, p, quantity, "p-value among random directions", "1"),
        f"{name}_over_random": labelled_quantity(
            _CELL, means - _mean_of_finite(random_means), quantity, over_random
        ),
        f"{name}_over_random_ci": labelled_quantity(
            (*_CELL, "bound"),
            bounds,
            quantity,
            f"{over_random}, interval over groups and directions",
        ),
    }


def _mean_of_finite(values: Float[np.ndarray, "target draw"]) -> Float[np.ndarray, " target"]:
    """Mean over the finite draws; NaN where there is none."""
    # `np.nanmean` would warn about a target at which no direction reaches the dose.
    finite = np.isfinite(values)
    sums = np.where(finite, values, 0.0).sum(axis=1)
    means: np.ndarray = np.divide(
        sums, finite.sum(axis=1), out=np.full(len(values), np.nan), where=finite.any(axis=1)
    )
    return means
