"""One model under evaluation: everything that is measured of it, in one pass per condition."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlens_trust.activations import collect_activations
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.choices import choice_task
from tlens_trust.steering.contrasts import contrast_task
from tlens_trust.steering.dose import strength_at_dose
from tlens_trust.steering.everyday_questions import everyday_task
from tlens_trust.steering.generations import Generation, generate_texts, generation_quantities
from tlens_trust.steering.hooks import Steering, intervene
from tlens_trust.steering.intervention import Intervention
from tlens_trust.steering.likelihood import score_continuations
from tlens_trust.steering.neutral_predictions import NeutralPredictions
from tlens_trust.steering.quantities import Quantities, Quantity, Task
from tlens_trust.steering.tasks import SteeringTasks
from tlens_trust.steering.vector import SteeringVector

_TOLERANCE = 0.01  # relative to the dose, where a search starts from a close strength
# Afterwards the search in `strength_at_dose` takes over, which always ends.
_MOST_STEPS = 8
_EXPONENTS = (0.5, 12.0)  # plausible exponents of a divergence in its strength


@dataclass(frozen=True, eq=False)
class EvaluationPass:
    """The results of one pass of evaluation.

    Attributes:
        quantities: Quantities by name.
        generations: The generated texts, if there are prompts.
    """

    quantities: Quantities
    generations: Sequence[Generation] = ()


class EvaluatedModel:
    """A model with everything it is evaluated on, tokenised once.

    Attributes:
        model: The model.
        concept: The statements it is evaluated on.
        tasks: What else it is evaluated on.
        neutral: Its unsteered predictions on neutral text.

    Raises:
        ValueError: `contrast_task`, `choice_task` or `everyday_task` refuses the statements.
    """

    def __init__(
        self,
        model: HookedModel,
        concept: Concept,
        tasks: SteeringTasks,
        *,
        probe: tuple[str, LinearProbe] | None = None,
    ) -> None:
        self.model = model
        self.concept = concept
        self.tasks = tasks
        self.neutral = NeutralPredictions(model, tasks.neutral_text)
        self._effects: list[Task] = [
            contrast_task(model, concept),
            *(choice_task(model, concept, choice, chat=tasks.chat) for choice in tasks.choices),
        ]
        self._damage: list[Task] = [everyday_task(model, chat=tasks.chat)] if tasks.everyday else []
        self._probe = probe

    def unsteered(self, vector: SteeringVector) -> EvaluationPass:
        """One pass of evaluation without steering.

        Args:
            vector: Any vector that fits the model.
        """
        # At strength 0 no hook is placed, so this is the model itself, bit for bit.
        return self.evaluate(vector, Intervention(strength=0.0))

    def evaluate(
        self, vector: SteeringVector, intervention: Intervention, *, effects_only: bool = False
    ) -> EvaluationPass:
        """One pass of evaluation of the steered model.

        Args:
            vector: The steering vector.
            intervention: How it is used, with a strength.
            effects_only: Leave out everyday questions and generated text, which show damage alone.
                Neutral text is always run.
        """
        quantities: list[Quantity] = []
        generations: list[Generation] = []
        # Whether the vector comes from another run was checked once, by the caller.
        with intervene(self.model, vector, intervention, other_model="allow") as steering:
            quantities += self._score(steering, effects_only=effects_only)
            if self._probe is not None:
                quantities.append(self._probe_log_odds())
            if self.tasks.prompts and not effects_only:
                generations = generate_texts(
                    self.model,
                    self.tasks.prompts,
                    max_new_tokens=self.tasks.max_new_tokens,
                    chat=self.tasks.chat,
                )
                quantities += generation_quantities(generations, self.tasks.judge)
        # `effect_of` places hooks of its own. Inside the `with` above, the vector would act twice.
        effect = self.neutral.effect_of(vector, intervention, other_model="allow")
        quantities += effect.quantities()
        return EvaluationPass({quantity.name: quantity for quantity in quantities}, generations)

    def at_dose(
        self, vector: SteeringVector, intervention: Intervention, *, near: float | None = None
    ) -> Intervention:
        """The intervention with the strength at which a vector reaches its dose.

        Args:
            vector: The steering vector.
            intervention: How it is used, with a dose.
            near: A strength that may be close, such as that of another direction of the same
                length. A result that is found from there is within 1% of the dose.

        Raises:
            DoseNotReachedError: No strength reaches the dose.
        """
        if near is not None and intervention.mode == "add":
            strength = self._strength_near(vector, intervention, near)
            if strength is not None:
                return intervention.at_strength(strength)
        dose = strength_at_dose(self.neutral, vector, intervention, other_model="allow")
        return intervention.at_strength(dose.strength)

    def _strength_near(
        self, vector: SteeringVector, intervention: Intervention, near: float
    ) -> float | None:
        """The strength for a dose, by steps from a close one; None if they do not reach it."""
        target = intervention.target_kl
        assert target is not None
        strength, previous_point = near, None
        for _ in range(_MOST_STEPS):
            effect = self.neutral.effect_of(
                vector, intervention.at_strength(strength), other_model="allow"
            )
            kl = effect.mean_kl
            if abs(kl / target - 1) < _TOLERANCE:
                return strength
            # So far away, one exponent cannot be expected to describe the divergence.
            if not 0.1 < kl / target < 10:
                break
            # A divergence grows with the square of a small strength, and faster where a model's
            # predictions flip. Then the exponent comes from the last two strengths.
            exponent = 2.0
            if previous_point is not None and previous_point[0] != strength:
                slope = np.log(kl / previous_point[1]) / np.log(strength / previous_point[0])
                exponent = float(np.clip(slope, *_EXPONENTS))
            previous_point = (strength, kl)
            strength *= (target / kl) ** (1 / exponent)
        return None

    def _score(self, steering: Steering, *, effects_only: bool) -> list[Quantity]:
        tasks = self._effects if effects_only else [*self._effects, *self._damage]
        continuations = [continuation for task in tasks for continuation in task.continuations]
        # All tasks are scored together, so that rows of similar length share batches.
        likelihoods = score_continuations(
            self.model, continuations, steering=steering, batch_tokens=self.tasks.batch_tokens
        )
        quantities: list[Quantity] = []
        start = 0
        for task in tasks:
            stop = start + len(task.continuations)
            quantities += task.quantities(likelihoods.take(slice(start, stop)))
            start = stop
        return quantities

    def _probe_log_odds(self) -> Quantity:
        assert self._probe is not None
        site, probe = self._probe
        activations = collect_activations(
            self.model, self.concept, sites=site, batch_tokens=self.tasks.batch_tokens
        )
        return Quantity(
            "probe_log_odds",
            probe.log_odds(activations.values[:, 0]).numpy().astype(np.float64),
            self.concept.groups,
            "nats",
            f"log-odds of the trustworthy side by a probe at {site}",
        )
