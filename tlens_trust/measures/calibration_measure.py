"""A probe's calibration at every site, and its use at a threshold: a measure."""

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

_GAP = "probability"


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

    def __post_init__(self) -> None:
        check_probe(self.probe)
        check_counts(self, {"bins": 1})
        check_threshold(self.false_positive_rate, self.positive)
        # Thresholds are chosen inside the training folds, which are one fewer.
        least = 1 + self.probe.cross_fitter.least_folds
        if self.probe.folds < least:
            raise ValueError(
                "To choose a threshold a probe is cross-validated inside its training folds, so "
                f"that the {self.probe.name!r} probe needs at least {least} folds, got "
                f"{self.probe.folds}. Make it with `folds={least}` or more."
            )

    @property
    def name(self) -> str:
        """`calibration_` and the probe's name."""
        return f"calibration_{self.probe.name}"

    @property
    def identity(self) -> str:
        """Everything that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; bins={self.bins}, "
            f"false_positive_rate={self.false_positive_rate}, positive={self.positive}, version=3)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds and draws the resamples.

        Returns:
            `calibration_error` with its interval, `ece` and `ece_null`;
            `reliability_confidence` and `reliability_frequency` along `bin`; `threshold`, and the
            held-out `false_positive_rate` and `true_positive_rate` with their intervals.

        Raises:
            ValueError: As the probe.
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
        gap = f"gap between stated probability and frequency of the {self.probe.name} probe"
        variables = labelled(
            "calibration_error",
            np.array([error.rms for error in errors]),
            units=_GAP,
            long_name=f"root-mean-square {gap}, chance taken off",
        )
        # Named more briefly than its value, as is the number of statements.
        variables["calibration_error_ci"] = (
            ("site", "bound"),
            np.array([[error.low, error.high] for error in errors]),
            {"units": _GAP, "long_name": f"95% interval of the root-mean-square {gap}"},
        )
        variables |= labelled(
            "ece",
            np.array([error.ece for error in errors]),
            units=_GAP,
            long_name=f"mean absolute {gap}, chance included",
        )
        variables |= labelled(
            "ece_null",
            np.array([error.ece_null for error in errors]),
            units=_GAP,
            long_name=f"mean absolute {gap} to expect of calibrated scores",
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

        def called(scores: Float[np.ndarray, "... site"]) -> Bool[np.ndarray, "... site"]:
            side = 1 if self.positive == 1 else -1
            beyond: np.ndarray = side * scores > side * thresholds[fold]
            return beyond

        variables = labelled(
            "threshold",
            thresholds.mean(axis=0),
            units="nats",
            long_name=f"log-odds beyond which the {self.probe.name} probe calls label "
            f"{self.positive}, for a false-positive rate of {self.false_positive_rate}, mean over "
            "the folds",
        )
        for name, side in (
            ("false_positive_rate", labels != self.positive),
            ("true_positive_rate", labels == self.positive),
        ):
            value, interval = _rate(
                called(held_out.scores),
                None if held_out.fewer is None else called(held_out.fewer),
                side,
                fold,
                bootstrap,
            )
            variables |= labelled(
                name,
                value,
                units="fraction of statements",
                long_name=f"share of label {labels[side][0]} called label {self.positive} at the "
                "threshold",
                interval=interval,
                n=int(side.sum()),
                resampling={"resamples": self.probe.resamples, "groups": bootstrap.groups},
            )
        return xr.Dataset(variables, coords={"site": sites, "bound": ["low", "high"]})


def _rate(
    called: Bool[np.ndarray, "example site"],
    fewer: Bool[np.ndarray, "fold example site"] | None,
    side: Bool[np.ndarray, " example"],
    fold: Int[np.ndarray, " example"],
    bootstrap: GroupBootstrap,
) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
    """The share of one label that is called positive, with its interval over groups.

    The thresholds are taken as they are where a probe's part in the folds' covariance is told.
    """
    # Of all statements, so that their mean is the share of the label.
    weight = side[:, None] / side.mean()
    hits = called * weight
    value = hits.mean(axis=0)
    with np.errstate(invalid="ignore"):
        # A resample may lack the label; the interval leaves it out.
        resampled = bootstrap.sums(hits) / bootstrap.sums(weight)
    interval = stretched_interval(
        value,
        resampled,
        bootstrap.groups,
        added=mean_covariance(hits, None if fewer is None else fewer * weight, fold),
    )
    trials = len(np.unique(bootstrap.group[side]))
    share = (called & side[:, None]).sum(axis=0) / side.sum()
    return share, fraction_interval(share, interval, resampled, trials)


def probe_calibration(
    probe: ProbeMeasure | None = None,
    *,
    bins: int = 10,
    false_positive_rate: float = 0.05,
    positive: int = 1,
) -> CalibrationMeasure:
    """Whether a probe's held-out log-odds can be taken at their word, and used at a threshold.

    - `calibration_error` (chance taken off, with an interval), `ece` and what chance makes of it,
      `ece_null`: see `calibration_error`. The latter two have no interval: resampling adds chance
      gaps to chance gaps, and near zero no reflection takes them off again.
      `reliability_…`: see `reliability_curve`.
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
        ValueError: `bins` is less than 1, `false_positive_rate` is not between 0 and 1,
            `positive` is neither label, or the probe has too few folds.

    Examples:
        >>> probe_calibration().name
        'calibration_logistic'
    """
    taken = logistic_probe() if probe is None else probe
    return CalibrationMeasure(taken, bins, false_positive_rate, positive)
