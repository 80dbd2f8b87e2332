"""Whether a vector steers, how strongly, at what cost, and compared with random directions."""

import warnings
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from tlens_trust.activations import collect_activations
from tlens_trust.activations.sites import resolve_sites, site_layer
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.concepts import Concept
from tlens_trust.measures.probe import LinearProbe, fit_logistic_probe
from tlens_trust.steering.compatibility import check_fits, check_other_model
from tlens_trust.steering.evaluated_model import EvaluatedModel, EvaluationPass
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.quantities import (
    Quantity,
    Resamples,
    labelled_quantity,
    random_p,
    wrong_way,
)
from tlens_trust.steering.random_directions import (
    CONTROLS,
    RandomDirections,
    checked_controls,
    describe_draws,
    evaluate_random_directions,
)
from tlens_trust.steering.sampling import SamplingOptions
from tlens_trust.steering.tasks import SteeringTasks
from tlens_trust.steering.training_rows import check_polarity, evaluation_rows
from tlens_trust.steering.vector import SteeringVector

CONDITIONS = ("unsteered", "steered", "opposite")


def evaluate_steering(
    model: Checkpoint | HookedModel | nn.Module,
    vector: SteeringVector,
    concept: Concept,
    *,
    intervention: Intervention,
    tasks: SteeringTasks | None = None,
    sampling: SamplingOptions | None = None,
    controls: Sequence[str] = CONTROLS,
    probe_site: str | int | None = None,
    tokenizer: Any = None,
    seed: int = 0,
    other_model: str = "warn",
    progress: bool = False,
) -> xr.Dataset:
    """Measure the effect of steering on a model, with its damage and its controls.

    Three conditions are compared, statement by statement: unsteered, steered, and steered with the
    sign reversed. Controls are random directions: as long as the vector at the same strength
    (`equal_norm`), or each at the vector's dose (`equal_kl`). An effect that random directions have
    as well is no effect of the concept's direction.

    A vector is evaluated only on groups that it was not estimated from. Extract it from the whole
    concept with `rows=training_rows(concept)`, and pass the whole concept here as well.

    Effects, larger on the trustworthy side:

    - of the statements as plain text: `log_odds`, `log_odds_per_token`, `mc1` and `mc2` of what
      follows the tokens that a group's statements share (see `CandidateTask`). Where statements
      have no counterpart in their group: `likelihood_gap` (see `StatementTask`);
    - of each forced choice, for every statement: `…_log_odds` and `…_trustworthy`;
    - with `probe_site`: `probe_log_odds`, by a logistic probe at a later site. It is fitted to the
      unsteered model on the statements that the vector was estimated from;
    - of generated text, with a judge: `judged`.

    Damage: `neutral_loss` and `kl` on neutral text; `everyday_accuracy`; of each forced choice
    `…_accuracy` (whether answers still depend on the statement), `…_constant` and `…_invalid`; of
    generated text `distinct_1` and `distinct_2`.

    Args:
        model: The model to steer. A `Checkpoint` is loaded, and released at the end.
        vector: The steering vector.
        concept: The whole concept, with the statements that the vector was estimated from.
        intervention: How the vector is used, such as `Intervention(target_kl=0.1)`. For the
            likelihood of an answer, the prompt is the text before the answer.
        tasks: What the model is evaluated on besides the statements. None for the defaults of
            `SteeringTasks`.
        sampling: How many random directions and resamples to draw. None for the defaults of
            `SamplingOptions`.
        controls: `"equal_norm"`, `"equal_kl"`, or both.
        probe_site: Site or layer of a probe, after the steered sites.
        tokenizer: A tokenizer, if a plain model is passed.
        seed: Draws directions and resamples.
        other_model: What to do if the vector is known to come from another run than the model:
            `"warn"`, `"allow"` or `"refuse"`.
        progress: Whether to show a progress bar.

    Returns:
        For each quantity `q`, along `condition`: `q` with `q_ci`, and its change from the unsteered
        model, `q_change` with `q_change_ci`. `q_n` is the number of examples. For effects,
        `q_wrong_way` is the share of examples that moved away from the trustworthy side.

        Along `control`: `q_random`, the change by each random direction (along `draw`). For effects
        also `q_p`, how often one of them changes as much in either sense, and `q_over_random` with
        `q_over_random_ci`, how much more the vector changes than they do on average.

        Also `strength` along `condition`, `random_strength`, `perplexity`, and `generation` along
        `condition` and `prompt`. `kl` is itself a quantity.

        Intervals are those of single numbers, not corrected for how many there are. With fewer than
        50 draws the attribute `random` says that this is a first look.

    Raises:
        ValueError: The concept has no polarity, the vector was estimated from all of it, or an
            argument of steering or of reading is refused.

    Warns:
        UserWarning: The vector comes from another run than the model, does not say what it was
            estimated from, or was estimated from another concept.

    Source:
        Qian et al. (2024), arXiv:2402.19465, for the experiment; Tan et al. (2024),
        arXiv:2407.12404, for counting examples that move the wrong way.

    Examples:
        >>> vector = extract_steering_vector(
        ...     checkpoint, concept, site=2, rows=training_rows(concept)
        ... )  # doctest: +SKIP
        >>> evaluation = evaluate_steering(
        ...     model, vector, concept, intervention=Intervention(target_kl=0.1)
        ... )  # doctest: +SKIP
        >>> evaluation.log_odds_change.sel(condition="steered")  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    tasks = SteeringTasks() if tasks is None else tasks
    sampling = SamplingOptions() if sampling is None else sampling
    kinds = checked_controls(controls)
    checked_seed(seed)
    check_other_model(other_model)
    check_polarity(concept)
    is_held_out = evaluation_rows(vector, concept)
    statements = concept if is_held_out.all() else concept.take(is_held_out)
    with _opened(model, tokenizer) as hooked:
        warning = check_fits(vector, hooked, other_model=other_model)
        if warning is not None:
            warnings.warn(warning, stacklevel=2)
        probe = _later_probe(hooked, vector, concept, ~is_held_out, probe_site)
        evaluated = EvaluatedModel(hooked, statements, tasks, probe=probe)
        total = len(CONDITIONS) + len(kinds) * sampling.draws
        with tqdm(total=total, desc="steering", unit="pass", disable=not progress) as bar:
            passes = {"unsteered": evaluated.unsteered(vector)}
            bar.update()
            at_strength = intervention
            if intervention.strength is None:
                at_strength = evaluated.at_dose(vector, intervention)
            for condition, sign in (("steered", 1.0), ("opposite", -1.0)):
                # The sign of the vector is reversed and not that of the strength: a negative
                # strength of ablation would add the projection instead of removing it.
                passes[condition] = evaluated.evaluate(vector * sign, at_strength)
                bar.update()
            # Random directions get the dose that was measured, even if the user gave a strength.
            kl = passes["steered"].quantities["kl"].mean
            # Both kinds have the same seed, so they compare the same directions.
            random = {
                kind: evaluate_random_directions(
                    evaluated,
                    vector,
                    at_strength.at_dose(kl) if kind == "equal_kl" else at_strength,
                    draws=sampling.draws,
                    seed=seed,
                    advance=bar.update,
                )
                for kind in kinds
            }
        assert at_strength.strength is not None
        data = _labelled(passes, random, float(at_strength.strength), sampling, seed)
        label = str(getattr(hooked.cfg, "model_name", "") or type(hooked).__name__)
    if isinstance(model, Checkpoint):
        label = model.name
    return data.assign_attrs(
        model=label,
        concept=concept.name,
        vector=vector.method,
        source=vector.checkpoint or "",
        sites=", ".join(vector.sites),
        mode=intervention.mode,
        positions=str(intervention.positions),
        units=intervention.units,
        draws=sampling.draws,
        random=describe_draws(sampling.draws),
        confidence=sampling.confidence,
        resamples=sampling.resamples,
        seed=seed,
        statements=len(statements),
    )


def _opened(model: Checkpoint | HookedModel | nn.Module, tokenizer: Any) -> Any:
    if isinstance(model, Checkpoint):
        return model.loaded()
    # A model that was passed belongs to the caller, so it is not released at the end.
    if is_plain_model(model):
        return nullcontext(PlainModel(model, tokenizer))  # type: ignore[arg-type]
    return nullcontext(model)


def _later_probe(
    model: HookedModel,
    vector: SteeringVector,
    concept: Concept,
    is_training_row: np.ndarray,
    probe_site: str | int | None,
) -> tuple[str, LinearProbe] | None:
    """A probe of the unsteered model, fitted on the vector's own statements."""
    if probe_site is None:
        return None
    sites = resolve_sites(model, probe_site)
    last_layer = max(site_layer(site) for site in vector.sites)
    if len(sites) > 1 or site_layer(sites[0]) <= last_layer:
        raise ValueError(
            f"`probe_site` is one site after block {last_layer}, where the vector acts, got "
            f"{probe_site!r}. At the vector's own site a probe would find the vector itself."
        )
    if not is_training_row.any():
        raise ValueError(
            "The probe is fitted on the statements that the vector was estimated from, and this "
            "vector does not say which these are. Leave `probe_site` out."
        )
    training = concept.take(is_training_row)
    activations = collect_activations(model, training, sites=sites)
    labels = torch.from_numpy(training.labels.copy()).long()
    return sites[0], fit_logistic_probe(activations.values[:, 0], labels, C=0.01)


def _labelled(
    passes: Mapping[str, EvaluationPass],
    random: Mapping[str, RandomDirections],
    strength: float,
    sampling: SamplingOptions,
    seed: int,
) -> xr.Dataset:
    """The data set that `evaluate_steering` describes, without its attributes."""
    variables: dict[str, xr.Variable] = {}
    for name, quantity in passes["unsteered"].quantities.items():
        resamples = Resamples.of(quantity, sampling, seed=seed)
        values = np.stack([passes[condition].quantities[name].values for condition in CONDITIONS])
        variables |= _across_conditions(name, quantity, values, resamples)
        # Everyday questions and prompts are not run under random directions.
        if all(name in directions.names for directions in random.values()):
            variables |= _over_random(name, quantity, values, random, resamples, seed)
    data = xr.Dataset(
        variables,
        coords={
            "condition": list(CONDITIONS),
            "control": list(random),
            "bound": ["low", "high"],
        },
    )
    attributes = {"units": "strength", "long_name": "strength, in the units of `steer`"}
    data["strength"] = (("condition",), [0.0, strength, -strength], attributes)
    data["random_strength"] = (
        ("control", "draw"),
        np.stack([directions.strengths for directions in random.values()]),
        attributes | {"long_name": "strength of random directions"},
    )
    for ending in ("", "_ci"):
        # The exponential is increasing, so it maps the bounds of the loss to bounds.
        loss = data[f"neutral_loss{ending}"]
        data[f"perplexity{ending}"] = loss.copy(data=np.exp(loss.values)).assign_attrs(
            units="1", long_name="perplexity on neutral text"
        )
    generations = passes["unsteered"].generations
    if generations:
        data = data.assign_coords(prompt=[generation.prompt for generation in generations])
        data["generation"] = (
            ("condition", "prompt"),
            [
                [generation.text for generation in passes[condition].generations]
                for condition in CONDITIONS
            ],
            {"units": "text", "long_name": "text generated after the prompt"},
        )
    return data


def _across_conditions(
    name: str, quantity: Quantity, values: np.ndarray, resamples: Resamples
) -> dict[str, xr.Variable]:
    change = values - values[0]
    weights = resamples.weights
    dims, dims_ci = ("condition",), ("condition", "bound")
    interval = f"{resamples.confidence:.0%} interval over groups"
    means, changes = (np.average(v, axis=1, weights=weights) for v in (values, change))
    bounds, change_bounds = resamples.interval(values.T), resamples.interval(change.T)
    by_steering = "change by steering"
    variables = {
        name: labelled_quantity(dims, means, quantity),
        f"{name}_ci": labelled_quantity(dims_ci, bounds, quantity, interval),
        f"{name}_n": labelled_quantity((), values.shape[1], quantity, "examples", "examples"),
        f"{name}_change": labelled_quantity(dims, changes, quantity, by_steering),
        f"{name}_change_ci": labelled_quantity(
            dims_ci, change_bounds, quantity, f"{by_steering}, {interval}"
        ),
    }
    if quantity.effect:
        variables[f"{name}_wrong_way"] = labelled_quantity(
            dims,
            [wrong_way(condition_change) for condition_change in change],
            quantity,
            "examples that moved away from the trustworthy side",
            "fraction of examples",
        )
    return variables


def _over_random(
    name: str,
    quantity: Quantity,
    values: np.ndarray,
    random: Mapping[str, RandomDirections],
    resamples: Resamples,
    seed: int,
) -> dict[str, xr.Variable]:
    change = values[1] - values[0]
    mean = float(np.average(change, weights=resamples.weights))
    changes = [directions.values(quantity) - values[0] for directions in random.values()]
    means = np.stack(
        [np.average(by_draw, axis=1, weights=resamples.weights) for by_draw in changes]
    )
    variables = {
        f"{name}_random": labelled_quantity(
            ("control", "draw"), means, quantity, "change by a random direction"
        )
    }
    if quantity.effect:
        bounds = [resamples.over_random(change, by_draw, seed=seed) for by_draw in changes]
        variables |= {
            f"{name}_p": labelled_quantity(
                ("control",),
                [random_p(mean, draw_means) for draw_means in means],
                quantity,
                "p-value of the change among random directions",
                "1",
            ),
            f"{name}_over_random": labelled_quantity(
                ("control",),
                mean - np.nanmean(means, axis=1),
                quantity,
                "change minus that by random directions",
            ),
            f"{name}_over_random_ci": labelled_quantity(
                ("control", "bound"),
                bounds,
                quantity,
                "change minus that by a random direction, interval over groups and directions",
            ),
        }
    return variables
