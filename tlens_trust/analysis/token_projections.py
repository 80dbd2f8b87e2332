"""Where a steering vector lies on every token of a text, and which tokens it would act on."""

from collections.abc import Iterable

import numpy as np
import torch
import xarray as xr
from einops import einsum

from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS
from tlens_trust.activations.token_activations import TokenActivations, collect_tokens
from tlens_trust.analysis.token_scores import check_same_tokens, token_coordinates
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.measures import LinearProbe
from tlens_trust.steering import ProbeFires, SteeringVector
from tlens_trust.steering.positions import Layout, PositionRule, Positions, checked_positions
from tlens_trust.tracing.sweep_arguments import checked_checkpoints


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
    """Project every token of a text on a steering vector, and say where `steer` would act.

    With `x` the activation of a token at one of the vector's sites and `v` the vector there, the
    projection is `x·v / ‖v‖²`: the multiple of the vector that the token holds already. Steering
    with `mode="add"` and strength `s` adds `s` to it. The model is read as it is, not steered.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints.
        vector: What to project on; it is looked at where it acts.
        text: What is looked at; as long as a few sentences.
        positions: Which tokens `steer` would act on, as it takes it.
        prompt_tokens: How many of the text's tokens are the prompt, a beginning-of-sequence token
            included; the others count as generated. None: all are.
        when: The condition of `steer`.
        bos: Whether a beginning-of-sequence token stands before the text.
        batch_tokens: Tokens read at once.

    Returns:
        `score`, the projection, over checkpoint, site and token, in multiples of the vector;
        `acts` over checkpoint and token, whether the token would be steered. Coordinates are those
        of `trace_tokens`.

    Raises:
        ValueError: The vector is of another width than a model, has no length at a site, or a
            model lacks the site; checkpoints do not share a tokenizer; or an argument is none of
            those that `steer` allows.

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
    scores, acts, shown = [], [], None
    for checkpoint in checkpoints:
        readings = collect_tokens(
            checkpoint, text, sites=vector.sites, bos=bos, batch_tokens=batch_tokens
        )
        width = readings.values.shape[-1]
        if width != vector.width:
            raise ValueError(
                f"This steering vector is {vector.width} wide, but {checkpoint.name!r} is {width} "
                "wide there. Extract it at this site of a checkpoint of this model."
            )
        if shown is None:
            shown = readings
        check_same_tokens(shown, readings, checkpoints[0], checkpoint)
        along = einsum(
            readings.values, directions, "token site d_model, site d_model -> site token"
        )
        scores.append(along.numpy())
        acted = _chosen(rule, readings, prompt_tokens)
        if condition is not None:
            acted &= _fires(
                condition, checkpoint, vector, readings, text, bos=bos, batch_tokens=batch_tokens
            )
        acts.append(acted)
    assert shown is not None  # there is at least one checkpoint
    of = f" of {vector.concept}" if vector.concept else ""
    return xr.Dataset(
        {
            "score": (
                ("checkpoint", "site", "token"),
                np.stack(scores),
                {
                    "units": "multiples of the vector",
                    "long_name": f"projection on the steering vector{of} ({vector.method})",
                },
            ),
            "acts": (
                ("checkpoint", "token"),
                np.stack(acts),
                {"units": "1", "long_name": "whether `steer` acts on the token"},
            ),
        },
        coords=token_coordinates(checkpoints, shown),
        attrs={
            "statement": text,
            "positions": str(positions),
            "note": "The model is read as it is, not steered; underlined is where steering would "
            f"act (positions: {positions}{', where a probe fires' if condition else ''}).",
        },
    )


def _chosen(
    rule: PositionRule, readings: TokenActivations, prompt_tokens: int | None
) -> np.ndarray:
    """Which tokens the positions mean, the text being all that is read."""
    count = len(readings.tokens)
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
        stated=None if prompt_tokens is None else torch.tensor([prompt_tokens]),
        tokens=torch.tensor([readings.ids]),
        device=torch.device("cpu"),
    )
    chosen = rule.mask(layout)
    if isinstance(chosen, bool):
        return np.full(count, chosen)
    return chosen[0].numpy().copy()


def _fires(
    condition: ProbeFires,
    checkpoint: Checkpoint,
    vector: SteeringVector,
    readings: TokenActivations,
    text: str,
    *,
    bos: bool | None,
    batch_tokens: int,
) -> np.ndarray:
    """Where the probe fires: it reads no later than the first site that is steered."""
    if condition.site is None or condition.site in vector.sites:
        number = 0 if condition.site is None else vector.sites.index(str(condition.site))
        values = readings.values[:, number]
    else:
        values = collect_tokens(
            checkpoint, text, sites=condition.site, bos=bos, batch_tokens=batch_tokens
        ).values[:, 0]
    return condition.fires(values).numpy().astype(bool)
