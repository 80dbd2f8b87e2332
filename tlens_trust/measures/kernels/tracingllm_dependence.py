"""The dependence estimator of Qian et al. (2024), as in their reference code.

It serves to reproduce published curves and to compare them with other estimators. What the paper
reports as mutual information follows the spectrum of the activations. An invertible map, which
changes no information, changes it several-fold. It is also not 0 for unrelated representations.
"""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts, checked_positive
from tlens_trust.concepts import Concept
from tlens_trust.measures.kernels.kernel import (
    GaussianKernel,
    check_pair,
    gaussian_of,
    label_column,
    squared_distances,
)
from tlens_trust.measures.kernels.low_rank import pivoted_cholesky
from tlens_trust.measures.kernels.normalised import (
    LowRankValue,
    NormalisedFactor,
    resolvent,
)
from tlens_trust.measures.kernels.precomputed_kernels import (
    FIRST_BLOCK,
    FIRST_BLOCK_NOT_READ,
    SignUnits,
)
from tlens_trust.measures.kernels.rotations import Rotations
from tlens_trust.measures.labelled import labelled, labelled_null
from tlens_trust.measures.nulls import in_deviations, middle_95, p_values_of
from tlens_trust.measures.permutations import permute_labels

# The values in the reference code of Qian et al.
SIGMA, EPSILON, TRAINING_PART = 50.0, 1e-5, 0.8
_AGAINST = ("first_block", "label")
_ABOUT = (
    "normalised Hilbert-Schmidt independence criterion by the estimator of Qian et al. (a "
    "dependence, not in nats)"
)


def tracingllm_features(x: Float[Tensor, "example d"]) -> Float[Tensor, "_ d"]:
    """Standardise features over all rows, then take the first 80% of rows, as the paper does.

    Each feature is scaled by its mean and its standard deviation with `n - 1`. A constant feature
    becomes 0, where the reference code gives NaN. The result is in float64.

    Examples:
        >>> tracingllm_features(torch.arange(10.0).unsqueeze(1)).shape
        torch.Size([8, 1])
    """
    centred = x.double() - x.double().mean(dim=0)
    deviation = centred.std(dim=0)
    rounding = 8 * torch.finfo(x.dtype).eps * x.double().abs().amax(dim=0)
    scaled = torch.where(deviation > rounding, centred / deviation.clamp_min(1e-300), 0.0)
    return scaled[: int(len(scaled) * TRAINING_PART)]


def tracingllm_kernel(
    x: Float[Tensor, "example d"], *, sigma: float = SIGMA
) -> Float[Tensor, "example example"]:
    """Compute `exp(-‖xᵢ - xⱼ‖² / (2 σ² d))`, with `d` features."""
    return gaussian_of(squared_distances(x, x), sigma * x.shape[1] ** 0.5)


def tracingllm_information(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    *,
    sigma: float = SIGMA,
    epsilon: float = EPSILON,
) -> float:
    """Compute what Qian et al. report as mutual information: `tr(R_x R_y)`, in float64.

    `R = K (K + ε m I)⁻¹` and `K = H exp(-‖xᵢ - xⱼ‖² / (2 σ² d)) H`, with `m` rows and `d` features.
    The value is a plain number, not in nats, and not mutual information.

    With so large a σ the kernel is almost linear. The value then counts the principal components
    that two representations share. Those with a share of the variance well above `ε σ²` = 2.5%
    count in full. So it follows the effective rank of the activations. For unrelated
    representations it is above 0, by `tr(R_x) tr(R_y) / (m - 1)`. The reference code computes in
    float32, where rounding at large σ can make it negative.

    Args:
        x: The first representation: activations from `tracingllm_features`.
        y: The second one, row by row for the same examples; labels are a column of 0 and 1, not
            standardised.
        sigma: `σ`.
        epsilon: `ε`.

    Raises:
        ValueError: The two differ in length, are fewer than 4, or hold what is not finite; `sigma`
            or `epsilon` is not a positive number.

    Source:
        Qian et al. (2024), arXiv:2402.19465, their `hsic_normalized_cca`, after Ma, Lewis and
        Kleijn (2020), arXiv:1908.01580. They centre kernels from one side alone, which gives the
        same trace.

    Examples:
        >>> x = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
        >>> round(tracingllm_information(x, x), 2)
        3.98
    """
    check_pair(x, y)
    _check_options(sigma, epsilon)
    factors = [resolvent(tracingllm_kernel(v, sigma=sigma), epsilon) for v in (x, y)]
    return float(torch.dot(factors[0].flatten(), factors[1].flatten()))


def tracingllm_low_rank(
    x: Float[Tensor, "example d"],
    y: Float[Tensor, "example k"],
    *,
    sigma: float = SIGMA,
    epsilon: float = EPSILON,
    rank: int = 768,
    tolerance: float = 1e-9,
) -> LowRankValue:
    """Compute `tracingllm_information` for many examples, with an error bound.

    Args:
        x: The first representation.
        y: The second one, row by row for the same examples.
        sigma: `σ`.
        epsilon: `ε`.
        rank: The largest rank of each factor.
        tolerance: The tolerance of the factorisation (see `pivoted_cholesky`).

    Raises:
        ValueError: As for `tracingllm_information`.

    Examples:
        >>> x = torch.randn(2000, 5, generator=torch.Generator().manual_seed(0))
        >>> low = tracingllm_low_rank(x, x)
        >>> low.bound < 1e-2, abs(low.value - tracingllm_information(x, x)) <= low.bound + 1e-6
        (True, True)
    """
    check_pair(x, y)
    _check_options(sigma, epsilon)
    sides = [
        tracingllm_factor(v, sigma=sigma, epsilon=epsilon, rank=rank, tolerance=tolerance)
        for v in (x, y)
    ]
    return sides[0].dot(sides[1])


def tracingllm_factor(
    x: Float[Tensor, "example d"],
    *,
    sigma: float = SIGMA,
    epsilon: float = EPSILON,
    rank: int = 768,
    tolerance: float = 1e-9,
) -> NormalisedFactor:
    """Compute one side of `tracingllm_low_rank`, to compare with any number of others."""
    kernel = GaussianKernel(sigma * x.shape[1] ** 0.5)
    low = pivoted_cholesky(kernel, x, rank=rank, tolerance=tolerance)
    return NormalisedFactor.of(low, epsilon)


@dataclass(frozen=True)
class TracingLLMDependence:
    """Measure the paper's estimator at every site, with its permutation null: a `Measure`.

    Attributes:
        sigma: `σ`.
        epsilon: `ε`.
        permutations: The largest number of permutations for a null.
    """

    sigma: float = SIGMA
    epsilon: float = EPSILON
    permutations: int = 1000

    def __post_init__(self) -> None:
        _check_options(self.sigma, self.epsilon)
        check_counts(self, {"permutations": 1})

    @property
    def name(self) -> str:
        """The measure's name, `tracingllm_dependence`."""
        return "tracingllm_dependence"

    @property
    def identity(self) -> str:
        """The name and every parameter that changes the result."""
        return (
            f"{self.name}(sigma={self.sigma}, epsilon={self.epsilon}, "
            f"permutations={self.permutations}, version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure the dependence at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: The labels, and the groups for the permutations.
            seed: Draws the permutations.

        Returns:
            See `tracingllm_dependence`.

        Raises:
            ValueError: The activations do not belong to this concept's statements, or the first 80%
                of them have only one label.
        """
        if len(activations) != len(concept):
            raise ValueError(
                f"The activations hold {len(activations)} statements, but concept "
                f"{concept.name!r} has {len(concept)}. Collect them from this concept."
            )
        rows = int(len(concept) * TRAINING_PART)
        groups, labels = concept.groups[:rows], concept.labels[:rows]
        if len(set(labels.tolist())) < 2:
            raise ValueError(
                f"The first 80% of {concept.name!r} hold label {labels[0]} alone, and the paper's "
                "protocol takes rows in their order. Put them in the order of the paper's file, or "
                "use `kernel_dependence()`, which does not depend on it."
            )
        rotations = Rotations.draw(groups, permutations=self.permutations, seed=seed)
        permuted = permute_labels(
            labels,
            groups,
            np.zeros(rows, dtype=np.int64),
            permutations=self.permutations,
            seed=seed,
        )
        order = torch.from_numpy(rotations.order)
        units = SignUnits.of(torch.from_numpy(2.0 * permuted.draws.T - 1).float()[order])
        label = self._resolvent(label_column(labels)[order])
        # The centred kernel of binary labels has one eigenvector, the centred labels. So one
        # weight turns quadratic forms in the signs into the statistic.
        weight = float(label.diagonal().sum()) / (rows * 4 * labels.mean() * (1 - labels.mean()))

        sites = len(activations.sites)
        block_site = (
            activations.sites.index(FIRST_BLOCK) if FIRST_BLOCK in activations.sites else None
        )
        value = np.full((sites, len(_AGAINST)), np.nan)
        nulls: list[list[np.ndarray]] = [[] for _ in _AGAINST]
        block_reference: tuple[Tensor, tuple[Tensor, ...]] | None = None
        for site in [*([] if block_site is None else [block_site]), *range(sites)]:
            features = tracingllm_features(activations.values[:, site])[order]
            R = self._resolvent(features)
            if block_reference is None and block_site is not None:
                block_reference = R, rotations.transform(R.float(), seated=True)
                continue
            value[site, 1] = float(torch.dot(R.flatten(), label.flatten()))
            seated = R.float()
            # The rows of R sum to 0, so the signs need not be centred.
            nulls[1].append(weight * units.quadratic_forms(seated))
            if block_reference is not None:
                value[site, 0] = float(torch.dot(R.flatten(), block_reference[0].flatten()))
                transform = rotations.transform(seated, seated=True)
                nulls[0].append(rotations.sums(transform, block_reference[1]))
        counts = rotations.permutations, permuted.permutations
        return self._dataset(activations.sites, value, nulls, counts, rows)

    def _resolvent(self, features: Float[Tensor, "example d"]) -> Float[Tensor, "example example"]:
        return resolvent(tracingllm_kernel(features, sigma=self.sigma), self.epsilon)

    def _dataset(
        self,
        sites: tuple[str, ...],
        value: Float[np.ndarray, "site against"],
        nulls: list[list[np.ndarray]],
        counts: tuple[int, int],
        rows: int,
    ) -> xr.Dataset:
        band = np.full((*value.shape, 2), np.nan)
        p, p_best = np.full(value.shape, np.nan), np.full(value.shape, np.nan)
        for against, site_draws in enumerate(nulls):
            if site_draws:
                draws = np.stack(site_draws)
                band[:, against] = middle_95(draws[:, 1:].T)
                p[:, against], p_best[:, against] = p_values_of(in_deviations(draws))
        attributes: dict[str, object] = {
            "sigma": self.sigma,
            "epsilon": self.epsilon,
            "rows": "the first 80%, standardised over all",
        }
        if not nulls[0]:
            attributes["first_block"] = FIRST_BLOCK_NOT_READ
        permutation_counts = ", ".join(f"{a}: {c}" for a, c in zip(_AGAINST, counts, strict=True))
        dims = "site", "against"
        variables = labelled(
            "nhsic_tracingllm",
            value,
            units="1",
            long_name=_ABOUT,
            dims=dims,
            n=rows,
            attributes=attributes,
        )
        variables |= labelled_null(
            "nhsic_tracingllm",
            long_name=_ABOUT,
            permutations=permutation_counts,
            band=band,
            condition="under permutations",
            p=p,
            p_best=p_best,
            dims=dims,
            attributes=attributes,
        )
        return xr.Dataset(
            variables,
            coords={"site": list(sites), "against": list(_AGAINST), "bound": ["low", "high"]},
        )


def tracingllm_dependence(*, permutations: int = 1000) -> TracingLLMDependence:
    """Measure the estimator of Qian et al., which they report as mutual information.

    The variable is `nhsic_tracingllm` along `site` and `against`. `first_block` is their X, the
    output of the first block at the same checkpoint; it is NaN if that site is missing. `label` is
    their Y.

    It is computed as in the paper: σ = 50, ε = 1e-5, features standardised over all statements, the
    first 80% of them, and labels as one feature of 0 and 1. `…_null` is the middle 95% where
    statements or labels are permuted, with groups kept together. `…_p` and `…_p_best` are the
    p-values by that null, and `…_n` is the number of statements.

    See `tracingllm_information` for the limits of the estimator, and `kernel_dependence` for a
    version with controls.

    Args:
        permutations: The largest number of permutations for a null.

    Returns:
        A measure named `tracingllm_dependence`.

    Examples:
        >>> tracingllm_dependence().name
        'tracingllm_dependence'
    """
    return TracingLLMDependence(permutations=permutations)


def _check_options(sigma: float, epsilon: float) -> None:
    for name, value in (("sigma", sigma), ("epsilon", epsilon)):
        checked_positive(name, value)
