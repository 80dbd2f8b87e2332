"""`manifest.json` of a run folder: what a sweep was asked for, and what its cells depend on."""

import hashlib
import json
import re
import unicodedata
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tlens_trust.files import write_file
from tlens_trust.tracing.provenance import now

MANIFEST = "manifest.json"
_FORMAT = "tlens-trust-run-1"


def new_manifest(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Make the manifest of a run folder in which nothing was swept yet."""
    return {
        "format": _FORMAT,
        "created": now(),
        "settings": settings,
        "concepts": {},
        "calls": [],
    }


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a run folder.

    Raises:
        ValueError: The folder is no run folder.
    """
    try:
        manifest = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{str(folder)!r} is no run folder: its manifest.json is not there or cannot "
            "be read. Give the folder that was a sweep's `out=`."
        ) from error
    if not isinstance(manifest, dict) or manifest.get("format") != _FORMAT:
        raise ValueError(
            f"The manifest of {str(folder)!r} is not of the format {_FORMAT!r} that this "
            "version reads. Sweep into another folder."
        )
    return manifest


def merge_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest, with the concepts and checkpoints of the one that is there.

    Another process may have added to them since this one read the manifest.
    """
    earlier = read_json(folder / MANIFEST) or {}
    concepts = {**earlier.get("concepts", {}), **manifest["concepts"]}
    names = [*earlier.get("checkpoints", []), *manifest.get("checkpoints", [])]
    merged = {"concepts": concepts, "checkpoints": list(dict.fromkeys(names))}
    write_json(folder / MANIFEST, {**manifest, **merged})


def note_call(manifest: dict[str, Any], call: Mapping[str, Any]) -> None:
    """Add a call to a manifest, unless the last one was the same at another time."""
    calls, entry = manifest["calls"], as_json(call)
    if not calls or {key: value for key, value in calls[-1].items() if key != "date"} != entry:
        calls.append({"date": now(), **entry})


def provenance_of(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """What a trace says about how it was made."""
    last_call = manifest["calls"][-1]
    return {
        "settings": manifest["settings"],
        "arguments": last_call["arguments"],
        "versions": last_call["versions"],
    }


def cell_key(manifest: Mapping[str, Any], identities: Mapping[str, str], concept: str) -> str:
    """Hash of everything that changes a cell.

    Args:
        manifest: The manifest, which holds the settings and the concept.
        identities: Of the weights and the tokenizer.
        concept: Name of the concept.
    """
    entry = manifest["concepts"][concept]
    # The fingerprint stands for statements, labels and groups.
    content = [concept, entry["dimension"], entry["polarity"], entry["fingerprint"]]
    # The format is included, so that a cell of an older format is never taken for this one.
    inputs = [_FORMAT, manifest["settings"], dict(identities), content]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def check_same_settings(folder: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to add cells of other settings to a run folder.

    Raises:
        ValueError: A setting differs; the message names each.
    """
    names = [name for name in {**stored, **given} if stored.get(name) != given.get(name)]
    if names:
        differences = "; ".join(
            _difference(name, stored.get(name), given.get(name)) for name in names
        )
        raise ValueError(
            f"The run folder {str(folder)!r} was made with other settings: {differences}. Its "
            "numbers would not go together with new ones. Give another folder as `out`, or the "
            f"same settings; `Trace.load({str(folder)!r})` reads what is there."
        )


def check_same_concepts(folder: Path, stored: Mapping[str, Any], given: Mapping[str, Any]) -> None:
    """Refuse to add another concept of a name that a run folder holds already.

    Raises:
        ValueError: Statements, labels, groups, dimension or polarity differ.
    """
    # The source of the statements may differ, since it changes no number.
    content = ("fingerprint", "dimension", "polarity")
    for name, entry in given.items():
        if name in stored and any(stored[name][key] != entry[key] for key in content):
            raise ValueError(
                f"The run folder {str(folder)!r} holds another concept named {name!r}, of "
                f"{stored[name]['statements']} statements, which are not these "
                f"{entry['statements']} with their labels and groups. Pass it under another "
                f"name, as in `concepts={{'{name}-2': concept}}`, or give another `out`."
            )


def _difference(name: str, stored: Any, given: Any) -> str:
    """What a setting was and is; of measures only those that are not in both."""
    if not (isinstance(stored, list) and isinstance(given, list)):
        return f"{name} was {stored!r} and is now {given!r}"
    only_stored = [item for item in stored if item not in given]
    only_given = [item for item in given if item not in stored]
    if {_function(item) for item in only_stored}.isdisjoint(map(_function, only_given)):
        # No measure is in both with other parameters, so that the parameters explain nothing.
        only_stored, only_given = (
            [_function(item) for item in items] for items in (only_stored, only_given)
        )
    return (
        f"of the {name}, it alone has {', '.join(only_stored) or 'none'}, and this call alone has "
        f"{', '.join(only_given) or 'none'}"
    )


def _function(measure: str) -> str:
    return measure.partition("(")[0]


def file_name(name: str) -> str:
    """Make a file name that any file system takes, and that no other name shares."""
    # The hash separates names that differ only in case or in signs. A folder's name may hold bytes
    # that are no UTF-8, which Python represents by surrogates.
    return f"{slug(name)}-{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:8]}"


def slug(name: str) -> str:
    """The letters and digits of a name, in ASCII; several names may share one."""
    # NFKD separates a letter from its accent, so that 'é' becomes 'e' and is not lost.
    ascii_name = unicodedata.normalize("NFKD", name).encode("ascii", "ignore").decode()
    # File systems limit the length of a name. A name may also hold none of these letters.
    return re.sub(r"[^A-Za-z0-9]+", "_", ascii_name).strip("_")[:40] or "unnamed"


def as_json(value: Any) -> Any:
    """A value as it comes back from a JSON file: tuples as lists, for instance."""
    return json.loads(json.dumps(value))


def write_json(path: Path, value: Any) -> None:
    """Write a JSON file."""
    write_file(path, json.dumps(value, indent=1))


def read_json(path: Path) -> dict[str, Any] | None:
    """What a JSON file holds; None where it is not there, torn, or holds no mapping."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError):
        # A ValueError is raised for bytes that are no UTF-8, and for text that is no JSON.
        return None
    return value if isinstance(value, dict) else None
