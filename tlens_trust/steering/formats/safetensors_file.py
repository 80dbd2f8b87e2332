"""A steering vector in a safetensors file: its tensors, and everything else as JSON.

These functions know the fields of a vector by name and not its class, which reads and writes
itself by them.
"""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from tlens_trust.files import replaced_file
from tlens_trust.steering.formats.file_paths import path_to_read, path_to_write

_FORMAT = "tlens-trust-steering-vector-1"
_PLAIN_FIELDS = (
    "method",
    "concept",
    "fingerprint",
    "model",
    "checkpoint",
    "identity",
    "polarity",
    "n",
    "n_layers",
)
_TENSORS = ("values", "spread", "rms")


def write_vector_fields(fields: Mapping[str, Any], path: str | os.PathLike[str]) -> Path:
    """Write the fields of a vector to a safetensors file.

    Args:
        fields: The fields of a `SteeringVector`, by name.
        path: The file. An existing file is replaced.

    Returns:
        The file.

    Raises:
        ValueError: The folder does not exist.
    """
    facts: dict[str, Any] = {name: fields[name] for name in _PLAIN_FIELDS}
    facts["sites"] = list(fields["sites"])
    facts["position"] = fields["position"]
    facts["rows"] = None if fields["rows"] is None else _runs(fields["rows"])
    facts["notes"] = dict(fields["notes"])
    header = {"format": _FORMAT, "vector": json.dumps(facts, ensure_ascii=False)}
    tensors = {name: fields[name] for name in _TENSORS}
    with replaced_file(path_to_write(path)) as file:
        save_file(tensors, file, metadata=header)
    return Path(path).expanduser()


def read_vector_fields(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read what `write_vector_fields` wrote, exactly.

    Returns:
        The fields of a `SteeringVector`, by name.

    Raises:
        ValueError: The file does not exist, or `write_vector_fields` did not write it.
    """
    place = path_to_read(path)
    try:
        with safe_open(place, framework="pt") as file:
            header = file.metadata() or {}
            # An open safetensors file is no mapping: it cannot be iterated over without `keys`.
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ValueError(
            f"{str(path)!r} is no safetensors file, or a torn one ({error}). Name one that "
            "`SteeringVector.save` wrote."
        ) from error
    if header.get("format") != _FORMAT or not set(_TENSORS) <= tensors.keys():
        raise ValueError(
            f"{str(path)!r} holds no steering vector of tlens_trust: its format is "
            f"{header.get('format')!r}, and {_FORMAT!r} was expected. Make a vector from its "
            "tensors with `SteeringVector.from_direction`."
        )
    facts = json.loads(header["vector"])
    position, rows = facts["position"], facts["rows"]
    return {
        **{name: tensors[name] for name in _TENSORS},
        **{name: facts[name] for name in (*_PLAIN_FIELDS, "notes")},
        "sites": tuple(facts["sites"]),
        # JSON turns tuples into lists.
        "position": tuple(position) if isinstance(position, list) else position,
        "rows": None if rows is None else _unrolled(rows),
    }


def _runs(rows: tuple[int, ...]) -> list[list[int]]:
    """Rows as runs of consecutive numbers: the first of each run and its length."""
    runs: list[list[int]] = []
    for row in rows:
        if runs and row == runs[-1][0] + runs[-1][1]:
            runs[-1][1] += 1
        else:
            runs.append([row, 1])
    return runs


def _unrolled(runs: list[list[int]]) -> tuple[int, ...]:
    return tuple(row for start, length in runs for row in range(start, start + length))
