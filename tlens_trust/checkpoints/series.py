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
    model_of_run,
    one_run,
    published,
    tokens_seen,
    training_order,
)
from tlens_trust.checkpoints.steps import choose_steps
from tlens_trust.html import render

# In a notebook: the first ones and the last one of a series that is longer.
_SHOWN_ROWS = 20


@dataclass(frozen=True, repr=False)
class CheckpointSeries(Sequence[Checkpoint]):
    """Checkpoints of one training run, in training order.

    A sequence: it has a length, is iterated over, indexed, and sliced into shorter series. Nothing
    is fetched before a checkpoint is loaded; `plan` says what that will take.

    Attributes:
        model: Hub id, folder, or a name for models in memory.
        checkpoints: In training order.
        ignored: Folders that `from_directory` passed over.

    Raises:
        ValueError: There is no checkpoint.

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
                f"A series holds at least one checkpoint, and that of {self.model!r} would be "
                "empty. Ask for other steps, or a longer slice."
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
        """The published checkpoints of a model on the hub.

        For a family whose schedule is known nothing is asked of the hub; otherwise the
        repository's branches and tags are listed and parsed. With `HF_HUB_OFFLINE` set, the
        checkpoints are those that the cache holds.

        Args:
            model: Model id, as `"EleutherAI/pythia-160m"`.
            steps: `"all"`; `"log"`, the first, the last and for every power of two between them
                the nearest by ratio; a list, all of which must be published; or a range, of which
                those that are published are taken.
            run: A seed or variant: `"seed3"` for PolyPythias, `"battlestar"` for stanford-crfm's
                GPT-2, `"small-aux-2"` for DataDecide, `"ingredient2"` for OLMo-2's second stage.
            stage: One of several training stages, as `"stage2"` or 2. By default all, where the
                steps are counted on from one to the next; the first, where they begin anew.
            tokenizer: A tokenizer, or the name or folder of one, in place of the model's own.

        Raises:
            ValueError: The model is no model id or has no checkpoints; a step, run or stage is not
                among them; or there are several runs and none was named.
            OSError: The hub cannot be reached, or does not let this user in.
        """
        family = find_family(model)
        if run is not None and family is not None:
            model, run = model_of_run(family, model, run)
        rows = sorted(published(family, model), key=lambda row: training_order(row[2]))
        named = one_run([name for _, _, name in rows], model, run=run, stage=stage)
        chosen = set(choose_steps((name.step for name in named), steps, model))
        kept = {name for name in named if name.step in chosen}
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
                for repository, revision, name in sorted(
                    rows, key=lambda row: training_order(row[2])
                )
                if name in kept
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
        """A folder of checkpoint folders, in training order.

        Their names may follow any published naming scheme, or be the Hugging Face Trainer's
        `checkpoint-{step}`; the Trainer's own record gives loss and tokens. Other folders are
        passed over, and named in `ignored`.

        Args:
            path: The folder that holds them.
            run: Which of several runs in it.
            stage: Which of several training stages in it.
            tokens_per_step: Tokens in one step, where the folder does not say.
            tokenizer: A tokenizer, or the name or folder of one, where the folders have none.

        Raises:
            ValueError: There is no such folder, no checkpoint in it, or one whose name no scheme
                parses; two folders are of the same step; or there are several runs and none was
                named.
        """
        root = Path(path).expanduser()
        folders, ignored = scan_folder(root, tokens_per_step=tokens_per_step)
        by_name: dict[RevisionName, CheckpointFolder] = {}
        for folder in folders:
            key = replace(folder.named, tokens=None)
            if key in by_name:
                raise ValueError(
                    f"{by_name[key].path.name!r} and {folder.path.name!r} in {str(path)!r} are "
                    f"both of step {key.step}. Move one of them out."
                )
            by_name[key] = folder
        kept = one_run(list(by_name), str(path), run=run, stage=stage)
        return cls(
            str(path),
            tuple(
                Checkpoint(
                    str(path),
                    by_name[name].path.name,
                    step=name.step,
                    tokens=by_name[name].named.tokens,
                    stage=name.stage,
                    loss=by_name[name].loss,
                    run=name.run,
                    folder=by_name[name].path,
                    tokenizer=tokenizer,
                )
                for name in sorted(kept, key=training_order)
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
        """Models in memory, by the step that each has reached.

        Hooked models are used as they are. Plain Hugging Face models are read through ordinary
        forward hooks and never wrapped: parameters, attention and mode stay what they are.

        Args:
            models: Models by step.
            tokenizer: The tokenizer of plain models; a hooked model brings its own.
            name: What to call the series.
            tokens_per_step: Tokens in one step.

        Raises:
            ValueError: A step is no whole number from 0, a value is no model that can be read, or
                a plain model comes without a tokenizer.
        """
        for step, model in models.items():
            if not isinstance(step, int) or isinstance(step, bool) or step < 0:
                raise ValueError(f"Models go by their step, a whole number from 0, got {step!r}.")
            plain = is_plain_model(model)
            if not plain and not isinstance(model, HookedModel):
                raise ValueError(
                    f"Step {step} is a {type(model).__name__}. Allowed are hooked models from "
                    "TransformerLens and Hugging Face models."
                )
            if plain and tokenizer is None:
                raise ValueError(
                    f"The Hugging Face model of step {step} brings no tokenizer. Pass `tokenizer=`."
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
        """What orders the series: `"step"`, or `"tokens"` where only those are known."""
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
        """The checkpoints at some steps, chosen as in `from_hub`.

        Raises:
            ValueError: A step is not in the series.

        Examples:
            >>> series = CheckpointSeries.from_hub("LLM360/Amber", steps="all")
            >>> series.at([0, 179, 359])[-1].revision
            'main'
        """
        known = [step for step in self.steps if step is not None]
        chosen = set(choose_steps(known, steps, self.model))
        return replace(self, checkpoints=tuple(c for c in self.checkpoints if c.step in chosen))

    def loaded_with(
        self,
        *,
        device: str | torch.device | EllipsisType | None = ...,
        dtype: torch.dtype | EllipsisType = ...,
        backend: str | EllipsisType = ...,
        device_map: str | dict[str, Any] | EllipsisType | None = ...,
        trust_remote_code: bool | EllipsisType = ...,
    ) -> "CheckpointSeries":
        """The same series, whose checkpoints are to be loaded in another way.

        What is left out (`...`) stays as it is.

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
        """What a sweep would fetch: checkpoints, GB, and what is here already.

        Asks the hub for sizes and hashes, and downloads nothing. Checkpoints whose weights are the
        same are named.

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
            known = [value for value in values if value is not None]
            if known:
                parts.append(f"{label} {min(known)} to {max(known)}")
        for label in ("stage", "run"):
            named = dict.fromkeys(getattr(c, label) for c in self.checkpoints)
            if set(named) != {None}:
                parts.append(f"{label} {', '.join(map(str, named))}")
        if self.ignored:
            parts.append(f"ignored {', '.join(self.ignored)}")
        return f"CheckpointSeries({', '.join(parts)})"

    def _repr_html_(self) -> str:
        columns = {
            name: [getattr(checkpoint, name) for checkpoint in self.checkpoints]
            for name in ("name", "step", "tokens", "stage", "run", "loss")
        }
        # What is known of no checkpoint has no column.
        columns = {name: values for name, values in columns.items() if set(values) != {None}}
        rows: list[list[str] | None] = [
            [_cell(value) for value in row] for row in zip(*columns.values(), strict=True)
        ]
        n_hidden = 0
        if len(rows) > _SHOWN_ROWS:
            n_hidden = len(rows) - _SHOWN_ROWS + 1
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
