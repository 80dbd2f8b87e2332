"""What a result was made with: versions, settings, the concepts' sources."""

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
# What reads a model. Another version of the others moves no reading, and what a measure makes of
# a reading is in the measure's own identity.
_READING = ("torch", "transformers", "transformer-lens")


def versions() -> dict[str, str]:
    """Versions of Python, this package, and the libraries behind a number."""
    found = {"python": platform.python_version(), "tlens-trust": _version("tlens-trust")}
    return found | {name: _version(name) for name in _RECORDED}


def reading_versions() -> dict[str, str]:
    """Versions of what reads a model, without the label of the build (`+cpu`, `+cu130`)."""
    return {name: _version(name).partition("+")[0] for name in _READING}


def concept_provenance(concept: Concept) -> dict[str, Any]:
    """What is known of a concept, as JSON can hold it."""
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
    """The command line by which this program was started; "" if it is not `tlens-trust`."""
    started = Path(sys.argv[0]).name if sys.argv else ""
    return shlex.join([started, *sys.argv[1:]]) if started == "tlens-trust" else ""


def now() -> str:
    """Date and time in UTC."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def listed(values: Sequence[object], *, most: int = 12) -> str:
    """Names for an error message, the first ones of many."""
    shown = ", ".join(map(repr, values[:most]))
    return f"{shown} and {len(values) - most} more" if len(values) > most else shown or "none"


@cache
def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
