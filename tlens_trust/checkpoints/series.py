"""The checkpoints of one training run, in order."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import EllipsisType
from typing import Any, SupportsIndex, overload

import torch

from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.directory import CheckpointFolder, scan_folder
from tlens_trust.checkpoints.download_plan import DownloadPlan, plan_checkpoints
from tlens_trust.checkpoints.families import RevisionName, find_family
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.plain_model import is_plain_model
from tlens_trust.checkpoints.published_runs import (
    list_published,
    model_of_run,
    select_run,
    tokens_seen,
    training_order,
)
from tlens_trust.checkpoints.steps import choose_steps
from tlens_trust.html import render

# The most rows of a series that a notebook shows.
_SHOWN_ROWS = 20


@dataclass(frozen=True, repr=False)
class CheckpointSeries(Sequence[Checkpoint]):
    """Checkpoints of one training run, in training order.

    A series is a sequence: it can be iterated over, indexed, and sliced into shorter series.
    Nothing is downloaded before a checkpoint is loaded. `plan` says how much that will be.

    Attributes:
        model: Hub id, folder, or a name for models in memory.
        checkpoints: In training order.
        ignored: Folders that `from_directory` ignored.

    Raises:
        ValueError: `checkpoints` is empty.

    Examples:
        >>> series = CheckpointSeries.from_hub("EleutherAI/pythia-160m", steps=[0, 512, 1000])
        >>> series
        CheckpointSeries('EleutherAI/pythia-160m', 3 checkpoints, steps 0 to 1000, ...)
        >>> series[-1].revision
        'step1000'
        >>> series[1:].steps
        (512, 1000)
    """

    model: str
    checkpoints: tuple[Checkpoint, ...]
    ignored: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "checkpoints", tuple(self.checkpoints))
        if not self.checkpoints:
            raise ValueError(
                f"A series holds at least one checkpoint, and this one of {self.model!r} would be "
                "empty. Choose other steps, or a longer slice."
            )

    @classmethod
    def from_hub(
        cls,
        model: str,
        *,
        steps: str | Iterable[SupportsIndex] = "log",
        run: str | None = None,
        stage: str | int | None = None,
        tokenizer: Any = None,
    ) -> "CheckpointSeries":
        """List the published checkpoints of a model on the hub.

        For a family whose schedule is known, the hub is not contacted. Otherwise the repository's
        branches and tags are listed and parsed. If `HF_HUB_OFFLINE` is set, the checkpoints are
        those in the cache.

        Args:
            model: Model id, such as `"EleutherAI/pythia-160m"`.
            steps: `"all"`, a list of published steps, or a range, whose published steps are used.
                `"log"` is the first step, the last, and the step nearest to each power of two
                between them.
            run: A seed or variant, such as `"seed3"` for PolyPythias, `"battlestar"` for
                stanford-crfm's GPT-2, `"small-aux-2"` for DataDecide, or `"ingredient2"` for
                OLMo-2's second stage.
            stage: A training stage, such as `"stage2"` or 2. By default all stages if each
                continues the steps of the one before it, and otherwise the first stage.
            tokenizer: A tokenizer, or the name or folder of one, in place of the model's own.

        Raises:
            ValueError: `model` is not a model id or has no checkpoints, or a step, run or stage is
                not published, or there are several runs and `run` is missing.
            OSError: The hub cannot be reached, or refuses access.
        """
        family = find_family(model)
        if run is not None and family is not None:
            model, run = model_of_run(family, model, run)
        # Names do not sort in the order of training: step1000 comes before step2.
        rows = sorted(list_published(family, model), key=lambda row: training_order(row[2]))
        run_names = select_run([name for _, _, name in rows], model, run=run, stage=stage)
        steps_to_keep = set(choose_steps((name.step for name in run_names), steps, model))
        names_to_keep = {name for name in run_names if name.step in steps_to_keep}
        return cls(
            model,
            tuple(
                Checkpoint(
                    repository,
                    revision,
                    step=name.step,
                    tokens=tokens_seen(family, name),
                    stage=name.stage,
                    run=name.run,
                    tokenizer=tokenizer,
                )
                for repository, revision, name in rows
                if name in names_to_keep
            ),
        )

    @classmethod
    def from_directory(
        cls,
        path: str | Path,
        *,
        run: str | None = None,
        stage: str | int | None = None,
        tokens_per_step: int | None = None,
        tokenizer: Any = None,
    ) -> "CheckpointSeries":
        """List the checkpoint folders in a folder, in training order.

        Their names may follow any published naming scheme, or the Hugging Face Trainer's
        `checkpoint-{step}`. The Trainer's records give loss and tokens. Other folders are listed in
        `ignored`.

        Args:
            path: The folder that holds the checkpoint folders.
            run: The run to use, if there are several.
            stage: The training stage to use, if there are several.
            tokens_per_step: Tokens in one step, if the folder does not record them.
            tokenizer: A tokenizer, or the name or folder of one, where the folders have none.

        Raises:
            ValueError: The folder does not exist or holds no checkpoint, or a checkpoint's name
                follows no known scheme, or two folders are of the same step. Or there are several
                runs and `run` is missing.
        """
        root = Path(path).expanduser()
        folders, ignored = scan_folder(root, tokens_per_step=tokens_per_step)
        by_name: dict[RevisionName, CheckpointFolder] = {}
        for folder in folders:
            # Tokens are left out: two folders of one step may record different numbers of them.
            key = replace(folder.revision_name, tokens=None)
            if key in by_name:
                raise ValueError(
                    f"{by_name[key].path.name!r} and {folder.path.name!r} in {str(path)!r} are "
                    f"both of step {key.step}. Move one of them out."
                )
            by_name[key] = folder
        run_names = select_run(list(by_name), str(path), run=run, stage=stage)
        return cls(
            str(path),
            tuple(
                Checkpoint(
                    str(path),
                    by_name[name].path.name,
                    step=name.step,
                    tokens=by_name[name].revision_name.tokens,
                    stage=name.stage,
                    loss=by_name[name].loss,
                    run=name.run,
                    folder=by_name[name].path,
                    tokenizer=tokenizer,
                )
                for name in sorted(run_names, key=training_order)
            ),
            ignored,
        )

    @classmethod
    def from_models(
        cls,
        models: Mapping[Any, Any],
        *,
        tokenizer: Any = None,
        name: str = "model",
        tokens_per_step: int | None = None,
    ) -> "CheckpointSeries":
        """Make a series of models in memory.

        Hooked models are used as they are. Plain Hugging Face models are read through forward hooks
        and never wrapped, so their parameters, attention and mode do not change.

        Args:
            models: Models by step.
            tokenizer: The tokenizer of plain models; a hooked model has its own.
            name: Name of the series.
            tokens_per_step: Tokens in one step.

        Raises:
            ValueError: A step is not a whole number from 0, a value is neither a hooked model nor a
                Hugging Face model, or a plain model has no tokenizer.
        """
        for step, model in models.items():
            if not isinstance(step, int) or isinstance(step, bool) or step < 0:
                raise ValueError(
                    "`models` maps steps to models, and a step is a whole number from 0, got "
                    f"{step!r}."
                )
            # A hooked model comes with its tokenizer, and a Hugging Face model does not.
            plain = is_plain_model(model)
            if not plain and not isinstance(model, HookedModel):
                raise ValueError(
                    f"Step {step} is a {type(model).__name__}. Allowed are hooked models from "
                    "TransformerLens and Hugging Face models."
                )
            if plain and tokenizer is None:
                raise ValueError(
                    f"The Hugging Face model of step {step} has no tokenizer. Pass `tokenizer=`."
                )
        return cls(
            name,
            tuple(
                Checkpoint(
                    name,
                    f"step{step}",
                    step=step,
                    tokens=None if tokens_per_step is None else step * tokens_per_step,
                    in_memory=models[step],
                    tokenizer=tokenizer,
                )
                for step in sorted(models)
            ),
        )

    @property
    def axis(self) -> str:
        """The training axis: `"step"`, or `"tokens"` where steps are unknown."""
        if None in self.steps and None not in self.tokens:
            return "tokens"
        return "step"

    @property
    def steps(self) -> tuple[int | None, ...]:
        """Optimiser steps of each checkpoint; None where unknown."""
        return tuple(checkpoint.step for checkpoint in self.checkpoints)

    @property
    def tokens(self) -> tuple[int | None, ...]:
        """Tokens that each checkpoint has seen; None where unknown."""
        return tuple(checkpoint.tokens for checkpoint in self.checkpoints)

    def at(self, steps: str | Iterable[SupportsIndex]) -> "CheckpointSeries":
        """Return the series of the checkpoints at some steps, which are given as in `from_hub`.

        Raises:
            ValueError: A step is not in the series.

        Examples:
            >>> series = CheckpointSeries.from_hub("LLM360/Amber", steps="all")
            >>> series.at([0, 179, 359])[-1].revision
            'main'
        """
        known_steps = [step for step in self.steps if step is not None]
        steps_to_keep = set(choose_steps(known_steps, steps, self.model))
        return replace(
            self, checkpoints=tuple(c for c in self.checkpoints if c.step in steps_to_keep)
        )

    def loaded_with(
        self,
        *,
        device: str | torch.device | EllipsisType | None = ...,
        dtype: torch.dtype | EllipsisType = ...,
        backend: str | EllipsisType = ...,
        device_map: str | dict[str, Any] | EllipsisType | None = ...,
        trust_remote_code: bool | EllipsisType = ...,
    ) -> "CheckpointSeries":
        """Return the same series with other settings for loading.

        A setting that is left out (`...`) stays as it is.

        Args:
            device: Torch device; None for a GPU where there is one, else the CPU.
            dtype: Number format of the weights.
            backend: `"auto"`, `"hooked_transformer"` or `"bridge"`, as `Loading` describes them.
            device_map: How transformers spreads a model that is larger than one device.
            trust_remote_code: Whether Python files that come with the model may run.

        Raises:
            ValueError: `Loading` refuses a value, or a model is in memory and loaded already.

        Examples:
            >>> series = CheckpointSeries.from_hub("LLM360/Amber").loaded_with(dtype=torch.bfloat16)
            >>> series[-1].loading.dtype
            torch.bfloat16
        """
        return replace(
            self,
            checkpoints=tuple(
                checkpoint.loaded_with(
                    device=device,
                    dtype=dtype,
                    backend=backend,
                    device_map=device_map,
                    trust_remote_code=trust_remote_code,
                )
                for checkpoint in self.checkpoints
            ),
        )

    def plan(self) -> DownloadPlan:
        """Compute what a sweep would download, and which checkpoints have the same weights.

        Asks the hub for sizes and hashes, and downloads nothing.

        Raises:
            OSError: The hub cannot be reached.
        """
        return plan_checkpoints(self.model, self.checkpoints)

    def __len__(self) -> int:
        return len(self.checkpoints)

    def __iter__(self) -> Iterator[Checkpoint]:
        return iter(self.checkpoints)

    @overload
    def __getitem__(self, index: int) -> Checkpoint: ...
    @overload
    def __getitem__(self, index: slice) -> "CheckpointSeries": ...
    def __getitem__(self, index: int | slice) -> "Checkpoint | CheckpointSeries":
        if isinstance(index, slice):
            return replace(self, checkpoints=self.checkpoints[index])
        return self.checkpoints[index]

    def __repr__(self) -> str:
        parts = [repr(self.model), f"{len(self)} checkpoint{'s' if len(self) > 1 else ''}"]
        for label, values in (("steps", self.steps), ("tokens", self.tokens)):
            known_values = [value for value in values if value is not None]
            if known_values:
                parts.append(f"{label} {min(known_values)} to {max(known_values)}")
        for label in ("stage", "run"):
            labels = dict.fromkeys(getattr(c, label) for c in self.checkpoints)
            if set(labels) != {None}:
                parts.append(f"{label} {', '.join(map(str, labels))}")
        if self.ignored:
            parts.append(f"ignored {', '.join(self.ignored)}")
        return f"CheckpointSeries({', '.join(parts)})"

    def _repr_html_(self) -> str:
        columns = {
            name: [getattr(checkpoint, name) for checkpoint in self.checkpoints]
            for name in ("name", "step", "tokens", "stage", "run", "loss")
        }
        # A property that no checkpoint has would be an empty column.
        columns = {name: values for name, values in columns.items() if set(values) != {None}}
        rows: list[list[str] | None] = [
            [_cell(value) for value in row] for row in zip(*columns.values(), strict=True)
        ]
        n_hidden = 0
        if len(rows) > _SHOWN_ROWS:
            n_hidden = len(rows) - _SHOWN_ROWS + 1
            # None marks the gap. The last row is shown, since it says where training ended.
            rows = [*rows[: _SHOWN_ROWS - 2], None, rows[-1]]
        headings = ["checkpoint" if name == "name" else name for name in columns]
        return render(
            "notebook/series",
            {"series": self, "headings": headings, "rows": rows, "n_hidden": n_hidden},
        )


def _cell(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return f"{value:.3f}"
    return f"{value:,}" if isinstance(value, int) else str(value)
