"""Steering vectors, estimated from activations."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn

from tlens_trust.activations import Activations
from tlens_trust.activations.activations import checkpoint_name
from tlens_trust.activations.collect import collect_concepts
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS, Sites, Store
from tlens_trust.activations.sites import split_site
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.concepts import Concept
from tlens_trust.steering.compatibility import run_name
from tlens_trust.steering.estimation_options import DEFAULT_HEADS, EstimationOptions, Rows
from tlens_trust.steering.methods import Method, choose_heads, method_name, site_direction
from tlens_trust.steering.training_rows import checked_rows
from tlens_trust.steering.vector import SteeringVector


def extract_steering_vector(
    source: Checkpoint | HookedModel | nn.Module | Activations,
    concept: Concept | None = None,
    *,
    site: Sites | None = None,
    method: str | Method = "mean_difference",
    rows: Rows | None = None,
    heads: int = DEFAULT_HEADS,
    seed: int = 0,
    position: Position = "last",
    bos: bool | None = None,
    tokenizer: Any = None,
    checkpoint: Checkpoint | None = None,
    store: Store = "default",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    progress: bool = False,
) -> SteeringVector:
    """Extract the direction in which the two sides of a concept differ in a model.

    It points from label 0 to label 1. With `μ₁`, `μ₀` the means of the two sides, `u` a direction
    of length 1 and `σ` the standard deviation of the statements' projections onto `u`:

    - `"mean_difference"`: `μ₁ - μ₀`, with its own length.

    - `"tracingllm"`: the paper's, `σ u` with `u` along `μ₁ - μ₀`.

    - `"pair_difference"`: `σ u` with `u` the principal direction of the differences between
      statements of one group with opposite labels.

    - `"logistic"`, `"lda"`, `"ridge"`, `"sparse"`, `"contrast_consistent"`: `σ u` with `u` along
      the weights of that probe.

    - `"iti"`: `σ u` with `u` along `μ₁ - μ₀`, at the attention heads where a logistic probe has the
      highest held-out accuracy. Steer at them with `positions=(-1, None)`, as inference-time
      intervention does.

    - a function of activations, labels and groups that returns a direction or a `LinearProbe`:
      `σ u` along it.

    For all methods except the plain difference, one unit of strength is one standard deviation of
    the projections. A probe's weights separate the two sides; they need not point from one side
    to the other.

    All estimates (means, weights, `σ`, the choice of heads) use `rows` alone.

    Args:
        source: A `Checkpoint`, which is loaded only if the store lacks its activations; a model; or
            `Activations`, in which case no model is run.
        concept: Labelled statements. May be left out if the activations have their own.
        site: Where to estimate, as the `sites` of `collect_activations`. Required, except for
            activations (None: all their sites) and for the method `"iti"` (None: all heads).
        method: One of the above.
        rows: The statements to estimate from, as positions or as a mask. None for all. To evaluate
            the vector on other statements, leave whole groups out;
            `vector.held_out(concept)` gives the statements that are left.
        heads: How many heads `"iti"` chooses.
        seed: Deals the folds in which heads are chosen, and draws the starting points of
            `"contrast_consistent"`.
        position: Which token of a statement to use, as for `collect_activations`.
        bos: Whether a beginning-of-sequence token stands before each statement.
        tokenizer: A tokenizer, if a plain model is passed.
        checkpoint: The checkpoint that the weights of a passed model came from.
        store: Where activations of checkpoints are kept. None keeps none.
        batch_tokens: Tokens in one batch.
        progress: Whether to show a progress bar.

    Returns:
        A vector with its provenance.

    Raises:
        ValueError: An argument has none of the allowed values, the activations are not of the
            concept, `rows` hold one label only, or a direction has length 0.

    Source:
        Qian et al. (2024), arXiv:2402.19465; Marks and Tegmark (2023), arXiv:2310.06824; Zou et
        al. (2023), arXiv:2310.01405; Li et al. (2023), Inference-time intervention,
        arXiv:2306.03341.

    Examples:
        >>> labels = np.arange(40) % 2
        >>> statements = tuple(f"Statement {row}." for row in range(40))
        >>> concept = Concept("order", "reliability", statements, labels, statements)
        >>> values = torch.randn(40, 1, 8, generator=torch.Generator().manual_seed(0))
        >>> values[:, 0, 3] += 5 * torch.from_numpy(labels)
        >>> activations = Activations(values, ("blocks.0.hook_resid_post",), concept=concept)
        >>> vector = extract_steering_vector(activations)
        >>> vector
        SteeringVector(1 site × 8 wide, blocks.0.hook_resid_post, norm 5..., method
        'mean_difference', concept 'order')
        >>> int(vector.at(0).argmax()), vector.n
        (3, 40)
    """
    from_activations = isinstance(source, Activations)
    has_checkpoint = isinstance(source, Checkpoint) or checkpoint is not None
    if from_activations or (store == "default" and not has_checkpoint):
        store = None  # activations are kept by the identity of a checkpoint's weights
    if site is None and not from_activations and method_name(method) != "iti":
        raise ValueError(
            "`site` says where to extract the vector, got None. Give a layer number for the "
            "residual stream after that block, or a site's name."
        )
    estimation = EstimationOptions(
        sites="z" if site is None else site,
        method=method,
        rows=rows,
        heads=heads,
        position=position,
        bos=bos,
        store=store,
        batch_tokens=batch_tokens,
    )
    if isinstance(source, Activations):
        activations = _with_concept(source, concept)
        if site is not None:
            activations = activations.select(site)
        return _vector_of(
            activations, estimation, seed, _provenance(source, activations.checkpoint)
        )
    if concept is None:
        raise ValueError(
            "`concept` holds the statements whose sides differ, got None. Pass a Concept, for "
            "example from `load_concepts()`."
        )
    return estimate_vector(
        source,
        concept,
        estimation,
        seed=seed,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        progress=progress,
    )


def estimate_vector(
    source: Checkpoint | HookedModel | nn.Module,
    concept: Concept,
    estimation: EstimationOptions,
    *,
    seed: int,
    tokenizer: Any = None,
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> SteeringVector:
    """Estimate a steering vector of a model, as `extract_steering_vector` does.

    Args:
        source: A checkpoint or a model.
        concept: Labelled statements.
        estimation: Where and how to estimate; without `rows`, from all statements.
        seed: Deals folds and draws starting points.
        tokenizer: A tokenizer, if a plain model is passed.
        checkpoint: The checkpoint that the weights of a passed model came from.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: As `extract_steering_vector`.
    """
    (activations,) = collect_concepts(
        source,
        [concept],
        estimation,
        tokenizer=tokenizer,
        checkpoint=checkpoint,
        progress=progress,
    )
    return _vector_of(activations, estimation, seed, _provenance(source, activations.checkpoint))


def _vector_of(
    activations: Activations, estimation: EstimationOptions, seed: int, provenance: dict[str, Any]
) -> SteeringVector:
    concept = activations.concept
    assert concept is not None
    method, name = estimation.method, method_name(estimation.method)
    rows = None if estimation.rows is None else checked_rows(estimation.rows, concept)
    training = concept if rows is None else concept.take(np.array(rows))
    values = activations.values if rows is None else activations.values[list(rows)]
    # A concept's labels are read-only, and torch warns about a tensor that shares such memory.
    labels = torch.from_numpy(training.labels.copy()).long()
    sites = activations.sites
    notes: dict[str, str] = {}
    if name == "iti":
        _check_heads(sites)
        columns, notes = choose_heads(
            values, training, heads=estimation.heads, seed=seed, sites=sites
        )
        values, sites = values[:, columns], tuple(sites[column] for column in columns)
    directions = torch.stack(
        [
            site_direction(method, values[:, column], labels, training.groups, seed=seed, site=site)
            for column, site in enumerate(sites)
        ]
    )
    # `site_direction` refuses a direction of length 0.
    units = directions / directions.norm(dim=1, keepdim=True)
    spread = torch.stack(
        [(values[:, k].double() @ unit).std(correction=0) for k, unit in enumerate(units)]
    )
    rms = values.double().square().sum(dim=2).mean(dim=0).sqrt()
    return SteeringVector(
        values=directions if name == "mean_difference" else units * spread[:, None],
        sites=sites,
        method=name,
        concept=concept.name,
        polarity=concept.polarity,
        position=activations.position,
        n=len(training),
        rows=rows,
        fingerprint=concept.fingerprint,
        n_layers=activations.n_layers,
        spread=spread,
        rms=rms,
        notes=notes,
        **provenance,
    )


def _with_concept(activations: Activations, concept: Concept | None) -> Activations:
    """Activations with the concept they are of."""
    own_concept = activations.concept
    if concept is None:
        if own_concept is None:
            raise ValueError(
                "These activations do not say which labels their statements have. Pass the concept "
                "that they were collected for."
            )
        return activations
    if own_concept is not None and own_concept.fingerprint != concept.fingerprint:
        raise ValueError(
            f"These activations were collected for {own_concept.name!r} as it was then, and not "
            f"from the concept {concept.name!r} that is passed with them. Leave it out, or collect "
            "its activations."
        )
    return Activations(
        activations.values,
        activations.sites,
        checkpoint=activations.checkpoint,
        concept=concept,
        position=activations.position,
        n_layers=activations.n_layers,
    )


def _check_heads(sites: Sequence[str]) -> None:
    non_heads = [site for site in sites if split_site(site)[1] is None]
    if non_heads:
        raise ValueError(
            f"Inference-time intervention acts at attention heads, and {non_heads[0]!r} is none. "
            "Ask for site='z', or for heads as 'blocks.3.attn.hook_z[7]'."
        )


def _provenance(source: Any, checkpoint: Checkpoint | None) -> dict[str, Any]:
    if checkpoint is not None:
        # The name of the run and not its path, so that a run is recognised after it was moved.
        run = checkpoint.model if checkpoint.folder is None else run_name(str(checkpoint.folder))
        return {
            "model": run,
            "checkpoint": checkpoint_name(checkpoint),
            "identity": checkpoint.identity,
        }
    if isinstance(source, Activations):
        return {}
    model = PlainModel(source) if is_plain_model(source) else source
    return {"model": str(getattr(model.cfg, "model_name", None) or "") or None}
