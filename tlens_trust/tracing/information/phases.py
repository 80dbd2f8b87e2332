"""Phases along training: what rises or falls between turning points, and what only seems to."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Literal

import numpy as np
import xarray as xr

from tlens_trust.measures import benjamini_hochberg
from tlens_trust.tracing.information.curves import Curve, curves_of
from tlens_trust.tracing.information.simultaneous import Changes, draw_noise
from tlens_trust.tracing.information.turning_points import (
    BrokenLines,
    Search,
    find_turning_points,
    search_with_ruptures,
)
from tlens_trust.tracing.information.verdicts import Evidence, judge
from tlens_trust.tracing.provenance import listed

if TYPE_CHECKING:
    import pandas

Verdict = Literal["rises", "falls", "no claim"]
_SEARCHES: dict[str, Search | None] = {"exact": None, "ruptures": search_with_ruptures}


@dataclass(frozen=True)
class Phase:
    """What one curve does between two neighbouring turning points.

    Attributes:
        concept: The concept.
        site: The site.
        quantity: `"I(T;X)"` or `"I(T;Y)"`: the axis of the plane. What stands on it, and whether it
            is an information at all, `Phases` says.
        verdict: `"rises"`, `"falls"` or `"no claim"`.
        first: Checkpoint that it begins with.
        last: Checkpoint that it ends with.
        first_step: Its step; NaN where unknown.
        last_step: Its step; NaN where unknown.
        first_step_ci: Between which steps the turning point at its beginning lies, by drawing noise
            and searching again; the step itself at the first checkpoint.
        last_step_ci: Likewise, of its end.
        change: Of the curve from first to last.
        change_ci: Its interval, which holds at once for the changes between any two checkpoints of
            the curve, so also for those that a search has chosen.
        share: The change as a share of the curve's largest distance from its null level.
        p: The largest p-value of all that the claim has to survive.
        q: The same, corrected for all segments of all curves asked about.
        blocked_by: The controls that blocked a claim.
        reason: In words.
    """

    concept: str
    site: str
    quantity: str
    verdict: Verdict
    first: str
    last: str
    first_step: float
    last_step: float
    first_step_ci: tuple[float, float]
    last_step_ci: tuple[float, float]
    change: float
    change_ci: tuple[float, float]
    share: float
    p: float
    q: float
    blocked_by: tuple[str, ...]
    reason: str

    def __str__(self) -> str:
        return f"{_at(self.first_step, self.first)} → {_at(self.last_step, self.last)}  " + (
            self.reason
            if self.reason.startswith(self.verdict)
            else f"{self.verdict}: {self.reason}"
        )


@dataclass(frozen=True, repr=False)
class Phases:
    """The phases of every curve that was asked about, in order.

    Attributes:
        phases: By concept, site, quantity, along training.
        told: What the plane was made of: model, estimator, units, input, width.
        confidence: Of claims and intervals.
        unknown: Curves of which too little is known to say anything, each with why.
    """

    phases: tuple[Phase, ...]
    told: dict[str, str]
    confidence: float
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.phases)

    def __iter__(self) -> Iterator[Phase]:
        return iter(self.phases)

    def __repr__(self) -> str:
        claimed = sum(phase.verdict != "no claim" for phase in self.phases)
        lines = [
            f"Phases of {self.told.get('model') or 'an unnamed model'}, by "
            f"{self.told.get('estimator', 'an unnamed estimator')}: {claimed} of {len(self)} "
            "segments claimed"
        ]
        place = None
        for phase in self.phases:
            if (phase.concept, phase.site, phase.quantity) != place:
                place = phase.concept, phase.site, phase.quantity
                lines.append(f"  {phase.concept}, {phase.site}, {phase.quantity}")
            lines.append(f"    {phase}")
        return "\n".join([*lines, *(f"  {each}" for each in self.unknown)])

    def sel(
        self,
        *,
        concept: str | None = None,
        site: str | None = None,
        quantity: str | None = None,
        verdict: str | None = None,
    ) -> "Phases":
        """The phases of one concept, site, quantity or verdict; corrections stay as they are."""
        wanted = {"concept": concept, "site": site, "quantity": quantity, "verdict": verdict}
        kept = self.phases
        for name, value in wanted.items():
            if value is None:
                continue
            held = sorted({getattr(phase, name) for phase in self.phases})
            if value not in held and name != "verdict":
                raise ValueError(f"No phase has the {name} {value!r}. There are {listed(held)}.")
            kept = tuple(phase for phase in kept if getattr(phase, name) == value)
        return replace(self, phases=kept, unknown=())

    def to_frame(self) -> "pandas.DataFrame":
        """A tidy table, one row a phase; an interval is two columns, `…_low` and `…_high`."""
        import pandas

        rows = []
        for phase in self.phases:
            row: dict[str, object] = {}
            for field in fields(phase):
                value = getattr(phase, field.name)
                if field.name.endswith("_ci"):
                    stem = field.name.removesuffix("_ci")
                    row[f"{stem}_low"], row[f"{stem}_high"] = value
                else:
                    row[field.name] = ", ".join(value) if field.name == "blocked_by" else value
            rows.append(row)
        columns = list(rows[0]) if rows else [field.name for field in fields(Phase)]
        return pandas.DataFrame(rows, columns=columns)


@dataclass(frozen=True, eq=False)
class _Settings:
    most: int
    shortest: int
    least: float
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
    confidence: float = 0.95,
    search: str = "exact",
    draws: int = 4000,
    seed: int = 0,
) -> Phases:
    """Between which checkpoints I(T;X) and I(T;Y) rise and fall, and where that is not shown.

    Each curve of the plane is cut at its turning points (`find_turning_points`, over the logarithm
    of the step), and each segment is told as "rises", "falls" or "no claim". A claim has to survive
    all of these, and where it does not, the reason names which:

    - *noise*: the change from the segment's first to its last checkpoint exceeds what noise alone
      shows between any two checkpoints of the curve, so that it does not matter that the
      checkpoints were chosen by looking. Noise is that of other statements of the kind, from half
      samples paired along the curve;
    - *size*: the change is at least the share `least` of the curve's largest distance from its
      null. With paired halves changes of no interest are told apart from nothing;
    - *null*: so is the change of the curve above the mean of its permutation null, since the null
      itself moves with the rank;
    - *rank-matched*: so is that of the same quantity with the spectrum made flat, in the same
      direction;
    - *width*: so is that at every other width of the kernel (level of noise), in the same
      direction. Every one, since a phase that is seen at one width and not at another is a
      statement about the width;
    - *many claims*: the largest of their p-values, corrected for all segments of all concepts,
      sites and quantities of the plane (Benjamini and Hochberg).

    A change that vanishes in the rank-matched variant, or at another width, is called a change of
    spectrum, and not compression; one that these do not show for lack of certainty is told apart
    from that. Where a control was never measured, nothing is claimed of `I(T;X)`; for bounds on
    `I(T;Y)` by held-out probes there is no kernel and no spectrum to match. What changes with the
    other input, or by other estimators, is said and blocks nothing.

    What it cannot know: noise is that of the statements, for the one run of training at hand.
    Whether another seed shows the same phase, only other seeds tell. Where the rank-matched variant
    has fewer components than there are directions, a map that moves others into the lead is not
    undone by it.

    Args:
        plane: What `information_plane` gives, or a part of it.
        quantities: `"x"`, `"y"` or both.
        most: Turning points of a curve, at most.
        shortest: How many steps from checkpoint to checkpoint a segment spans at least.
        least: Smallest change of interest, as a share of the curve's largest distance from its
            null.
        confidence: Of claims and intervals.
        search: `"exact"`, every broken line; or `"ruptures"`, which has to be installed.
        draws: Of noise.
        seed: Draws it.

    Returns:
        One `Phase` for each segment, with `.to_frame()`.

    Raises:
        ValueError: The plane lacks an axis or replicates, or an argument is out of range.
        ImportError: ruptures was asked for and is not installed.

    Source:
        Truong et al. (2020), Signal Processing 167, for change points by exact search; Berger
        (1982), Technometrics 24, for a claim that has to survive several tests, each at its level;
        Hothorn et al. (2008), Biometrical Journal 50, for intervals that hold at once.

    Example:
        >>> phases = find_phases(information_plane(Trace.load("run")))  # doctest: +SKIP
        >>> print(phases.sel(concept="toxicity"))  # doctest: +SKIP
    """
    _check_arguments(plane, quantities, most, shortest, least, confidence, search, draws)
    settings = _Settings(
        most, shortest, least, confidence, draws, _SEARCHES[search], np.random.default_rng(seed)
    )
    found: list[tuple[Phase, Evidence]] = []
    unknown = []
    for axis in quantities:
        for curve in curves_of(plane, axis):
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
    """The segments of one curve, each with what speaks for and against it."""
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
            least=settings.least, confidence=settings.confidence,
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


def _at(step: float, checkpoint: str) -> str:
    return checkpoint.split("@")[-1] if np.isnan(step) else f"step {step:.0f}"


def _check_arguments(
    plane: xr.Dataset,
    quantities: Sequence[str],
    most: int,
    shortest: int,
    least: float,
    confidence: float,
    search: str,
    draws: int,
) -> None:
    for axis in quantities:
        if axis not in ("x", "y"):
            raise ValueError(f"`quantities` are 'x' and 'y', the axes of the plane, got {axis!r}.")
        if axis not in plane or f"{axis}_draws" not in plane or "position" not in plane.coords:
            raise ValueError(
                f"The data set holds no {axis!r} with half-sample replicates and positions of "
                "checkpoints. Give what `information_plane` gives."
            )
    if not 0 <= most <= 4:
        raise ValueError(f"`most` must lie between 0 and 4 turning points, got {most}.")
    if shortest < 1:
        raise ValueError(f"`shortest` must be at least 1, got {shortest}.")
    if not 0 <= least < 1:
        raise ValueError(f"`least` must be a share from 0 to below 1, got {least}, as 0.05.")
    if not 0.5 < confidence < 1:
        raise ValueError(f"`confidence` must lie between 0.5 and 1, got {confidence}, as 0.95.")
    if search not in _SEARCHES:
        raise ValueError(f"`search` must be 'exact' or 'ruptures', got {search!r}.")
    if draws * (1 - confidence) < 10:
        raise ValueError(
            f"{draws} `draws` are too few for a confidence of {confidence:.1%}. Take at least "
            f"{np.ceil(10 / (1 - confidence)):.0f}."
        )
