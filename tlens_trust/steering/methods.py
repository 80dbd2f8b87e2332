"""How a direction is estimated from labelled activations of one site."""

import json
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, TypeAlias

import numpy as np
import torch
from einops import einsum
from jaxtyping import Float, Int
from torch import Tensor

from tlens_trust.concepts import Concept
from tlens_trust.concepts.folds import assign_folds
from tlens_trust.measures.classifier import check_training_rows
from tlens_trust.measures.directions.contrast_consistent import fit_contrast_consistent_probe
from tlens_trust.measures.directions.lda import fit_lda_probe
from tlens_trust.measures.directions.pair_differences import (
    principal_pair_direction,
    towards_label_one,
)
from tlens_trust.measures.directions.pairs import find_pairs
from tlens_trust.measures.directions.ridge import fit_ridge_probe
from tlens_trust.measures.directions.sparse import fit_sparse_probe
from tlens_trust.measures.probe import LinearProbe, fit_logistic_probe
from tlens_trust.measures.solver import solve_logistic

_HEAD_FOLDS = 5
# The default of scikit-learn.
_HEAD_C = 1.0

# From activations, labels and groups to a direction.
Method: TypeAlias = Callable[[Tensor, Tensor, Sequence[str]], Tensor | LinearProbe]


def mean_difference(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str],
) -> Float[Tensor, " d_model"]:
    """`μ₁ - μ₀`, in float64."""
    values = activations.double()
    return values[labels == 1].mean(dim=0) - values[labels == 0].mean(dim=0)


def pair_difference(
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str],
) -> Float[Tensor, " d_model"]:
    """The principal direction of pair differences, turned towards label 1."""
    pairs = find_pairs(labels, groups)
    direction, _ = principal_pair_direction(activations, pairs)
    return direction * towards_label_one(direction, activations, pairs)


def _logistic(activations: Tensor, labels: Tensor, groups: Sequence[str]) -> LinearProbe:
    return fit_logistic_probe(activations, labels)


def _lda(activations: Tensor, labels: Tensor, groups: Sequence[str]) -> LinearProbe:
    return fit_lda_probe(activations, labels, groups=groups)


def _ridge(activations: Tensor, labels: Tensor, groups: Sequence[str]) -> LinearProbe:
    return fit_ridge_probe(activations, labels, groups=groups)


def _sparse(activations: Tensor, labels: Tensor, groups: Sequence[str]) -> LinearProbe:
    return fit_sparse_probe(activations, labels, groups=groups)


def _contrast_consistent(
    activations: Tensor, labels: Tensor, groups: Sequence[str], *, seed: int
) -> LinearProbe:
    return fit_contrast_consistent_probe(activations, labels, groups=groups, seed=seed)


_FITS: dict[str, Any] = {
    "mean_difference": mean_difference,
    "tracingllm": mean_difference,
    "pair_difference": pair_difference,
    "logistic": _logistic,
    "lda": _lda,
    "ridge": _ridge,
    "sparse": _sparse,
    "contrast_consistent": _contrast_consistent,
    "iti": mean_difference,
}

METHODS = tuple(_FITS)


def method_name(method: Any) -> str:
    """The name of a method.

    Raises:
        ValueError: It is neither a known name nor a function.
    """
    if isinstance(method, str) and method in _FITS:
        return method
    if not isinstance(method, str) and callable(method):
        inner = method.func if isinstance(method, partial) else method
        return str(getattr(inner, "__name__", type(inner).__name__))
    raise ValueError(
        f"`method` is one of {', '.join(map(repr, METHODS))}, or a function of activations, labels "
        f"and groups that gives a direction, got {method!r}."
    )


def site_direction(
    method: str | Method,
    activations: Float[Tensor, "example d_model"],
    labels: Int[Tensor, " example"],
    groups: Sequence[str],
    *,
    seed: int,
    site: str,
) -> Float[Tensor, " d_model"]:
    """Estimate the direction of one site, in float64, with the length that the method gives it.

    Args:
        method: As for `extract_steering_vector`.
        activations: One row per statement, in the model's own units.
        labels: 0 or 1.
        groups: The group of each statement.
        seed: Draws the random numbers of the method.
        site: The name of the site, for errors.

    Raises:
        ValueError: The method fails, or its direction is of another width or has no length.
    """
    check_training_rows(activations, labels)
    fit: Any = _FITS[method] if isinstance(method, str) else method
    if method == "contrast_consistent":
        fit = partial(fit, seed=seed)
    try:
        estimate = fit(activations, labels, groups)
    except ValueError as error:
        error.add_note(f"This was at {site!r}, for a steering vector by {method_name(method)!r}.")
        raise
    is_probe = isinstance(estimate, LinearProbe)
    direction = estimate.direction if is_probe else torch.as_tensor(estimate)
    direction = direction.detach().cpu().double()
    if direction.shape != activations.shape[1:] or not bool(torch.isfinite(direction).all()):
        raise ValueError(
            f"`method` returned a direction of shape {tuple(direction.shape)} at {site!r}, where a "
            f"finite one of shape {tuple(activations.shape[1:])} was expected."
        )
    if float(direction.norm()) == 0:
        raise ValueError(
            f"The direction at {site!r} has length 0: by {method_name(method)!r}, the two sides "
            "of the concept do not differ there. Choose another site."
        )
    return direction


def choose_heads(
    activations: Float[Tensor, "example site d_head"],
    concept: Concept,
    *,
    heads: int,
    seed: int,
    sites: Sequence[str],
) -> tuple[list[int], dict[str, str]]:
    """Choose the heads where a logistic probe has the highest held-out accuracy.

    Groups are dealt into five folds, or fewer if there are too few groups. Each fold is scored by a
    probe fitted without it. Among heads of equal accuracy, the one whose log-odds fit the labels
    better comes first. The accuracies of the selected heads are biased upwards by the selection.

    Args:
        activations: One row per statement.
        concept: The labels and groups of the statements.
        heads: How many heads to choose.
        seed: Deals the folds.
        sites: The names of the heads.

    Returns:
        The columns of the selected heads, in the order of the sites, and notes about them.

    Raises:
        ValueError: The groups cannot be divided into two folds.
    """
    fold = _deal(concept, seed)
    fold_of_row = torch.from_numpy(fold)
    folds = int(fold_of_row.max()) + 1
    labels = torch.from_numpy(concept.labels.copy()).long()
    fits = solve_logistic(
        activations,
        labels,
        train=torch.stack([fold_of_row != k for k in range(folds)]),
        C=[_HEAD_C],
    )
    log_odds = torch.empty(len(labels), len(sites), dtype=torch.float64)
    for k in range(folds):
        rows = fold_of_row == k
        log_odds[rows] = (
            einsum(
                activations[rows].double(),
                fits.coef[:, k, 0].double(),
                "example site d_head, site d_head -> example site",
            )
            + fits.intercept[:, k, 0].double()
        )
    accuracy = ((log_odds > 0) == (labels == 1)[:, None]).double().mean(dim=0)
    signs = (2.0 * labels - 1)[:, None]
    # `log(1 + exp(-s·z))` with `s = ±1`: the logistic loss, without overflow.
    surprise = torch.nn.functional.softplus(-signs * log_odds).mean(dim=0)
    # The last key counts most, and the order of the sites decides between equal heads.
    order = np.lexsort((surprise.numpy(), -accuracy.numpy()))
    columns = sorted(int(column) for column in order[:heads])
    accuracies = {sites[column]: round(float(accuracy[column]), 4) for column in columns}
    return columns, {
        "heads": f"{len(columns)} of {len(sites)}, by the accuracy of logistic probes "
        f"(C={_HEAD_C}) in {folds} folds dealt by seed {seed}",
        "held_out_accuracy": json.dumps(accuracies),
    }


def _deal(concept: Concept, seed: int) -> np.ndarray:
    for folds in range(_HEAD_FOLDS, 2, -1):
        try:
            return assign_folds(concept.labels, concept.groups, folds=folds, seed=seed)
        except ValueError:
            continue
    # Two folds are the least, so here an error reaches the user.
    return assign_folds(concept.labels, concept.groups, folds=2, seed=seed)
