"""What steering does, costs and is held against, in a few lines of text."""

import numpy as np
import xarray as xr

from tlens_trust.views.text_tables import Column, lay_out, number, small_number, with_interval

_TOLD = ("concept", "model", "vector", "source", "sites", "units", "statements", "random")
_FIRST = ("log_odds", "likelihood_gap")
_LEVEL = 0.05


def steering_table(evaluation: xr.Dataset) -> str:
    """What `evaluate_steering` gives, laid out for a terminal: effects first, then damage.

    Args:
        evaluation: What it gives.

    Raises:
        ValueError: It is something else.

    Examples:
        >>> from tlens_trust.steering import evaluate_steering
        >>> found = evaluate_steering(model, vector, concept, target_kl=0.1)  # doctest: +SKIP
        >>> print(steering_table(found))  # doctest: +SKIP
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
    told = {key: evaluation.attrs.get(key, "?") for key in _TOLD}
    steered = evaluation.sel(condition="steered")
    lines = [
        f"{told['concept']}: {told['model']} steered by {told['vector']} of "
        f"{told['source'] or 'no checkpoint'} at {told['sites']}",
        f"strength {float(steered.strength):.4g} ({told['units']} units), which moves neutral text "
        f"by {float(steered.kl):.3g} nats a token;",
        f"{told['statements']} statements that the vector has not seen",
        "",
        *lay_out(_effect_columns(evaluation, effects), left=("effect",)),
        "",
        *lay_out(_damage_columns(evaluation, damage), left=("damage",)),
        "",
        *_verdicts(evaluation, effects),
        "",
        "change     from the unsteered model, with its interval over groups",
        "opposite   change by as much the other way; wrong: share moved the wrong way",
        "random     change by random directions, 2.5 to 97.5%: as long as the vector, or as strong",
        "           as moves neutral text by as much; p: share of those that change as much, in",
        f"           either sense ({told['random']})",
    ]
    if "everyday_accuracy" in damage:
        lines.append("everyday   four answers to each question: at 0.25 there is nothing to lose")
    return "\n".join(lines)


def _verdicts(data: xr.Dataset, effects: list[str]) -> list[str]:
    """Of each effect in nats, whether it is moved more than by random directions."""
    control = "equal_kl" if "equal_kl" in data["control"] else str(data["control"].values[0])
    manner = "at the same dose" if control == "equal_kl" else "of the same length"
    found = []
    for name in sorted(effects, key=lambda name: name not in _FIRST):
        if name not in _FIRST and not name.endswith("_log_odds"):
            continue
        here = data.sel(control=control)
        beyond, p = float(here[f"{name}_over_random"]), float(here[f"{name}_p"])
        low, high = here[f"{name}_over_random_ci"].sel(bound=["low", "high"]).values.tolist()
        least = 1 / (1 + int(here[f"{name}_random"].notnull().sum()))
        if p <= _LEVEL and low > 0:
            verdict = "is moved to the trustworthy side"
        elif p <= _LEVEL and high < 0:
            verdict = "is moved to the other side"
        else:
            verdict = "is not shown to be moved"
        few = f"; so few directions can show nothing, {least:.3f} being the least p there can be"
        found.append(
            f"{name} {verdict}: beyond random directions {manner} by {beyond:+.3f} "
            f"[{low:+.3f}, {high:+.3f}], p = {small_number(p)}{few if least > _LEVEL else ''}"
        )
    return found


def generations_table(evaluation: xr.Dataset) -> str:
    """What was written after each prompt, before steering and after.

    Args:
        evaluation: What `evaluate_steering` gives, with `prompts`.

    Raises:
        ValueError: Nothing was written.
    """
    if "generation" not in evaluation:
        raise ValueError("Nothing was written. Give `evaluate_steering` some `prompts`.")
    lines = []
    for prompt in evaluation["prompt"].values:
        lines.append(repr(str(prompt)))
        for condition in evaluation["condition"].values:
            text = evaluation["generation"].sel(prompt=prompt, condition=condition).values
            lines.append(f"  {condition!s:<10} {str(text)!r}")
    return "\n".join(lines)


def _effect_columns(data: xr.Dataset, names: list[str]) -> list[Column]:
    names = sorted(names, key=lambda name: name not in _FIRST)
    return [
        ("effect", names),
        *_changes(data, names),
        ("wrong", [f"{float(_at(data, f'{name}_wrong_way')):.0%}" for name in names]),
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
        low, high = _at(data, f"{name}_change_ci").sel(bound=["low", "high"]).values.tolist()
        changes.append(with_interval(float(_at(data, f"{name}_change")), low, high))
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
        if f"{name}_random" not in data:
            bands.append("")
            continue
        drawn = data[f"{name}_random"].sel(control=control).values
        low, high = np.quantile(drawn, [0.025, 0.975])
        bands.append(f"[{low:.3f}, {high:.3f}]")
    return bands


def _at(data: xr.Dataset, name: str) -> xr.DataArray:
    return data[name].sel(condition="steered")
