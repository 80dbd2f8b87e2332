"""A folder in which a sweep keeps what it has done, cell by cell.

    manifest.json                        settings, the calls that were made with their arguments
                                         and versions, concepts
    concepts/{concept}.json              statements, labels, groups
    cells/{checkpoint}/checkpoint.json   step, tokens, identity of the weights
    cells/{checkpoint}/{concept}.nc      one cell, held-out scores of every statement included
    cells/{checkpoint}/{concept}.json    its commit record
    trace.nc                             everything, assembled

A cell's file name ends in the first digits of its key, a hash of everything that changes the
cell: settings, weights, tokenizer, concept. So a cell of other weights under the same name never
stands for another. A cell counts as done when its commit record is there, holds the same key, and
names the SHA-256 that the file has; whatever is torn or altered is as good as absent.
"""

import hashlib
import json
import os
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import xarray as xr

from tlens_trust.concepts import Concept
from tlens_trust.files import remove_abandoned, write_file
from tlens_trust.tracing.assembly import (
    CheckpointRecord,
    assemble_trace_data,
    in_training_order,
)
from tlens_trust.tracing.manifest import (
    MANIFEST,
    as_json,
    cell_key,
    check_same_concepts,
    check_same_settings,
    file_name,
    merge_manifest,
    new_manifest,
    note_call,
    provenance_of,
    read_json,
    read_manifest,
    slug,
    write_json,
)
from tlens_trust.tracing.netcdf import (
    dataset_from_bytes,
    dataset_to_bytes,
)
from tlens_trust.tracing.provenance import concept_provenance, listed, now, shell_command
from tlens_trust.tracing.untrained_comparison import compact_cell


@dataclass(frozen=True)
class RunFolder:
    """Where the cells of sweeps with the same settings are kept.

    Several processes may write to one run folder: files are renamed into place, each cell is a
    pure function of its key, and what two of them write is the same.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """What `manifest.json` holds.

        Raises:
            ValueError: The folder is no run folder.
        """
        return read_manifest(self.path)

    @classmethod
    def at(cls, place: object) -> "RunFolder":
        """The run folder that a user names.

        Raises:
            ValueError: It is named by something else than a path.
        """
        if isinstance(place, str | os.PathLike):
            return cls(Path(place))
        hint = (
            " A trace holds nothing by statement; what a sweep kept of them lies in its run folder."
            if "tracing.trace" in type(place).__module__
            else ""
        )
        raise ValueError(
            f"A run folder is named by its path, got {_describe(place)}.{hint} Give the folder "
            "that a sweep wrote to, as 'run' after `probe_checkpoints(…, out='run')`."
        )

    def begin(
        self,
        settings: Mapping[str, Any],
        concepts: Mapping[str, Concept],
        *,
        arguments: Mapping[str, Any],
        versions: Mapping[str, str],
        checkpoints: Sequence[str] = (),
    ) -> None:
        """Make the folder, or continue it, and note this call in its manifest.

        A folder without a finished cell takes other settings and other concepts: what is in it is
        of a sweep that failed. A manifest that is torn is made again from the concepts that are
        kept beside it, with a warning, if the cells are found by these settings.

        Args:
            settings: What changes a cell, beside weights and concept; as JSON holds it.
            concepts: By name.
            arguments: What else the call was made with; as JSON holds it.
            versions: Of the libraries.
            checkpoints: Names of those that are to be read, which `unfinished` holds against those
                that have been.

        Raises:
            ValueError: The folder holds cells of other settings, or another concept under one of
                the names; or it is no run folder and not empty. Nothing is changed then.
        """
        described = {name: concept_provenance(concept) for name, concept in concepts.items()}
        manifest = self._open_manifest(as_json(settings), first=list(concepts))
        check_same_concepts(self.path, manifest["concepts"], described)
        for name, concept in concepts.items():
            self._write_concept(name, concept)
        manifest["concepts"].update(as_json(described))
        manifest["checkpoints"] = list(
            dict.fromkeys([*manifest.get("checkpoints", []), *checkpoints])
        )
        note_call(
            manifest,
            {
                "arguments": dict(arguments),
                "versions": dict(versions),
                "command": shell_command(),
            },
        )
        merge_manifest(self.path, manifest)
        remove_abandoned(self.path)

    def cell_key(
        self,
        identities: Mapping[str, str],
        concept: str,
        *,
        settings: Mapping[str, Any] | None = None,
    ) -> str:
        """Hash of everything that changes a cell.

        Args:
            identities: Of the weights and the tokenizer.
            concept: Its name, as in the manifest.
            settings: Those that a cell is made with; None for the manifest's.

        Raises:
            ValueError: The manifest says otherwise: since it was begun, another sweep took the
                folder, which held no cell.
        """
        manifest = self.manifest
        if settings is not None:
            check_same_settings(self.path, manifest["settings"], as_json(settings))
        return cell_key(manifest, identities, concept)

    def has_cell(self, checkpoint: str, concept: str, key: str) -> bool:
        """Whether a cell is finished and whole."""
        return self._cell_content(checkpoint, concept, key) is not None

    def read_cell(
        self,
        checkpoint: str,
        concept: str,
        key: str,
        *,
        variables: Sequence[str] | None = None,
    ) -> xr.Dataset | None:
        """A finished cell; None where there is none, or where it was torn or altered.

        Args:
            checkpoint: Name of the checkpoint.
            concept: Name of the concept.
            key: As `cell_key` gives it.
            variables: Which of its variables to read, where they are there; None for all.
        """
        content = self._cell_content(checkpoint, concept, key)
        if content is None:
            return None
        if variables is not None:
            variables = [*variables, "site", "layer", "depth"]
        return dataset_from_bytes(content, variables=variables)

    def commit_cell(
        self,
        checkpoint: str,
        concept: str,
        key: str,
        content: bytes,
        *,
        made_with: Mapping[str, Any],
    ) -> None:
        """Keep a cell: first its file, then the record that says it is whole.

        Args:
            checkpoint: Name of the checkpoint.
            concept: Name of the concept.
            key: As `cell_key` gives it.
            content: What `measure_cell` gives, as `dataset_to_bytes` encodes it.
            made_with: What does not change a cell and is worth knowing, such as the device.
        """
        path = self._cell_path(checkpoint, concept, key, ".nc")
        digest = write_file(path, content)
        record = {
            "checkpoint": checkpoint,
            "concept": concept,
            "key": key,
            "sha256": digest,
            "created": now(),
            **made_with,
        }
        write_json(path.with_suffix(".json"), record)

    def note_checkpoint(self, record: CheckpointRecord, identities: Mapping[str, str]) -> None:
        """Keep what is known of a checkpoint, before its cells."""
        path = self.path / "cells" / file_name(record.name) / "checkpoint.json"
        known = {**asdict(record), "identities": dict(identities)}
        if read_json(path) != as_json(known):
            write_json(path, known)

    def checkpoints(
        self, *, drawn: bool = False
    ) -> dict[str, tuple[CheckpointRecord, dict[str, str]]]:
        """Every checkpoint that was begun, with its identities, in training order.

        Args:
            drawn: Whether to name random weights too, against which the others are held.
        """
        found = {}
        for path in sorted((self.path / "cells").glob("*/checkpoint.json")):
            # A file that was altered names no checkpoint; the next sweep writes it again.
            with suppress(TypeError, KeyError):
                known = read_json(path) or {}
                identities = known.pop("identities")
                record = CheckpointRecord(**known)
                if drawn or not record.drawn:
                    found[record.name] = (record, identities)
        ordered = in_training_order([record for record, _ in found.values()])
        return {record.name: found[record.name] for record in ordered}

    def unfinished(self) -> list[str]:
        """Checkpoints that a sweep was to read, and of which no cell is finished yet.

        Empty too for a run folder of a version that did not note them.
        """
        manifest = self.manifest
        known = self.checkpoints()
        return [
            name
            for name in manifest.get("checkpoints", [])
            if name not in known
            or not any(
                self._commit_record(name, concept, cell_key(manifest, known[name][1], concept))
                for concept in manifest["concepts"]
            )
        ]

    def read_concept(self, name: str) -> Concept:
        """A concept as it was swept.

        Raises:
            ValueError: The folder does not hold it, or its file was altered.
        """
        known = self._known_concept(name)
        stored = read_json(self.path / "concepts" / f"{file_name(name)}.json")
        with suppress(TypeError, ValueError, KeyError):
            concept = Concept.from_json(stored or {})
            if concept.fingerprint == known["fingerprint"]:
                return concept
        raise ValueError(
            f"The statements of {name!r} in {str(self.path)!r} are torn or altered. Sweep with the "
            "concept once more, with the same `out`: finished cells are kept."
        )

    def assemble(self, at_hand: Mapping[tuple[str, str], xr.Dataset]) -> xr.Dataset:
        """Everything that is finished, as the data of a `Trace`; kept as `trace.nc`.

        Args:
            at_hand: Cells by checkpoint and concept that need not be read again.
        """
        data = self._assembled()
        if data is None:
            data = self._assemble(at_hand)
            digest = write_file(self.path / "trace.nc", dataset_to_bytes(data))
            manifest = self.manifest
            manifest["trace"] = {"sha256": digest, "made_of": self._made_of(manifest)}
            merge_manifest(self.path, manifest)
        return data

    def trace_data(self) -> xr.Dataset:
        """The data of a `Trace`: from `trace.nc` where that is whole and up to date.

        Raises:
            ValueError: The folder is no run folder, or nothing in it is finished.
        """
        data = self._assembled()
        return self._assemble({}) if data is None else data

    def _assembled(self) -> xr.Dataset | None:
        """What `trace.nc` holds, if that is whole and nothing came after it."""
        manifest = self.manifest
        noted = manifest.get("trace", {})
        with suppress(OSError, ValueError):
            content = (self.path / "trace.nc").read_bytes()
            whole = hashlib.sha256(content).hexdigest() == noted.get("sha256")
            if whole and self._made_of(manifest) == noted.get("made_of"):
                return dataset_from_bytes(content)
        return None

    def _made_of(self, manifest: Mapping[str, Any]) -> str:
        """Hash of everything that an assembled trace is made of."""
        parts: list[Any] = [provenance_of(manifest), manifest["concepts"]]
        for name, (record, identities) in self.checkpoints(drawn=True).items():
            parts.append(asdict(record))
            for concept in manifest["concepts"]:
                key = cell_key(manifest, identities, concept)
                parts.append(self._commit_record(name, concept, key))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _assemble(self, at_hand: Mapping[tuple[str, str], xr.Dataset]) -> xr.Dataset:
        manifest = self.manifest
        checkpoints = self.checkpoints(drawn=True)
        cells, torn = dict(at_hand), []
        for name, (_, identities) in checkpoints.items():
            for concept in manifest["concepts"]:
                if (name, concept) in cells:
                    continue
                key = cell_key(manifest, identities, concept)
                cell = self.read_cell(name, concept, key)
                if cell is not None:
                    cells[name, concept] = compact_cell(cell)
                elif self._commit_record(name, concept, key) is not None:
                    torn.append(f"{concept} at {name}")
        if not cells:
            raise ValueError(
                f"Nothing in the run folder {str(self.path)!r} is finished yet. Call the sweep "
                "with the same arguments; it continues."
            )
        if torn:
            warnings.warn(
                f"{len(torn)} cells of {str(self.path)!r} are torn or altered and left out: "
                f"{listed(torn)}. Call the sweep with the same arguments; it makes them again.",
                stacklevel=4,
            )
        begun = {checkpoint for checkpoint, _ in cells}
        met = {concept for _, concept in cells}
        statements = {}
        for name in met:
            # Where the statements were altered, nothing is compared.
            with suppress(ValueError):
                statements[name] = self.read_concept(name)
        return assemble_trace_data(
            cells,
            [r for r, _ in checkpoints.values() if r.name in begun and not r.drawn],
            {name: known for name, known in manifest["concepts"].items() if name in met},
            provenance=provenance_of(manifest),
            statements=statements,
            against=[r for r, _ in checkpoints.values() if r.name in begun and r.drawn],
        )

    def _cell_content(self, checkpoint: str, concept: str, key: str) -> bytes | None:
        record = self._commit_record(checkpoint, concept, key)
        with suppress(OSError):
            content = self._cell_path(checkpoint, concept, key, ".nc").read_bytes()
            if record is not None and hashlib.sha256(content).hexdigest() == record["sha256"]:
                return content
        return None

    def _commit_record(self, checkpoint: str, concept: str, key: str) -> dict[str, Any] | None:
        record = read_json(self._cell_path(checkpoint, concept, key, ".json"))
        whole = record is not None and record.get("key") == key and "sha256" in record
        return record if whole else None

    def _cell_path(self, checkpoint: str, concept: str, key: str, ending: str) -> Path:
        folder = self.path / "cells" / file_name(checkpoint)
        return folder / f"{slug(concept)}-{key[:12]}{ending}"

    def _known_concept(self, name: str) -> dict[str, Any]:
        concepts: dict[str, dict[str, Any]] = self.manifest["concepts"]
        if not isinstance(name, str):
            raise ValueError(
                f"`concept` is the name of one concept, got {name!r}. Choose one of "
                f"{listed(list(concepts))}, and call once for each."
            )
        if name not in concepts:
            raise ValueError(
                f"The run folder {str(self.path)!r} holds no concept {name!r}. It holds "
                f"{listed(list(concepts))}."
            )
        return concepts[name]

    def _committed_keys(self) -> set[str]:
        """Keys of all cells that are finished, by whatever settings."""
        records = (read_json(path) or {} for path in (self.path / "cells").glob("*/*.json"))
        return {record["key"] for record in records if {"key", "sha256"} <= record.keys()}

    def _open_manifest(
        self, settings: Mapping[str, Any], *, first: Sequence[str]
    ) -> dict[str, Any]:
        """The manifest to go on with, for these settings; nothing is written yet but a reset.

        Args:
            settings: Those of the sweep.
            first: Names of its concepts, which come before the others in a restored manifest.
        """
        file = self.path / MANIFEST
        if read_json(file) is not None:
            manifest = self.manifest
            if not self._committed_keys():
                manifest |= {"settings": settings, "concepts": {}, "checkpoints": []}
                # Without `merge_manifest`, which would keep the concepts of the sweep that failed.
                write_json(file, manifest)
            check_same_settings(self.path, manifest["settings"], settings)
            return manifest
        is_torn = file.exists()
        if self.path.is_dir() and any(self.path.iterdir()) and not is_torn:
            raise ValueError(
                f"{str(self.path)!r} is neither empty nor a run folder, which would hold a "
                "manifest.json. Give another folder as `out`."
            )
        if self.path.exists() and not self.path.is_dir():
            raise ValueError(f"{str(self.path)!r} is a file. Give a folder as `out`.")
        manifest = new_manifest(settings)
        if is_torn:
            self._restore_concepts(manifest, first=first)
        return manifest

    def _restore_concepts(self, manifest: dict[str, Any], *, first: Sequence[str]) -> None:
        """Put the concepts into a manifest that is made again, if its cells go with it.

        Args:
            manifest: What is known of it.
            first: Names of the concepts that stand before the others.

        Raises:
            ValueError: There are cells, and none of them was made with the manifest's settings.
        """
        committed = self._committed_keys()
        if not committed:
            return
        kept = {}
        for path in sorted((self.path / "concepts").glob("*.json")):
            with suppress(TypeError, ValueError, KeyError):
                concept = Concept.from_json(read_json(path) or {})
                kept[concept.name] = as_json(concept_provenance(concept))
        manifest["concepts"] = {name: kept[name] for name in first if name in kept} | kept
        keys = {
            cell_key(manifest, identities, concept)
            for _, identities in self.checkpoints(drawn=True).values()
            for concept in manifest["concepts"]
        }
        found = len(committed & keys)
        if not found:
            raise ValueError(
                f"The manifest.json of {str(self.path)!r} is torn, and none of the "
                f"{len(committed)} cells beside it was made with these settings. Call with the "
                "settings that they were made with, which makes the manifest again, or give "
                "another folder as `out`."
            )
        warnings.warn(
            f"The manifest.json of {str(self.path)!r} is torn, and is made again. {found} of "
            f"{len(committed)} cells were made with these settings and are kept.",
            stacklevel=5,
        )

    def _write_concept(self, name: str, concept: Concept) -> None:
        path = self.path / "concepts" / f"{file_name(name)}.json"
        with suppress(ValueError):
            if path.exists() and self.read_concept(name) == concept:
                return
        # A sweep may know the concept by another name than its own.
        write_json(path, {**concept.to_json(), "name": name})


def _describe(given: object) -> str:
    plain = isinstance(given, bool | int | float | None)
    return repr(given) if plain else f"a {type(given).__name__}"
