"""Estimate information from distances to nearest neighbours, with the known bias of each estimate.

Where two variables depend on each other, examples that are close in one are close in the other. The
estimators need no model of the density, but they need near neighbours. In many dimensions, or under
strong dependence, there are none, and the estimates are far too low.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from scipy.special import digamma
from sklearn.neighbors import KDTree, NearestNeighbors
from torch import Tensor

from tlens_trust.arguments import check_counts, checked_count
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.resampling import HalfSamples

# Below this share of the variance, the estimate warns that components are left out.
_KEPT_VARIANCE = 0.95
# Mean estimate and truth in nats, by dimension (n = 2,000, k = 3; see `NearestNeighbours`).
_GAUSSIANS = {
    3: ((0.411, 0.432), (2.279, 2.491)),
    5: ((0.537, 0.719), (2.879, 4.152)),
    10: ((0.642, 1.438), (3.049, 8.304)),
    20: ((0.606, 2.877), (2.663, 16.607)),
}
_TWO_LABELS = {
    5: ((0.342, 0.337),),
    10: ((0.320, 0.337),),
    20: ((0.278, 0.337),),
    50: ((0.208, 0.337),),
}


def leading_components(
    x: Float[Tensor, "example d"], components: int
) -> tuple[Float[np.ndarray, "example component"], float]:
    """Compute the leading principal components in a common unit, and their share of the variance.

    Raises:
        ValueError: `components` is less than 1, or a value is not finite.
    """
    components = checked_count("components", components)
    values = x.double().cpu()
    if not bool(torch.isfinite(values).all()):
        raise ValueError("Nearest neighbours need finite values, got a NaN or an infinity.")
    values = values - values.mean(dim=0)
    left_vectors, lengths, _ = torch.linalg.svd(values, full_matrices=False)
    leading = left_vectors[:, :components] * lengths[:components]
    total = float(lengths.square().sum())
    # Distances from the mean below 1e-12 of the values (1e-24 squared) are rounding.
    if total <= 1e-24 * max(float(x.double().square().sum()), 1e-300):
        return np.zeros((len(x), 1)), 1.0
    unit = float(leading.square().mean().sqrt())
    return (leading / unit).numpy(), float(lengths[:components].square().sum()) / total


def ksg(
    x: Float[np.ndarray, "example dx"], y: Float[np.ndarray, "example dy"], neighbours: int
) -> float:
    """Estimate information by Kraskov, Stögbauer and Grassberger's first estimator, in nats.

    `ψ(k) + ψ(n) - ⟨ψ(n_x + 1) + ψ(n_y + 1)⟩` in the maximum norm. `n_x` counts the examples that
    are closer in `x` than the `k`-th neighbour in both variables.
    """
    n = len(x)
    joint = np.column_stack([x, y])
    search = NearestNeighbors(metric="chebyshev", n_neighbors=neighbours).fit(joint)
    # The estimator counts examples strictly closer than the neighbour: the next smaller number.
    radius = np.nextafter(search.kneighbors()[0][:, -1], 0)
    # Counts within the radius include the example itself, which is the `+ 1` of the formula.
    neighbour_counts = [
        KDTree(side, metric="chebyshev").query_radius(side, radius, count_only=True)
        for side in (x, y)
    ]
    return float(
        digamma(neighbours)
        + digamma(n)
        - digamma(np.maximum(neighbour_counts[0], 1)).mean()
        - digamma(np.maximum(neighbour_counts[1], 1)).mean()
    )


def ross(
    x: Float[np.ndarray, "example dx"], labels: Int[np.ndarray, " example"], neighbours: int
) -> float:
    """Estimate the information between a variable and labels by Ross's estimator, in nats.

    `ψ(n) + ψ(k) - ⟨ψ(n_label)⟩ - ⟨ψ(m)⟩` in the maximum norm. `m` counts the examples of any label
    within the distance of the `k`-th neighbour of the same label. For a label with fewer than
    `k + 1` examples, `k` is reduced to all its neighbours. A label that occurs once is left out.
    """
    radius = np.zeros(len(x))
    is_used = np.zeros(len(x), dtype=bool)
    label_counts = np.zeros(len(x))
    neighbour_ranks = np.zeros(len(x))
    for label in np.unique(labels):
        rows = labels == label
        count = int(rows.sum())
        if count < 2:
            continue
        k = min(neighbours, count - 1)
        search = NearestNeighbors(metric="chebyshev", n_neighbors=k).fit(x[rows])
        radius[rows] = np.nextafter(search.kneighbors()[0][:, -1], 0)
        is_used[rows], label_counts[rows], neighbour_ranks[rows] = True, count, k
    if not is_used.any():
        return float("nan")
    tree = KDTree(x[is_used], metric="chebyshev")
    neighbour_counts = np.maximum(
        tree.query_radius(x[is_used], radius[is_used], count_only=True), 1
    )
    return float(
        digamma(is_used.sum())
        + digamma(neighbour_ranks[is_used]).mean()
        - digamma(label_counts[is_used]).mean()
        - digamma(neighbour_counts).mean()
    )


def _names(groups: Sequence[str] | None, n: int) -> list[str]:
    return [str(row) for row in range(n)] if groups is None else list(groups)


def _interval(value: float, on_halves: Sequence[float], halves: HalfSamples) -> tuple[float, float]:
    replicates = halves.replicates_about(value, np.array(on_halves))
    low, high = halves.interval(value, replicates)
    return float(low), float(high)


def _check_halves(halves: HalfSamples, neighbours: int) -> None:
    smallest_half = int(halves.members.sum(axis=1).min())
    if smallest_half <= neighbours:
        raise ValueError(
            f"The interval is estimated on halves of the groups. One half holds {smallest_half} "
            f"examples, which is too few for {neighbours} neighbours of each: the groups are very "
            "unequal. Split the large ones, leave the groups out, or take fewer `neighbours`."
        )


def _check_count(n: int, neighbours: int) -> None:
    if checked_count("neighbours", neighbours) >= n // 2:
        raise ValueError(
            f"`neighbours` must be less than half of the {n} examples, got {neighbours}. Take "
            "fewer of them, or give more examples."
        )


def _warnings(
    shares: Sequence[float], dimensions: Sequence[int], has_ties: bool, *, discrete: bool
) -> tuple[str, ...]:
    warnings = []
    largest = max(dimensions)
    if largest > (5 if discrete else 2):
        known_bias = _TWO_LABELS if discrete else _GAUSSIANS
        # Dimensions differ by ratios, not by differences: compare their logarithms.
        closest = min(known_bias, key=lambda d: abs(np.log(d / largest)))
        comparison = " and ".join(
            f"{low:.2f} of {true:.2f} nats" for low, true in known_bias[closest]
        )
        side = "" if discrete else " a side"
        warnings.append(
            f"With {' and '.join(map(str, dimensions))} dimensions the estimate is too low, and "
            f"by more where there is more information: for Gaussians of {closest} dimensions{side} "
            f"it found {comparison} (n = 2,000, k = 3)."
        )
    if min(shares) < _KEPT_VARIANCE:
        warnings.append(
            f"The principal components hold {min(shares):.0%} of the variance; information in "
            "the others is left out."
        )
    if has_ties:
        warnings.append("Some rows are equal: distances of zero make the estimate unreliable.")
    return tuple(warnings)


def _has_ties(x: Float[np.ndarray, "example d"]) -> bool:
    return len(np.unique(x, axis=0)) < len(x)


@dataclass(frozen=True)
class NearestNeighbours:
    """Estimate the information between two variables from nearest neighbours, in nats.

    One of the two may be labels. Each continuous variable is projected on its leading principal
    components and scaled to a common unit. So rotating, shifting and scaling it change nothing. Two
    continuous variables are passed to `ksg`; a continuous variable and labels are passed to `ross`.
    The estimate may be negative.

    The first table shows the bias for jointly Gaussian variables of `d` dimensions each. Every
    coordinate is correlated with its counterpart by ρ; n = 2,000 and k = 3. It lists the mean
    estimate beside the truth, in nats. Means are over 20 draws (8 from d = 5); the standard
    deviation of one draw is .01 to .04.

        d     ρ = .5: true, found    ρ = .9: true, found
        1          .144   .148            .830   .840
        2          .288   .298           1.661  1.659
        3          .432   .411           2.491  2.279
        5          .719   .537           4.152  2.879
        10        1.438   .642           8.304  3.049
        20        2.877   .606          16.607  2.663

    At ρ = 0 the mean lies within .01 of zero for all of these. In more than two dimensions the
    estimate is far too low. The error grows with the information, and the estimate may even fall
    where the truth rises.

    The second table is for the labels of two Gaussians of equal size, two standard deviations apart
    along one direction. The truth is .337 nats, however many uninformative dimensions are added.
    n = 2,000, k = 3, all principal components, mean of 20 draws (standard deviation of one draw .01
    to .02).

        d        1     2     5    10    20    50
        found  .334  .339  .342  .320  .278  .208

    Principal components leave out labels that differ along a direction of small variance. So an
    estimate near zero does not show that a probe would find nothing. Examples of one group are
    often near neighbours: compare the value with a null that permutes whole groups.

    Attributes:
        components: The number of principal components of each continuous variable.
        neighbours: `k`.
        seed: Draws half samples.

    Source:
        Kraskov, Stögbauer and Grassberger (2004), Physical Review E 69, estimator 1. Gao, Ver Steeg
        and Galstyan (2015), arXiv:1411.2003, on its bias where dependence is strong. Ross (2014),
        PLoS ONE 9(2) e87357, for labels.

    Examples:
        >>> generator = torch.Generator().manual_seed(0)
        >>> x = torch.randn(1000, 1, generator=generator)
        >>> y = x + torch.randn(1000, 1, generator=generator)  # I = ½ ln 2 = .347
        >>> 0.25 < NearestNeighbours()(x, y).value < 0.45
        True
        >>> labels = torch.arange(1000) % 2
        >>> round(NearestNeighbours()(x + 10 * labels.unsqueeze(1), labels).bits, 2)
        1.0
    """

    components: int = 2
    neighbours: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        check_counts(self, {"components": 1, "neighbours": 1, "seed": 0})

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"] | Int[Tensor, " example"],
        *,
        groups: Sequence[str] | None = None,
        resamples: int = 32,
    ) -> InformationEstimate:
        """Estimate the information between `x` and `y`.

        Args:
            x: One row per example.
            y: One row per example, or a vector with one number per class.
            groups: The group of each row, for the interval; None where each row is a group of its
                own.
            resamples: The number of half samples for the interval.

        Raises:
            ValueError: A number is out of range, or a value is not finite.
        """
        _check_count(len(x), self.neighbours)
        names = _names(groups, len(x))
        x_components, x_share = leading_components(x, self.components)
        if y.ndim == 1:
            labels = y.cpu().numpy()
            value = ross(x_components, labels, self.neighbours)
            # Half samples are stratified by two labels at most: the first one, and all others.
            one_label = (labels == labels[0]).astype(np.int64)
            halves = HalfSamples.draw(names, resamples=resamples, seed=self.seed, labels=one_label)
            on_halves = [
                ross(x_components[half], labels[half], self.neighbours) for half in halves.members
            ]
            warnings = _warnings(
                (x_share,), (x_components.shape[1],), _has_ties(x_components), discrete=True
            )
        else:
            y_components, y_share = leading_components(y, self.components)
            value = ksg(x_components, y_components, self.neighbours)
            halves = HalfSamples.draw(names, resamples=resamples, seed=self.seed)
            _check_halves(halves, self.neighbours)
            on_halves = [
                ksg(x_components[half], y_components[half], self.neighbours)
                for half in halves.members
            ]
            warnings = _warnings(
                (x_share, y_share),
                (x_components.shape[1], y_components.shape[1]),
                _has_ties(x_components) or _has_ties(y_components),
                discrete=False,
            )
        return InformationEstimate(
            value, _interval(value, on_halves, halves), len(x), "estimate", warnings
        )

    def value(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"] | Int[Tensor, " example"],
    ) -> float:
        """Compute the estimate alone, in nats, without the cost of its interval."""
        x_components, _ = leading_components(x, self.components)
        if y.ndim == 1:
            return ross(x_components, y.cpu().numpy(), self.neighbours)
        return ksg(x_components, leading_components(y, self.components)[0], self.neighbours)
