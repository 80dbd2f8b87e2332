"""Checkpoint folders on disk, and what they say of the run that left them."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from tlens_trust.checkpoints.families import RevisionName, all_templates, parse_revision
from tlens_trust.checkpoints.weights import are_complete, weight_names


@dataclass(frozen=True)
class CheckpointFolder:
    """One folder of weights in a folder of them.

    Attributes:
        path: Where it is.
        named: What its name says, with the tokens that the run counted where it did.
        loss: Training loss in nats a token, where the run left it.
    """

    path: Path
    named: RevisionName
    loss: float | None = None


def scan_folder(
    path: Path, *, tokens_per_step: int | None = None
) -> tuple[list[CheckpointFolder], tuple[str, ...]]:
    """Find the checkpoint folders in a folder.

    Beside their names, `series.json` (as `pretrain_toy_series` writes it) and the Hugging Face
    Trainer's `trainer_state.json` are read, for tokens and loss.

    Args:
        path: The folder that holds them.
        tokens_per_step: Tokens in one step of the run.

    Returns:
        The checkpoint folders, and the names of folders that were passed over, with the reason
        where they look like a checkpoint.

    Raises:
        ValueError: There is no such folder, no checkpoint in it, or one whose name no scheme
            parses.
    """
    if not path.is_dir():
        raise ValueError(f"No folder {str(path)!r}. Name a folder of checkpoint folders.")
    found, ignored, unnamed = [], [], []
    notes = _read_json(path / "series.json")
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir()):
        names = {entry.name for entry in folder.iterdir()}
        named = parse_revision(folder.name)
        if not are_complete(weight_names(names)) or "config.json" not in names:
            ignored.append(folder.name if named is None else f"{folder.name} (no whole model)")
        elif named is None:
            unnamed.append(folder.name)
        else:
            found.append(_with_notes(folder, named, notes, tokens_per_step))
    if unnamed:
        raise ValueError(
            f"{', '.join(map(repr, unnamed))} in {str(path)!r} holds a model, but no scheme parses "
            f"its name to a step. Known are {', '.join(all_templates())}. Rename it or move it out."
        )
    if not found:
        raise ValueError(_why_nothing(path))
    return _counted_from_zero(found), tuple(ignored)


def _with_notes(
    folder: Path, named: RevisionName, notes: dict[str, Any], tokens_per_step: int | None
) -> CheckpointFolder:
    loss = dict(notes.get("loss") or {}).get(str(named.step))
    tokens = None
    state = _read_json(folder / "trainer_state.json")
    if state:
        # The Trainer counts tokens only where it was asked to, and else writes 0.
        tokens = int(state.get("num_input_tokens_seen") or 0) or None
        logged = [
            row["loss"]
            for row in state.get("log_history", ())
            if "loss" in row and row.get("step", 0) <= named.step
        ]
        loss = logged[-1] if logged else loss
    per_step = tokens_per_step or notes.get("tokens_per_step")
    if per_step is not None:
        tokens = named.step * int(per_step)
    if tokens is not None:
        named = replace(named, tokens=tokens)
    return CheckpointFolder(folder.resolve(), named, None if loss is None else float(loss))


def _counted_from_zero(folders: list[CheckpointFolder]) -> list[CheckpointFolder]:
    """Folders of a run that counts its tokens, with none for its start.

    The Trainer saves no step 0: whoever did so has no record of the Trainer's beside it.
    """
    if not any(folder.named.tokens for folder in folders):
        return folders
    return [
        replace(folder, named=replace(folder.named, tokens=0))
        if folder.named.step == 0 and folder.named.tokens is None
        else folder
        for folder in folders
    ]


def _read_json(path: Path) -> dict[str, Any]:
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{str(path)!r} is no JSON: {error}. Mend it or take it away.") from error
    return content if isinstance(content, dict) else {}


def _why_nothing(path: Path) -> str:
    if weight_names(entry.name for entry in path.iterdir()):
        return (
            f"{str(path)!r} is one model and holds no checkpoint folders. Read it alone with "
            "`Checkpoint.from_directory`, or name the folder above it."
        )
    return (
        f"{str(path)!r} holds no checkpoint: a folder such as step1000 or checkpoint-500, with "
        "config.json and weights in it, is looked for."
    )
