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
    max_turning_points: int
    min_steps: int
    min_share: float
    min_matched_share: float
    confidence: float
    draws: int
    search: Search | None
    generator: np.random.Generator


def find_phases(
    plane: xr.Dataset,
    *,
    quantities: Sequence[str] = ("x", "y"),
    max_turning_points: int = 2,
    min_steps: int = 2,
    min_share: float = 0.05,
    min_matched_share: float = 1.0,
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

    - *size*: the change is at least the share `min_share` of the curve's largest distance from its
      null. Paired halves are precise enough to show changes too small to matter;

    - *null*: the change of the curve above the mean of its permutation null is shown too, since the
      null itself moves with the rank;

    - *rank-matched*: the change of the same quantity with a flat spectrum is shown too, in the same
      direction;

    - *too few statements*: the rank-matched variant holds all directions (the share
      `min_matched_share` of them). With fewer, an invertible map may bring other directions into
      the lead. Rises and falls would then be claimed where no information changed. Twice as many
      statements as directions are enough;

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
        max_turning_points: Largest number of turning points of a curve.
        min_steps: Smallest number of steps from checkpoint to checkpoint in a segment.
        min_share: Smallest change of interest, as a share of the curve's largest distance from its
            null.
        min_matched_share: Share of the directions that the rank-matched variant has to hold. Below
            1, claims may be of a change of spectrum.
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
    _check_arguments(
        max_turning_points, min_steps, min_share, min_matched_share, confidence, search, draws
    )
    settings = _Settings(
        max_turning_points,
        min_steps,
        min_share,
        min_matched_share,
        confidence,
        draws,
        _SEARCHES[search],
        np.random.default_rng(seed),
    )
    segments: list[tuple[Phase, Evidence]] = []
    unknown = []
    for axis in quantities:
        for curve in plane_curves(plane, axis):
            if curve.why_unknown:
                unknown.append(
                    f"{curve.concept}, {curve.site}, {curve.quantity}: unknown, {curve.why_unknown}"
                )
                continue
            segments += _segments(curve, settings)
    order = {name: i for i, name in enumerate(np.atleast_1d(plane["concept"].values).tolist())}
    sites = {name: i for i, name in enumerate(np.atleast_1d(plane["site"].values).tolist())}
    segments.sort(key=lambda pair: (order[pair[0].concept], sites[pair[0].site]))
    q = benjamini_hochberg(np.array([phase.p for phase, _ in segments], dtype=float))
    plane_attributes = {
        key: str(plane.attrs.get(key, ""))
        for key in ("model", "estimator", "units", "against", "width")
    }
    return Phases(
        tuple(
            _judged(phase, evidence, float(phase_q), confidence)
            for (phase, evidence), phase_q in zip(segments, q, strict=True)
        ),
        plane_attributes,
        confidence,
        tuple(unknown),
    )


def _judged(phase: Phase, evidence: Evidence, q: float, confidence: float) -> Phase:
    verdict, blocked_by, reason = judge(evidence, q, 1 - confidence)
    return replace(phase, q=q, verdict=verdict, blocked_by=blocked_by, reason=reason)


def _segments(curve: Curve, settings: _Settings) -> list[tuple[Phase, Evidence]]:
    """The segments of one curve, each with the evidence for and against a change."""
    centred = curve.draws - curve.draws.mean(axis=0)
    row_centred = centred - centred.mean(axis=1, keepdims=True)
    noise = float(np.square(row_centred).sum(axis=0).mean() / (len(row_centred) - 1))
    turning_points = find_turning_points(
        curve.position,
        curve.values,
        max_turning_points=settings.max_turning_points,
        min_steps=settings.min_steps,
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
        min_steps = min(settings.min_steps, len(values) - 1)
        return Changes.of(values, draws, weights[len(draws)], min_steps=min_steps)

    main = changes(curve.values, curve.draws)
    above_null = changes(curve.above_null, curve.draws)
    controls = {
        name: changes(control.above_null, control.draws) for name, control in curve.controls.items()
    }
    end_steps = _places_of_turns(
        curve, turning_points, weights[len(centred)][:500] @ centred, settings
    )
    ends = [0, *turning_points, len(curve.values) - 1]
    segments = []
    for number, (start, end) in enumerate(pairwise(ends)):
        evidence = Evidence.of(
            curve, start, end, main, above_null, controls,
            min_share=settings.min_share, min_matched_share=settings.min_matched_share,
            confidence=settings.confidence,
        )  # fmt: skip
        phase = Phase(
            concept=curve.concept,
            site=curve.site,
            quantity=curve.quantity,
            verdict="no claim",
            first=curve.checkpoints[start],
            last=curve.checkpoints[end],
            first_step=float(curve.steps[start]),
            last_step=float(curve.steps[end]),
            first_step_ci=end_steps[number],
            last_step_ci=end_steps[number + 1],
            change=main.change(start, end),
            change_ci=main.interval(start, end, settings.confidence),
            share=evidence.share,
            p=evidence.p,
            q=np.nan,
            blocked_by=(),
            reason="",
        )
        segments.append((phase, evidence))
    return segments


def _places_of_turns(
    curve: Curve, turning_points: tuple[int, ...], noise: np.ndarray, settings: _Settings
) -> list[tuple[float, float]]:
    """Steps between which each end of a segment lies, by searching again in noisier curves."""
    ends = [(float(curve.steps[i]),) * 2 for i in (0, len(curve.values) - 1)]
    if not turning_points:
        return [(low, high) for low, high in ends]
    lines = BrokenLines.of(curve.position, len(turning_points), min_steps=settings.min_steps)
    turns_by_draw = np.array(lines.turning)[lines.best(curve.values + noise)[0]]
    tails = (1 - settings.confidence) / 2
    bounds = np.quantile(turns_by_draw, [tails, 1 - tails], axis=0, method="closest_observation")
    inner = []
    for number, turn in enumerate(turning_points):
        low, high = (int(bound) for bound in bounds[:, number])
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
    max_turning_points: int,
    min_steps: int,
    min_share: float,
    min_matched_share: float,
    confidence: float,
    search: str,
    draws: int,
) -> None:
    if not 0 <= max_turning_points <= 4:
        raise ValueError(
            f"`max_turning_points` must lie between 0 and 4 turning points, got "
            f"{max_turning_points}."
        )
    if min_steps < 1:
        raise ValueError(f"`min_steps` must be at least 1, got {min_steps}.")
    if not 0 <= min_share < 1:
        raise ValueError(
            f"`min_share` must be a share from 0 to below 1, got {min_share}, as 0.05."
        )
    if not 0 <= min_matched_share <= 1:
        raise ValueError(
            f"`min_matched_share` must be a share from 0 to 1, got {min_matched_share}."
        )
    if not 0.5 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0.5 and 1, got {confidence}, as 0.95.")
    if search not in _SEARCHES:
        raise ValueError(f"`search` must be 'exact' or 'ruptures', got {search!r}.")
    if draws * (1 - confidence) < 10:
        raise ValueError(
            f"{draws} `draws` are too few for a confidence of {confidence:.1%}. Take at least "
            f"{np.ceil(10 / (1 - confidence)):.0f}."
        )
