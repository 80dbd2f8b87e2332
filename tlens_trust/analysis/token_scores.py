"""What a probe, or a direction, says of every token of a text, from checkpoint to checkpoint."""

from collections.abc import Iterable, Sequence
from math import nan
from typing import Any

import numpy as np
import torch
import xarray as xr

from tlens_trust.activations import Activations, collect_activations
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS, Store
from tlens_trust.activations.token_activations import TokenActivations, collect_tokens
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import LinearProbe, fit_logistic_probe
from tlens_trust.tracing.sweep_arguments import checked_checkpoints


def trace_tokens(
    series: Checkpoint | Iterable[Checkpoint],
    concept: Concept,
    text: str,
    *,
    C: float = 0.1,
    sites: str | int | Sequence[str | int] = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    store: Store = "default",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> xr.Dataset:
    """Score every token of a text by a probe of each checkpoint and site.

    At each checkpoint and site a logistic probe is fitted to the concept's statements, read at
    `position`, and asked for the log-odds of the trustworthy side at every token of the text. So
    one sees where in a text a concept is written, and watches it appear as training goes on.

    A probe has only ever seen tokens at `position`, the last ones of statements by default. What
    it says of others is a look and no measurement: it has no interval, and its zero need not be
    theirs. A statement of the concept that is the text itself, and its whole group, is left out of
    the fit.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints.
        concept: What is probed.
        text: What is looked at; as long as a few sentences.
        C: Inverse strength of the probe's penalty; features are standardised.
        sites: This and what follows: as for `trace_checkpoints`.
        position: Which token of a statement the probes are fitted at.
        bos: Whether a beginning-of-sequence token stands before statements and text.
        store: Where readings of statements are kept.
        batch_tokens: Tokens read at once.

    Returns:
        `score` over checkpoint, site and token, in nats: log-odds of label 1. The coordinate
        `text` holds the tokens as they are to be shown; `step`, `tokens_seen`, `layer` and `depth`
        are as in a `Trace`.

    Raises:
        ValueError: As `trace_checkpoints`; or the checkpoints do not share a tokenizer.

    Examples:
        >>> from tlens_trust import load_concepts, load_toy_series  # doctest: +SKIP
        >>> trace_tokens(
        ...     load_toy_series(), load_concepts()["toxicity"],
        ...     "Many would call Jonas a dull person.")  # doctest: +SKIP
    """
    checkpoints = checked_checkpoints(series)
    scores, shown = [], None
    for checkpoint in checkpoints:
        activations = collect_activations(
            checkpoint, concept, sites=sites, position=position, bos=bos,
            batch_tokens=batch_tokens, store=store,
        )  # fmt: skip
        readings = collect_tokens(checkpoint, text, sites=sites, bos=bos, batch_tokens=batch_tokens)
        if shown is None:
            shown = readings
        check_same_tokens(shown, readings, checkpoints[0], checkpoint)
        probes = _fit(activations, concept, text, C)
        scores.append(
            torch.stack(
                [probe.log_odds(readings.values[:, i]) for i, probe in enumerate(probes)]
            ).numpy()
        )
    assert shown is not None  # there is at least one checkpoint
    return _dataset(np.stack(scores), checkpoints, shown, concept, text, position)


def _fit(activations: Activations, concept: Concept, text: str, C: float) -> list[LinearProbe]:
    groups = np.asarray(concept.groups)
    same = np.isin(groups, groups[[each == text for each in concept.statements]])
    rows = torch.from_numpy(~same)
    labels = torch.tensor(concept.labels.astype(np.int64))[rows]
    return [
        fit_logistic_probe(activations.values[rows, site], labels, C=C)
        for site in range(len(activations.sites))
    ]


def _dataset(
    scores: np.ndarray,
    checkpoints: Sequence[Checkpoint],
    readings: TokenActivations,
    concept: Concept,
    text: str,
    position: Position,
) -> xr.Dataset:
    side = "the trustworthy side" if concept.polarity else "label 1"
    return xr.Dataset(
        {
            "score": (
                ("checkpoint", "site", "token"),
                scores,
                {"units": "nats", "long_name": f"log-odds of {side} of {concept.name}"},
            )
        },
        coords=token_coordinates(checkpoints, readings),
        attrs={
            "concept": concept.name,
            "polarity": int(concept.polarity),
            "statement": text,
            "position": str(position),
            "note": "The probes were fitted at one token of each statement (position "
            f"{position}); at others this is a look and no measurement.",
        },
    )


def token_coordinates(
    checkpoints: Sequence[Checkpoint], readings: TokenActivations
) -> dict[str, Any]:
    """Coordinates of what is said of every token of a text."""

    def counts(key: str) -> np.ndarray:
        values = [getattr(checkpoint, key) for checkpoint in checkpoints]
        return np.array([nan if value is None else value for value in values], dtype=float)

    seen = {"units": "tokens", "long_name": "tokens seen"}
    return {
        "checkpoint": [checkpoint.name for checkpoint in checkpoints],
        "step": ("checkpoint", counts("step"), {"units": "steps", "long_name": "step"}),
        "tokens_seen": ("checkpoint", counts("tokens"), seen),
        "site": list(readings.sites),
        "layer": ("site", np.array(readings.layers, dtype=np.int64)),
        "depth": ("site", np.array(readings.depths, dtype=float)),
        "token": np.arange(len(readings.tokens)),
        "text": ("token", np.array(readings.tokens)),
    }


def check_same_tokens(
    shown: TokenActivations, readings: TokenActivations, first: Checkpoint, other: Checkpoint
) -> None:
    """Refuse checkpoints that cannot stand side by side, token by token.

    Raises:
        ValueError: They read the text as other tokens, or at other sites.
    """
    if readings.tokens != shown.tokens or readings.sites != shown.sites:
        raise ValueError(
            f"{other.name!r} reads the text as other tokens, or at other sites, than "
            f"{first.name!r}. Look at checkpoints of one run together."
        )
