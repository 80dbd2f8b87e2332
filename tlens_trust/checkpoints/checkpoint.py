"""One set of weights on the way of a training run."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Checkpoint:
    """Where one checkpoint's weights come from, and how far training had gone.

    Attributes:
        model: Hub id, the folder that holds the series, or a label for a model in memory.
        revision: Branch, tag or commit on the hub; the folder's own name on disk.
        step: Optimiser steps taken; None where unknown.
        tokens: Tokens seen; None where unknown.
        stage: Which of several training stages, or None.
        loss: Training loss in nats a token, or None.
    """

    model: str
    revision: str | None = None
    step: int | None = None
    tokens: int | None = None
    stage: str | None = None
    loss: float | None = None
