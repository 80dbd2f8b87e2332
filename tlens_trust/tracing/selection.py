"""Selecting a part of a trace by name, step or layer."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Bool

from tlens_trust.tracing.provenance import listed

Selector: TypeAlias = int | np.integer | Sequence[int] | np.ndarray | slice | None

_AXIS = {
    "concept": "concept",
    "checkpoint": "checkpoint",
    "step": "checkpoint",
    "stage": "checkpoint",
    "site": "site",
    "layer": "site",
    "head": "site",
    "probe": "probe",
    "run": "run",
}


def checkpoint_numbers(
    names: Sequence[str], steps: Sequence[float | int] | np.ndarray, selector: object
) -> list[int]:
    """Find the positions of checkpoints that a user gives by name or training step.

    Args:
        names: Names of all checkpoints.
        steps: Their steps; NaN where unknown.
        selector: One name or step, or several of either.

    Returns:
        The position of each among `names`, in the order of `selector`.

    Raises:
        ValueError: A checkpoint does not exist, several have the same step, or `selector` is empty.

    Examples:
        >>> checkpoint_numbers(["m@step0", "m@step8"], [0, 8], [8, "m@step0"])
        [1, 0]
    """
    # A name is one checkpoint, although Python can iterate over its letters.
    if isinstance(selector, str) or not isinstance(selector, Iterable):
        selector = [selector]
    step_array = np.asarray(steps, dtype=float)
    numbers = [_checkpoint_number(names, step_array, checkpoint) for checkpoint in selector]
    if not numbers:
        raise ValueError(
            f"`checkpoints` selects nothing, got {selector!r}. Leave it out to select everything."
        )
    return numbers


def _checkpoint_number(names: Sequence[str], steps: np.ndarray, checkpoint: object) -> int:
    if isinstance(checkpoint, str):
        numbers = [number for number, name in enumerate(names) if name == checkpoint]
        noun, allowed_values = "checkpoint", listed(names)
    elif isinstance(checkpoint, int | np.integer) and not isinstance(checkpoint, bool):
        numbers = np.flatnonzero(steps == checkpoint).tolist()
        noun = "step"
        allowed_values = listed(
            [names[n] for n in numbers] or [int(step) for step in steps if np.isfinite(step)]
        )
    else:
        raise ValueError(
            f"A checkpoint is chosen by its name or its training step, got {checkpoint!r}. Choose "
            f"one of {listed(names)}."
        )
    if len(numbers) != 1:
        count = f"{len(numbers)} checkpoints of" if numbers else "no"
        raise ValueError(
            f"The run holds {count} {noun} {checkpoint!r}. Choose "
            f"{'by name ' if numbers else ''}one of {allowed_values}."
        )
    return int(numbers[0])


def select(data: xr.Dataset, **selectors: str | Sequence[str] | Selector) -> xr.Dataset:
    """Select labels along the axes of a data set. They keep their order.

    Args:
        data: A data set as a `Trace` holds it.
        selectors: By coordinate: one value, several, or for numbers a `slice` with both ends
            included. None selects everything.

    Raises:
        ValueError: A value does not exist, or nothing meets all conditions.
    """
    masks: dict[str, Bool[np.ndarray, " axis"]] = {}
    conditions: dict[str, list[str]] = {}
    for name, selector in selectors.items():
        if selector is None:
            continue
        axis = _AXIS[name]
        if name not in data.coords or axis not in data.dims:
            raise ValueError(_missing_coordinate_message(data, name, selector))
        mask = _mask(data[name].values, name, selector)
        # Several selectors may concern one axis, such as `step` and `stage`.
        masks[axis] = masks.get(axis, True) & mask
        conditions.setdefault(axis, []).append(f"{name}={selector!r}")
    for axis, mask in masks.items():
        if not mask.any():
            raise ValueError(
                f"No {axis} has {' and '.join(conditions[axis])}. The trace holds "
                f"{listed(data[axis].values.tolist())}."
            )
    return data.isel({axis: np.flatnonzero(mask) for axis, mask in masks.items()})


def _mask(
    labels: np.ndarray, name: str, selector: str | Sequence[str] | Selector
) -> Bool[np.ndarray, " axis"]:
    if isinstance(selector, slice):
        low = -np.inf if selector.start is None else selector.start
        high = np.inf if selector.stop is None else selector.stop
        if selector.step is not None or labels.dtype.kind not in "iuf":
            raise ValueError(
                f"A slice of {name!r} goes from one number to another, got {selector!r}. "
                "Give a list instead."
            )
        is_inside: Bool[np.ndarray, " axis"] = (labels >= low) & (labels <= high)
        return is_inside
    values = np.atleast_1d(np.asarray(selector)).tolist()
    label_list = labels.tolist()
    missing_values = [value for value in values if value not in label_list]
    if missing_values or not values:
        raise ValueError(_missing_value_message(label_list, name, missing_values))
    return np.isin(labels, values)


def _missing_value_message(labels: list[object], name: str, missing_values: list[object]) -> str:
    if not missing_values:
        return f"`{name}` selects nothing, got an empty list. Leave it out to select everything."
    value = missing_values[0]
    # Unknown numbers are NaN, which alone differs from itself.
    numbers = sorted({n for n in labels if isinstance(n, int | float) and n == n})
    if name == "step" and numbers and isinstance(value, int | float):
        lower_neighbour = [f"{n:g}" for n in numbers if n < value][-1:]
        upper_neighbour = [f"{n:g}" for n in numbers if n > value][:1]
        neighbours = lower_neighbour + upper_neighbour
        return (
            f"There is no step {value} in this trace. Nearest "
            f"{'are' if len(neighbours) > 1 else 'is'} {' and '.join(neighbours)}; "
            "`trace.steps` lists all."
        )
    return (
        f"There is no {name} {value!r} in this trace. It holds "
        f"{listed(list(dict.fromkeys(numbers or labels)))}."
    )


def _missing_coordinate_message(data: xr.Dataset, name: str, selector: object) -> str:
    if name in ("probe", "run"):
        return (
            f"This trace has one value for each concept, checkpoint and site, and no axis of "
            f"{name}s to select {selector!r} from. Leave `{name}` out."
        )
    if name == "head":
        return (
            f"No site of this trace is a head, got head={selector!r}. Heads are read with "
            "`sites='z'`."
        )
    return f"This trace has no {name!r}, got {selector!r}. It has {listed(list(data.coords))}."
