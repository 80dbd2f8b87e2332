"""Scores of every token of a text at each checkpoint, by a probe or by a steering vector."""

from collections.abc import Iterable, Sequence
from math import nan
from typing import Any

import numpy as np
import torch
import xarray as xr
from einops import einsum

from tlens_trust.activations import Activations, collect_activations
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS, Store
from tlens_trust.activations.token_activations import TokenActivations, collect_tokens
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import LinearProbe, fit_logistic_probe
from tlens_trust.steering import ProbeFires, SteeringVector
from tlens_trust.steering.steered_positions import (
    Layout,
    PositionRule,
    Positions,
    checked_positions,
)
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

    At each checkpoint and site a logistic probe is fitted to the concept's statements, at the token
    `position`. It then gives the log-odds of the trustworthy side at every token of the text. So
    one sees where in a text a concept is written, and how it appears along training.

    A probe was fitted at `position` only, by default the last tokens of statements. What it gives
    at other tokens is an impression and no measurement: it has no interval, and its zero need not
    be theirs. A statement of the concept that is the text itself is left out of the fit, with its
    whole group.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints.
        concept: The concept that is probed.
        text: The text to score, up to a few sentences.
        C: Inverse strength of the probe's penalty; features are standardised.
        sites: Where to read, as for `trace_checkpoints`, and so are the next four.
        position: The token of a statement that the probes are fitted at.
        bos: Whether a beginning-of-sequence token stands before statements and text.
        store: Where the activations of statements are kept.
        batch_tokens: Tokens in one batch.

    Returns:
        `score` over checkpoint, site and token, in nats: log-odds of label 1. The coordinate `text`
        holds the tokens as they are displayed. `step`, `tokens_seen`, `layer` and `depth` are as in
        a `Trace`.

    Raises:
        ValueError: As `trace_checkpoints`; or the checkpoints do not share a tokenizer.

    Examples:
        >>> from tlens_trust import load_concepts, load_toy_series  # doctest: +SKIP
        >>> trace_tokens(
        ...     load_toy_series(), load_concepts()["toxicity"],
        ...     "Many would call Jonas a dull person.")  # doctest: +SKIP
    """
    checkpoints = checked_checkpoints(series)
    scores, first_tokens = [], None
    for checkpoint in checkpoints:
        activations = collect_activations(
            checkpoint, concept, sites=sites, position=position, bos=bos,
            batch_tokens=batch_tokens, store=store,
        )  # fmt: skip
        token_activations = collect_tokens(
            checkpoint, text, sites=sites, bos=bos, batch_tokens=batch_tokens
        )
        if first_tokens is None:
            first_tokens = token_activations
        _check_same_tokens(first_tokens, token_activations, checkpoints[0], checkpoint)
        probes = _fit_probes(activations, concept, text, C)
        scores.append(
            torch.stack(
                [probe.log_odds(token_activations.values[:, i]) for i, probe in enumerate(probes)]
            ).numpy()
        )
    assert first_tokens is not None  # there is at least one checkpoint
    return _score_dataset(np.stack(scores), checkpoints, first_tokens, concept, text, position)


def _fit_probes(
    activations: Activations, concept: Concept, text: str, C: float
) -> list[LinearProbe]:
    groups = np.asarray(concept.groups)
    is_same_group = np.isin(groups, groups[[statement == text for statement in concept.statements]])
    rows = torch.from_numpy(~is_same_group)
    labels = torch.tensor(concept.labels.astype(np.int64))[rows]
    return [
        fit_logistic_probe(activations.values[rows, site], labels, C=C)
        for site in range(len(activations.sites))
    ]


def _score_dataset(
    scores: np.ndarray,
    checkpoints: Sequence[Checkpoint],
    token_activations: TokenActivations,
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
        coords=_token_coordinates(checkpoints, token_activations),
        attrs={
            "concept": concept.name,
            "polarity": int(concept.polarity),
            "statement": text,
            "position": str(position),
            "note": "The probes were fitted at one token of each statement (position "
            f"{position}); at others this is a look and no measurement.",
        },
    )


def project_tokens(
    series: Checkpoint | Iterable[Checkpoint],
    vector: SteeringVector,
    text: str,
    *,
    positions: Positions = "all",
    prompt_tokens: int | None = None,
    when: ProbeFires | LinearProbe | None = None,
    bos: bool | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> xr.Dataset:
    """Project every token of a text on a steering vector, and show where `steer` would act.

    With `x` the activation of a token at one of the vector's sites and `v` the vector there, the
    projection is `x·v / ‖v‖²`: the multiple of the vector that the token already has. Steering with
    `mode="add"` and strength `s` adds `s` to it. The model is read without steering.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints.
        vector: The steering vector, which gives the sites too.
        text: The text to project, up to a few sentences.
        positions: The tokens that `steer` would act on, in the form that it takes.
        prompt_tokens: Number of the text's tokens that are the prompt, a beginning-of-sequence
            token included. The others count as generated. None: all are the prompt.
        when: The condition of `steer`.
        bos: Whether a beginning-of-sequence token stands before the text.
        batch_tokens: Tokens in one batch.

    Returns:
        `score`, the projection, over checkpoint, site and token, in multiples of the vector;
        `acts` over checkpoint and token, whether the token would be steered. Coordinates are those
        of `trace_tokens`.

    Raises:
        ValueError: The vector and a model differ in width, the vector has no length at a site, or a
            model lacks the site. Or checkpoints do not share a tokenizer, or `steer` allows no such
            argument.

    Examples:
        >>> vector = extract_steering_vector(series[-1], concept, site=2)  # doctest: +SKIP
        >>> draw_tokens(project_tokens(series, vector, "Many call Jonas dull."))  # doctest: +SKIP
    """
    checkpoints = checked_checkpoints(series)
    if float(vector.norms.min()) == 0:
        raise ValueError("The vector has no length at one of its sites. Leave that site out.")
    condition = ProbeFires(when, above=0.0) if isinstance(when, LinearProbe) else when
    if condition is not None and condition.site is None and len(vector.sites) > 1:
        raise ValueError(
            f"The vector acts at {len(vector.sites)} sites, and a probe reads one. Say which with "
            "`ProbeFires(probe, site=…)`."
        )
    tokenizer = checkpoints[0].load_tokenizer()
    rule = checked_positions(positions, tokenizer)
    directions = (vector.values / vector.norms.square()[:, None]).float()
    scores, acts, first_tokens = [], [], None
    for checkpoint in checkpoints:
        token_activations = collect_tokens(
            checkpoint, text, sites=vector.sites, bos=bos, batch_tokens=batch_tokens
        )
        width = token_activations.values.shape[-1]
        if width != vector.width:
            raise ValueError(
                f"This steering vector is {vector.width} wide, but {checkpoint.name!r} is {width} "
                "wide there. Extract it at this site of a checkpoint of this model."
            )
        if first_tokens is None:
            first_tokens = token_activations
        _check_same_tokens(first_tokens, token_activations, checkpoints[0], checkpoint)
        along = einsum(
            token_activations.values, directions, "token site d_model, site d_model -> site token"
        )
        scores.append(along.numpy())
        is_steered = _acting_tokens(rule, token_activations, prompt_tokens)
        if condition is not None:
            is_steered &= _condition_fires(
                condition,
                checkpoint,
                vector,
                token_activations,
                text,
                bos=bos,
                batch_tokens=batch_tokens,
            )
        acts.append(is_steered)
    assert first_tokens is not None  # there is at least one checkpoint
    concept_text = f" of {vector.concept}" if vector.concept else ""
    return xr.Dataset(
        {
            "score": (
                ("checkpoint", "site", "token"),
                np.stack(scores),
                {
                    "units": "multiples of the vector",
                    "long_name": f"projection on the steering vector{concept_text} "
                    f"({vector.method})",
                },
            ),
            "acts": (
                ("checkpoint", "token"),
                np.stack(acts),
                {"units": "1", "long_name": "whether `steer` acts on the token"},
            ),
        },
        coords=_token_coordinates(checkpoints, first_tokens),
        attrs={
            "statement": text,
            "positions": str(positions),
            "note": "The model is read as it is, not steered; underlined is where steering would "
            f"act (positions: {positions}{', where a probe fires' if condition else ''}).",
        },
    )


def _acting_tokens(
    rule: PositionRule, token_activations: TokenActivations, prompt_tokens: int | None
) -> np.ndarray:
    """Whether each token is at the positions, where the text is the whole input."""
    count = len(token_activations.tokens)
    if prompt_tokens is not None and not 0 < prompt_tokens <= count:
        raise ValueError(
            f"`prompt_tokens` must lie between 1 and the text's {count} tokens, got "
            f"{prompt_tokens}."
        )
    layout = Layout(
        shape=(1, count),
        full=None,
        past=0,
        prompt_columns=count,
        stated_lengths=None if prompt_tokens is None else torch.tensor([prompt_tokens]),
        tokens=torch.tensor([token_activations.ids]),
        device=torch.device("cpu"),
    )
    mask = rule.mask(layout)
    if isinstance(mask, bool):
        return np.full(count, mask)
    return mask[0].numpy().copy()


def _condition_fires(
    condition: ProbeFires,
    checkpoint: Checkpoint,
    vector: SteeringVector,
    token_activations: TokenActivations,
    text: str,
    *,
    bos: bool | None,
    batch_tokens: int,
) -> np.ndarray:
    """Whether the probe fires at each token; its site is no later than the first steered one."""
    if condition.site is None or condition.site in vector.sites:
        number = 0 if condition.site is None else vector.sites.index(str(condition.site))
        values = token_activations.values[:, number]
    else:
        values = collect_tokens(
            checkpoint, text, sites=condition.site, bos=bos, batch_tokens=batch_tokens
        ).values[:, 0]
    return condition.fires(values).numpy().astype(bool)


def _token_coordinates(
    checkpoints: Sequence[Checkpoint], token_activations: TokenActivations
) -> dict[str, Any]:
    """Coordinates of a value for every token of a text."""

    def counts(key: str) -> np.ndarray:
        values = [getattr(checkpoint, key) for checkpoint in checkpoints]
        return np.array([nan if value is None else value for value in values], dtype=float)

    tokens_seen = {"units": "tokens", "long_name": "tokens seen"}
    return {
        "checkpoint": [checkpoint.name for checkpoint in checkpoints],
        "step": ("checkpoint", counts("step"), {"units": "steps", "long_name": "step"}),
        "tokens_seen": ("checkpoint", counts("tokens"), tokens_seen),
        "site": list(token_activations.sites),
        "layer": ("site", np.array(token_activations.layers, dtype=np.int64)),
        "depth": ("site", np.array(token_activations.depths, dtype=float)),
        "token": np.arange(len(token_activations.tokens)),
        "text": ("token", np.array(token_activations.tokens)),
    }


def _check_same_tokens(
    first_tokens: TokenActivations,
    other_tokens: TokenActivations,
    first_checkpoint: Checkpoint,
    other_checkpoint: Checkpoint,
) -> None:
    """Refuse checkpoints whose tokens or sites differ.

    Raises:
        ValueError: They read the text as other tokens, or at other sites.
    """
    if other_tokens.tokens != first_tokens.tokens or other_tokens.sites != first_tokens.sites:
        raise ValueError(
            f"{other_checkpoint.name!r} reads the text as other tokens, or at other sites, than "
            f"{first_checkpoint.name!r}. Look at checkpoints of one run together."
        )
