"""Phases as records: one record per segment, and all of them together."""

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tlens_trust.analysis.phases.verdicts import Verdict
from tlens_trust.html import render
from tlens_trust.tracing.provenance import listed

if TYPE_CHECKING:
    import pandas


@dataclass(frozen=True)
class Phase:
    """What one curve does between two neighbouring turning points.

    Attributes:
        concept: The concept.
        site: The site.
        quantity: `"I(T;X)"` or `"I(T;Y)"`: the axis of the plane. `Phases` says which estimator is
            on it, and whether that is an information at all.
        verdict: `"rises"`, `"falls"` or `"no claim"`.
        first: The checkpoint at its beginning.
        last: The checkpoint at its end.
        first_step: The step at its beginning; NaN where unknown.
        last_step: The step at its end; NaN where unknown.
        first_step_ci: The steps between which the turning point at its beginning lies, found by
            adding noise and searching again. At the first checkpoint, the step itself.
        last_step_ci: Likewise, for its end.
        change: Change of the curve from first to last.
        change_ci: Its interval. It holds at once for the changes between any two checkpoints of the
            curve, so also for those that a search has chosen.
        share: The change as a share of the curve's largest distance from its null level.
        p: The largest p-value of all that the claim has to survive.
        q: The same, corrected for all segments of all curves.
        blocked_by: The controls that blocked a claim.
        reason: The reason in words.
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
    """The phases of every curve, in order.

    Attributes:
        phases: By concept, site, quantity, along training.
        attributes: What the plane was made of: model, estimator, units, input, width.
        confidence: The confidence of claims and intervals.
        unknown: Curves that are too little known for any statement, each with the reason.
    """

    phases: tuple[Phase, ...]
    attributes: dict[str, str]
    confidence: float
    unknown: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.phases)

    def __iter__(self) -> Iterator[Phase]:
        return iter(self.phases)

    def __repr__(self) -> str:
        claimed = sum(phase.verdict != "no claim" for phase in self.phases)
        model = self.attributes.get("model") or "an unnamed model"
        if Path(model).is_absolute():
            model = Path(model).name  # Of a folder the name is enough.
        lines = [
            f"Phases of {model}, by "
            f"{self.attributes.get('estimator', 'an unnamed estimator')}: {claimed} of {len(self)} "
            "segments claimed"
        ]
        curve_name = None
        for phase in self.phases:
            if (phase.concept, phase.site, phase.quantity) != curve_name:
                curve_name = phase.concept, phase.site, phase.quantity
                lines.append(f"  {phase.concept}, {phase.site}, {phase.quantity}")
            lines.append(f"    {phase}")
        return "\n".join([*lines, *(f"  {note}" for note in self.unknown)])

    def _repr_html_(self) -> str:
        title = repr(self).partition("\n")[0]
        return render(
            "notebook/phases", {"title": title, "phases": self.phases, "notes": self.unknown}
        )

    def sel(
        self,
        *,
        concept: str | None = None,
        site: str | None = None,
        quantity: str | None = None,
        verdict: str | None = None,
    ) -> "Phases":
        """The phases of one concept, site, quantity or verdict; corrections stay as they are."""
        selection = {"concept": concept, "site": site, "quantity": quantity, "verdict": verdict}
        selected = self.phases
        for name, value in selection.items():
            if value is None:
                continue
            existing = sorted({getattr(phase, name) for phase in self.phases})
            if value not in existing and name != "verdict":
                raise ValueError(
                    f"No phase has the {name} {value!r}. There are {listed(existing)}."
                )
            selected = tuple(phase for phase in selected if getattr(phase, name) == value)
        return replace(self, phases=selected, unknown=())

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


def _at(step: float, checkpoint: str) -> str:
    return checkpoint.split("@")[-1] if np.isnan(step) else f"step {step:.0f}"
