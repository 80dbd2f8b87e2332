"""Finds checkpoint folders on disk, and what the training run recorded in them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlens_trust.checkpoints.families import RevisionName, all_templates, parse_revision
from tlens_trust.checkpoints.weights import are_complete, weight_names


@dataclass(frozen=True)
class CheckpointFolder:
    """One folder of weights in the folder of a training run.

    Attributes:
        path: The folder.
        revision_name: What its name says, with the tokens that the run recorded.
        loss: Training loss in nats per token; None where the run did not record it.
    """

    path: Path
    revision_name: RevisionName
    loss: float | None = None


def scan_folder(
    path: Path, *, tokens_per_step: int | None = None
) -> tuple[list[CheckpointFolder], tuple[str, ...]]:
    """Find the checkpoint folders in a folder.

    Steps come from the folders' names. Tokens and loss come from `series.json`, which
    `pretrain_toy_series` writes, and from the Hugging Face Trainer's `trainer_state.json`.

    Args:
        path: The folder that holds them.
        tokens_per_step: Tokens in one step of the run.

    Returns:
        The checkpoint folders, and the names of the folders that were ignored. The name has a
        reason beside it if the folder looks like a checkpoint.

    Raises:
        ValueError: The folder does not exist or holds no checkpoint, or a checkpoint's name
            follows no known naming scheme.
    """
    if not path.is_dir():
        raise ValueError(f"No folder {str(path)!r}. Name a folder of checkpoint folders.")
    checkpoints, ignored, unnamed = [], [], []
    record = _read_json(path / "series.json")
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        names = {entry.name for entry in folder.iterdir()}
        revision_name = parse_revision(folder.name)
        if not are_complete(weight_names(names)) or "config.json" not in names:
            ignored.append(
                folder.name if revision_name is None else f"{folder.name} (incomplete model)"
            )
        elif revision_name is None:
            # Not ignored: it may be a checkpoint, and the series would lack it unnoticed.
            unnamed.append(folder.name)
        else:
            checkpoints.append(_with_record(folder, revision_name, record, tokens_per_step))
    if unnamed:
        raise ValueError(
            f"{', '.join(map(repr, unnamed))} in {str(path)!r} holds a model, but its name follows "
            f"no known naming scheme. Known are {', '.join(all_templates())}. Rename it or move it "
            "out."
        )
    if not checkpoints:
        raise ValueError(_why_no_checkpoint(path))
    return _with_zero_tokens_at_step_0(checkpoints), tuple(ignored)


def _with_record(
    folder: Path, revision_name: RevisionName, record: dict[str, Any], tokens_per_step: int | None
) -> CheckpointFolder:
    loss = dict(record.get("loss") or {}).get(str(revision_name.step))
    tokens = None
    state = _read_json(folder / "trainer_state.json")
    if state:
        # The Trainer counts tokens only if it was asked to, and otherwise writes 0.
        tokens = int(state.get("num_input_tokens_seen") or 0) or None
        logged = [
            row["loss"]
            for row in state.get("log_history", ())
            if "loss" in row and row.get("step", 0) <= revision_name.step
        ]
        loss = logged[-1] if logged else loss
    # The user's number, or that of `series.json`, replaces the Trainer's count, which may be
    # missing.
    per_step = tokens_per_step or record.get("tokens_per_step")
    if per_step is not None:
        tokens = revision_name.step * int(per_step)
    if tokens is not None:
        revision_name = replace(revision_name, tokens=tokens)
    return CheckpointFolder(folder.resolve(), revision_name, None if loss is None else float(loss))


def _with_zero_tokens_at_step_0(folders: list[CheckpointFolder]) -> list[CheckpointFolder]:
    """Give step 0 a token count of 0 if the other checkpoints have token counts.

    The Trainer does not save step 0. A step 0 that was saved by hand has no `trainer_state.json`.
    """
    if not any(folder.revision_name.tokens for folder in folders):
        return folders
    return [
        replace(folder, revision_name=replace(folder.revision_name, tokens=0))
        if folder.revision_name.step == 0 and folder.revision_name.tokens is None
        else folder
        for folder in folders
    ]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(
            f"{str(path)!r} is not valid JSON: {error}. Repair it or move it away."
        ) from error
    return content if isinstance(content, dict) else {}


def _why_no_checkpoint(path: Path) -> str:
    # The most likely mistake is to name one checkpoint instead of the folder above it.
    if weight_names(entry.name for entry in path.iterdir()):
        return (
            f"{str(path)!r} is one model and holds no checkpoint folders. Load it with "
            "`Checkpoint.from_directory`, or name the folder above it."
        )
    return (
        f"{str(path)!r} holds no checkpoint. A checkpoint is a folder such as step1000 or "
        "checkpoint-500 with config.json and weights in it. Name the folder above it."
    )
