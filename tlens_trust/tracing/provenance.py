"""What a result was made with: versions of libraries, sources of concepts, the command line."""

import platform
import shlex
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from tlens_trust.concepts import Concept

_RECORDED = (
    "torch",
    "transformers",
    "tokenizers",
    "transformer-lens",
    "scikit-learn",
    "scipy",
    "numpy",
    "xarray",
)
# Only these libraries change activations. What a measure computes from activations is part of the
# measure's own identity.
_READING = ("torch", "transformers", "transformer-lens")


def versions() -> dict[str, str]:
    """Give the versions of Python, this package, and the libraries that numbers depend on."""
    own_versions = {"python": platform.python_version(), "tlens-trust": _version("tlens-trust")}
    return own_versions | {name: _version(name) for name in _RECORDED}


def reading_versions() -> dict[str, str]:
    """Give the versions of the libraries that change activations, without `+cpu` or `+cu130`."""
    # Builds of one release differ in the device, which may change between two sweeps.
    return {name: _version(name).partition("+")[0] for name in _READING}


def concept_provenance(concept: Concept) -> dict[str, Any]:
    """Describe a concept and its source, as JSON can hold it."""
    return {
        "dimension": concept.dimension,
        "polarity": concept.polarity,
        "statements": len(concept),
        "groups": len(set(concept.groups)),
        "fingerprint": concept.fingerprint,
        "provenance": dict(concept.provenance),
        "edits": [str(edit) for edit in concept.edits],
    }


def shell_command() -> str:
    """Give the command line of this program; "" if it is not `tlens-trust`."""
    # In a notebook or a script, the arguments say nothing about the sweep.
    program = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join([program, *sys.argv[1:]]) if program == "tlens-trust" else ""


def now() -> str:
    """Give the date and time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def listed(values: Sequence[object], *, most: int = 12) -> str:
    """Join names for an error message; only the first ones if there are many."""
    names = ", ".join(map(repr, values[:most]))
    return f"{names} and {len(values) - most} more" if len(values) > most else names or "none"


# Each look-up searches the metadata of all installed packages.
@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
