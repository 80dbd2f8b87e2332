"""All that is measured of one model, in one pass of evaluation for each condition."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from tlens_trust.activations import collect_activations
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.measures.probe import LinearProbe
from tlens_trust.steering.choices import ForcedChoice, choice_task
from tlens_trust.steering.conditions import ProbeFires
from tlens_trust.steering.contrasts import contrast_task
from tlens_trust.steering.damage import neutral_quantities
from tlens_trust.steering.dose import calibrate_strength
from tlens_trust.steering.everyday import everyday_task
from tlens_trust.steering.generations import (
    Generation,
    Judge,
    generate_texts,
    generation_quantities,
)
from tlens_trust.steering.hooks import Steering, steer
from tlens_trust.steering.likelihood import DEFAULT_BATCH_TOKENS, score_continuations
from tlens_trust.steering.neutral_reading import NeutralEffect, NeutralReading
from tlens_trust.steering.positions import Positions
from tlens_trust.steering.quantities import Quantity, Reading, Task
from tlens_trust.steering.vector import SteeringVector

_NEAR_ENOUGH = 0.01  # relative to the dose
_STEPS_FROM_NEAR = 8
_POWERS = (0.5, 12.0)  # of a divergence in its strength, as far as two looks are believed


@dataclass(frozen=True)
class Manner:
    """How a vector is put to use, but for how strongly.

    Attributes:
        mode: As `steer` takes it, and so are the following.
        positions: Which tokens are steered.
        when: Where a probe has to fire.
        units: What strengths are counted in.
    """

    mode: str = "add"
    positions: Positions = "all"
    when: ProbeFires | LinearProbe | None = None
    units: str = "vector"


@dataclass(frozen=True, eq=False)
class Pass:
    """What one pass of evaluation has found.

    Attributes:
        reading: Quantities by name.
        written: What the model wrote, where it was let.
    """

    reading: Reading
    written: Sequence[Generation] = ()


class Battery:
    """Everything that is asked of a model, tokenised once.

    Attributes:
        model: Whom it is asked.
        concept: The statements that it is asked about.
        neutral: What the model says to neutral text.
        passes: How many passes of evaluation there have been.

    Raises:
        ValueError: Two choices have one name, or what `contrast_task` and `choice_task` find wrong.
    """

    def __init__(
        self,
        model: HookedModel,
        concept: Concept,
        *,
        neutral: NeutralReading,
        choices: Sequence[ForcedChoice] = (),
        everyday: bool = True,
        prompts: Sequence[str] = (),
        max_new_tokens: int = 32,
        judge: Judge | None = None,
        probe: tuple[str, LinearProbe] | None = None,
        chat: bool | None = None,
        batch_tokens: int = DEFAULT_BATCH_TOKENS,
    ) -> None:
        _check_choices(choices)
        self.model = model
        self.concept = concept
        self.neutral = neutral
        self.passes = 0
        self._effects: list[Task] = [
            contrast_task(model, concept),
            *(choice_task(model, concept, choice, chat=chat) for choice in choices),
        ]
        self._damage: list[Task] = [everyday_task(model, chat=chat)] if everyday else []
        self._prompts = tuple(prompts)
        self._max_new_tokens = max_new_tokens
        self._judge = judge
        self._probe = probe
        self._chat = chat
        self._batch_tokens = batch_tokens

    def unsteered(self, vector: SteeringVector) -> Pass:
        """One pass of evaluation of the model as it is.

        Args:
            vector: Any that fits the model.
        """
        return self.read(vector, 0.0, Manner())

    def read(
        self,
        vector: SteeringVector,
        strength: float,
        manner: Manner,
        *,
        effects_only: bool = False,
    ) -> Pass:
        """One pass of evaluation of the steered model.

        Args:
            vector: What to steer by.
            strength: How strongly.
            manner: In which way.
            effects_only: Whether to leave out what tells of damage alone, but for neutral text.
        """
        self.passes += 1
        found: list[Quantity] = []
        written: list[Generation] = []
        with steer(
            self.model,
            vector,
            strength=strength,
            mode=manner.mode,
            positions=manner.positions,
            when=manner.when,
            units=manner.units,
            other_model="allow",  # whoever makes a battery has seen to it, once
        ) as steering:
            found += self._scored(steering, effects_only=effects_only)
            if self._probe is not None:
                found.append(self._probed())
            if self._prompts and not effects_only:
                written = generate_texts(
                    self.model, self._prompts, max_new_tokens=self._max_new_tokens, chat=self._chat
                )
                found += generation_quantities(written, self._judge)
        effect = self._on_neutral_text(vector, strength, manner)
        found += neutral_quantities(effect)
        return Pass({quantity.name: quantity for quantity in found}, written)

    def matched_strength(
        self, vector: SteeringVector, kl: float, manner: Manner, *, near: float | None = None
    ) -> float:
        """The strength at which a vector moves neutral text by so much, in nats a token.

        Args:
            vector: What to steer by.
            kl: The dose.
            manner: How it is put to use.
            near: A strength that may be close, as that of another direction as long; what is found
                from there is within 1% of the dose.
        """
        if near is not None and manner.mode == "add":
            found, before = near, None
            for _ in range(_STEPS_FROM_NEAR):
                reached = self._moved(vector, found, manner)
                if abs(reached / kl - 1) < _NEAR_ENOUGH:
                    return found
                if not 0.1 < reached / kl < 10:
                    break
                # A divergence grows with the square of what is added as long as that is small, and
                # where a model changes its mind faster: then as between the last two looks.
                power = 2.0
                if before is not None and before[0] != found:
                    seen = np.log(reached / before[1]) / np.log(found / before[0])
                    power = float(np.clip(seen, *_POWERS))
                before = (found, reached)
                found *= (kl / reached) ** (1 / power)
        return calibrate_strength(
            self.model,
            vector,
            target_kl=kl,
            text=self.neutral,
            mode=manner.mode,
            positions=manner.positions,
            when=manner.when,
            units=manner.units,
            other_model="allow",
        ).strength

    def _moved(self, vector: SteeringVector, strength: float, manner: Manner) -> float:
        return self._on_neutral_text(vector, strength, manner).mean_kl

    def _on_neutral_text(
        self, vector: SteeringVector, strength: float, manner: Manner
    ) -> NeutralEffect:
        return self.neutral.steered(
            vector,
            strength=strength,
            mode=manner.mode,
            positions=manner.positions,
            when=manner.when,
            units=manner.units,
            other_model="allow",
        )

    def _scored(self, steering: Steering, *, effects_only: bool) -> list[Quantity]:
        tasks = self._effects if effects_only else [*self._effects, *self._damage]
        wanted = [each for task in tasks for each in task.continuations]
        scored = score_continuations(
            self.model, wanted, steering=steering, batch_tokens=self._batch_tokens
        )
        found: list[Quantity] = []
        start = 0
        for task in tasks:
            stop = start + len(task.continuations)
            found += task.quantities(scored.take(slice(start, stop)))
            start = stop
        return found

    def _probed(self) -> Quantity:
        assert self._probe is not None
        site, probe = self._probe
        read = collect_activations(
            self.model, self.concept, sites=site, batch_tokens=self._batch_tokens
        )
        return Quantity(
            "probe_log_odds",
            probe.log_odds(read.values[:, 0]).numpy().astype(np.float64),
            self.concept.groups,
            "nats",
            f"log-odds of the trustworthy side by a probe at {site}",
        )


def _check_choices(choices: Sequence[ForcedChoice]) -> None:
    names = [choice.name for choice in choices]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"Two choices are named {twice[0]!r}. Give each a name of its own.")
