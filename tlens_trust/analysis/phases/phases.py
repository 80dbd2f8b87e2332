"""Phases along training: what rises or falls between turning points, and what only seems to."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
import xarray as xr

from tlens_trust.analysis.phases.phase_records import Phase, Phases
from tlens_trust.analysis.phases.plane_curves import Curve, plane_curves
from tlens_trust.analysis.phases.simultaneous_changes import Changes, draw_noise
from tlens_trust.analysis.phases.turning_points import (
    BrokenLines,
    Search,
    find_turning_points,
    search_with_ruptures,
)
from tlens_trust.analysis.phases.verdicts import Evidence, judge
from tlens_trust.measures.multiplicity import benjamini_hochberg

_SEARCHES: dict[str, Search | None] = {"exact": None, "ruptures": search_with_ruptures}


@dataclass(frozen=True, eq=False)
class _Settings:
    most: int
    shortest: int
    least: float
    least_matched: float
    confidence: float
    draws: int
    search: Search | None
    generator: np.random.Generator


def find_phases(
    plane: xr.Dataset,
    *,
    quantities: Sequence[str] = ("x", "y"),
    most: int = 2,
    shortest: int = 2,
    least: float = 0.05,
    least_matched: float = 1.0,
    confidence: float = 0.95,
    search: str = "exact",
    draws: int = 4000,
    seed: int = 0,
) -> Phases:
    """Find where I(T;X) and I(T;Y) rise and fall along training, and where that is not shown.

    Each curve of the plane is cut at its turning points (`find_turning_points`, over the logarithm
    of the step). Each segment gets the verdict "rises", "falls" or "no claim". A claim has to
    survive all of these, and otherwise the reason names the one that failed:

    - *noise*: the change from the segment's first to its last checkpoint exceeds what noise alone
      gives between any two checkpoints of the curve. So it does not matter that the checkpoints
      were chosen by looking. The noise is that of other statements of the kind, from half samples
      paired along the curve;

    - *size*: the change is at least the share `least` of the curve's largest distance from its
      null. Paired halves are precise enough to show changes too small to matter;

    - *null*: the change of the curve above the mean of its permutation null is shown too, since the
      null itself moves with the rank;

    - *rank-matched*: the change of the same quantity with a flat spectrum is shown too, in the same
      direction;

    - *too few statements*: the rank-matched variant holds all directions (the share `least_matched`
      of them). With fewer, an invertible map may bring other directions into the lead. Rises and
      falls would then be claimed where no information changed. Twice as many statements as
      directions are enough;

    - *width*: the change at every other width of the kernel (level of noise) is shown too, in the
      same direction. A phase that is seen at one width and not at another is a statement about the
      width;

    - *many claims*: the largest of their p-values, corrected for all segments of all concepts,
      sites and quantities of the plane (Benjamini and Hochberg).

    A change that vanishes in the rank-matched variant, or at another width, is called a change of
    spectrum, and not compression. A change that these merely fail to show is reported as such.
    Where a control was never measured, nothing is claimed of `I(T;X)`. Bounds on `I(T;Y)` by
    held-out probes have no kernel and no spectrum to match. Changes with the other input, or by
    other estimators, are reported and block nothing.

    The noise is that of the statements, for the one training run at hand. Whether another seed
    shows the same phase, only other seeds can tell.

    Args:
        plane: The result of `information_plane`, or a part of it.
        quantities: `"x"`, `"y"` or both.
        most: Largest number of turning points of a curve.
        shortest: Smallest number of steps from checkpoint to checkpoint in a segment.
        least: Smallest change of interest, as a share of the curve's largest distance from its
            null.
        least_matched: Share of the directions that the rank-matched variant has to hold. Below 1,
            claims may be of a change of spectrum.
        confidence: The confidence of claims and intervals.
        search: `"exact"`, every broken line; or `"ruptures"`, which has to be installed.
        draws: Number of draws of noise.
        seed: Seed of the noise.

    Returns:
        One `Phase` for each segment, with `.to_frame()`.

    Raises:
        ValueError: The plane lacks an axis or replicates, or an argument is out of range.
        ImportError: ruptures was chosen and is not installed.

    Source:
        Truong et al. (2020), Signal Processing 167, for change points by exact search; Berger
        (1982), Technometrics 24, for a claim that has to survive several tests, each at its level;
        Hothorn et al. (2008), Biometrical Journal 50, for intervals that hold at once.

    Examples:
        >>> phases = find_phases(information_plane(Trace.load("run")))  # doctest: +SKIP
        >>> print(phases.sel(concept="toxicity"))  # doctest: +SKIP
    """
    _check_plane(plane, quantities)
    _check_arguments(most, shortest, least, least_matched, confidence, search, draws)
    settings = _Settings(
        most,
        shortest,
        least,
        least_matched,
        confidence,
        draws,
        _SEARCHES[search],
        np.random.default_rng(seed),
    )
    found: list[tuple[Phase, Evidence]] = []
    unknown = []
    for axis in quantities:
        for curve in plane_curves(plane, axis):
            if curve.why_unknown:
                unknown.append(
                    f"{curve.concept}, {curve.site}, {curve.quantity}: unknown, {curve.why_unknown}"
                )
                continue
            found += _segments(curve, settings)
    order = {name: i for i, name in enumerate(np.atleast_1d(plane["concept"].values).tolist())}
    sites = {name: i for i, name in enumerate(np.atleast_1d(plane["site"].values).tolist())}
    found.sort(key=lambda pair: (order[pair[0].concept], sites[pair[0].site]))
    q = benjamini_hochberg(np.array([phase.p for phase, _ in found], dtype=float))
    told = {
        key: str(plane.attrs.get(key, ""))
        for key in ("model", "estimator", "units", "against", "width")
    }
    return Phases(
        tuple(
            _judged(phase, evidence, float(each), confidence)
            for (phase, evidence), each in zip(found, q, strict=True)
        ),
        told,
        confidence,
        tuple(unknown),
    )


def _judged(phase: Phase, evidence: Evidence, q: float, confidence: float) -> Phase:
    verdict, blocked_by, reason = judge(evidence, q, 1 - confidence)
    return replace(phase, q=q, verdict=verdict, blocked_by=blocked_by, reason=reason)


def _segments(curve: Curve, settings: _Settings) -> list[tuple[Phase, Evidence]]:
    """The segments of one curve, each with the evidence for and against a change."""
    about = curve.draws - curve.draws.mean(axis=0)
    own = about - about.mean(axis=1, keepdims=True)
    noise = float(np.square(own).sum(axis=0).mean() / (len(own) - 1))
    turning = find_turning_points(
        curve.position,
        curve.values,
        most=settings.most,
        shortest=settings.shortest,
        noise=noise,
        search=settings.search,
    )
    weights: dict[int, np.ndarray] = {}

    def changes(values: np.ndarray, draws: np.ndarray) -> Changes:
        # Other estimators may have been given another number of halves.
        if len(draws) not in weights:
            freedom = min(curve.freedom, len(draws) - 1)
            weights[len(draws)] = draw_noise(
                len(draws), draws=settings.draws, freedom=freedom, generator=settings.generator
            )
        shortest = min(settings.shortest, len(values) - 1)
        return Changes.of(values, draws, weights[len(draws)], shortest=shortest)

    main = changes(curve.values, curve.draws)
    above = changes(curve.above_null, curve.draws)
    controls = {name: changes(each.above_null, each.draws) for name, each in curve.controls.items()}
    places = _places_of_turns(curve, turning, weights[len(about)][:500] @ about, settings)
    ends = [0, *turning, len(curve.values) - 1]
    found = []
    for number, (first, last) in enumerate(pairwise(ends)):
        evidence = Evidence.of(
            curve, first, last, main, above, controls,
            least=settings.least, least_matched=settings.least_matched,
            confidence=settings.confidence,
        )  # fmt: skip
        phase = Phase(
            concept=curve.concept,
            site=curve.site,
            quantity=curve.quantity,
            verdict="no claim",
            first=curve.checkpoints[first],
            last=curve.checkpoints[last],
            first_step=float(curve.steps[first]),
            last_step=float(curve.steps[last]),
            first_step_ci=places[number],
            last_step_ci=places[number + 1],
            change=main.change(first, last),
            change_ci=main.interval(first, last, settings.confidence),
            share=evidence.share,
            p=evidence.p,
            q=np.nan,
            blocked_by=(),
            reason="",
        )
        found.append((phase, evidence))
    return found


def _places_of_turns(
    curve: Curve, turning: tuple[int, ...], noise: np.ndarray, settings: _Settings
) -> list[tuple[float, float]]:
    """Steps between which each end of a segment lies, by searching again in noisier curves."""
    ends = [(float(curve.steps[i]),) * 2 for i in (0, len(curve.values) - 1)]
    if not turning:
        return [(low, high) for low, high in ends]
    lines = BrokenLines.of(curve.position, len(turning), shortest=settings.shortest)
    again = np.array(lines.turning)[lines.best(curve.values + noise)[0]]
    tails = (1 - settings.confidence) / 2
    bounds = np.quantile(again, [tails, 1 - tails], axis=0, method="closest_observation")
    inner = []
    for number, turn in enumerate(turning):
        low, high = (int(each) for each in bounds[:, number])
        inner.append((float(curve.steps[min(low, turn)]), float(curve.steps[max(high, turn)])))
    return [ends[0], *inner, ends[1]]


def _check_plane(plane: xr.Dataset, quantities: Sequence[str]) -> None:
    for axis in quantities:
        if axis not in ("x", "y"):
            raise ValueError(f"`quantities` are 'x' and 'y', the axes of the plane, got {axis!r}.")
        if axis not in plane or f"{axis}_draws" not in plane or "position" not in plane.coords:
            raise ValueError(
                f"The data set holds no {axis!r} with half-sample replicates and positions of "
                "checkpoints. Give what `information_plane` gives."
            )


def _check_arguments(
    most: int,
    shortest: int,
    least: float,
    least_matched: float,
    confidence: float,
    search: str,
    draws: int,
) -> None:
    if not 0 <= most <= 4:
        raise ValueError(f"`most` must lie between 0 and 4 turning points, got {most}.")
    if shortest < 1:
        raise ValueError(f"`shortest` must be at least 1, got {shortest}.")
    if not 0 <= least < 1:
        raise ValueError(f"`least` must be a share from 0 to below 1, got {least}, as 0.05.")
    if not 0 <= least_matched <= 1:
        raise ValueError(f"`least_matched` must be a share from 0 to 1, got {least_matched}.")
    if not 0.5 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0.5 and 1, got {confidence}, as 0.95.")
    if search not in _SEARCHES:
        raise ValueError(f"`search` must be 'exact' or 'ruptures', got {search!r}.")
    if draws * (1 - confidence) < 10:
        raise ValueError(
            f"{draws} `draws` are too few for a confidence of {confidence:.1%}. Take at least "
            f"{np.ceil(10 / (1 - confidence)):.0f}."
        )
