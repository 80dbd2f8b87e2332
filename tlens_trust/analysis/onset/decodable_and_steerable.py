"""Readable, writable, expressed: three properties of a concept, and when each one begins.

A concept is *readable* at a checkpoint if a probe decodes its labels. It is *writable* if a vector
of that checkpoint steers that checkpoint. It is *expressed* if the unsteered model prefers the
trustworthy side. None follows from another: a probe may decode what the model does not use.
"""

import os
import tempfile
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import xarray as xr

from tlens_trust.analysis.onset.onset import find_onset
from tlens_trust.analysis.onset.steering_onsets import (
    OnsetEstimate,
    OnsetLevels,
    change_onset,
    check_quantities,
    decoding_onset,
    expression_onset,
    label_onsets,
    steering_onset,
)
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.concepts import Concept
from tlens_trust.steering.estimation_options import EstimationOptions
from tlens_trust.steering.evaluated_model import EvaluatedModel
from tlens_trust.steering.extraction import estimate_vector
from tlens_trust.steering.intervention import Intervention, checked_dose
from tlens_trust.steering.quantities import Quantity
from tlens_trust.steering.sampling import SamplingOptions
from tlens_trust.steering.target_evaluation import TargetResult, evaluate_target
from tlens_trust.steering.tasks import SteeringTasks
from tlens_trust.steering.training_rows import (
    check_polarity,
    checked_rows,
    evaluation_concept,
    training_rows,
)
from tlens_trust.tracing.probing import probe_checkpoints
from tlens_trust.tracing.sweep_arguments import checked_checkpoints

# More than the 79 that `_check_draws` requires at 95% confidence.
_DRAWS = 100


def compare_onsets(
    series: CheckpointSeries | Sequence[Checkpoint],
    concept: Concept,
    estimation: EstimationOptions,
    *,
    intervention: Intervention | None = None,
    tasks: SteeringTasks | None = None,
    sampling: SamplingOptions | None = None,
    effect: str = "log_odds",
    expression: str = "mc1",
    run_folder: str | os.PathLike[str] | None = None,
    floor: bool = True,
    margin: float = 0.15,
    margin_nats: float = 0.5,
    seed: int = 0,
    progress: bool = True,
) -> xr.Dataset:
    """Estimate when a concept becomes readable, writable and expressed, on one axis.

    *Readable*: `find_onset` at the site, from a run folder or from a sweep made for it.

    *Writable*: the first checkpoint whose own vector moves `effect` to the trustworthy side, more
    than random directions do at the same dose. Vectors are estimated from one half of the groups
    and evaluated on the other. Two tests have to show it: bounds over groups of the change minus
    the mean change by random directions, and a p-value. The p-value is the share of random
    directions that change as much, in either sense.

    *Expressed*: the first checkpoint whose unsteered likelihoods favour the trustworthy side on
    held-out groups: `expression` is above one half if it is a fraction, else above 0.

    Each onset is a set of neighbouring checkpoints, as for `find_onset`. The set ends with the
    onset, which is corrected for the number of checkpoints. It is shown by bounds that hold for all
    checkpoints at once and corrected p-values, or by every checkpoint from there to the last. The
    set begins with the last checkpoint up to which all are shown to have no more than a margin.

    Args:
        series: Checkpoints of one run.
        concept: The whole concept.
        estimation: How vectors are estimated, at one site, which is also probed. Without `rows`,
            they are estimated from half of the groups, drawn by the seed.
        intervention: How vectors are used, with a dose. None: added at all tokens, at 0.1 nats per
            token.
        tasks: What models are evaluated on besides the statements, without prompts. Everyday
            questions are left out, since no onset depends on them.
        sampling: How many random directions to draw at each checkpoint, how many resamples, and the
            confidence of the sets. None: 100 directions. A p-value is at least `1 / (1 + draws)`.
        effect: The quantity of `evaluate_steering` that a vector has to move: `"log_odds"`,
            `"likelihood_gap"`, or one of a choice, as `"follow_up_log_odds"`.
        expression: The quantity of the unsteered model: `"mc1"`, `"likelihood_gap"`, or one of a
            choice, as `"follow_up_accuracy"`.
        run_folder: The `out=` of a sweep of this series over this concept that includes the site.
            None: the series is swept at the site.
        floor: Whether a concept also has to be decoded above its text floor.
        margin: The largest gain that counts as negligible, for fractions.
        margin_nats: The same for quantities in nats.
        seed: Deals groups, draws directions and resamples.
        progress: Whether to show a progress bar.

    Returns:
        Along `kind` (`"readable"`, `"writable"`, `"expressed"`): `onset_checkpoint` ("" for never),
        `onset_step` and `onset_tokens` with the ends of their sets (`…_ci`), `lasting_checkpoint`,
        `lasting_step` and `lasting_tokens`. Also along `checkpoint`: `onset_set`, and `value` with
        `value_ci`, in the `units` of each kind. `writable_p` along `checkpoint`.

    Raises:
        ValueError: There is no such quantity, there are too few random directions for an onset at
            this confidence, or an argument of reading or steering is refused.

    Examples:
        >>> onsets = compare_onsets(series, concept, EstimationOptions(sites=2))  # doctest: +SKIP
        >>> onsets.onset_step.sel(kind="writable")  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    # A dose under which text still reads as text.
    intervention = Intervention(target_kl=0.1) if intervention is None else intervention
    sampling = SamplingOptions(draws=_DRAWS) if sampling is None else sampling
    # No onset depends on everyday questions.
    tasks = replace(SteeringTasks() if tasks is None else tasks, everyday=False)
    tasks.check_writes_nothing("compare_onsets")
    target_kl = checked_dose(intervention)
    site = _checked_site(estimation)
    checked_seed(seed)
    checkpoints = checked_checkpoints(series)
    check_polarity(concept)
    # The set has two ends, each of which may be wrong in half of the runs that may fail.
    levels = OnsetLevels((1 - sampling.confidence) / 2, sampling.resamples, seed)
    _check_draws(sampling.draws, levels.level)
    rows = training_rows(concept, seed=seed) if estimation.rows is None else estimation.rows
    numbers = checked_rows(rows, concept)
    estimation = replace(estimation, rows=numbers)
    statements = evaluation_concept(concept, numbers)
    names = [checkpoint.name for checkpoint in checkpoints]
    with tempfile.TemporaryDirectory() as folder:
        if run_folder is None:
            _sweep(checkpoints, concept, estimation, folder, seed=seed)
        gains = find_onset(
            folder if run_folder is None else run_folder,
            concepts=concept.name,
            checkpoints=names,
            margin=margin,
            floor=floor,
            confidence=sampling.confidence,
            seed=seed,
        )
        readable = decoding_onset(gains.isel(concept=0), site, names)
    results: list[TargetResult] = []
    total = len(checkpoints) * (2 + sampling.draws)
    with tqdm(total=total, desc="steering", unit="pass", disable=not progress) as bar:
        for checkpoint in checkpoints:
            vector = estimate_vector(checkpoint, concept, estimation, seed=seed)
            with checkpoint.loaded() as model:
                result = evaluate_target(
                    EvaluatedModel(model, statements, tasks),
                    [vector],
                    intervention,
                    draws=sampling.draws,
                    seed=seed,
                    advance=bar.update,
                )
            results.append(result)
            # A wrong name fails after the first checkpoint and not at the end of the run.
            check_quantities(results[0], effect, expression)
    margins = {
        name: margin if "fraction" in results[0].unsteered[name].units else margin_nats
        for name in (effect, expression)
    }
    writable, p = steering_onset(results, effect, levels, margin=margins[effect])
    expressed = expression_onset(results, expression, levels, margin=margins[expression])
    onsets: dict[str, OnsetEstimate] = {
        "readable": readable,
        "writable": writable,
        "expressed": expressed,
    }
    steps = _numbers([checkpoint.step for checkpoint in checkpoints])
    tokens = _numbers([checkpoint.tokens for checkpoint in checkpoints])
    return label_onsets(onsets, names, steps, tokens, p).assign_attrs(
        concept=concept.name,
        effect=effect,
        expression=expression,
        target_kl=target_kl,
        draws=sampling.draws,
        margin=margin,
        margin_nats=margin_nats,
        confidence=sampling.confidence,
        resamples=sampling.resamples,
        seed=seed,
    )


def find_steering_onset(
    matrix: xr.Dataset,
    effect: str = "log_odds",
    *,
    target: str | int = -1,
    margin: float = 0.5,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> xr.Dataset:
    """Find the first source whose vector steers a target: how early the direction exists.

    It is the first source whose vector moves the target's `effect` to the trustworthy side, more
    than random directions do at the same dose. The correction for the number of sources and the
    kind of set are those of `compare_onsets`.

    Args:
        matrix: The result of `steering_matrix`, with at least 79 draws for the usual confidence.
        effect: A quantity kept by example: `"log_odds"`, `"likelihood_gap"`, or one of a choice.
        target: Name or number of the target.
        margin: The largest change that counts as negligible, in the effect's own units.
        confidence: Confidence of the set.
        resamples: The number of bootstrap resamples.
        seed: Draws them.

    Returns:
        As `compare_onsets`, for the one kind `"writable"`, with the sources as `checkpoint`.

    Raises:
        ValueError: There is no such effect or target, or there are too few random directions.

    Examples:
        >>> onset = find_steering_onset(matrix, "follow_up_log_odds")  # doctest: +SKIP
        >>> onset.onset_step_ci  # doctest: +SKIP
    """
    by_example = [str(name).removesuffix("_of_example") for name in matrix]
    effects = [name for name in by_example if f"{name}_p" in matrix and f"{name}_group" in matrix]
    if effect not in effects:
        raise ValueError(
            f"{effect!r} is not kept by example here. Choose one of {', '.join(effects) or 'none'}."
        )
    targets = [str(name) for name in matrix["target"].values]
    if isinstance(target, int) and -len(targets) <= target < len(targets):
        target = targets[target]
    if target not in targets:
        raise ValueError(f"There is no target {target!r} here. Choose one of {', '.join(targets)}.")
    levels = OnsetLevels((1 - confidence) / 2, resamples, seed)
    _check_draws(matrix.sizes["draw"], levels.level)
    column = matrix.sel(target=target)
    axis = f"{effect}_example"
    # `mean` leaves out directions that did not reach the dose, as `steering_onset` does.
    changes = column[f"{effect}_of_example"] - column[f"{effect}_random_of_example"].mean("draw")
    attributes = column[f"{effect}_change"].attrs
    long_name = str(attributes.get("long_name", effect))
    quantity = Quantity(
        effect,
        column[f"{effect}_unsteered_of_example"].values,
        tuple(map(str, matrix[f"{effect}_group"].values)),
        str(attributes.get("units", "")),
        long_name,
    )
    p = column[f"{effect}_p"].values
    onset = change_onset(
        changes.transpose("source", axis).values,
        p,
        quantity,
        levels,
        description=f"{long_name}, less what random directions change",
        margin=margin,
    )
    return label_onsets(
        {"writable": onset},
        [str(name) for name in matrix["source"].values],
        matrix["source_step"].values.astype(float),
        matrix["source_tokens"].values.astype(float),
        p,
    ).assign_attrs(
        concept=matrix.attrs.get("concept", ""),
        effect=effect,
        target=str(target),
        margin=margin,
        confidence=confidence,
        resamples=resamples,
        seed=seed,
    )


def _check_draws(draws: int, level: float) -> None:
    """Refuse so few draws that no p-value could be small enough."""
    # The least p-value is `1 / (1 + draws)`, and it must come down to half of the level. The small
    # number allows for rounding.
    least_draws = int(np.ceil(2 / level - 1e-9)) - 1
    if draws < least_draws:
        raise ValueError(
            f"With {draws} random directions no p-value lies below {1 / (1 + draws):.3g}, and this "
            f"confidence needs {level / 2:.3g}. Take at least {least_draws} `draws`, or a lower "
            "`confidence`."
        )


def _checked_site(estimation: EstimationOptions) -> str | int:
    sites = estimation.sites
    if isinstance(sites, Sequence) and not isinstance(sites, str) and len(sites) == 1:
        (sites,) = sites
    if isinstance(sites, int) or (isinstance(sites, str) and sites.startswith("blocks.")):
        return sites
    raise ValueError(
        f"Onsets are compared at one site, got sites={estimation.sites!r}. Give a layer number, or "
        "a site's name, as 'blocks.8.hook_resid_post'."
    )


def _sweep(
    checkpoints: Sequence[Checkpoint],
    concept: Concept,
    estimation: EstimationOptions,
    folder: str,
    *,
    seed: int,
) -> None:
    """Probe the concept at the site of the vectors, into a run folder."""
    probe_checkpoints(
        checkpoints,
        concept,
        sites=[_checked_site(estimation)],
        position=estimation.position,
        bos=estimation.bos,
        out=folder,
        store=estimation.store,
        seed=seed,
        batch_tokens=estimation.batch_tokens,
        untrained=None,
        progress=False,
    )


def _numbers(counts: Sequence[int | None]) -> np.ndarray:
    return np.array([np.nan if count is None else float(count) for count in counts])
