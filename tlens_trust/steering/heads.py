"""Which attention heads tell a concept's two sides apart."""

import json
from collections.abc import Sequence

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float
from torch import Tensor

from tlens_trust.concepts import Concept
from tlens_trust.measures.folds import assign_folds
from tlens_trust.measures.solver import solve_logistic

_FOLDS = 5
_C = 1.0


def choose_heads(
    activations: Float[Tensor, "example site d_head"],
    concept: Concept,
    *,
    heads: int,
    seed: int,
    sites: Sequence[str],
) -> tuple[list[int], dict[str, str]]:
    """Choose the heads where a logistic probe is right most often about left-out groups.

    Groups are dealt into five folds, fewer where they do not go into five; each is scored by a
    probe fitted without it. Of heads that are right equally often the one comes first whose
    log-odds are closer to the labels. The accuracies of the chosen are those of a choice among
    many, and so too high as estimates.

    Args:
        activations: One row per statement.
        concept: Its labels and groups.
        heads: How many to choose.
        seed: Deals the folds.
        sites: The heads' names.

    Returns:
        The chosen columns, in the order of the sites, and what to note of them.

    Raises:
        ValueError: `heads` is less than 1, or the groups do not go into two folds.
    """
    if heads < 1:
        raise ValueError(f"`heads` is how many heads to choose, at least 1, got {heads}.")
    fold = _deal(concept, seed)
    held = torch.from_numpy(fold)
    folds = int(held.max()) + 1
    labels = torch.from_numpy(concept.labels.copy()).long()
    fits = solve_logistic(
        activations, labels, train=torch.stack([held != k for k in range(folds)]), C=[_C]
    )
    log_odds = torch.empty(len(labels), len(sites), dtype=torch.float64)
    for k in range(folds):
        rows = held == k
        log_odds[rows] = (
            einsum(
                activations[rows].double(),
                fits.coef[:, k, 0].double(),
                "example site d_head, site d_head -> example site",
            )
            + fits.intercept[:, k, 0].double()
        )
    right = ((log_odds > 0) == (labels == 1)[:, None]).double().mean(dim=0)
    signs = (2.0 * labels - 1)[:, None]
    surprise = torch.nn.functional.softplus(-signs * log_odds).mean(dim=0)
    order = np.lexsort((surprise.numpy(), -right.numpy()))
    chosen = sorted(int(column) for column in order[:heads])
    noted = {sites[column]: round(float(right[column]), 4) for column in chosen}
    return chosen, {
        "heads": f"{len(chosen)} of {len(sites)}, by the accuracy of logistic probes (C={_C}) in "
        f"{folds} folds dealt by seed {seed}",
        "held_out_accuracy": json.dumps(noted),
    }


def _deal(concept: Concept, seed: int) -> np.ndarray:
    for folds in range(_FOLDS, 2, -1):
        try:
            return assign_folds(concept.labels, concept.groups, folds=folds, seed=seed)
        except ValueError:
            continue
    return assign_folds(concept.labels, concept.groups, folds=2, seed=seed)
