"""Whether log-odds mean what they say, and what they can be used for."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf, pi, sqrt

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from scipy.special import expit
from scipy.stats import norm

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.bootstrap import GroupBootstrap, clopper_pearson, percentile_interval
from tlens_trust.measures.cross_validation import ProbeMeasure, logistic_probe

_GAP = "probability"


@dataclass(frozen=True)
class CalibrationError:
    """How far stated probabilities lie from frequencies.

    Attributes:
        rms: Root-mean-square gap between stated probability and frequency over the bins, without
            the part that chance gives it: the root of an unbiased estimate of its square, with the
            sign of that estimate. Zero on average for calibrated scores, and then negative half of
            the time.
        low: Lower end of its interval.
        high: Upper end.
        ece: Expected calibration error, the mean absolute gap over the bins, as it is usually
            given: chance gaps included.
        ece_null: What `ece` would be on average if the scores were calibrated.
    """

    rms: float
    low: float
    high: float
    ece: float
    ece_null: float


def calibration_error(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str] | None = None,
    *,
    bins: int = 10,
    confidence: float = 0.95,
) -> CalibrationError:
    """Gaps between the probabilities that log-odds state and the frequencies that come about.

    Statements are put into bins of equal number by their stated probability `p` of label 1 (not
    by that of the label guessed, so that a lean to one label is not cancelled by a lean to the
    other). With `m_b` the mean of `p - y` in bin `b`, and `n_b` its statements of `n`,

        `ece = Σ_b (n_b/n) |m_b|`,        `rms² = Σ_b (n_b/n) (m_b² - Var m_b)`.

    The former is never zero, however good the scores, and grows with the number of bins;
    `ece_null = Σ_b (n_b/n) √(2 Var m_b / π)` says how much of it is to be expected of calibrated
    scores. The latter is unbiased and may be negative. Its interval is from the estimate's
    variance, `2 tr(AA) + 4 mᵀA W m` with `A = W Cov(m)`, `W = diag(n_b/n)`. The covariance of the
    `m_b` is taken over groups, whose statements need not be independent.

    What varies within a bin is not seen, so both are lower bounds of the error without bins.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement; None where every one stands for itself.
        bins: How many. Equal scores stay in one bin.
        confidence: Of the interval of `rms`.

    Returns:
        Both errors, as probabilities.

    Raises:
        ValueError: `bins` is less than 1, or there are fewer than two groups.

    Source:
        Guo et al. (2017), arXiv:1706.04599, for the error; Kumar, Liang and Ma (2019),
        arXiv:1909.10155, for taking chance off its square.

    Example:
        >>> generator = np.random.default_rng(0)
        >>> scores = 2 * generator.standard_normal(4000)
        >>> labels = (generator.random(4000) < expit(scores)).astype(int)
        >>> good, bad = (calibration_error(factor * scores, labels) for factor in (1, 3))
        >>> good.low < 0 < good.high, bad.low > 0.05
        (True, True)
    """
    names = np.arange(len(scores)) if groups is None else np.asarray(groups, dtype=str)
    _, group = np.unique(names, return_inverse=True)
    number = int(group.max(initial=-1)) + 1
    if number < 2:
        raise ValueError(
            "A calibration error needs at least two groups, to tell chance from error, got "
            f"{number}. Give more statements, or `groups` that hold fewer each."
        )
    stated = expit(scores)
    place, sizes = _bin(stated, bins)
    gap = stated - labels
    means = np.bincount(place, gap, minlength=len(sizes)) / sizes
    within = np.zeros((number, len(sizes)))
    np.add.at(within, (group, place), (gap - means[place]) / sizes[place])
    covariance = within.T @ within * number / (number - 1)
    share = sizes / sizes.sum()
    variances = np.diag(covariance)
    square = float(share @ (means**2 - variances))
    weighted = share[:, None] * covariance
    noise = float(np.trace(weighted @ weighted))
    slope = float((share * means) @ covariance @ (share * means)) - noise
    spread = sqrt(2 * noise + 4 * max(slope, 0.0))
    reach = float(norm.ppf((1 + confidence) / 2)) * spread
    return CalibrationError(
        rms=_signed_root(square),
        low=_signed_root(square - reach),
        high=_signed_root(square + reach),
        ece=float(share @ np.abs(means)),
        ece_null=float(share @ np.sqrt(2 * variances / pi)),
    )


def _signed_root(square: float) -> float:
    return sqrt(square) if square >= 0 else -sqrt(-square)


def _bin(
    stated: Float[np.ndarray, " example"], bins: int
) -> tuple[Int[np.ndarray, " example"], Float[np.ndarray, " bin"]]:
    """The bin of each statement, and how many each holds; bins that ties leave empty are gone."""
    if bins < 1:
        raise ValueError(f"`bins` must be at least 1, got {bins}.")
    edges = np.quantile(stated, np.linspace(0, 1, bins + 1)[1:-1])
    _, place = np.unique(np.searchsorted(edges, stated, side="right"), return_inverse=True)
    return place, np.bincount(place).astype(np.float64)


def reliability_curve(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    groups: Sequence[str] | None = None,
    *,
    bins: int = 10,
    seed: int = 0,
    resamples: int = 1000,
) -> xr.Dataset:
    """Stated probability against frequency, in bins of equal number.

    Args:
        scores: Held-out log-odds of label 1, in nats.
        labels: 0 or 1 for each statement.
        groups: The group of each statement; None where every one stands for itself.
        bins: How many; where ties leave fewer, the last are NaN with a number of 0.
        seed: Draws the resamples.
        resamples: How many resamples of the groups stand behind an interval.

    Returns:
        Along `bin`: `confidence`, the mean stated probability of label 1; `frequency`, the share
        of label 1, with `frequency_ci`; and `frequency_n`. Calibrated scores lie on the diagonal.

    Raises:
        ValueError: `bins` is less than 1.

    Source:
        Guo et al. (2017), arXiv:1706.04599.

    Example:
        >>> scores, labels = np.array([-2.0, -1.0, 1.0, 2.0]), np.array([0, 0, 1, 1])
        >>> curve = reliability_curve(scores, labels, bins=2)
        >>> curve.frequency.values.tolist(), curve.frequency_n.values.tolist()
        ([0.0, 1.0], [2, 2])
    """
    names = [str(row) for row in range(len(scores))] if groups is None else groups
    bootstrap = GroupBootstrap.draw(names, seed=seed, resamples=resamples)
    stated = expit(scores)
    place, sizes = _bin(stated, bins)
    held = len(sizes)
    member = (place[:, None] == np.arange(held)).astype(np.float64)
    frequency = (member * labels[:, None]).sum(axis=0) / sizes
    with np.errstate(invalid="ignore"):
        # A resample may miss a bin; the interval leaves it out.
        resampled = bootstrap.sums(member * labels[:, None]) / bootstrap.sums(member)
    interval = percentile_interval(resampled)
    for number in np.flatnonzero((frequency == 0) | (frequency == 1)):
        trials = len(np.unique(bootstrap.group[place == number]))
        interval[number] = clopper_pearson(float(frequency[number]), trials)
    confidence = (member * stated[:, None]).sum(axis=0) / sizes

    def padded(values: np.ndarray, empty: float | int) -> np.ndarray:
        filled = np.full((bins, *values.shape[1:]), empty, dtype=values.dtype)
        filled[:held] = values
        return filled

    told = "share of label 1 among statements of one stated probability"
    return xr.Dataset(
        {
            "confidence": (
                ("bin",),
                padded(confidence, np.nan),
                {"units": _GAP, "long_name": "mean stated probability of label 1"},
            ),
            "frequency": (
                ("bin",),
                padded(frequency, np.nan),
                {"units": _GAP, "long_name": told},
            ),
            "frequency_ci": (
                ("bin", "bound"),
                padded(interval, np.nan),
                {
                    "units": _GAP,
                    "long_name": f"95% interval of the {told}",
                    "resamples": resamples,
                    "groups": bootstrap.groups,
                },
            ),
            "frequency_n": (
                ("bin",),
                padded(sizes.astype(np.int64), 0),
                {"units": "statements", "long_name": f"statements behind the {told}"},
            ),
        },
        coords={"bin": np.arange(bins), "bound": ["low", "high"]},
    )


def choose_threshold(
    scores: Float[np.ndarray, " example"],
    labels: Int[np.ndarray, " example"],
    *,
    false_positive_rate: float,
    positive: int = 1,
) -> float:
    """The threshold that keeps the false-positive rate of fresh statements within what is wanted.

    Takes the `⌈(1 - α)(n + 1)⌉`-th of the `n` scores of the other label, counted towards the
    positive side. A fresh statement of that label, exchangeable with these, passes it with a
    probability of at most `α`.

    Args:
        scores: Log-odds of label 1 of statements that the probe was not fitted on, in nats.
        labels: 0 or 1 for each.
        false_positive_rate: `α`: the share of the other label that may be called positive.
        positive: Which label counts as positive. With 1 a statement is called positive above the
            threshold; with 0 (an alarm that something is on the untrustworthy side) below.

    Returns:
        Log-odds of label 1, in nats; infinite, on the side where nothing is called positive, where
        there are too few statements to vouch for any threshold.

    Raises:
        ValueError: `false_positive_rate` is not between 0 and 1, or `positive` is neither label.

    Source:
        Vovk, Gammerman and Shafer (2005), Algorithmic learning in a random world.

    Example:
        >>> scores = np.array([0.1, 0.2, 0.3, 0.4, 5.0, 6.0])
        >>> choose_threshold(scores, np.array([0, 0, 0, 0, 1, 1]), false_positive_rate=0.2)
        0.4
    """
    if not 0 < false_positive_rate < 1:
        raise ValueError(
            f"`false_positive_rate` must be between 0 and 1, got {false_positive_rate}. It is the "
            "share of the other label that may be called positive, 0.05 for one in twenty."
        )
    if positive not in (0, 1):
        raise ValueError(f"`positive` must be a label, 0 or 1, got {positive!r}.")
    side = 1.0 if positive == 1 else -1.0
    others = np.sort(side * scores[labels != positive])
    # Guarded against (1 - α)(n + 1) that rounding puts a hair above a whole number.
    rank = int(np.ceil((1 - false_positive_rate) * (len(others) + 1) - 1e-9))
    return side * (float(others[rank - 1]) if rank <= len(others) else inf)


@dataclass(frozen=True)
class CalibrationMeasure:
    """Calibration of a probe's held-out log-odds, and their use at a threshold: a `Measure`.

    Attributes:
        probe: Whose log-odds.
        bins: How many bins of equal number.
        false_positive_rate: Wanted.
        positive: Which label counts as positive.
    """

    probe: ProbeMeasure
    bins: int
    false_positive_rate: float
    positive: int

    @property
    def name(self) -> str:
        """`calibration_` and the probe's name."""
        return f"calibration_{self.probe.name}"

    @property
    def identity(self) -> str:
        """Everything that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; bins={self.bins}, "
            f"false_positive_rate={self.false_positive_rate}, positive={self.positive}, version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds and draws the resamples.

        Returns:
            `calibration_error` with its interval, `ece` and `ece_null`; `reliability_confidence`
            and `reliability_frequency` along `bin`; `threshold`, and the held-out
            `false_positive_rate` and `true_positive_rate` with their intervals.

        Raises:
            ValueError: As the probe.
        """
        held_out, fold = self.probe.held_out(activations, concept, seed=seed)
        labels, sites = concept.labels, list(activations.sites)
        errors, curves = [], []
        for site in range(len(sites)):
            scores = held_out.scores[:, site]
            errors.append(calibration_error(scores, labels, concept.groups, bins=self.bins))
            curve = reliability_curve(
                scores,
                labels,
                concept.groups,
                bins=self.bins,
                seed=seed,
                resamples=self.probe.resamples,
            )
            curves.append(curve)
        gap = f"gap between stated probability and frequency of the {self.probe.name} probe"
        number = np.full(len(sites), len(concept))
        data = xr.Dataset(
            {
                "calibration_error": (
                    ("site",),
                    np.array([error.rms for error in errors]),
                    {"units": _GAP, "long_name": f"root-mean-square {gap}, chance taken off"},
                ),
                "calibration_error_ci": (
                    ("site", "bound"),
                    np.array([[error.low, error.high] for error in errors]),
                    {"units": _GAP, "long_name": f"95% interval of the root-mean-square {gap}"},
                ),
                "calibration_error_n": (
                    ("site",),
                    number,
                    {"units": "statements", "long_name": f"statements behind the {gap}"},
                ),
                "ece": (
                    ("site",),
                    np.array([error.ece for error in errors]),
                    {"units": _GAP, "long_name": f"mean absolute {gap}, chance included"},
                ),
                "ece_null": (
                    ("site",),
                    np.array([error.ece_null for error in errors]),
                    {
                        "units": _GAP,
                        "long_name": f"mean absolute {gap} to expect of calibrated scores",
                    },
                ),
                "ece_n": (
                    ("site",),
                    number,
                    {"units": "statements", "long_name": f"statements behind the {gap}"},
                ),
            },
            coords={"site": sites, "bound": ["low", "high"]},
        )
        curve = xr.concat(curves, dim=xr.Variable("site", sites), combine_attrs="override")
        data = data.merge(curve.rename({name: f"reliability_{name}" for name in curve.data_vars}))
        return data.merge(
            self._at_threshold(activations, concept, fold, held_out.scores, seed=seed)
        )

    def _at_threshold(
        self,
        activations: Activations,
        concept: Concept,
        fold: Int[np.ndarray, " example"],
        scores: Float[np.ndarray, "example site"],
        *,
        seed: int,
    ) -> xr.Dataset:
        """Thresholds chosen without the fold that they are used on, and what comes of it."""
        labels, sites = concept.labels, list(activations.sites)
        folds = int(fold.max()) + 1
        thresholds = np.empty((folds, len(sites)))
        names = np.asarray(concept.groups, dtype=str)
        for k in range(folds):
            kept = fold != k
            # Folds of the training rows, numbered without a gap.
            inner = np.unique(fold[kept], return_inverse=True)[1]
            fitted = self.probe.cross_fitter(
                activations.values[torch.from_numpy(kept)],
                torch.from_numpy(labels[kept]),
                names[kept].tolist(),
                inner,
            )
            for site in range(len(sites)):
                thresholds[k, site] = choose_threshold(
                    fitted.scores[:, site],
                    labels[kept],
                    false_positive_rate=self.false_positive_rate,
                    positive=self.positive,
                )
        above = scores > thresholds[fold]
        called = above if self.positive == 1 else scores < thresholds[fold]
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=self.probe.resamples)
        variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, object]]] = {
            "threshold": (
                ("site",),
                thresholds.mean(axis=0),
                {
                    "units": "nats",
                    "long_name": f"log-odds beyond which the {self.probe.name} probe calls label "
                    f"{self.positive}, for a false-positive rate of {self.false_positive_rate}, "
                    "mean over the folds",
                },
            )
        }
        for name, side in (
            ("false_positive_rate", labels != self.positive),
            ("true_positive_rate", labels == self.positive),
        ):
            value, interval = _rate(called, side, bootstrap)
            told = f"share of label {labels[side][0]} called label {self.positive} at the threshold"
            variables[name] = (
                ("site",),
                value,
                {"units": "fraction of statements", "long_name": told},
            )
            variables[f"{name}_ci"] = (
                ("site", "bound"),
                interval,
                {
                    "units": "fraction of statements",
                    "long_name": f"95% interval of the {told}",
                    "resamples": self.probe.resamples,
                    "groups": bootstrap.groups,
                },
            )
            variables[f"{name}_n"] = (
                ("site",),
                np.full(len(sites), int(side.sum())),
                {"units": "statements", "long_name": f"statements behind the {told}"},
            )
        return xr.Dataset(variables, coords={"site": sites, "bound": ["low", "high"]})


def _rate(
    called: np.ndarray, side: np.ndarray, bootstrap: GroupBootstrap
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
    """The share of one label that is called positive, with its interval over groups."""
    hits = (called & side[:, None]).astype(np.float64)
    value = hits.sum(axis=0) / side.sum()
    with np.errstate(invalid="ignore"):
        # A resample may lack the label; the interval leaves it out.
        resampled = bootstrap.sums(hits) / bootstrap.sums(side.astype(np.float64))[:, None]
    interval = percentile_interval(resampled)
    trials = len(np.unique(bootstrap.group[side]))
    for site in np.flatnonzero((value == 0) | (value == 1)):
        interval[site] = clopper_pearson(float(value[site]), trials)
    return value, interval


def probe_calibration(
    probe: ProbeMeasure | None = None,
    *,
    bins: int = 10,
    false_positive_rate: float = 0.05,
    positive: int = 1,
) -> CalibrationMeasure:
    """Whether a probe's held-out log-odds can be taken at their word, and used at a threshold.

    - `calibration_error` (chance taken off, with an interval), `ece` and what chance makes of it,
      `ece_null`: see `calibration_error`. `reliability_…`: see `reliability_curve`.
    - `threshold`: for each fold, chosen for the wanted false-positive rate (see
      `choose_threshold`) by cross-validating the probe inside the training folds;
      `false_positive_rate` and `true_positive_rate`: what comes of it on the fold held out. The
      probe of all training folds is somewhat surer than those inside, so the rate may come out a
      little higher than wanted where statements are few.

    This fits the probe as often again as there are folds.

    Args:
        probe: Whose calibration; None for the logistic probe. It is cross-validated on one fold
            fewer than it has, so the logistic probe needs at least 4.
        bins: How many bins of equal number.
        false_positive_rate: The share of the other label that may be called positive.
        positive: Which label counts as positive; 0 for an alarm that a statement is on the
            untrustworthy side.

    Returns:
        A measure named `calibration_` and the probe's name.

    Raises:
        ValueError: `bins` is less than 1, `false_positive_rate` is not between 0 and 1, or
            `positive` is neither label.

    Example:
        >>> probe_calibration().name
        'calibration_logistic'
    """
    _bin(np.zeros(1), bins)
    nothing = np.zeros(0)
    choose_threshold(
        nothing,
        nothing.astype(np.int64),
        false_positive_rate=false_positive_rate,
        positive=positive,
    )
    taken = logistic_probe() if probe is None else probe
    return CalibrationMeasure(taken, bins, false_positive_rate, positive)
