"""Whether a vector steers, how much, at what cost, and beside what nothing does."""

import warnings
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import nn

from tlens_trust.activations import collect_activations
from tlens_trust.activations.sites import resolve_sites, site_layer
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.concepts import Concept
from tlens_trust.measures.probe import LinearProbe, fit_logistic_probe
from tlens_trust.steering.battery import Battery, Manner
from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.compatibility import check_fits
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.controls import (
    CONTROLS,
    DRAWS_FOR_A_CLAIM,
    check_draws,
    read_random,
)
from tlens_trust.steering.evaluation_data import CONDITIONS, label_evaluation
from tlens_trust.steering.generations import Judge
from tlens_trust.steering.likelihood import DEFAULT_BATCH_TOKENS
from tlens_trust.steering.neutral_reading import NeutralReading
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.splits import rows_to_try
from tlens_trust.steering.vector import SteeringVector


def evaluate_steering(
    model: Checkpoint | HookedModel | nn.Module,
    vector: SteeringVector,
    concept: Concept,
    *,
    strength: float | int | None = None,
    target_kl: float | None = None,
    mode: str = "add",
    positions: Positions = "all",
    when: ProbeFires | LinearProbe | None = None,
    units: str = "vector",
    choices: Sequence[ForcedChoice] = (),
    prompts: Sequence[str] = (),
    max_new_tokens: int = 32,
    judge: Judge | None = None,
    probe_site: str | int | None = None,
    neutral: Sequence[str] | None = None,
    everyday: bool = True,
    draws: int = DRAWS_FOR_A_CLAIM,
    controls: Sequence[str] = CONTROLS,
    chat: bool | None = None,
    tokenizer: Any = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    other_model: str = "warn",
    progress: bool = False,
) -> xr.Dataset:
    """Measure what steering does to a model, with its cost and its controls beside it.

    Three conditions are compared, statement by statement: the model as it is, steered, and steered
    by as much the other way. Beside them stand random directions, as long as the vector at the same
    strength (`equal_norm`), and each as strong as moves neutral text by as much (`equal_kl`). What
    such directions do too is nothing that the concept's direction does.

    Nothing is tried on what the vector was made of: pass the whole concept that the vector was
    extracted from, with `rows=training_rows(concept)`; groups that the vector has seen are left
    out here.

    Effects, each of which is larger the more the model is on the trustworthy side:

    - of the statements themselves, as plain text: `log_odds`, `log_odds_per_token`, `mc1` and `mc2`
      of what follows after the tokens that the statements of a group share (see `CandidateTask`);
      where statements have nobody to be compared with, `likelihood_gap` (see `StatementTask`);
    - of each of `choices`, put for every statement: `…_log_odds` and `…_trustworthy`;
    - with `probe_site`, `probe_log_odds`, of the statements by a logistic probe at a later site,
      fitted to the unsteered model on the statements that the vector was made of.

    Damage: `neutral_loss` and `kl` on neutral text; `everyday_accuracy`; of each of `choices`,
    `…_accuracy` (whether answers still depend on the statement), `…_constant` and `…_invalid`; of
    what is written after `prompts`, `distinct_1` and `distinct_2`, and `judged` with a judge.

    Args:
        model: Whom to steer; a `Checkpoint` is loaded and let go of.
        vector: What to steer by.
        concept: Statements to try it on, those that the vector has seen among them.
        strength: How strongly, as `steer` takes it; or give `target_kl`.
        target_kl: The dose: how far neutral text is moved, in nats a token.
        mode: As `steer` takes it, and so are the following.
        positions: Which tokens are steered. Where the likelihood of an answer or continuation is
            asked, the prompt is what stands before it.
        when: Steer only where a probe fires.
        units: What the strength is counted in.
        choices: Forced choices; `FOLLOW_UPS` and `PAPER_CHOICES` hold some.
        prompts: What to let the model go on from, greedily.
        max_new_tokens: How many tokens to write at most.
        judge: Scores what is written, larger on the trustworthy side: any function from texts to
            numbers; `classifier_judge` makes one of a text-classification model.
        probe_site: Where to read a probe: a site behind those that are steered, or its layer.
        neutral: Texts to measure dose and damage on; None for those embedded.
        everyday: Whether to ask everyday questions.
        draws: How many random directions, of each kind: 50 for a claim, a few for a look.
        controls: `"equal_norm"`, `"equal_kl"`, or both.
        chat: Whether choices, everyday questions and `prompts` are put as turns of a chat. None:
            where the tokenizer has a template.
        tokenizer: Of a plain model that is passed.
        confidence: Of the intervals.
        resamples: How many bootstrap resamples of groups; random directions are resampled too.
        seed: Draws directions and resamples.
        batch_tokens: Tokens read at once.
        other_model: What to do where the vector is known to come from another run than the model,
            as `steer` takes it: `"warn"`, `"allow"` or `"refuse"`.
        progress: Whether to show a bar.

    Returns:
        For each quantity `q`, along `condition`: `q` with `q_ci`, its change from the unsteered
        model `q_change` with `q_change_ci`; `q_n`, and of effects `q_wrong_way`, the share of
        examples that moved away from the trustworthy side. Along `control`: `q_random`, the change
        by each random direction along `draw`, and of effects `q_p`, how often one of them changes
        as much in either sense, `q_over_random` with `q_over_random_ci`, how much more the vector
        changes than they do on average. `strength` along `condition`, `random_strength`;
        `perplexity`; `generation` along `condition` and `prompt`. `kl` is itself a quantity.

        Intervals are those of single numbers; nothing is corrected for how many there are. With
        fewer than 50 draws the attribute `random` says that this is a look.

    Raises:
        ValueError: Not one of `strength` and `target_kl` is given; the concept has no polarity; the
            vector has seen all of it; or whatever steering and reading find wrong.

    Warns:
        UserWarning: The vector comes from another run than the model, does not say what it was
            made of, or was made of another concept.

    Source:
        Qian et al. (2024), arXiv:2402.19465, for the experiment; Tan et al. (2024),
        arXiv:2407.12404, for counting what is steered the wrong way.

    Examples:
        >>> vector = extract_steering_vector(
        ...     checkpoint, concept, site=2, rows=training_rows(concept)
        ... )  # doctest: +SKIP
        >>> found = evaluate_steering(model, vector, concept, target_kl=0.1)  # doctest: +SKIP
        >>> found.log_odds_change.sel(condition="steered")  # doctest: +SKIP
    """
    from tqdm.auto import tqdm

    if (strength is None) == (target_kl is None):
        raise ValueError(
            f"A dose is either a `strength` or a `target_kl`, got strength={strength!r} and "
            f"target_kl={target_kl!r}. Give one of them: target_kl=0.1 is a dose that shows."
        )
    check_draws(draws)
    wanted = _checked_controls(controls)
    polarised(concept)
    held = rows_to_try(vector, concept)
    tried = concept if held.all() else concept.take(held)
    manner = Manner(mode, positions, when, units)
    with _opened(model, tokenizer) as hooked:
        warning = check_fits(vector, hooked, other_model=other_model)
        if warning is not None:
            warnings.warn(warning, stacklevel=2)
        battery = Battery(
            hooked,
            tried,
            neutral=NeutralReading(hooked, neutral),
            choices=choices,
            everyday=everyday,
            prompts=prompts,
            max_new_tokens=max_new_tokens,
            judge=judge,
            probe=_later_probe(hooked, vector, concept, ~held, probe_site),
            chat=chat,
            batch_tokens=batch_tokens,
        )
        total = len(CONDITIONS) + len(wanted) * draws
        with tqdm(total=total, desc="steering", unit="pass", disable=not progress) as bar:
            passes = {"unsteered": battery.unsteered(vector)}
            bar.update()
            if strength is None:
                assert target_kl is not None
                strength = battery.matched_strength(vector, target_kl, manner)
            used = {"unsteered": 0.0, "steered": float(strength), "opposite": -float(strength)}
            for condition in CONDITIONS[1:]:
                # Of ablation, where a sign would add what is to be taken away, and of what does
                # not act at strength 0, the other side is that of the other vector.
                sign = 1.0 if condition == "steered" else -1.0
                passes[condition] = battery.read(vector * sign, float(strength), manner)
                bar.update()
            kl = passes["steered"].reading["kl"].mean
            random = {
                control: read_random(
                    battery,
                    vector,
                    manner,
                    draws=draws,
                    seed=seed,
                    strength=float(strength),
                    kl=kl if control == "equal_kl" else None,
                    advance=bar.update,
                )
                for control in wanted
            }
        data = label_evaluation(passes, random, used, confidence, resamples, seed)
        label = str(getattr(hooked.cfg, "model_name", "") or type(hooked).__name__)
    if isinstance(model, Checkpoint):
        label = model.name
    return data.assign_attrs(
        model=label,
        concept=concept.name,
        vector=vector.method,
        source=vector.checkpoint or "",
        sites=", ".join(vector.sites),
        mode=mode,
        positions=str(positions),
        units=units,
        draws=draws,
        random=told_of_draws(draws),
        confidence=confidence,
        resamples=resamples,
        seed=seed,
        statements=len(tried),
    )


def told_of_draws(draws: int) -> str:
    """What may be said from so many random directions."""
    if draws < DRAWS_FOR_A_CLAIM:
        return f"a look: {draws} random directions, where a claim takes {DRAWS_FOR_A_CLAIM}"
    return f"{draws} random directions"


def polarised(concept: Concept) -> None:
    """Refuse a concept that has no side to steer to.

    Raises:
        ValueError: It has no polarity.
    """
    if not concept.polarity:
        raise ValueError(
            f"{concept.name!r} has no polarity: neither of its labels is the trustworthy side, so "
            "that there is no side to steer to. If label 1 is to stand for it, say so with "
            "`dataclasses.replace(concept, polarity=True)`."
        )


def _opened(model: Checkpoint | HookedModel | nn.Module, tokenizer: Any) -> Any:
    if isinstance(model, Checkpoint):
        return model.loaded()
    if is_plain_model(model):
        return nullcontext(PlainModel(model, tokenizer))  # type: ignore[arg-type]
    return nullcontext(model)


def _checked_controls(controls: Sequence[str]) -> tuple[str, ...]:
    wanted = (controls,) if isinstance(controls, str) else tuple(controls)
    strange = [control for control in wanted if control not in CONTROLS]
    if strange or not wanted:
        raise ValueError(
            f"`controls` are 'equal_norm', 'equal_kl', or both, got {controls!r}. Steering without "
            "any is held against nothing."
        )
    return tuple(dict.fromkeys(wanted))


def _later_probe(
    model: HookedModel,
    vector: SteeringVector,
    concept: Concept,
    seen: np.ndarray,
    probe_site: str | int | None,
) -> tuple[str, LinearProbe] | None:
    """A probe of the unsteered model, fitted on the statements that the vector was made of."""
    if probe_site is None:
        return None
    named = resolve_sites(model, probe_site)
    steered = max(site_layer(site) for site in vector.sites)
    if len(named) > 1 or site_layer(named[0]) <= steered:
        raise ValueError(
            f"`probe_site` is one site behind block {steered}, where the vector acts, got "
            f"{probe_site!r}. At the vector's own site a probe would read what was put there."
        )
    if not seen.any():
        raise ValueError(
            "A probe is fitted on the statements that the vector was made of, and this vector does "
            "not say which. Leave `probe_site` out."
        )
    part = concept.take(seen)
    read = collect_activations(model, part, sites=named)
    labels = torch.from_numpy(part.labels.copy()).long()
    return named[0], fit_logistic_probe(read.values[:, 0], labels, C=0.01)
