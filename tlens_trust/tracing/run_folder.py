"""The folder that a sweep writes its results to, cell by cell.

    manifest.json                        settings, the calls that were made with their arguments
                                         and versions, concepts
    concepts/{concept}.json              statements, labels, groups
    cells/{checkpoint}/checkpoint.json   step, tokens, identity of the weights
    cells/{checkpoint}/{concept}.nc      one cell, held-out scores of every statement included
    cells/{checkpoint}/{concept}.json    its commit record
    trace.nc                             everything, assembled

A cell's file name ends in the first digits of its key, a hash of everything that changes the
cell: settings, weights, tokenizer, concept. So a cell of other weights is never taken for it, even
if the checkpoint has the same name. A cell is finished if its commit record exists, holds the same
key, and holds the SHA-256 of the file. A torn or altered cell is treated as missing.
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
    """The folder of the cells of sweeps with the same settings.

    Several processes may write to one run folder. Files are renamed into place, and a cell is a
    pure function of its key, so that two processes write the same.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def manifest(self) -> dict[str, Any]:
        """The content of `manifest.json`.

        Raises:
            ValueError: The folder is no run folder.
        """
        # The file is read each time, since another process may have changed it.
        return read_manifest(self.path)

    @classmethod
    def at(cls, place: object) -> "RunFolder":
        """Make a `RunFolder` of the path that a user gives.

        Raises:
            ValueError: `place` is not a path.
        """
        if isinstance(place, str | os.PathLike):
            return cls(Path(place))
        hint = (
            " A trace holds nothing by statement. A sweep writes that to its run folder."
            # `Trace` is known by its module, since importing it would close a circle of imports.
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
        """Make the folder, or continue it, and record this call in its manifest.

        A folder without a finished cell accepts other settings and concepts, since its content is
        that of a sweep that failed. A torn manifest is restored, with a warning, from the concepts
        in the folder, if its cells were made with these settings.

        Args:
            settings: Everything besides weights and concept that changes a cell, as JSON holds it.
            concepts: The concepts, by name.
            arguments: The other arguments of the call, as JSON holds them.
            versions: Versions of the libraries.
            checkpoints: Names of the checkpoints of the sweep, for `unfinished`.

        Raises:
            ValueError: The folder holds cells of other settings, or another concept under one of
                the names; or it is no run folder and not empty. Nothing is changed then.
        """
        entries = {name: concept_provenance(concept) for name, concept in concepts.items()}
        # Both checks come before concepts are written, so that a refused call changes nothing.
        manifest = self._open_manifest(as_json(settings), leading_names=list(concepts))
        check_same_concepts(self.path, manifest["concepts"], entries)
        for name, concept in concepts.items():
            self._write_concept(name, concept)
        manifest["concepts"].update(as_json(entries))
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
        """Hash everything that changes a cell.

        Args:
            identities: Identities of the weights and the tokenizer.
            concept: Name of the concept in the manifest.
            settings: The settings of the cell; None for those of the manifest.

        Raises:
            ValueError: The manifest has other settings: another sweep has begun in the folder
                before it held a cell.
        """
        manifest = self.manifest
        if settings is not None:
            check_same_settings(self.path, manifest["settings"], as_json(settings))
        return cell_key(manifest, identities, concept)

    def has_cell(self, checkpoint: str, concept: str, key: str) -> bool:
        """Whether a cell is finished and its file is intact."""
        return self._cell_content(checkpoint, concept, key) is not None

    def read_cell(
        self,
        checkpoint: str,
        concept: str,
        key: str,
        *,
        variables: Sequence[str] | None = None,
    ) -> xr.Dataset | None:
        """Read a finished cell; None if there is none, or it is torn or altered.

        Args:
            checkpoint: Name of the checkpoint.
            concept: Name of the concept.
            key: The result of `cell_key`.
            variables: Names of the variables to read, as far as the cell has them; None for all.
        """
        content = self._cell_content(checkpoint, concept, key)
        if content is None:
            return None
        if variables is not None:
            # Assembling needs the sites, even if none of these variables lies along them.
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
        """Write a cell: first its file, then the record that says it is finished.

        Args:
            checkpoint: Name of the checkpoint.
            concept: Name of the concept.
            key: The result of `cell_key`.
            content: The result of `measure_cell`, encoded by `dataset_to_bytes`.
            made_with: Facts that do not change a cell, such as the device, for the record.
        """
        path = self._cell_path(checkpoint, concept, key, ".nc")
        # A crash between the two writes leaves a file without a record, which is no finished cell.
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
        """Write the record of a checkpoint, before its cells."""
        path = self.path / "cells" / file_name(record.name) / "checkpoint.json"
        entry = {**asdict(record), "identities": dict(identities)}
        if read_json(path) != as_json(entry):
            write_json(path, entry)

    def checkpoints(
        self, *, drawn: bool = False
    ) -> dict[str, tuple[CheckpointRecord, dict[str, str]]]:
        """List every checkpoint with a record, with its identities, in training order.

        Args:
            drawn: Whether to include random weights, which the others are compared with.
        """
        records = {}
        # A file system lists files in any order, on which no result may depend.
        for path in sorted((self.path / "cells").glob("*/checkpoint.json")):
            # An altered record is ignored. The next sweep writes it again.
            with suppress(TypeError, KeyError):
                entry = read_json(path) or {}
                identities = entry.pop("identities")
                record = CheckpointRecord(**entry)
                if drawn or not record.drawn:
                    records[record.name] = (record, identities)
        ordered = in_training_order([record for record, _ in records.values()])
        return {record.name: records[record.name] for record in ordered}

    def unfinished(self) -> list[str]:
        """List the checkpoints of a sweep that have no finished cell yet.

        Empty for a run folder of an earlier version, which did not record them.
        """
        manifest = self.manifest
        records = self.checkpoints()
        return [
            name
            for name in manifest.get("checkpoints", [])
            if name not in records
            or not any(
                self._commit_record(name, concept, cell_key(manifest, records[name][1], concept))
                for concept in manifest["concepts"]
            )
        ]

    def read_concept(self, name: str) -> Concept:
        """Read a concept as the sweep used it.

        Raises:
            ValueError: The folder does not hold the concept, or its file is torn or altered.
        """
        entry = self._concept_entry(name)
        content = read_json(self.path / "concepts" / f"{file_name(name)}.json")
        with suppress(TypeError, ValueError, KeyError):
            concept = Concept.from_json(content or {})
            if concept.fingerprint == entry["fingerprint"]:
                return concept
        raise ValueError(
            f"The statements of {name!r} in {str(self.path)!r} are torn or altered. Sweep with the "
            "concept once more, with the same `out`: finished cells are kept."
        )

    def assemble(self, cells_in_memory: Mapping[tuple[str, str], xr.Dataset]) -> xr.Dataset:
        """Assemble all finished cells into the data of a `Trace`, and write it as `trace.nc`.

        Args:
            cells_in_memory: Cells by checkpoint and concept that need not be read from disk.
        """
        data = self._read_assembled()
        if data is None:
            data = self._assemble(cells_in_memory)
            digest = write_file(self.path / "trace.nc", dataset_to_bytes(data))
            manifest = self.manifest
            manifest["trace"] = {"sha256": digest, "made_of": self._content_hash(manifest)}
            merge_manifest(self.path, manifest)
        return data

    def trace_data(self) -> xr.Dataset:
        """Give the data of a `Trace`, from `trace.nc` if that is intact and up to date.

        Raises:
            ValueError: The folder is no run folder, or nothing in it is finished.
        """
        data = self._read_assembled()
        return self._assemble({}) if data is None else data

    def _read_assembled(self) -> xr.Dataset | None:
        """Read `trace.nc`; None if it is torn, or cells were added after it was written."""
        manifest = self.manifest
        entry = manifest.get("trace", {})
        with suppress(OSError, ValueError):
            content = (self.path / "trace.nc").read_bytes()
            is_intact = hashlib.sha256(content).hexdigest() == entry.get("sha256")
            if is_intact and self._content_hash(manifest) == entry.get("made_of"):
                return dataset_from_bytes(content)
        return None

    def _content_hash(self, manifest: Mapping[str, Any]) -> str:
        """Hash everything that an assembled trace depends on."""
        parts: list[Any] = [provenance_of(manifest), manifest["concepts"]]
        for name, (record, identities) in self.checkpoints(drawn=True).items():
            parts.append(asdict(record))
            for concept in manifest["concepts"]:
                key = cell_key(manifest, identities, concept)
                parts.append(self._commit_record(name, concept, key))
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _assemble(self, cells_in_memory: Mapping[tuple[str, str], xr.Dataset]) -> xr.Dataset:
        manifest = self.manifest
        checkpoints = self.checkpoints(drawn=True)
        cells, torn_cells = dict(cells_in_memory), []
        for name, (_, identities) in checkpoints.items():
            for concept in manifest["concepts"]:
                if (name, concept) in cells:
                    continue
                key = cell_key(manifest, identities, concept)
                cell = self.read_cell(name, concept, key)
                if cell is not None:
                    # The scores of all statements of a long sweep would fill the memory.
                    cells[name, concept] = compact_cell(cell)
                elif self._commit_record(name, concept, key) is not None:
                    torn_cells.append(f"{concept} at {name}")
        if not cells:
            raise ValueError(
                f"Nothing in the run folder {str(self.path)!r} is finished yet. Call the sweep "
                "with the same arguments; it continues."
            )
        if torn_cells:
            warnings.warn(
                f"{len(torn_cells)} cells of {str(self.path)!r} are torn or altered and left out: "
                f"{listed(torn_cells)}. Call the sweep again with the same arguments to measure "
                "them again.",
                # The caller's line is shown: that of `Trace.load` or `trace_checkpoints`.
                stacklevel=4,
            )
        checkpoint_names = {checkpoint for checkpoint, _ in cells}
        concept_names = {concept for _, concept in cells}
        statements = {}
        for name in concept_names:
            # Without intact statements there is no comparison with untrained weights.
            with suppress(ValueError):
                statements[name] = self.read_concept(name)
        return assemble_trace_data(
            cells,
            [r for r, _ in checkpoints.values() if r.name in checkpoint_names and not r.drawn],
            {n: entry for n, entry in manifest["concepts"].items() if n in concept_names},
            provenance=provenance_of(manifest),
            statements=statements,
            against=[r for r, _ in checkpoints.values() if r.name in checkpoint_names and r.drawn],
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
        is_valid = record is not None and record.get("key") == key and "sha256" in record
        return record if is_valid else None

    def _cell_path(self, checkpoint: str, concept: str, key: str, ending: str) -> Path:
        folder = self.path / "cells" / file_name(checkpoint)
        # A part of the key keeps the name short. The record holds all of it and is compared.
        return folder / f"{slug(concept)}-{key[:12]}{ending}"

    def _concept_entry(self, name: str) -> dict[str, Any]:
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
        """Collect the keys of all finished cells, of any settings."""
        records = (read_json(path) or {} for path in (self.path / "cells").glob("*/*.json"))
        return {record["key"] for record in records if {"key", "sha256"} <= record.keys()}

    def _open_manifest(
        self, settings: Mapping[str, Any], *, leading_names: Sequence[str]
    ) -> dict[str, Any]:
        """Read, reset, restore or make the manifest. Only a reset is written at once.

        Args:
            settings: The settings of the sweep.
            leading_names: Names of its concepts, which come first in a restored manifest.
        """
        file = self.path / MANIFEST
        if read_json(file) is not None:
            manifest = self.manifest
            # Without a finished cell, there is nothing that new settings must agree with.
            if not self._committed_keys():
                manifest |= {"settings": settings, "concepts": {}, "checkpoints": []}
                # Without `merge_manifest`, which would keep the concepts of the sweep that failed.
                write_json(file, manifest)
            check_same_settings(self.path, manifest["settings"], settings)
            return manifest
        # `read_json` gave nothing, so that a file that exists is torn.
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
            self._restore_concepts(manifest, leading_names=leading_names)
        return manifest

    def _restore_concepts(self, manifest: dict[str, Any], *, leading_names: Sequence[str]) -> None:
        """Restore the concepts of a manifest from their files, if its settings match the cells.

        Args:
            manifest: The new manifest, with settings and no concepts.
            leading_names: Names of the concepts that come first.

        Raises:
            ValueError: There are cells, and none of them was made with the manifest's settings.
        """
        committed_keys = self._committed_keys()
        if not committed_keys:
            return
        entries = {}
        for path in sorted((self.path / "concepts").glob("*.json")):
            with suppress(TypeError, ValueError, KeyError):
                concept = Concept.from_json(read_json(path) or {})
                entries[concept.name] = as_json(concept_provenance(concept))
        manifest["concepts"] = {
            name: entries[name] for name in leading_names if name in entries
        } | entries
        keys = {
            cell_key(manifest, identities, concept)
            for _, identities in self.checkpoints(drawn=True).values()
            for concept in manifest["concepts"]
        }
        matches = len(committed_keys & keys)
        if not matches:
            raise ValueError(
                f"The manifest.json of {str(self.path)!r} is torn, and none of the "
                f"{len(committed_keys)} cells beside it was made with these settings. Call with "
                "the settings that they were made with, which restores the manifest, or give "
                "another folder as `out`."
            )
        warnings.warn(
            f"The manifest.json of {str(self.path)!r} is torn, and is made again. {matches} of "
            f"{len(committed_keys)} cells were made with these settings and are kept.",
            # The caller's line is shown: that of `trace_checkpoints`.
            stacklevel=5,
        )

    def _write_concept(self, name: str, concept: Concept) -> None:
        path = self.path / "concepts" / f"{file_name(name)}.json"
        with suppress(ValueError):
            if path.exists() and self.read_concept(name) == concept:
                return
        # In a sweep, a concept may have another name than its own.
        write_json(path, {**concept.to_json(), "name": name})


def _describe(value: object) -> str:
    # The text of a data set or a model would fill the message.
    is_short = isinstance(value, bool | int | float | None)
    return repr(value) if is_short else f"a {type(value).__name__}"
