"""Steering vectors in safetensors, with all that is known of them."""

import json
import os
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tlens_trust.activations.positions import Position
from tlens_trust.files import replaced_file
from tlens_trust.steering.formats.places import existing, writable
from tlens_trust.steering.vector import SteeringVector

_FORMAT = "tlens-trust-steering-vector-1"
_TEXTS = ("method", "concept", "fingerprint", "model", "checkpoint", "identity")
_PLAIN = ("polarity", "n", "n_layers")
_TENSORS = ("values", "spread", "rms")


def save_vector(vector: SteeringVector, path: str | os.PathLike[str]) -> Path:
    """Write a vector to a safetensors file: directions, spreads and sizes, and where it comes from.

    Args:
        vector: The vector.
        path: Where to; an existing file is replaced.

    Returns:
        The file.

    Raises:
        ValueError: The folder is not there.
    """
    held: dict[str, Any] = {name: getattr(vector, name) for name in (*_TEXTS, *_PLAIN)}
    held["sites"] = list(vector.sites)
    held["position"] = vector.position
    held["rows"] = None if vector.rows is None else _runs(vector.rows)
    held["notes"] = dict(vector.notes)
    header = {"format": _FORMAT, "vector": json.dumps(held, ensure_ascii=False)}
    tensors = {name: getattr(vector, name) for name in _TENSORS}
    with replaced_file(writable(path)) as file:
        save_file(tensors, file, metadata=header)
    return Path(path).expanduser()


def load_vector(path: str | os.PathLike[str]) -> SteeringVector:
    """Read what `save_vector` wrote, to the bit.

    Raises:
        ValueError: The file is not there or none of ours.
    """
    place = existing(path)
    try:
        with safe_open(place, framework="pt") as file:
            header = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is no safetensors file, or a torn one ({error}). Name one that "
            "`SteeringVector.save` wrote."
        ) from error
    if header.get("format") != _FORMAT or not set(_TENSORS) <= tensors.keys():
        raise ValueError(
            f"{str(path)!r} holds no steering vector of ours: its format is "
            f"{header.get('format')!r}, and {_FORMAT!r} was expected. Make one of its tensors with "
            "`SteeringVector.from_direction`."
        )
    held = json.loads(header["vector"])
    rows = held["rows"]
    return SteeringVector(
        values=tensors["values"],
        spread=tensors["spread"],
        rms=tensors["rms"],
        sites=tuple(held["sites"]),
        position=_position(held["position"]),
        rows=None if rows is None else _unrolled(rows),
        notes=held["notes"],
        **{name: held[name] for name in (*_TEXTS, *_PLAIN)},
    )


def _position(held: Any) -> Position | None:
    return tuple(held) if isinstance(held, list) else held


def _runs(rows: tuple[int, ...]) -> list[list[int]]:
    """Rows as runs of one after the other: first and number, in order."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([row, 1])
    return runs


def _unrolled(runs: list[list[int]]) -> tuple[int, ...]:
    return tuple(row for first, number in runs for row in range(first, first + number))
