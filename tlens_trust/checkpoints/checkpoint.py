"""One set of weights on the way of a training run."""

import copy
import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from types import EllipsisType
from typing import Any

import torch

from tlens_trust.checkpoints.families import find_family, parse_revision
from tlens_trust.checkpoints.hooked_model import HookedModel
from tlens_trust.checkpoints.hub import Snapshot, describe, tokenizer_folder
from tlens_trust.checkpoints.loading_options import Loading
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.checkpoints.weights import (
    WeightFile,
    check_folder,
    files_identity,
    folder_files,
    git_oid,
    has_tokenizer,
    model_identity,
)

# Properties that are computed once, of the hub's answer.
_PINNED = ("snapshot", "_hub_identity")


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Where one checkpoint's weights come from, and how far training had gone.

    Made by `from_hub`, `from_directory` or a `CheckpointSeries`. Nothing is fetched before it is
    asked for.

    Attributes:
        model: Hub id, the folder that holds the series, or a label for a model in memory.
        revision: Branch, tag or commit on the hub; the folder's own name on disk.
        step: Optimiser steps taken; None where unknown.
        tokens: Tokens seen; None where unknown.
        stage: Which of several training stages, or None.
        loss: Training loss in nats a token, or None.
        run: Seed or variant within the repository, or None.
        folder: Where the weights lie on disk; None on the hub and in memory.
        in_memory: The model itself; None on the hub and on disk.
        tokenizer: A tokenizer, or the name or folder of one, to use in place of the model's own.
        random_seed: Of weights that are drawn at random, as `untrained` has them; None for the
            model's own.
        loading: Device, number format and backend, which `loaded_with` changes. No part of what
            makes two checkpoints equal.
    """

    model: str
    revision: str | None = None
    step: int | None = None
    tokens: int | None = None
    stage: str | None = None
    loss: float | None = None
    run: str | None = None
    folder: Path | None = None
    in_memory: Any = None
    tokenizer: Any = field(default=None, compare=False)
    random_seed: int | None = None
    loading: Loading = field(default=Loading(), compare=False)

    @classmethod
    def from_hub(
        cls, model: str, *, revision: str | None = None, tokenizer: Any = None
    ) -> "Checkpoint":
        """A checkpoint on the hub.

        Args:
            model: Model id, as `"LLM360/AmberChat"`.
            revision: Branch, tag or commit; None for the main branch. Step, tokens and stage are
                read from its name where the family is known or the name tells.
            tokenizer: A tokenizer, or the name or folder of one, in place of the model's own.

        Examples:
            >>> Checkpoint.from_hub("EleutherAI/pythia-160m", revision="step1000")
            Checkpoint('pythia-160m@step1000', step=1000, tokens=2097152000)
        """
        family = find_family(model)
        named = parse_revision(revision or "main", model)
        tokens = None
        if named is not None:
            tokens = family.tokens_at(named.step) if family is not None else None
            tokens = named.tokens if tokens is None else tokens
        return cls(
            model,
            revision,
            step=None if named is None else named.step,
            tokens=tokens,
            stage=None if named is None else named.stage,
            run=None if named is None else named.run,
            tokenizer=tokenizer,
        )

    @classmethod
    def from_directory(cls, path: str | Path, *, tokenizer: Any = None) -> "Checkpoint":
        """A checkpoint in a folder that a Hugging Face model was saved to.

        Args:
            path: The folder. Its step is read from its name where a naming scheme fits.
            tokenizer: A tokenizer, or the name or folder of one, where the folder has none.

        Raises:
            ValueError: There is no such folder, or no model in it.
        """
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ValueError(f"No folder {str(path)!r}. Name one that a model was saved to.")
        folder = folder.resolve()
        check_folder(folder)
        named = parse_revision(folder.name)
        if named is None:
            return cls(str(path), folder=folder, tokenizer=tokenizer)
        return cls(
            str(folder.parent),
            folder.name,
            step=named.step,
            tokens=named.tokens,
            stage=named.stage,
            run=named.run,
            folder=folder,
            tokenizer=tokenizer,
        )

    @property
    def name(self) -> str:
        """A short label, as `mini-pythia@step512`."""
        short = self._short_model
        if self.random_seed is not None:
            return f"{short}@random{self.random_seed}"
        return short if self.revision is None else f"{short}@{self.revision}"

    def untrained(self, *, seed: int = 0) -> "Checkpoint":
        """The same architecture with random weights, as it may have been before training.

        They are drawn when the checkpoint is loaded, as transformers draws them, by the settings
        in `config.json`: nothing but that is read of the model, and its own weights need not be
        there. What a training run began with may have been scaled in another way that its settings
        do not tell; where step 0 was published, that is to be preferred.

        Args:
            seed: Draws the weights. The same seed gives the same ones with one release of torch and
                transformers.

        Returns:
            A checkpoint named `…@random0` after the seed. Of a model in memory, which is drawn at
            once, its settings, device and number format are taken.

        Raises:
            ValueError: The model is in memory and TransformerLens made it, so that how to draw its
                weights is not known.

        Examples:
            >>> Checkpoint.from_hub("EleutherAI/pythia-160m", revision="step1000").untrained()
            Checkpoint('pythia-160m@random0', step=0, tokens=0)
        """
        changed = replace(self, step=0, tokens=0, stage=None, loss=None, random_seed=seed)
        if self.in_memory is None:
            return changed
        from tlens_trust.checkpoints.loading import draw_weights

        model = self.in_memory
        model = model.model if isinstance(model, PlainModel) else model
        if not is_plain_model(model):
            raise ValueError(
                f"{self.name!r} is in memory and was made by TransformerLens, which does not tell "
                "how its weights are drawn. Put an untrained model into the series as step 0."
            )
        weights = next(model.parameters())
        # A copy, since a model keeps the settings that it is made with and may change them.
        drawn = draw_weights(lambda: type(model)(copy.deepcopy(model.config)), seed=seed)
        return replace(changed, in_memory=drawn.to(weights.device, weights.dtype))

    @property
    def identity(self) -> str:
        """A hash of the weights' content and the model's settings, in hexadecimal.

        On the hub it comes from the SHA-256 that the hub keeps of every weight file, without a
        download, for the commit that `load` will read; on disk from the same hash of the files, so
        that a downloaded folder has the identity of its revision. A file is read again only when
        its size or time of change differ. In memory it is a hash of the parameters' bytes, taken
        anew each time, since the model may be in training.

        Two checkpoints share it only where their weights and settings are the same, whatever they
        are called. Of random weights it is a hash of settings, seed and the libraries' releases.
        """
        if self.in_memory is not None:
            model = self.in_memory
            return model_identity(model.model if isinstance(model, PlainModel) else model)
        if self.random_seed is not None:
            return self._random_identity()
        if self.folder is not None:
            return files_identity(folder_files(self.folder), self._config_oid())
        return self._hub_identity

    @property
    def weight_files(self) -> tuple[WeightFile, ...]:
        """The files that hold the weights, each with its SHA-256; empty where there are none.

        There are none of a model in memory, nor of random weights.
        """
        if self.in_memory is not None or self.random_seed is not None:
            return ()
        return self.snapshot.weight_files() if self.folder is None else folder_files(self.folder)

    @cached_property
    def snapshot(self) -> Snapshot:
        """What the hub has at this revision, pinned to a commit when first asked for.

        Raises:
            ValueError: This checkpoint is not on the hub, or the hub has no such revision.
        """
        if self.folder is not None or self.in_memory is not None:
            raise ValueError(f"{self.name!r} is not on the hub.")
        return describe(self.model, self.revision)

    @cached_property
    def _hub_identity(self) -> str:
        return files_identity(self.snapshot.weight_files(), self._config_oid())

    def _config_oid(self) -> str:
        """Git's hash of `config.json`."""
        if self.folder is None:
            return self.snapshot.config_oid()
        return git_oid((self.folder / "config.json").read_bytes())

    def _random_identity(self) -> str:
        releases = [
            f"{name} {version(name).partition('+')[0]}" for name in ("torch", "transformers")
        ]
        made_of = ["random weights", str(self.random_seed), self._config_oid(), *releases]
        return hashlib.sha256("\0".join(made_of).encode()).hexdigest()

    def loaded_with(
        self,
        *,
        device: str | torch.device | EllipsisType | None = ...,
        dtype: torch.dtype | EllipsisType = ...,
        backend: str | EllipsisType = ...,
        device_map: str | dict[str, Any] | EllipsisType | None = ...,
        trust_remote_code: bool | EllipsisType = ...,
    ) -> "Checkpoint":
        """The same checkpoint, to be loaded in another way.

        What is left out (`...`) stays as it is.

        Args:
            device: Torch device; None for a GPU where there is one, else the CPU.
            dtype: Number format of the weights.
            backend: `"auto"`, `"hooked_transformer"` or `"bridge"`, as `Loading` describes them.
            device_map: How transformers spreads a model that is larger than one device.
            trust_remote_code: Whether Python files that come with the model may run.

        Raises:
            ValueError: `Loading` refuses a value, or the model is in memory and loaded already.

        Examples:
            >>> checkpoint = Checkpoint.from_hub("EleutherAI/pythia-160m", revision="step1000")
            >>> checkpoint.loaded_with(dtype=torch.bfloat16).loading.dtype
            torch.bfloat16
        """
        if self.in_memory is not None:
            raise ValueError(
                f"{self.name!r} is in memory and is read as it is, so that it cannot be loaded in "
                "another way. Move or convert the model itself (`model.to(…)`), or save it and "
                "read it from the folder."
            )
        changes = {
            "device": device,
            "dtype": dtype,
            "backend": backend,
            "device_map": device_map,
            "trust_remote_code": trust_remote_code,
        }
        # `replace` takes the changes by name, so that mypy cannot check them; `Loading` does.
        given: dict[str, Any] = {k: value for k, value in changes.items() if value is not ...}
        changed = replace(self, loading=replace(self.loading, **given))
        # The commit that a branch was found to be at stays pinned: how it is loaded is no reason
        # to ask the hub again, where the branch may have moved.
        pinned = {name: vars(self)[name] for name in _PINNED if name in vars(self)}
        vars(changed).update(pinned)
        return changed

    def load(self) -> HookedModel:
        """Load the weights as a hooked model, unprocessed, as `loading` says.

        A model in memory stays as and where it is: a hooked one is given back, a plain Hugging
        Face one is read through a `PlainModel`.

        Raises:
            ValueError: The backend cannot load this model, weights are missing or hold more than
                tensors, or there is no tokenizer.
        """
        from tlens_trust.checkpoints.loading import load_hooked_model

        if self.in_memory is not None:
            return self._loaded_in_memory()
        has_own_weights = self.random_seed is None
        return load_hooked_model(
            self._folder(weights=has_own_weights),
            model=self.model if self.folder is None else self._short_model,
            tokenizer=self.load_tokenizer(),
            loading=self.loading,
            random_seed=self.random_seed,
        )

    @contextmanager
    def loaded(self) -> Iterator[HookedModel]:
        """Load the weights for the length of a `with`, and give their memory back.

        The model is gone after the `with`, even where a variable still
        names it, so that the next checkpoint is never loaded beside the last; a model in memory
        is left alone.
        """
        from tlens_trust.checkpoints.loading import release

        model = self.load()
        try:
            yield model
        finally:
            if self.in_memory is None:
                release(model)

    def load_tokenizer(self) -> Any:
        """The model's own tokenizer, as published, without loading the weights.

        It lies beside the weights; else in the folder that holds the series, or on the
        repository's main branch.

        Raises:
            ValueError: There is none.
        """
        from tlens_trust.checkpoints.loading import load_tokenizer

        trust_remote_code = self.loading.trust_remote_code
        if self.tokenizer is not None:
            if isinstance(self.tokenizer, str | Path):
                return load_tokenizer(self.tokenizer, trust_remote_code=trust_remote_code)
            return self.tokenizer
        if self.in_memory is not None:
            return getattr(self.in_memory, "tokenizer", None)
        if self.folder is None:
            found = tokenizer_folder(self.snapshot, self.revision)
        else:
            places = (self.folder, self.folder.parent)
            found = next((p for p in places if has_tokenizer(f.name for f in p.iterdir())), None)
        if found is None:
            raise ValueError(
                f"No tokenizer with {self.name!r}. Save it beside the weights with "
                "`tokenizer.save_pretrained`, or pass `tokenizer=`."
            )
        return load_tokenizer(found, trust_remote_code=trust_remote_code)

    def load_config(self) -> Any:
        """The model's settings, from transformers, without loading the weights.

        For a model in memory its own `config`, or `cfg` where TransformerLens made it.
        """
        from tlens_trust.checkpoints.loading import load_config

        if self.in_memory is not None:
            model = self.in_memory
            return model.config if is_plain_model(model) else model.cfg
        folder = self._folder(weights=False)
        return load_config(folder, trust_remote_code=self.loading.trust_remote_code)

    def resolve_backend(self) -> str:
        """The backend that `load` would take, without loading the weights.

        Returns:
            `"hooked_transformer"`, `"bridge"`, or, for a model in memory, `"plain"` or
            `"in_memory"`.

        Raises:
            ValueError: `loading` names a backend that cannot load this model.
        """
        from tlens_trust.checkpoints.loading import choose_backend

        if self.in_memory is not None:
            plain = isinstance(self.in_memory, PlainModel) or is_plain_model(self.in_memory)
            return "plain" if plain else "in_memory"
        return choose_backend(self.load_config(), model=self.model, loading=self.loading)

    @property
    def _short_model(self) -> str:
        if self.folder is not None:
            return self.folder.name if self.revision is None else self.folder.parent.name
        return self.model.rpartition("/")[2] if self.in_memory is None else self.model

    def _folder(self, *, weights: bool = True) -> Path:
        if self.folder is not None:
            return self.folder
        remote_code = self.loading.trust_remote_code
        return self.snapshot.fetch(self.revision, weights=weights, remote_code=remote_code)

    def _loaded_in_memory(self) -> HookedModel:
        model = self.in_memory
        if is_plain_model(model):
            return PlainModel(model, self.load_tokenizer(), name=self.model)
        hooked: HookedModel = model
        return hooked

    def __repr__(self) -> str:
        known = {
            "step": self.step,
            "tokens": self.tokens,
            "stage": self.stage,
            "run": self.run,
            "loss": self.loss,
        }
        said = "".join(f", {key}={value!r}" for key, value in known.items() if value is not None)
        return f"Checkpoint({self.name!r}{said})"
