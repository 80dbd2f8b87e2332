"""An evaluation of steering as a table for a terminal: effects, damage, and random directions."""

import numpy as np
import xarray as xr

from tlens_trust.views.text_tables import Column, lay_out, number, small_number, with_interval

_ATTRIBUTES = ("concept", "model", "vector", "source", "sites", "units", "statements", "random")
_MAIN_EFFECTS = ("log_odds", "likelihood_gap")
_LEVEL = 0.05


def steering_table(evaluation: xr.Dataset) -> str:
    """Lay out an evaluation of steering for a terminal: effects first, then damage.

    Args:
        evaluation: What `evaluate_steering` gives.

    Raises:
        ValueError: `evaluation` is something else.

    Examples:
        >>> from tlens_trust.steering import evaluate_steering
        >>> evaluation = evaluate_steering(
        ...     model, vector, concept, intervention=Intervention(target_kl=0.1)
        ... )  # doctest: +SKIP
        >>> print(steering_table(evaluation))  # doctest: +SKIP
    """
    if "condition" not in evaluation.dims or "strength" not in evaluation:
        raise ValueError(
            "This lays out what `evaluate_steering` gives, got a data set of "
            f"{', '.join(map(str, evaluation)) or 'nothing'}."
        )
    names = [
        str(name).removesuffix("_change") for name in evaluation if str(name).endswith("_change")
    ]
    effects = [name for name in names if f"{name}_wrong_way" in evaluation]
    damage = [name for name in names if name not in effects]
    attributes = {key: evaluation.attrs.get(key, "?") for key in _ATTRIBUTES}
    steered_data = evaluation.sel(condition="steered")
    lines = [
        f"{attributes['concept']}: {attributes['model']} steered by {attributes['vector']} of "
        f"{attributes['source'] or 'no checkpoint'} at {attributes['sites']}",
        f"strength {float(steered_data.strength):.4g} ({attributes['units']} units), a dose of "
        f"{float(steered_data.kl):.3g} nats per token on neutral text;",
        f"{attributes['statements']} held-out statements",
        "",
        *lay_out(_effect_columns(evaluation, effects), left=("effect",)),
        "",
        *lay_out(_damage_columns(evaluation, damage), left=("damage",)),
        "",
        *_verdicts(evaluation, effects),
        "",
        "change     from the unsteered model, with its interval over groups",
        "opposite   change by steering the opposite way; wrong: share moved the wrong way",
        "random     change by random directions, 2.5 to 97.5%: of the vector's length, or of its",
        "           dose on neutral text; p: share of them that change at least as much,",
        f"           two-sided ({attributes['random']})",
    ]
    if "everyday_accuracy" in damage:
        lines.append("everyday   questions with four answers each: 0.25 is chance")
    return "\n".join(lines)


def _verdicts(data: xr.Dataset, effects: list[str]) -> list[str]:
    """Say for each effect in nats whether it changes more than by random directions."""
    # Directions of equal length may disturb the model less; those of equal dose do as much.
    control = "equal_kl" if "equal_kl" in data["control"] else str(data["control"].values[0])
    control_label = "at the same dose" if control == "equal_kl" else "of the same length"
    verdicts = []
    for name in sorted(effects, key=lambda name: name not in _MAIN_EFFECTS):
        if name not in _MAIN_EFFECTS and not name.endswith("_log_odds"):
            continue
        control_data = data.sel(control=control)
        excess, p = float(control_data[f"{name}_over_random"]), float(control_data[f"{name}_p"])
        low, high = (
            control_data[f"{name}_over_random_ci"].sel(bound=["low", "high"]).values.tolist()
        )
        # p is (1 + the directions that change as much) / (1 + all of them).
        smallest_p = 1 / (1 + int(control_data[f"{name}_random"].notnull().sum()))
        if p <= _LEVEL and low > 0:
            verdict = "is moved to the trustworthy side"
        elif p <= _LEVEL and high < 0:
            verdict = "is moved to the other side"
        else:
            verdict = "is not shown to be moved"
        warning = (
            f"; too few directions to show anything, since p cannot be below {smallest_p:.3f}"
            if smallest_p > _LEVEL
            else ""
        )
        verdicts.append(
            f"{name} {verdict}: beyond random directions {control_label} by {excess:+.3f} "
            f"[{low:+.3f}, {high:+.3f}], p = {small_number(p)}{warning}"
        )
    return verdicts


def generations_table(evaluation: xr.Dataset) -> str:
    """List the texts generated after each prompt, without steering and with it.

    Args:
        evaluation: What `evaluate_steering` gives, with `prompts`.

    Raises:
        ValueError: The evaluation holds no generated texts.
    """
    if "generation" not in evaluation:
        raise ValueError("There are no generated texts. Give `evaluate_steering` some `prompts`.")
    lines = []
    for prompt in evaluation["prompt"].values:
        lines.append(repr(str(prompt)))
        for condition in evaluation["condition"].values:
            text = evaluation["generation"].sel(prompt=prompt, condition=condition).values
            lines.append(f"  {condition!s:<10} {str(text)!r}")
    return "\n".join(lines)


def _effect_columns(data: xr.Dataset, names: list[str]) -> list[Column]:
    names = sorted(names, key=lambda name: name not in _MAIN_EFFECTS)
    return [
        ("effect", names),
        *_changes(data, names),
        ("wrong", [f"{float(_steered(data, f'{name}_wrong_way')):.0%}" for name in names]),
        *[
            column
            for control in data["control"].values
            for column in (
                (f"random, {str(control).replace('_', ' ')}", _bands(data, names, str(control))),
                (
                    "p",
                    [small_number(float(data[f"{name}_p"].sel(control=control))) for name in names],
                ),
            )
        ],
    ]


def _damage_columns(data: xr.Dataset, names: list[str]) -> list[Column]:
    return [
        ("damage", names),
        *_changes(data, names),
        *[
            (f"random, {str(control).replace('_', ' ')}", _bands(data, names, str(control)))
            for control in data["control"].values
        ],
    ]


def _changes(data: xr.Dataset, names: list[str]) -> list[Column]:
    changes = []
    for name in names:
        low, high = _steered(data, f"{name}_change_ci").sel(bound=["low", "high"]).values.tolist()
        changes.append(with_interval(float(_steered(data, f"{name}_change")), low, high))
    return [
        ("unsteered", [number(float(data[name].sel(condition="unsteered"))) for name in names]),
        ("change [interval]", changes),
        (
            "opposite",
            [number(float(data[f"{name}_change"].sel(condition="opposite"))) for name in names],
        ),
    ]


def _bands(data: xr.Dataset, names: list[str], control: str) -> list[str]:
    bands = []
    for name in names:
        # Damage that random directions were not evaluated for has no band.
        if f"{name}_random" not in data:
            bands.append("")
            continue
        changes = data[f"{name}_random"].sel(control=control).values
        low, high = np.quantile(changes, [0.025, 0.975])
        bands.append(f"[{low:.3f}, {high:.3f}]")
    return bands


def _steered(data: xr.Dataset, name: str) -> xr.DataArray:
    return data[name].sel(condition="steered")
