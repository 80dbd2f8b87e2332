"""What a steering matrix says, in a table and in sentences that carry their numbers."""

import numpy as np
import xarray as xr

from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.views.axes import format_count
from tlens_trust.views.text_tables import lay_out, number, small_number, with_interval

_TAILS = (0.025, 0.975)
_LEVEL = 0.05
# What statements themselves tell; what is asked about them stands before it.
_OWN = ("log_odds", "log_odds_per_token", "likelihood_gap")


def matrix_table(matrix: xr.Dataset, effect: str | None = None) -> str:
    """What `steering_matrix` gives of one effect, laid out for a terminal, with its verdicts.

    Args:
        matrix: What it gives.
        effect: Which quantity, as `"log_odds"`; by default the first of `steering_effects`.

    Raises:
        ValueError: It is something else, or holds no such effect.

    Examples:
        >>> matrix = steering_matrix(
        ...     series, [series[-1]], concept, site=2, target_kl=0.1
        ... )  # doctest: +SKIP
        >>> print(matrix_table(matrix))  # doctest: +SKIP
    """
    name = _chosen(matrix, effect)
    dose = float(matrix.attrs.get("target_kl", np.nan))
    told = str(matrix[f"{name}_change"].attrs.get("long_name", name)).rpartition(", ")[0] or name
    units = str(matrix[f"{name}_change"].attrs.get("units", ""))
    lines = [
        f"{matrix.attrs.get('concept', '?')} at {matrix['site'].values!s}, each vector at "
        f"{dose:g} nats a token; {matrix.attrs.get('statements', '?')} statements that none has "
        "seen",
        f"{told} ({units}); random: {matrix.attrs.get('random', '?')}, 2.5% to 97.5%",
        "",
    ]
    low, high = np.quantile(matrix[f"{name}_random"].transpose("target", "draw"), _TAILS, axis=1)
    columns: dict[str, list[str]] = {
        heading: []
        for heading in (
            "model", "vector of", "change [interval]", "random", "beyond random [interval]", "p",
            "wrong", "text loss",
        )
    }  # fmt: skip
    for j, target in enumerate(matrix["target"].values):
        for source in matrix["source"].values:
            cell = matrix.sel(source=source, target=target)
            row = (
                str(target),
                str(source),
                _interval(cell, f"{name}_change"),
                f"[{low[j]:.3f}, {high[j]:.3f}]",
                _interval(cell, f"{name}_over_random"),
                small_number(float(cell[f"{name}_p"])),
                _share(float(cell[f"{name}_wrong_way"])),
                number(float(cell["neutral_loss_change"])),
            )
            for cells, text in zip(columns.values(), row, strict=True):
                cells.append(text)
    lines += lay_out(list(columns.items()), left=("model", "vector of"))
    lines.append("")
    for target in matrix["target"].values.tolist():
        lines.append(steering_verdict(matrix, name, target=target))
    return "\n".join(lines)


def steering_verdict(
    matrix: xr.Dataset, effect: str | None = None, *, target: str | int = -1
) -> str:
    """Whether a target is moved, by how much more than by random directions, and at what cost.

    It is called moved where the interval of the change beyond random directions lies above zero,
    and few of them change as much: `p` is at most 5% after correction over the sources (Benjamini
    and Hochberg). Of several sources the target's own is told, or else the last.

    Args:
        matrix: What `steering_matrix` gives.
        effect: Which quantity; by default the first of `steering_effects`.
        target: Name or number of the target.

    Raises:
        ValueError: There is no such effect or target.
    """
    name = _chosen(matrix, effect)
    here = matrix.isel(target=_place(matrix, target))
    model = str(here["target"].values)
    about = f"{matrix.attrs.get('concept', '?')}: "
    known = np.isfinite(here[f"{name}_change"].values)
    if not known.any():
        return f"{about}no strength moves the neutral predictions of {model} as far as was asked."
    sources = [str(source) for source in here["source"].values]
    own = sources.index(model) if model in sources else len(sources) - 1
    if not known[own]:
        own = int(np.flatnonzero(known)[-1])
    q = np.full(len(sources), np.nan)
    q[known] = benjamini_hochberg(here[f"{name}_p"].values[known])
    low, high = here[f"{name}_over_random_ci"].transpose("bound", "source").values
    works = (low > 0) & (q <= _LEVEL)
    cell = here.isel(source=own)
    beyond = float(cell[f"{name}_over_random"])
    if works[own]:
        verdict = "is moved to the trustworthy side"
    elif high[own] < 0 and q[own] <= _LEVEL:
        verdict = "is moved to the other side"
    else:
        verdict = "is not shown to be moved"
    vector = "its own vector" if sources[own] == model else f"the vector of {sources[own]}"
    told = str(cell[f"{name}_change"].attrs.get("long_name", name)).rpartition(", ")[0] or name
    corrected = f", corrected for {int(known.sum())} sources" if known.sum() > 1 else ""
    text = (
        f"{about}{model} {verdict} ({told}). Beside random directions at the same dose, {vector} "
        f"changes it by {_signed(beyond)} [{_signed(low[own])}, {_signed(high[own])}] nats (p = "
        f"{small_number(q[own])}{corrected}; {matrix.attrs.get('random', 'random directions')}), "
        f"and {float(cell[f'{name}_wrong_way']):.0%} of the statements go the wrong way."
    )
    return f"{text} {_cost(cell, name)}{_others(here, works, own)}"


def steering_effects(matrix: xr.Dataset) -> tuple[str, ...]:
    """The effects in nats that a matrix holds: of what was asked first, then of the statements.

    Raises:
        ValueError: This is nothing that `steering_matrix` gave.
    """
    if not {"source", "target"} <= set(matrix.dims) or "strength" not in matrix:
        raise ValueError(
            "This tells what `steering_matrix` gives, got a data set of "
            f"{', '.join(map(str, matrix)) or 'nothing'}."
        )
    found = [
        name
        for name in (str(each).removesuffix("_p") for each in matrix if str(each).endswith("_p"))
        if name in _OWN or name.endswith("_log_odds")
    ]
    return tuple(sorted(found, key=lambda name: name in _OWN))


def _chosen(matrix: xr.Dataset, effect: str | None) -> str:
    known = steering_effects(matrix)
    if effect is None and known:
        return known[0]
    if effect is None or f"{effect}_p" not in matrix:
        raise ValueError(
            f"There is no effect {effect!r} here. Choose one of {', '.join(known) or 'none'}."
        )
    return effect


def _place(matrix: xr.Dataset, target: str | int) -> int:
    names = [str(name) for name in matrix["target"].values]
    if isinstance(target, int) and -len(names) <= target < len(names):
        return target % len(names)
    if target not in names:
        raise ValueError(
            f"There is no target {target!r} here. Choose a number from 0 to {len(names) - 1}, or "
            f"one of {', '.join(names)}."
        )
    return names.index(str(target))


def _cost(cell: xr.Dataset, name: str) -> str:
    low, high = cell["neutral_loss_change_ci"].sel(bound=["low", "high"]).values.tolist()
    told = (
        f"Neutral text costs it {_signed(float(cell['neutral_loss_change']))} [{_signed(low)}, "
        f"{_signed(high)}] nats a token"
    )
    accuracy = f"{name.removesuffix('_log_odds')}_accuracy"
    if f"{accuracy}_change" not in cell or name in _OWN:
        return f"{told}."
    before = float(cell[f"{accuracy}_unsteered"])
    after = before + float(cell[f"{accuracy}_change"])
    return f"{told}, and its right answers go from {before:.0%} to {after:.0%}."


def _others(here: xr.Dataset, works: np.ndarray, own: int) -> str:
    """Which of the other sources' vectors work as well."""
    if len(works) < 2:
        return ""
    steps = here["source_step"].values

    def named(place: int) -> str:
        step = float(steps[place])
        return (
            f"step {format_count(step)}" if np.isfinite(step) else str(here["source"].values[place])
        )

    others = [place for place in range(len(works)) if place != own]
    working = [named(place) for place in others if works[place]]
    idle = [named(place) for place in others if not works[place]]
    parts = []
    if working:
        verb = "moves it too" if len(working) == 1 else "move it too"
        parts.append(f"{'A vector' if len(working) == 1 else 'Vectors'} of {_and(working)} {verb}")
    if idle:
        verb = "is not shown to" if len(idle) == 1 else "are not shown to"
        kind = "one" if working and len(idle) == 1 else "those" if working else (
            "A vector" if len(idle) == 1 else "Vectors"
        )  # fmt: skip
        parts.append(f"{kind} of {_and(idle)} {verb}{'' if working else ' move it'}")
    return f" {', '.join(parts)}."


def _and(names: list[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _interval(cell: xr.Dataset, name: str) -> str:
    low, high = cell[f"{name}_ci"].sel(bound=["low", "high"]).values.tolist()
    return with_interval(float(cell[name]), low, high)


def _share(value: float) -> str:
    return "" if np.isnan(value) else f"{value:.0%}"


def _signed(value: float) -> str:
    return f"{value:+.2f}".replace("-", "−")
