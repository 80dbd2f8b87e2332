"""A steering matrix as a table for a terminal, and as sentences with numbers and intervals."""

import numpy as np
import xarray as xr

from tlens_trust.measures.multiplicity import benjamini_hochberg
from tlens_trust.views.axes import format_count
from tlens_trust.views.text_tables import lay_out, number, small_number, with_interval

_TAILS = (0.025, 0.975)
_LEVEL = 0.05
# Effects on the statements themselves; effects on questions about them come first.
_STATEMENT_EFFECTS = ("log_odds", "log_odds_per_token", "likelihood_gap")


def matrix_table(matrix: xr.Dataset, effect: str | None = None) -> str:
    """Lay out one effect of a steering matrix for a terminal, with its verdicts.

    Args:
        matrix: What `steering_matrix` gives.
        effect: A quantity, such as `"log_odds"`; by default the first of `steering_effects`.

    Raises:
        ValueError: `matrix` is no steering matrix, or holds no such effect.

    Examples:
        >>> matrix = steering_matrix(
        ...     series,
        ...     [series[-1]],
        ...     concept,
        ...     EstimationOptions(sites=2),
        ...     intervention=Intervention(target_kl=0.1),
        ... )  # doctest: +SKIP
        >>> print(matrix_table(matrix))  # doctest: +SKIP
    """
    name = _checked_effect(matrix, effect)
    dose = float(matrix.attrs.get("target_kl", np.nan))
    label = _effect_label(matrix, name)
    units = str(matrix[f"{name}_change"].attrs.get("units", ""))
    lines = [
        f"{matrix.attrs.get('concept', '?')} at {matrix['site'].values!s}, each vector at "
        f"{dose:g} nats per token; {matrix.attrs.get('statements', '?')} held-out statements",
        f"{label} ({units}); random: {matrix.attrs.get('random', '?')}, 2.5% to 97.5%",
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
    """Say whether a target is moved more than by random directions, how much, and at what cost.

    A target is moved if two conditions hold. The interval of the change beyond random directions
    lies above zero, and `p` is at most 5% after correction over the sources (Benjamini and
    Hochberg). With several sources the sentence is about the target's own vector, or else the last.

    Args:
        matrix: What `steering_matrix` gives.
        effect: A quantity; by default the first of `steering_effects`.
        target: Name or number of the target.

    Raises:
        ValueError: There is no such effect or target.
    """
    name = _checked_effect(matrix, effect)
    column = matrix.isel(target=place_of_target(matrix, target))
    model = str(column["target"].values)
    prefix = f"{matrix.attrs.get('concept', '?')}: "
    is_known = np.isfinite(column[f"{name}_change"].values)
    if not is_known.any():
        return f"{prefix}no strength reaches the requested dose in {model}."
    sources = [str(source) for source in column["source"].values]
    number_of_source = sources.index(model) if model in sources else len(sources) - 1
    if not is_known[number_of_source]:
        # Its vector reaches the requested dose at no strength; the last that does stands in for it.
        number_of_source = int(np.flatnonzero(is_known)[-1])
    # A source whose vector was not evaluated is no test, and does not count in the correction.
    q = np.full(len(sources), np.nan)
    q[is_known] = benjamini_hochberg(column[f"{name}_p"].values[is_known])
    low, high = column[f"{name}_over_random_ci"].transpose("bound", "source").values
    # Both are needed. The interval is over statements and the p-value over random directions, and
    # neither covers the other source of chance.
    works = (low > 0) & (q <= _LEVEL)
    cell = column.isel(source=number_of_source)
    source, source_q = sources[number_of_source], float(q[number_of_source])
    source_low, source_high = float(low[number_of_source]), float(high[number_of_source])
    if works[number_of_source]:
        verdict = "is moved to the trustworthy side"
    elif source_high < 0 and source_q <= _LEVEL:
        verdict = "is moved to the other side"
    else:
        verdict = "is not shown to be moved"
    vector = "its own vector" if source == model else f"the vector of {source}"
    n_known = int(is_known.sum())
    correction = f", corrected for {n_known} sources" if n_known > 1 else ""
    random = matrix.attrs.get("random", "random directions")
    text = (
        f"{prefix}{model} {verdict} ({_effect_label(cell, name)}). Beyond random directions at the "
        f"same dose, {vector} adds {_signed(float(cell[f'{name}_over_random']))} "
        f"[{_signed(source_low)}, {_signed(source_high)}] nats (p = {small_number(source_q)}"
        f"{correction}; {random}), and {float(cell[f'{name}_wrong_way']):.0%} of statements "
        "move the wrong way."
    )
    return f"{text} {_cost(cell, name)}{_other_sources(column, works, number_of_source)}"


def steering_effects(matrix: xr.Dataset) -> tuple[str, ...]:
    """List the effects in nats that a matrix holds: on questions first, then on the statements.

    Args:
        matrix: What `steering_matrix` gives.

    Raises:
        ValueError: `matrix` is no steering matrix.
    """
    if not {"source", "target"} <= set(matrix.dims) or "strength" not in matrix:
        raise ValueError(
            "This describes what `steering_matrix` gives, got a data set of "
            f"{', '.join(map(str, matrix)) or 'nothing'}."
        )
    names = [str(name).removesuffix("_p") for name in matrix if str(name).endswith("_p")]
    effects = [name for name in names if name in _STATEMENT_EFFECTS or name.endswith("_log_odds")]
    # Sorting is stable, so that effects of either kind keep the order of the matrix.
    return tuple(sorted(effects, key=lambda name: name in _STATEMENT_EFFECTS))


def _checked_effect(matrix: xr.Dataset, effect: str | None) -> str:
    effects = steering_effects(matrix)
    if effect is None and effects:
        return effects[0]
    if effect is None or f"{effect}_p" not in matrix:
        raise ValueError(
            f"There is no effect {effect!r} here. Choose one of {', '.join(effects) or 'none'}."
        )
    return effect


def _effect_label(data: xr.Dataset, name: str) -> str:
    # The long name ends with ", change by steering", which the sentence says in its own words.
    return str(data[f"{name}_change"].attrs.get("long_name", name)).rpartition(", ")[0] or name


def place_of_target(matrix: xr.Dataset, target: str | int) -> int:
    """The number of a matrix's target, from its name or number.

    Raises:
        ValueError: There is no target of that name or number.
    """
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
    sentence = (
        f"The loss on neutral text changes by {_signed(float(cell['neutral_loss_change']))} "
        f"[{_signed(low)}, {_signed(high)}] nats per token"
    )
    accuracy = f"{name.removesuffix('_log_odds')}_accuracy"
    if f"{accuracy}_change" not in cell or name in _STATEMENT_EFFECTS:
        return f"{sentence}."
    unsteered_share = float(cell[f"{accuracy}_unsteered"])
    steered_share = unsteered_share + float(cell[f"{accuracy}_change"])
    shares = f"{unsteered_share:.0%} to {steered_share:.0%}"
    return f"{sentence}, and the right answers change from {shares}."


def _other_sources(column: xr.Dataset, works: np.ndarray, number_of_source: int) -> str:
    """Name the other sources whose vectors move the target, and those whose vectors do not."""
    if len(works) < 2:
        return ""
    steps = column["source_step"].values

    def label(number: int) -> str:
        step = float(steps[number])
        source = str(column["source"].values[number])
        return f"step {format_count(step)}" if np.isfinite(step) else source

    other_numbers = [number for number in range(len(works)) if number != number_of_source]
    moving_labels = [label(number) for number in other_numbers if works[number]]
    idle_labels = [label(number) for number in other_numbers if not works[number]]
    parts = []
    if moving_labels:
        verb = "moves it too" if len(moving_labels) == 1 else "move it too"
        noun = "A vector" if len(moving_labels) == 1 else "Vectors"
        parts.append(f"{noun} of {_and(moving_labels)} {verb}")
    if idle_labels:
        verb = "is not shown to" if len(idle_labels) == 1 else "are not shown to"
        if moving_labels:
            noun = "one" if len(idle_labels) == 1 else "those"
        else:
            noun = "A vector" if len(idle_labels) == 1 else "Vectors"
        ending = "" if moving_labels else " move it"
        parts.append(f"{noun} of {_and(idle_labels)} {verb}{ending}")
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
