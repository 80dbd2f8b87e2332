"""From numbers to a verdict in words: what a change has survived, and what blocked a claim."""

from collections.abc import Mapping
from dataclasses import dataclass
from math import isnan, nan
from typing import Literal

import numpy as np

from tlens_trust.analysis.phases.plane_curves import Curve
from tlens_trust.analysis.phases.simultaneous_changes import Changes

Verdict = Literal["rises", "falls", "no claim"]
_INSTEAD = {
    ("I(T;X)", "falls"): "a change of spectrum, not compression",
    ("I(T;X)", "rises"): "a change of spectrum, not fitting",
    ("I(T;Y)", "falls"): "a change of spectrum, which shows no loss of information about the label",
    ("I(T;Y)", "rises"): "a change of spectrum, which shows no gain of information about the label",
}


@dataclass(frozen=True)
class Shift:
    """A change between two checkpoints, of the curve or of a control.

    Attributes:
        kind: The kind of the control.
        change: The change, less that of the null.
        low: Lower end of its simultaneous interval.
        high: Upper end of its simultaneous interval.
        share: The change as a share of the largest distance from the null.
        unit_share: The same share for a change of 1.
        p: Two-sided p-value, among the changes between any two checkpoints.
    """

    kind: str
    change: float
    low: float
    high: float
    share: float
    unit_share: float
    p: float

    @classmethod
    def of(cls, changes: Changes, start: int, end: int, confidence: float, kind: str) -> "Shift":
        """Measure the change between two checkpoints."""
        largest = float(np.abs(changes.values).max())
        unit = 1 / largest if largest > 0 else 0.0
        change = changes.change(start, end)
        low, high = changes.interval(start, end, confidence)
        return cls(kind, change, low, high, change * unit, unit, changes.p_value(start, end))

    def agrees(self, sign: float, min_share: float) -> bool:
        """Whether it is large enough to be of interest, and in this direction."""
        return self.share * sign >= min_share

    def vanishes(self, share: float) -> bool:
        """Whether it is shown to be less than half of the curve's change, or the reverse of it."""
        sign = np.sign(share)
        return bool(max(self.low * sign, self.high * sign) * self.unit_share < abs(share) / 2)

    def described(self) -> str:
        """The change and its interval, in words."""
        return f"{self.change:+.3g} [{self.low:.3g}, {self.high:.3g}]"


@dataclass(frozen=True)
class Evidence:
    """The evidence for and against a change of one curve between two checkpoints.

    Attributes:
        quantity: `"I(T;X)"` or `"I(T;Y)"`.
        change: The change of the curve, null included.
        interval: Its interval.
        p_change: Its p-value.
        above: The change above the null.
        controls: Changes of the controls, by name.
        blocking: Names of the controls that a claim has to survive.
        missing: Names of such controls that were not measured.
        partial: The share of the directions that the rank-matched variant holds, where it is too
            small; else NaN.
        min_share: Smallest share of interest.
    """

    quantity: str
    change: float
    interval: tuple[float, float]
    p_change: float
    above: Shift
    controls: Mapping[str, Shift]
    blocking: tuple[str, ...]
    missing: tuple[str, ...]
    partial: float
    min_share: float

    @classmethod
    def of(
        cls,
        curve: Curve,
        start: int,
        end: int,
        main: Changes,
        above_null: Changes,
        controls: Mapping[str, Changes],
        *,
        min_share: float,
        min_matched_share: float,
        confidence: float,
    ) -> "Evidence":
        """Gather the evidence between two checkpoints."""
        return cls(
            quantity=curve.quantity,
            change=main.change(start, end),
            interval=main.interval(start, end, confidence),
            p_change=main.p_value(start, end),
            above=Shift.of(above_null, start, end, confidence, "null"),
            controls={
                name: Shift.of(control, start, end, confidence, curve.controls[name].kind)
                for name, control in controls.items()
            },
            blocking=tuple(name for name, control in curve.controls.items() if control.blocks),
            missing=curve.missing,
            # One direction of a thousand may be lost to rounding.
            partial=curve.matched if curve.matched < min_matched_share - 1e-3 else nan,
            min_share=min_share,
        )

    @property
    def sign(self) -> float:
        """1 for a rise, -1 for a fall."""
        return 1.0 if self.change > 0 else -1.0

    @property
    def share(self) -> float:
        """The change as a share of the curve's largest distance from its null."""
        return self.change * self.above.unit_share

    @property
    def p(self) -> float:
        """The largest p-value of what a claim has to survive; 1 where no claim is possible."""
        shifts = [self.above, *(self.controls[name] for name in self.blocking)]
        agree = all(shift.agrees(self.sign, self.min_share) for shift in shifts)
        if self.missing or not isnan(self.partial) or not agree or abs(self.share) < self.min_share:
            return 1.0
        return max(self.p_change, *(shift.p for shift in shifts))


def judge(evidence: Evidence, q: float, level: float) -> tuple[Verdict, tuple[str, ...], str]:
    """The verdict, the controls that blocked a claim, and the reason in words."""
    direction: Verdict = "rises" if evidence.sign > 0 else "falls"
    low, high = evidence.interval
    change = f"{evidence.change:+.3g} [{low:.3g}, {high:.3g}]"
    if evidence.p_change > level:
        return "no claim", ("noise",), f"the change, {change}, is within noise"
    if abs(evidence.share) < evidence.min_share:
        share = f"{abs(evidence.share):.1%} of the way to the null"
        return "no claim", ("size",), f"the change, {change}, is too small to matter ({share})"
    change_text = f"it {direction} ({change})"
    above_null = evidence.above
    if above_null.p > level or not above_null.agrees(evidence.sign, evidence.min_share):
        reason = (
            f"{change_text}, but not above what permuted pairs show "
            f"({above_null.described()} beyond their mean)"
        )
        return "no claim", ("null",), reason
    failed = [
        name
        for name in evidence.blocking
        if evidence.controls[name].p > level
        or not evidence.controls[name].agrees(evidence.sign, evidence.min_share)
    ]
    if failed:
        return "no claim", tuple(failed), _failed(evidence, failed, change_text, direction)
    if evidence.missing:
        names = ", ".join(evidence.missing)
        reason = (
            f"{change_text}, but what would tell it from a change of spectrum was not measured: "
            f"{names}"
        )
        return "no claim", tuple(f"{name} missing" for name in evidence.missing), reason
    if not isnan(evidence.partial):
        reason = (
            f"{change_text}, but the rank-matched variant, in which it does too, holds "
            f"{evidence.partial:.0%} of the directions, so it cannot be told from a change of "
            "spectrum; statements twice as many as directions would tell"
        )
        return "no claim", ("too few statements",), reason
    if not q <= level:
        reason = f"{change_text} and survives its controls, but not the correction for many claims"
        return "no claim", ("many claims",), f"{reason} (q = {q:.2g})"
    # Of bounds by held-out probes there is no kernel to widen and no spectrum to flatten.
    places = _and([_where(name) for name in evidence.blocking]) if evidence.blocking else ""
    survived = f", as it does {places}" if places else ""
    return direction, (), f"{direction}: {change}{survived}" + _aside(evidence, direction)


def _failed(evidence: Evidence, failed: list[str], change_text: str, direction: str) -> str:
    failed_texts = [f"{_where(name)} ({evidence.controls[name].described()})" for name in failed]
    # A noisy control does not show that the change vanishes, only that it is not shown.
    vanishes = any(evidence.controls[name].vanishes(evidence.share) for name in failed)
    if vanishes:
        instead = _INSTEAD[evidence.quantity, direction]
        return f"{instead}: {change_text}, but not {_and(failed_texts)}" + _aside(
            evidence, direction
        )
    return (
        f"{change_text}, but it is not shown {_and(failed_texts)}, so it cannot be told from a "
        "change of spectrum" + _aside(evidence, direction)
    )


def _aside(evidence: Evidence, direction: str) -> str:
    """The changes with the other input and by other estimators, which block nothing."""
    level = 0.05
    parts = []
    for name, shift in evidence.controls.items():
        if name in evidence.blocking:
            continue
        name_text = f"with {name}" if shift.kind == "input" else f"by {name}"
        if shift.p > level:
            parts.append(f"{name_text} no change is shown")
        elif shift.agrees(evidence.sign, evidence.min_share):
            parts.append(f"{name_text} it {direction} too")
        elif shift.change * evidence.sign < 0:
            opposite = "rises" if direction == "falls" else "falls"
            parts.append(f"{name_text} it {opposite} instead")
        else:
            parts.append(f"{name_text} the change is too small to matter")
    return f"; {_and(parts)}" if parts else ""


def _where(name: str) -> str:
    if name == "rank-matched":
        return "in the rank-matched variant"
    return f"at {name}"


def _and(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"
