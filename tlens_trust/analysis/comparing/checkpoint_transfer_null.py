"""Scores at another checkpoint of probes that were fitted to permuted labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy.stats import rankdata

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.permutations import permute_labels


@dataclass(frozen=True, eq=False)
class CheckpointProbes:
    """The probes of one checkpoint.

    Attributes:
        scores: Held-out log-odds at the same checkpoint, in nats.
        fewer: The same by probes without one more fold; None where not known.
        fold: The fold of each statement.
        directions: In nats per unit of activation.
        biases: In nats.
        mean: Mean of each feature over the training rows of each fold.
        deviation: Standard deviation likewise; 0 where a feature is constant.
        shared: Variance of each score that comes from shared training folds.
        strength: The inverse penalty of each site; None where the probe has none.
    """

    scores: Float[np.ndarray, "example site"]
    fewer: Float[np.ndarray, "fold example site"] | None
    fold: Int[np.ndarray, " example"]
    directions: Float[np.ndarray, "site fold d_model"]
    biases: Float[np.ndarray, "site fold"]
    mean: Float[np.ndarray, "site fold d_model"]
    deviation: Float[np.ndarray, "site fold d_model"]
    shared: Mapping[str, Float[np.ndarray, " site"]]
    strength: Float[np.ndarray, " site"] | None


def fit_permuted(
    activations: Activations,
    concept: Concept,
    probes: CheckpointProbes,
    permutations: int,
    seed: int,
) -> Float[np.ndarray, "site fold d_model draw"]:
    """Fit probes to permuted labels, without each fold, on standardised features.

    With a penalty, this is the first Newton step of a logistic probe from weights of zero,
    `(I / C + p(1 - p) ZᵀZ)⁻¹ Zᵀ(y - p)`. Without one, it is the difference of the class means.
    """
    if permutations < 2:
        raise ValueError(
            f"`permutations` must be at least 2, got {permutations}: a null band has two ends."
        )
    permuted = permute_labels(
        concept.labels, concept.groups, probes.fold, permutations=permutations, seed=seed
    )
    labels = permuted.draws[1:].T.astype(np.float64)
    sites, folds, width = probes.mean.shape
    weights = np.empty((sites, folds, width, permutations), dtype=np.float32)
    for k in range(folds):
        train = probes.fold != k
        share = concept.labels[train].mean()
        residuals = labels[train] - share
        rows = activations.values[torch.from_numpy(train)].double().numpy()
        for site in range(sites):
            features = (rows[:, site] - probes.mean[site, k]) * _inverse(probes.deviation[site, k])
            gradient = features.T @ residuals
            if probes.strength is None:
                weights[site, k] = gradient * np.square(probes.deviation[site, k])[:, None]
                continue
            curvature = share * (1 - share) * features.T @ features
            curvature[np.diag_indices(width)] += 1 / probes.strength[site]
            weights[site, k] = np.linalg.solve(curvature, gradient)
    return weights


def null_bands(
    source: CheckpointProbes,
    weights: Float[np.ndarray, "site fold d_model draw"],
    target: CheckpointProbes,
    activations: Activations,
    concept: Concept,
) -> xr.Dataset:
    """The middle 95% of their accuracy and AUROC at a target, raw and restandardised.

    Args:
        source: The probes of the checkpoint that the permuted ones were fitted at.
        weights: The permuted probes, as `fit_permuted` gives them.
        target: The probes of the checkpoint that is scored.
        activations: Activations of that checkpoint.
        concept: Its labels, which are not permuted.

    Returns:
        `accuracy_null`, `auroc_null`, and both `…_restandardised_null`, along `site` and `bound`.
    """
    sites, folds, _, draws = weights.shape
    values = activations.values.double().numpy()
    ones = concept.labels == 1
    correct_counts = {name: np.zeros((sites, draws)) for name in ("", "_restandardised")}
    area = {name: np.zeros((sites, draws)) for name in correct_counts}
    for k in range(folds):
        rows = target.fold == k
        share = concept.labels[~rows].mean()
        offset = np.log(share) - np.log1p(-share) if source.strength is not None else 0.0
        for site in range(sites):
            fold_values = values[rows, site]
            for name, origin in (("", source), ("_restandardised", target)):
                scaled = (fold_values - origin.mean[site, k]) * _inverse(origin.deviation[site, k])
                scores = scaled @ weights[site, k] + offset
                correct_counts[name][site] += ((scores > 0) == ones[rows, None]).sum(axis=0)
                area[name][site] += _areas(scores, ones[rows]) / folds
    data = xr.Dataset(coords={"bound": ["low", "high"]})
    for name in correct_counts:
        suffix_text = ", features standardised at the target" if name else ""
        for score, level, units in (
            ("accuracy", correct_counts[name] / len(ones), "fraction of statements"),
            ("auroc", area[name], "1"),
        ):
            data[f"{score}{name}_null"] = (
                ("site", "bound"),
                np.quantile(level, [0.025, 0.975], axis=1).T,
                {
                    "units": units,
                    "long_name": f"middle 95% of the {score} at the target of probes fitted to "
                    f"permuted labels at the source{suffix_text}",
                    "permutations": draws,
                },
            )
    return data


def _areas(
    scores: Float[np.ndarray, "example draw"], ones: np.ndarray
) -> Float[np.ndarray, " draw"]:
    """The area under the ROC curve of each column."""
    positive = int(ones.sum())
    pairs_won = rankdata(scores, axis=0)[ones].sum(axis=0) - positive * (positive + 1) / 2
    areas: np.ndarray = pairs_won / (positive * (len(ones) - positive))
    return areas


def _inverse(deviation: Float[np.ndarray, " d_model"]) -> Float[np.ndarray, " d_model"]:
    """One over it; 0 where a feature is constant."""
    inverse: np.ndarray = np.divide(
        1.0, deviation, out=np.zeros_like(deviation), where=deviation > 0
    )
    return inverse
