"""What a steered model is evaluated on."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from tlens_trust.activations.reading_options import check_batch_tokens
from tlens_trust.arguments import checked_count
from tlens_trust.steering.choices import ForcedChoice
from tlens_trust.steering.likelihood import DEFAULT_BATCH_TOKENS

# From generated texts to one number each, larger on the trustworthy side.
Judge: TypeAlias = Callable[[Sequence[str]], Sequence[float] | np.ndarray]


@dataclass(frozen=True)
class SteeringTasks:
    """What a steered model is evaluated on, besides the statements of the concept.

    Attributes:
        choices: Forced choices about every statement. `FOLLOW_UPS` and `PAPER_CHOICES` hold some.
        neutral_text: Texts on which dose and damage are measured. None for the embedded ones.
        everyday: Whether to ask the everyday questions.
        prompts: Prompts that the model continues greedily. Only `evaluate_steering` uses them.
        max_new_tokens: How many tokens a continuation has at most.
        judge: A function from generated texts to scores, larger on the trustworthy side.
            `classifier_judge` makes one from a text-classification model.
        chat: Whether choices, everyday questions and prompts are turns of a chat. None: if the
            tokenizer has a chat template.
        batch_tokens: Tokens in one batch, padding included.

    Raises:
        ValueError: Two choices share a name, a text is given where texts are expected,
            `neutral_text` is empty, or a number is out of range.

    Examples:
        >>> SteeringTasks(neutral_text="One text.")
        Traceback (most recent call last):
        ValueError: `neutral_text` is a sequence of texts, got one text. Put it in a list.
    """

    choices: Sequence[ForcedChoice] = ()
    neutral_text: Sequence[str] | None = None
    everyday: bool = True
    prompts: Sequence[str] = ()
    max_new_tokens: int = 32
    judge: Judge | None = None
    chat: bool | None = None
    batch_tokens: int = DEFAULT_BATCH_TOKENS

    def __post_init__(self) -> None:
        for name in ("neutral_text", "prompts"):
            texts = getattr(self, name)
            if texts is not None:
                object.__setattr__(self, name, checked_texts(name, texts))
        if self.neutral_text is not None and not self.neutral_text:
            raise ValueError(
                "`neutral_text` is empty. Give at least one text, or None for the embedded ones."
            )
        object.__setattr__(self, "choices", _checked_choices(self.choices))
        checked_count("max_new_tokens", self.max_new_tokens)
        check_batch_tokens(self.batch_tokens)

    def check_writes_nothing(self, caller: str) -> None:
        """Refuse prompts where nothing is generated.

        Raises:
            ValueError: There are prompts.
        """
        if self.prompts:
            raise ValueError(
                f"`{caller}` generates no text, got {len(self.prompts)} prompts. Leave them out, "
                "or give them to `evaluate_steering`."
            )


def checked_texts(name: str, texts: Sequence[str]) -> tuple[str, ...]:
    """Several texts as a tuple.

    Raises:
        ValueError: It is a single text.
    """
    if isinstance(texts, str):
        raise ValueError(f"`{name}` is a sequence of texts, got one text. Put it in a list.")
    return tuple(texts)


def _checked_choices(choices: Sequence[ForcedChoice]) -> tuple[ForcedChoice, ...]:
    for choice in choices:
        if not isinstance(choice, ForcedChoice):
            raise ValueError(
                f"`choices` holds forced choices, got a {type(choice).__name__}. Take them from "
                "`FOLLOW_UPS` or `PAPER_CHOICES`, or make a `ForcedChoice`."
            )
    names = [choice.name for choice in choices]
    repeated_names = [name for name in names if names.count(name) > 1]
    if repeated_names:
        raise ValueError(f"Two choices are named {repeated_names[0]!r}. Give each its own name.")
    return tuple(choices)
