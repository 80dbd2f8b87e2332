"""Calibration of a probe at every site, and its error rates at a threshold: a measure."""

from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Bool, Float, Int

from tlens_trust.activations import Activations
from tlens_trust.arguments import check_counts
from tlens_trust.concepts import Concept
from tlens_trust.measures.calibration import (
    calibration_error,
    check_threshold,
    choose_threshold,
    reliability_curve,
)
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.cross_fold import mean_covariance
from tlens_trust.measures.cross_validation import ProbeMeasure, check_probe, logistic_probe
from tlens_trust.measures.intervals import fraction_interval, stretched_interval
from tlens_trust.measures.labelled import labelled
from tlens_trust.measures.resampling import GroupBootstrap

_PROBABILITY = "probability"


@dataclass(frozen=True)
class CalibrationMeasure:
    """Calibration of held-out log-odds, and error rates at a threshold: a `Measure`.

    Attributes:
        probe: The measure of the probe.
        bins: The number of bins, which have equal size.
        false_positive_rate: The share of the other label that may be classified as positive.
        positive: The label that counts as positive.
    """

    probe: ProbeMeasure
    bins: int
    false_positive_rate: float
    positive: int

    def __post_init__(self) -> None:
        check_probe(self.probe)
        check_counts(self, {"bins": 1})
        check_threshold(self.false_positive_rate, self.positive)
        # Thresholds are chosen inside the training folds, of which there is one fewer.
        minimum = 1 + self.probe.cross_fitter.least_folds
        if self.probe.folds < minimum:
            raise ValueError(
                "To choose a threshold, the probe is cross-validated inside its training folds. "
                f"So the {self.probe.name!r} probe needs at least {minimum} folds, got "
                f"{self.probe.folds}. Make it with `folds={minimum}` or more."
            )

    @property
    def name(self) -> str:
        """`calibration_` and the name of the probe."""
        return f"calibration_{self.probe.name}"

    @property
    def identity(self) -> str:
        """Give the name and every parameter that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; bins={self.bins}, "
            f"false_positive_rate={self.false_positive_rate}, positive={self.positive}, version=3)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute calibration errors, reliability curves and error rates at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds and the resamples.

        Returns:
            `calibration_error` with its interval, `ece` and `ece_null`. `reliability_confidence`
            and `reliability_frequency` along `bin`. `threshold`, and the held-out
            `false_positive_rate` and `true_positive_rate` with their intervals.

        Raises:
            ValueError: The probe raises the error.
        """
        held_out, fold = self.probe.held_out(activations, concept, seed=seed)
        labels, sites = concept.labels, list(activations.sites)
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=self.probe.resamples)
        errors, curves = [], []
        for site in range(len(sites)):
            scores = held_out.scores[:, site]
            error = calibration_error(
                scores,
                labels,
                concept.groups,
                bins=self.bins,
                fold=fold,
                fewer=None if held_out.fewer is None else held_out.fewer[:, :, site],
            )
            errors.append(error)
            curve = reliability_curve(
                scores,
                labels,
                concept.groups,
                bins=self.bins,
                seed=seed,
                resamples=self.probe.resamples,
            )
            curves.append(curve)
        gap = f"gap between predicted probability and frequency of the {self.probe.name} probe"
        variables = labelled(
            "calibration_error",
            np.array([error.rms for error in errors]),
            units=_PROBABILITY,
            long_name=f"root-mean-square {gap}, without the part of chance",
        )
        # Its long name is shorter than that of the value, as is that of the number of statements.
        variables["calibration_error_ci"] = (
            ("site", "bound"),
            np.array([[error.low, error.high] for error in errors]),
            {"units": _PROBABILITY, "long_name": f"95% interval of the root-mean-square {gap}"},
        )
        variables |= labelled(
            "ece",
            np.array([error.ece for error in errors]),
            units=_PROBABILITY,
            long_name=f"mean absolute {gap}, with the part of chance",
        )
        variables |= labelled(
            "ece_null",
            np.array([error.ece_null for error in errors]),
            units=_PROBABILITY,
            long_name=f"mean absolute {gap} if scores were calibrated",
        )
        for name in ("calibration_error", "ece"):
            variables[f"{name}_n"] = (
                ("site",),
                np.full(len(sites), len(concept)),
                {"units": "statements", "long_name": f"statements behind the {gap}"},
            )
        data = xr.Dataset(
            variables,
            coords={"site": sites, "bound": ["low", "high"]},
        )
        curve = xr.concat(curves, dim=xr.Variable("site", sites), combine_attrs="override")
        data = data.merge(curve.rename({name: f"reliability_{name}" for name in curve.data_vars}))
        return data.merge(self._at_threshold(activations, concept, fold, held_out, bootstrap))

    def _at_threshold(
        self,
        activations: Activations,
        concept: Concept,
        fold: Int[np.ndarray, " example"],
        held_out: HeldOut,
        bootstrap: GroupBootstrap,
    ) -> xr.Dataset:
        """Choose thresholds without the fold that they are applied to, and compute error rates."""
        labels, sites = concept.labels, list(activations.sites)
        folds = int(fold.max()) + 1
        thresholds = np.empty((folds, len(sites)))
        names = np.asarray(concept.groups, dtype=str)
        for k in range(folds):
            is_training = fold != k
            # The folds of the training rows, numbered without a gap.
            inner_fold = np.unique(fold[is_training], return_inverse=True)[1]
            inner_held_out = self.probe.cross_fitter(
                activations.values[torch.from_numpy(is_training)],
                torch.from_numpy(labels[is_training]),
                names[is_training].tolist(),
                inner_fold,
            )
            for site in range(len(sites)):
                thresholds[k, site] = choose_threshold(
                    inner_held_out.scores[:, site],
                    labels[is_training],
                    false_positive_rate=self.false_positive_rate,
                    positive=self.positive,
                )

        def classify(scores: Float[np.ndarray, "... site"]) -> Bool[np.ndarray, "... site"]:
            side = 1 if self.positive == 1 else -1
            is_positive: np.ndarray = side * scores > side * thresholds[fold]
            return is_positive

        variables = labelled(
            "threshold",
            thresholds.mean(axis=0),
            units="nats",
            long_name=f"log-odds beyond which the {self.probe.name} probe predicts label "
            f"{self.positive}, for a false-positive rate of {self.false_positive_rate}, mean over "
            "the folds",
        )
        for name, side in (
            ("false_positive_rate", labels != self.positive),
            ("true_positive_rate", labels == self.positive),
        ):
            value, interval = _rate(
                classify(held_out.scores),
                None if held_out.fewer is None else classify(held_out.fewer),
                side,
                fold,
                bootstrap,
            )
            variables |= labelled(
                name,
                value,
                units="fraction of statements",
                long_name=f"share of label {labels[side][0]} classified as label {self.positive} "
                "at the threshold",
                interval=interval,
                n=int(side.sum()),
                resampling={"resamples": self.probe.resamples, "groups": bootstrap.groups},
            )
        return xr.Dataset(variables, coords={"site": sites, "bound": ["low", "high"]})


def _rate(
    is_positive: Bool[np.ndarray, "example site"],
    fewer: Bool[np.ndarray, "fold example site"] | None,
    side: Bool[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    bootstrap: GroupBootstrap,
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
    """Compute the share of one label that is classified as positive, with its interval.

    `fewer` holds the answers of probes fitted without one more fold, at the same thresholds.
    """
    # Weights over all statements, so that the mean of `hits` is the share within the label.
    weight = side[:, None] / side.mean()
    hits = is_positive * weight
    value = hits.mean(axis=0)
    with np.errstate(invalid="ignore"):
        # A resample may lack the label. It gives NaN, which the interval leaves out.
        resampled = bootstrap.sums(hits) / bootstrap.sums(weight)
    interval = stretched_interval(
        value,
        resampled,
        bootstrap.groups,
        added=mean_covariance(hits, None if fewer is None else fewer * weight, fold),
    )
    trials = len(np.unique(bootstrap.group[side]))
    share = (is_positive & side[:, None]).sum(axis=0) / side.sum()
    return share, fraction_interval(share, interval, resampled, trials)


def probe_calibration(
    probe: ProbeMeasure | None = None,
    *,
    bins: int = 10,
    false_positive_rate: float = 0.05,
    positive: int = 1,
) -> CalibrationMeasure:
    """The calibration of a probe as a measure, and its error rates at a threshold.

    - `calibration_error` (without the part of chance, with an interval), `ece`, and `ece_null`, the
      mean of `ece` for calibrated scores: see `calibration_error`. `ece` and `ece_null` have no
      interval. Resampling adds more chance gaps, and near zero they cannot be subtracted again.
      `reliability_…`: see `reliability_curve`.
    - `threshold`: chosen for each fold and the given false-positive rate (see `choose_threshold`),
      by cross-validation of the probe inside the training folds. `false_positive_rate` and
      `true_positive_rate` are the rates at this threshold in the held-out fold. A probe of all
      training folds gives somewhat larger log-odds than the probes inside. So the rate may be a
      little higher than requested if statements are few.

    This fits the probe once more for each fold.

    Args:
        probe: The measure of the probe. None uses the logistic probe. The probe is cross-validated
            on one fold fewer than it has, so the logistic probe needs at least 4.
        bins: The number of bins, which have equal size.
        false_positive_rate: The share of the other label that may be classified as positive.
        positive: The label that counts as positive. 0 is an alarm for the untrustworthy side.

    Returns:
        A measure named `calibration_` and the name of the probe.

    Raises:
        ValueError: `bins` is less than 1, `false_positive_rate` is not between 0 and 1,
            `positive` is neither label, or the probe has too few folds.

    Examples:
        >>> probe_calibration().name
        'calibration_logistic'
    """
    probe_measure = logistic_probe() if probe is None else probe
    return CalibrationMeasure(probe_measure, bins, false_positive_rate, positive)
