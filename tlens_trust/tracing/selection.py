"""Taking a part of a trace by name, step or layer."""

from collections.abc import Iterable, Sequence
from typing import TypeAlias

import numpy as np
import xarray as xr
from jaxtyping import Bool

from tlens_trust.tracing.provenance import listed

Choice: TypeAlias = int | np.integer | Sequence[int] | np.ndarray | slice | None

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
    names: Sequence[str], steps: Sequence[float | int] | np.ndarray, wanted: object
) -> list[int]:
    """Where checkpoints stand that a user names, or gives by their training step.

    Args:
        names: Of all checkpoints there are.
        steps: Their steps; NaN where unknown.
        wanted: One name or step, or several of either.

    Returns:
        A place for each, in the order asked for.

    Raises:
        ValueError: One is not there, several are of that step, or nothing is asked for.

    Examples:
        >>> checkpoint_numbers(["m@step0", "m@step8"], [0, 8], [8, "m@step0"])
        [1, 0]
    """
    if isinstance(wanted, str) or not isinstance(wanted, Iterable):
        wanted = [wanted]
    found = [_checkpoint_number(names, np.asarray(steps, dtype=float), each) for each in wanted]
    if not found:
        raise ValueError(
            f"`checkpoints` chooses nothing, got {wanted!r}. Leave it out to take everything."
        )
    return found


def _checkpoint_number(names: Sequence[str], steps: np.ndarray, which: object) -> int:
    if isinstance(which, str):
        found = [number for number, name in enumerate(names) if name == which]
        what, held = "checkpoint", listed(names)
    elif isinstance(which, int | np.integer) and not isinstance(which, bool):
        found = np.flatnonzero(steps == which).tolist()
        what = "step"
        held = listed([names[n] for n in found] or [int(n) for n in steps if np.isfinite(n)])
    else:
        raise ValueError(
            f"A checkpoint is chosen by its name or its training step, got {which!r}. Choose one "
            f"of {listed(names)}."
        )
    if len(found) != 1:
        number = f"{len(found)} checkpoints of" if found else "no"
        raise ValueError(
            f"The run holds {number} {what} {which!r}. Choose "
            f"{'by name ' if found else ''}one of {held}."
        )
    return int(found[0])


def choose(data: xr.Dataset, **choices: str | Sequence[str] | Choice) -> xr.Dataset:
    """Keep what is chosen along each axis, in the order in which it stands.

    Args:
        data: A data set as a `Trace` holds it.
        choices: By coordinate: one value, several, or for numbers a `slice` with both ends
            included. None chooses nothing.

    Raises:
        ValueError: A value is not there, or nothing is left.
    """
    kept: dict[str, Bool[np.ndarray, " axis"]] = {}
    said: dict[str, list[str]] = {}
    for name, wanted in choices.items():
        if wanted is None:
            continue
        axis = _AXIS[name]
        if name not in data.coords or axis not in data.dims:
            raise ValueError(_why_no_coordinate(data, name, wanted))
        mask = _mask(data[name].values, name, wanted)
        kept[axis] = kept.get(axis, True) & mask
        said.setdefault(axis, []).append(f"{name}={wanted!r}")
    for axis, mask in kept.items():
        if not mask.any():
            raise ValueError(
                f"No {axis} has {' and '.join(said[axis])}. The trace holds "
                f"{listed(data[axis].values.tolist())}."
            )
    return data.isel({axis: np.flatnonzero(mask) for axis, mask in kept.items()})


def _mask(
    held: np.ndarray, name: str, wanted: str | Sequence[str] | Choice
) -> Bool[np.ndarray, " axis"]:
    if isinstance(wanted, slice):
        low = -np.inf if wanted.start is None else wanted.start
        high = np.inf if wanted.stop is None else wanted.stop
        if wanted.step is not None or held.dtype.kind not in "iuf":
            raise ValueError(
                f"A slice of {name!r} goes from one number to another, got {wanted!r}. "
                "List what to take instead."
            )
        inside: Bool[np.ndarray, " axis"] = (held >= low) & (held <= high)
        return inside
    values = np.atleast_1d(np.asarray(wanted)).tolist()
    there = held.tolist()
    missing = [value for value in values if value not in there]
    if missing or not values:
        raise ValueError(_why_missing(there, name, missing))
    return np.isin(held, values)


def _why_missing(there: list[object], name: str, missing: list[object]) -> str:
    if not missing:
        return f"`{name}` chooses nothing, got an empty list. Leave it out to take everything."
    value = missing[0]
    numbers = sorted({n for n in there if isinstance(n, int | float) and n == n})
    if name == "step" and numbers and isinstance(value, int | float):
        below = [f"{n:g}" for n in numbers if n < value][-1:]
        above = [f"{n:g}" for n in numbers if n > value][:1]
        return (
            f"There is no step {value} in this trace. Nearest "
            f"{'are' if below and above else 'is'} {' and '.join(below + above)}; "
            "`trace.steps` lists all."
        )
    return (
        f"There is no {name} {value!r} in this trace. It holds "
        f"{listed(list(dict.fromkeys(numbers or there)))}."
    )


def _why_no_coordinate(data: xr.Dataset, name: str, wanted: object) -> str:
    if name in ("probe", "run"):
        return (
            f"This trace has one value for each concept, checkpoint and site, and no axis of "
            f"{name}s to choose {wanted!r} from. Leave `{name}` out."
        )
    if name == "head":
        return (
            f"No site of this trace is a head, got head={wanted!r}. Heads are read with "
            "`sites='z'`."
        )
    return f"This trace knows no {name!r}, got {wanted!r}. It knows {listed(list(data.coords))}."
