"""Steering vectors from activations."""

from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from jaxtyping import Bool, Int
from torch import nn

from tlens_trust.activations import Activations, ActivationStore, collect_activations
from tlens_trust.activations.activations import checkpoint_name
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS
from tlens_trust.activations.sites import split_site
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.concepts import Concept
from tlens_trust.steering.compatibility import run_name
from tlens_trust.steering.heads import choose_heads
from tlens_trust.steering.methods import Method, method_name, site_direction
from tlens_trust.steering.vector import SteeringVector

Store: TypeAlias = ActivationStore | Literal["default"] | None
Sites: TypeAlias = str | int | Sequence[str | int]


def extract_steering_vector(
    source: Checkpoint | HookedModel | nn.Module | Activations,
    concept: Concept | None = None,
    *,
    site: Sites | None = None,
    method: str | Method = "mean_difference",
    rows: Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " example"] | None = None,
    heads: int = 48,
    seed: int = 0,
    position: Position = "last",
    bos: bool | None = None,
    tokenizer: Any = None,
    checkpoint: Checkpoint | None = None,
    store: Store = "default",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: bool = False,
) -> SteeringVector:
    """Take from a model the direction in which a concept's two sides differ.

    It points from label 0 to label 1. With `μ₁`, `μ₀` the means of the two sides, `u` a direction
    of length 1 and `σ` the standard deviation of the statements' projections onto `u`:

    - `"mean_difference"`: `μ₁ - μ₀`, as long as it is.
    - `"tracingllm"`: the paper's, `σ u` with `u` along `μ₁ - μ₀`.
    - `"pair_difference"`: `σ u` with `u` the principal direction of the differences between
      statements of one group with opposite labels.
    - `"logistic"`, `"lda"`, `"ridge"`, `"sparse"`, `"contrast_consistent"`: `σ u` with `u` along
      the weights of that probe.
    - `"iti"`: `σ u` with `u` along `μ₁ - μ₀`, at the attention heads where a logistic probe is
      right most often about statements of left-out groups. Steer at them with
      `positions=(-1, None)`, as inference-time intervention does.
    - a function that takes activations, labels and groups, and gives a direction or a
      `LinearProbe`: `σ u` along it.

    So but for the plain difference one unit of strength is one standard deviation of what is read
    along the direction. A probe's weight says where to cut between the sides, which need not be
    where the model moves from one to the other.

    Whatever is estimated (means, weights, `σ`, which heads) is estimated on `rows` alone.

    Args:
        source: A `Checkpoint`, which is loaded only if the store lacks its readings; a model; or
            `Activations`, of which nothing is read anew.
        concept: Labelled statements; may be left out where the activations hold their own.
        site: Where, as `collect_activations` takes its sites; needed unless `source` is
            activations (then None stands for all they hold) or the method is `"iti"` (for all
            heads).
        method: One of the above.
        rows: Which statements to make it of, as positions or as a mask; None for all. Whoever
            wants to see what the vector does to statements it was not made of leaves whole groups
            out; `vector.held_out(concept)` says which.
        heads: How many heads `"iti"` chooses.
        seed: Deals the folds that heads are chosen on, and draws the starts of
            `"contrast_consistent"`.
        position: Which of a statement's tokens to read, as `collect_activations` takes it.
        bos: Whether a beginning-of-sequence token stands before each statement.
        tokenizer: A tokenizer, where a plain model is passed.
        checkpoint: Where the weights of a model that is passed came from.
        store: Where readings of checkpoints are kept; None for none.
        batch_tokens: Tokens read at once.
        progress: Whether to show a bar.

    Returns:
        A vector that carries where it comes from.

    Raises:
        ValueError: An argument is none of those allowed, the activations are not of the concept,
            `rows` hold one label only, or a direction has no length.

    Source:
        Qian et al. (2024), arXiv:2402.19465; Marks and Tegmark (2023), arXiv:2310.06824; Zou et
        al. (2023), arXiv:2310.01405; Li et al. (2023), Inference-time intervention,
        arXiv:2306.03341.

    Examples:
        >>> labels = np.arange(40) % 2
        >>> said = tuple(f"Statement {row}." for row in range(40))
        >>> concept = Concept("order", "reliability", said, labels, said)
        >>> values = torch.randn(40, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> values[:, 0, 3] += 5 * torch.from_numpy(labels)
        >>> read = Activations(values, ("blocks.0.hook_resid_post",), concept=concept)
        >>> vector = extract_steering_vector(read)
        >>> vector
        SteeringVector(1 site × 8 wide, blocks.0.hook_resid_post, norm 5..., method
        'mean_difference', concept 'order')
        >>> int(vector.at(0).argmax()), vector.n
        (3, 40)
    """
    name = method_name(method)
    if isinstance(source, Activations):
        activations = _of_activations(source, concept, site)
    else:
        if concept is None:
            raise ValueError(
                "`concept` says what to look for in the model, got None. Pass a Concept, from "
                "`load_concepts()` for one."
            )
        if site is None and name != "iti":
            raise ValueError(
                "`site` says where to take the vector, got None. Give a layer number for the "
                "residual stream after that block, or a site's name."
            )
        known = source if isinstance(source, Checkpoint) else checkpoint
        kept = ActivationStore() if store == "default" and known is not None else store
        activations = collect_activations(
            source,
            concept,
            sites="z" if site is None else site,
            position=position,
            bos=bos,
            tokenizer=tokenizer,
            checkpoint=checkpoint,
            store=kept if isinstance(kept, ActivationStore) else None,
            batch_tokens=batch_tokens,
            progress=progress,
        )
    assert activations.concept is not None
    whole = activations.concept
    chosen = None if rows is None else _checked_rows(rows, whole)
    part = whole if chosen is None else whole.take(np.array(chosen))
    values = activations.values if chosen is None else activations.values[list(chosen)]
    labels = torch.from_numpy(part.labels.copy()).long()
    sites = activations.sites
    notes: dict[str, str] = {}
    if name == "iti":
        _check_heads(sites)
        columns, notes = choose_heads(values, part, heads=heads, seed=seed, sites=sites)
        values, sites = values[:, columns], tuple(sites[column] for column in columns)
    directions = torch.stack(
        [
            site_direction(method, values[:, column], labels, part.groups, seed=seed, site=site)
            for column, site in enumerate(sites)
        ]
    )
    units = directions / directions.norm(dim=1, keepdim=True)
    spread = torch.stack(
        [(values[:, k].double() @ unit).std(correction=0) for k, unit in enumerate(units)]
    )
    lengths = values.double().square().sum(dim=2).mean(dim=0).sqrt()
    vector = SteeringVector(
        values=directions if name == "mean_difference" else units * spread[:, None],
        sites=sites,
        method=name,
        concept=whole.name,
        polarity=whole.polarity,
        position=activations.position,
        n=len(part),
        rows=chosen,
        fingerprint=whole.fingerprint,
        n_layers=activations.n_layers,
        spread=spread,
        rms=lengths,
        notes=notes,
        **_provenance(source, activations.checkpoint),
    )
    return vector


def _of_activations(
    source: Activations, concept: Concept | None, site: Sites | None
) -> Activations:
    held = source.concept
    if concept is not None:
        if held is not None and held.fingerprint != concept.fingerprint:
            raise ValueError(
                f"These activations were read from {held.name!r} as it was then, and not from the "
                f"concept {concept.name!r} that is passed beside them. Leave it out, or read it."
            )
        source = Activations(
            source.values,
            source.sites,
            checkpoint=source.checkpoint,
            concept=concept,
            position=source.position,
            n_layers=source.n_layers,
        )
    elif held is None:
        raise ValueError(
            "These activations do not say which labels their statements have. Pass the concept "
            "that they were read from."
        )
    return source if site is None else source.select(site)


def _checked_rows(rows: Any, concept: Concept) -> tuple[int, ...]:
    given = np.asarray(rows)
    if given.dtype == bool and given.shape == (len(concept),):
        given = np.flatnonzero(given)
    if len(given) and len(np.unique(given)) < len(given):
        raise ValueError("`rows` names a statement twice. Name each of them once.")
    concept.take(given)  # complains of what is no row
    return tuple(int(row) for row in given)


def _check_heads(sites: Sequence[str]) -> None:
    other = [site for site in sites if split_site(site)[1] is None]
    if other:
        raise ValueError(
            f"Inference-time intervention acts at attention heads, and {other[0]!r} is none. Ask "
            "for site='z', or for heads as 'blocks.3.attn.hook_z[7]'."
        )


def _provenance(source: Any, checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is not None:
        where = checkpoint.model if checkpoint.folder is None else run_name(str(checkpoint.folder))
        return {
            "model": where,
            "checkpoint": checkpoint_name(checkpoint),
            "identity": checkpoint.identity,
        }
    if isinstance(source, Activations):
        return {}
    model = PlainModel(source) if is_plain_model(source) else source
    return {"model": str(getattr(model.cfg, "model_name", None) or "") or None}
