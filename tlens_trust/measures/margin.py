"""Margins of a probe, and the noise under which its accuracy collapses."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from jaxtyping import Float
from scipy.special import ndtr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.cross_fold import mean_covariance
from tlens_trust.measures.cross_validation import ProbeMeasure, check_probe, logistic_probe
from tlens_trust.measures.intervals import stretched_interval
from tlens_trust.measures.labelled import labelled
from tlens_trust.measures.resampling import GroupBootstrap

_UNITS = "RMS of the site"
# The number of noise levels at which the accuracy is computed. It is interpolated between them.
_LEVELS = 240


def accuracy_under_noise(
    margins: Float[np.ndarray, " example"], noise: Float[np.ndarray, " level"]
) -> Float[np.ndarray, " level"]:
    """Compute the expected accuracy of a linear probe with isotropic noise in the activations.

    Gaussian noise of standard deviation `λ` in every coordinate adds `N(0, λ²‖w‖²)` to the score
    `w·x + b`. So a statement with the margin `m = ±(w·x + b)/‖w‖` stays on its side with the
    probability `Φ(m/λ)`. Nothing is sampled.

    Args:
        margins: Signed distance of each statement from the boundary. Positive if the statement is
            classified correctly.
        noise: Standard deviations `λ`, in the unit of `margins`. 0 gives the accuracy itself.

    Returns:
        The mean of `Φ(m/λ)` for each level.

    Examples:
        >>> accuracy_under_noise(np.array([1.0, 2.0, -0.5]), np.array([0.0, 1e6])).round(3).tolist()
        [0.667, 0.5]
    """
    accuracy: np.ndarray = _correct_probability(margins, noise).mean(axis=0)
    return accuracy


def _correct_probability(
    margins: Float[np.ndarray, " example"], noise: Float[np.ndarray, " level"]
) -> Float[np.ndarray, "example level"]:
    """Compute the probability that noise leaves each statement on the correct side."""
    with np.errstate(divide="ignore", invalid="ignore"):
        probability: np.ndarray = ndtr(margins[:, None] / noise)
    probability[:, noise == 0] = (margins > 0)[:, None]
    return probability


def collapse_noise(margins: Float[np.ndarray, " example"]) -> float:
    """Compute the least noise under which the accuracy of a probe falls half way to chance.

    Args:
        margins: Signed distances, as in `accuracy_under_noise`.

    Returns:
        The smallest `λ` with `accuracy(λ) ≤ (accuracy(0) + ½)/2`, in the unit of `margins`. NaN for
        a probe at chance or below.

    Examples:
        >>> collapse_noise(np.full(10, 3.0))  # 3 over the upper quartile of the normal.
        4.44...
    """
    levels = _noise_levels(margins)
    accuracy = accuracy_under_noise(margins, levels)
    return float(_half_way(levels, accuracy[None])[0])


def _noise_levels(margins: Float[np.ndarray, " example"]) -> Float[np.ndarray, " level"]:
    """Give noise levels: 0, then from far below a usual margin to far above the largest."""
    sizes = np.abs(margins)
    top = sizes.max(initial=0.0)
    if not np.isfinite(top) or top == 0:
        return np.array([0.0, 1.0, 2.0])
    low = max(float(np.quantile(sizes, 0.05)), 1e-4 * top)
    return np.concatenate([[0.0], np.geomspace(0.05 * low, 20 * top, _LEVELS)])


def _half_way(
    levels: Float[np.ndarray, " level"], accuracy: Float[np.ndarray, "curve level"]
) -> Float[np.ndarray, " curve"]:
    """Find where each curve first falls half way to chance.

    The accuracy is interpolated linearly in the logarithm of the noise.
    """
    target = (accuracy[:, :1] + 0.5) / 2
    below = accuracy[:, 1:] <= target
    # The last level above the target. At least 1, since level 0 has no logarithm.
    before = np.maximum(below.argmax(axis=1), 1)
    curve = np.arange(len(accuracy))
    high, low = accuracy[curve, before], accuracy[curve, before + 1]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.clip((high - target[:, 0]) / (high - low), 0, 1)
        level = np.exp((1 - share) * np.log(levels[before]) + share * np.log(levels[before + 1]))
    crossing: np.ndarray = np.where((accuracy[:, 0] > 0.5) & below.any(axis=1), level, np.nan)
    return crossing


@dataclass(frozen=True)
class MarginMeasure:
    """Margins of held-out statements, and the noise under which a probe collapses: a `Measure`.

    Attributes:
        probe: The measure of a linear probe.
    """

    probe: ProbeMeasure

    def __post_init__(self) -> None:
        check_probe(self.probe)

    @property
    def name(self) -> str:
        """`margin_` and the name of the probe."""
        return f"margin_{self.probe.name}"

    @property
    def identity(self) -> str:
        """Give the name and every parameter that changes the result."""
        return f"{self.name}({self.probe.identity}; version=2)"

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute margins and the noise at collapse at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds and the resamples.

        Returns:
            `margin` and `collapse_noise`, each with its interval and number of statements, and
            `rms` with its interval.

        Raises:
            ValueError: The probe is not linear, or the probe raises the error.
        """
        held_out, fold = self.probe.held_out(activations, concept, seed=seed)
        squares = activations.values.double().square().mean(dim=2).cpu().numpy()
        rms = np.sqrt(squares.mean(axis=0))
        margins = _margins(held_out, fold, concept.labels, self.probe.name) / rms
        fewer = _fewer_margins(held_out, fold, concept.labels)
        fewer = None if fewer is None else fewer / rms
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=self.probe.resamples)
        margin_interval = stretched_interval(
            margins.mean(axis=0),
            bootstrap.means(margins),
            bootstrap.groups,
            added=mean_covariance(margins, fewer, fold),
        )
        rms_interval = stretched_interval(rms, np.sqrt(bootstrap.means(squares)), bootstrap.groups)
        collapse, interval = np.empty(len(rms)), np.full((len(rms), 2), np.nan)
        for site in range(len(rms)):
            levels = _noise_levels(margins[:, site])
            probability = _correct_probability(margins[:, site], levels)
            collapse[site] = _half_way(levels, probability.mean(axis=0)[None])[0]
            if np.isnan(collapse[site]):
                continue
            # A resample at chance collapses without any noise.
            resampled = np.nan_to_num(_half_way(levels, bootstrap.means(probability)), nan=0.0)
            interval[site] = stretched_interval(
                collapse[site : site + 1],
                resampled[:, None],
                bootstrap.groups,
                added=_collapse_covariance(
                    margins[:, site],
                    None if fewer is None else fewer[:, :, site],
                    fold,
                    collapse[site],
                ),
            )[0].clip(min=0)
        resampling = {"resamples": self.probe.resamples, "groups": bootstrap.groups}
        margin = f"distance of held-out statements from the {self.probe.name} probe's boundary"
        noise = f"isotropic noise that takes the {self.probe.name} probe half way to chance"
        variables = labelled(
            "margin",
            margins.mean(axis=0),
            units=_UNITS,
            long_name=f"mean {margin}",
            interval=margin_interval,
            n=len(concept),
            resampling=resampling,
        )
        variables |= labelled(
            "collapse_noise",
            collapse,
            units=_UNITS,
            long_name=noise,
            interval=interval,
            n=len(concept),
            resampling=resampling,
        )
        variables |= labelled(
            "rms",
            rms,
            units="activation",
            long_name="root mean square of the activations' coordinates",
            interval=rms_interval,
            resampling=resampling,
        )
        return xr.Dataset(
            variables, coords={"site": list(activations.sites), "bound": ["low", "high"]}
        )


def _margins(
    held_out: HeldOut,
    fold: np.ndarray,
    labels: np.ndarray,
    probe: str,
) -> Float[np.ndarray, "example site"]:
    """Compute the signed distance of each held-out statement from the boundary of its probe."""
    if held_out.directions is None:
        raise ValueError(
            f"A margin is a distance from a plane, and the {probe!r} probe is not linear. "
            "Choose a linear probe, `logistic_probe()` for one."
        )
    norm = np.linalg.norm(held_out.directions, axis=2)
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        margins: np.ndarray = signs * held_out.scores / norm[:, fold].T
    return margins


def _fewer_margins(
    held_out: HeldOut, fold: np.ndarray, labels: np.ndarray
) -> Float[np.ndarray, "fold example site"] | None:
    """Compute the same with probes fitted without one more fold.

    Where the two folds are one, the entry is arbitrary and never used.
    """
    if held_out.fewer is None or held_out.fewer_norms is None:
        return None
    signs = np.where(labels == 1, 1.0, -1.0)[:, None]
    with np.errstate(divide="ignore", invalid="ignore"):
        parts = [
            signs * scores / held_out.fewer_norms[:, fold, other].T
            for other, scores in enumerate(held_out.fewer)
        ]
    margins: np.ndarray = np.nan_to_num(np.stack(parts), posinf=0.0, neginf=0.0)
    return margins


def _collapse_covariance(
    margins: Float[np.ndarray, " example"],
    fewer: Float[np.ndarray, "fold example"] | None,
    fold: np.ndarray,
    level: float,
) -> float:
    """Compute what the covariance of folds adds to the variance of the noise at collapse.

    The noise at collapse is where the mean of `Φ(m/λ) - Φ(m/0)/2` falls to a quarter. So to first
    order its error is the error of this mean over the slope of the mean.
    """
    if fewer is None:
        return 0.0

    def surplus(m: np.ndarray, noise: float) -> np.ndarray:
        probability = _correct_probability(m.ravel(), np.array([noise, 0.0]))
        return (probability[:, 0] - probability[:, 1] / 2).reshape(m.shape)

    step = 1e-3 * level
    ends = [surplus(margins, noise).mean() for noise in (level - step, level + step)]
    slope = float(ends[1] - ends[0]) / (2 * step)
    added = mean_covariance(
        surplus(margins, level)[:, None], surplus(fewer, level)[:, :, None], fold
    )
    return float(np.squeeze(added)) / slope**2 if slope < 0 else 0.0


def probe_margin(probe: ProbeMeasure | None = None) -> MarginMeasure:
    """The margins of a probe as a measure, and the noise that it tolerates.

    It gives two numbers per site, in units of the RMS of the site: the root mean square of the
    coordinates of its activations, about zero. So sites and checkpoints with activations of
    different size can be compared.

    - `margin` is the mean signed distance `±(w·x + b)/‖w‖`. It is negative where a statement is on
      the wrong side.
    - `collapse_noise` is the least standard deviation of isotropic Gaussian noise in held-out
      activations that takes the accuracy half way to chance. At 1 the noise is as long as the
      activations themselves. It is computed in closed form (see `accuracy_under_noise`). The
      probes are not fitted again.

    Intervals are percentiles over resampled groups. They are stretched for the training rows that
    folds share, as for the accuracy.

    Args:
        probe: The measure of a linear probe. None uses the logistic probe.

    Returns:
        A measure named `margin_` and the name of the probe. It raises a ValueError when called if
        the probe is not linear.

    Examples:
        >>> probe_margin().name
        'margin_logistic'
    """
    return MarginMeasure(logistic_probe() if probe is None else probe)
