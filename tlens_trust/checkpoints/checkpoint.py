"""One checkpoint of a training run: where its weights are, and how to load them."""

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

# Properties that are computed once, from the hub's answer.
_PINNED = ("snapshot", "_hub_identity")


@dataclass(frozen=True, repr=False)
class Checkpoint:
    """Where one checkpoint's weights come from, and how far training had gone.

    Make one with `from_hub`, `from_directory` or a `CheckpointSeries`. Nothing is downloaded
    before it is needed.

    Attributes:
        model: Hub id, the folder that holds the series, or a label for a model in memory.
        revision: Branch, tag or commit on the hub; the folder's name on disk.
        step: Optimiser steps taken; None where unknown.
        tokens: Tokens seen; None where unknown.
        stage: Name of the training stage, or None.
        loss: Training loss in nats per token, or None.
        run: Seed or variant within the repository, or None.
        folder: The folder of the weights on disk; None on the hub and in memory.
        in_memory: The model itself; None on the hub and on disk.
        tokenizer: A tokenizer, or the name or folder of one, to use in place of the model's own.
        random_seed: Seed of weights that are drawn at random, as for `untrained`; None for the
            weights that were trained.
        loading: Device, number format and backend, which `loaded_with` changes. Two checkpoints
            may be equal and differ in it.
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
    # This and `loading` say how the weights are used, not which they are, so they are not compared.
    tokenizer: Any = field(default=None, compare=False)
    random_seed: int | None = None
    loading: Loading = field(default=Loading(), compare=False)

    @classmethod
    def from_hub(
        cls, model: str, *, revision: str | None = None, tokenizer: Any = None
    ) -> "Checkpoint":
        """Describe a checkpoint on the hub, without a download.

        Args:
            model: Model id, as `"LLM360/AmberChat"`.
            revision: Branch, tag or commit; None for the main branch. Step, tokens and stage are
                parsed from its name where it follows a known naming scheme.
            tokenizer: A tokenizer, or the name or folder of one, in place of the model's own.

        Examples:
            >>> Checkpoint.from_hub("EleutherAI/pythia-160m", revision="step1000")
            Checkpoint('pythia-160m@step1000', step=1000, tokens=2097152000)
        """
        family = find_family(model)
        revision_name = parse_revision(revision or "main", model)
        tokens = None
        if revision_name is not None:
            # The name rounds tokens to billions, so the family's exact count comes first.
            tokens = family.tokens_at(revision_name.step) if family is not None else None
            tokens = revision_name.tokens if tokens is None else tokens
        return cls(
            model,
            revision,
            step=None if revision_name is None else revision_name.step,
            tokens=tokens,
            stage=None if revision_name is None else revision_name.stage,
            run=None if revision_name is None else revision_name.run,
            tokenizer=tokenizer,
        )

    @classmethod
    def from_directory(cls, path: str | Path, *, tokenizer: Any = None) -> "Checkpoint":
        """Describe a checkpoint in a folder that a Hugging Face model was saved to.

        Args:
            path: The folder. Step, tokens and stage are parsed from its name where it follows a
                known naming scheme.
            tokenizer: A tokenizer, or the name or folder of one, where the folder has none.

        Raises:
            ValueError: The folder does not exist or holds no model.
        """
        folder = Path(path).expanduser()
        if not folder.is_dir():
            raise ValueError(f"No folder {str(path)!r}. Name one that a model was saved to.")
        # Absolute, since a path such as '.' has no name to parse.
        folder = folder.resolve()
        check_folder(folder)
        revision_name = parse_revision(folder.name)
        if revision_name is None:
            return cls(str(path), folder=folder, tokenizer=tokenizer)
        return cls(
            str(folder.parent),
            folder.name,
            step=revision_name.step,
            tokens=revision_name.tokens,
            stage=revision_name.stage,
            run=revision_name.run,
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
        """Describe the same architecture with random weights, as before training.

        The weights are drawn when the checkpoint is loaded, in the way that transformers
        initialises this architecture. Only `config.json` is needed, not the model's weights. The
        actual run may have been initialised at another scale, which `config.json` does not record.
        So prefer the published step 0 where there is one.

        Args:
            seed: Seed of the weights. The same seed gives the same weights with one release of
                torch and transformers.

        Returns:
            A checkpoint named `…@random0` after the seed. For a model in memory, the weights are
            drawn at once, with that model's settings, device and number format.

        Raises:
            ValueError: The model is in memory and was made by TransformerLens, which does not
                record how its weights are drawn.

        Examples:
            >>> Checkpoint.from_hub("EleutherAI/pythia-160m", revision="step1000").untrained()
            Checkpoint('pythia-160m@random0', step=0, tokens=0)
        """
        untrained = replace(self, step=0, tokens=0, stage=None, loss=None, random_seed=seed)
        if self.in_memory is None:
            return untrained
        from tlens_trust.checkpoints.loading import draw_weights

        model = self.in_memory
        model = model.model if isinstance(model, PlainModel) else model
        if not is_plain_model(model):
            raise ValueError(
                f"{self.name!r} is in memory and was made by TransformerLens, which does not "
                "record how its weights are drawn. Add an untrained model to the series as step 0."
            )
        weights = next(model.parameters())
        # A copy, since a model keeps the settings that it is made with and may change them.
        untrained_model = draw_weights(lambda: type(model)(copy.deepcopy(model.config)), seed=seed)
        return replace(untrained, in_memory=untrained_model.to(weights.device, weights.dtype))

    @property
    def identity(self) -> str:
        """A hash of the weights' content and the model's settings, in hexadecimal.

        Two checkpoints have the same identity only if their weights and settings are the same,
        whatever their names are.

        On the hub, the identity is computed from the SHA-256 of every weight file at the commit
        that `load` will use. The hub publishes these hashes, so nothing is downloaded. On disk, it
        is computed from the same hashes of the files, so a downloaded folder has the identity of
        its revision. A file is hashed again only when its size or time of change differs.

        In memory, it is a hash of the parameters' bytes, computed anew at each call, since the
        model may be in training. For random weights, it is a hash of the settings, the seed and
        the releases of torch and transformers.
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
        """The files that hold the weights, each with its SHA-256.

        Empty for a model in memory and for random weights.
        """
        if self.in_memory is not None or self.random_seed is not None:
            return ()
        return self.snapshot.weight_files() if self.folder is None else folder_files(self.folder)

    @cached_property
    def snapshot(self) -> Snapshot:
        """The files on the hub at this revision, pinned to a commit at the first use.

        Raises:
            ValueError: This checkpoint is not on the hub, or the hub does not have the revision.
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
        # Without the build, as in 2.13.0+cpu: weights are drawn on the CPU with every build.
        releases = [
            f"{name} {version(name).partition('+')[0]}" for name in ("torch", "transformers")
        ]
        # The seed is that of torch's generator, and another release may draw other weights from it.
        ingredients = ["random weights", str(self.random_seed), self._config_oid(), *releases]
        return hashlib.sha256("\0".join(ingredients).encode()).hexdigest()

    def loaded_with(
        self,
        *,
        device: str | torch.device | EllipsisType | None = ...,
        dtype: torch.dtype | EllipsisType = ...,
        backend: str | EllipsisType = ...,
        device_map: str | dict[str, Any] | EllipsisType | None = ...,
        trust_remote_code: bool | EllipsisType = ...,
    ) -> "Checkpoint":
        """Return the same checkpoint with other settings for loading.

        A setting that is left out (`...`) stays as it is.

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
                f"{self.name!r} is in memory and is used as it is, so it cannot be loaded in "
                "another way. Move or convert the model itself (`model.to(…)`), or save it and "
                "load it from the folder."
            )
        changes = {
            "device": device,
            "dtype": dtype,
            "backend": backend,
            "device_map": device_map,
            "trust_remote_code": trust_remote_code,
        }
        # `replace` takes the changes by name, so that mypy cannot check them; `Loading` does.
        changed_fields: dict[str, Any] = {
            k: value for k, value in changes.items() if value is not ...
        }
        checkpoint = replace(self, loading=replace(self.loading, **changed_fields))
        # The commit of a branch stays pinned: if the hub were asked again, the branch might have
        # moved, and the same checkpoint would have two identities.
        pinned_properties = {name: vars(self)[name] for name in _PINNED if name in vars(self)}
        vars(checkpoint).update(pinned_properties)
        return checkpoint

    def load(self) -> HookedModel:
        """Load the weights as a hooked model, unprocessed, with the settings in `loading`.

        A model in memory stays as and where it is. A hooked model is returned itself, and a plain
        Hugging Face model inside a `PlainModel`.

        Raises:
            ValueError: The backend cannot load this model, weights are missing or hold more than
                tensors, or there is no tokenizer.
        """
        from tlens_trust.checkpoints.loading import load_hooked_model

        if self.in_memory is not None:
            return self._loaded_in_memory()
        # For random weights, only the small files are downloaded.
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
        """Load the weights for the length of a `with`, and free their memory at its end.

        The model cannot be used after the `with`, even if a variable still refers to it. So two
        checkpoints are never in memory at the same time. A model in memory is left alone.
        """
        from tlens_trust.checkpoints.loading import release

        model = self.load()
        try:
            yield model
        finally:
            if self.in_memory is None:
                release(model)

    def load_tokenizer(self) -> Any:
        """Load the model's own tokenizer, as published, without the weights.

        It is looked for beside the weights, then in the folder that holds the series or on the
        repository's main branch.

        Raises:
            ValueError: There is no tokenizer in these places.
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
            tokenizer_place = tokenizer_folder(self.snapshot, self.revision)
        else:
            # One tokenizer in the folder above may serve all checkpoints of a run.
            places = (self.folder, self.folder.parent)
            tokenizer_place = next(
                (place for place in places if has_tokenizer(file.name for file in place.iterdir())),
                None,
            )
        if tokenizer_place is None:
            raise ValueError(
                f"No tokenizer with {self.name!r}. Save it beside the weights with "
                "`tokenizer.save_pretrained`, or pass `tokenizer=`."
            )
        return load_tokenizer(tokenizer_place, trust_remote_code=trust_remote_code)

    def load_config(self) -> Any:
        """Load the model's settings, as transformers has them, without the weights.

        For a model in memory, they are its own `config`, or its `cfg` if TransformerLens made it.
        """
        from tlens_trust.checkpoints.loading import load_config

        if self.in_memory is not None:
            model = self.in_memory
            return model.config if is_plain_model(model) else model.cfg
        folder = self._folder(weights=False)
        return load_config(folder, trust_remote_code=self.loading.trust_remote_code)

    def resolve_backend(self) -> str:
        """Return the backend that `load` would use, without loading the weights.

        Returns:
            `"hooked_transformer"`, `"bridge"`, or, for a model in memory, `"plain"` or
            `"in_memory"`.

        Raises:
            ValueError: `loading` names a backend that cannot load this model.
        """
        from tlens_trust.checkpoints.loading import choose_backend

        if self.in_memory is not None:
            # `is_plain_model` is False for a `PlainModel`, which has hook points.
            plain = isinstance(self.in_memory, PlainModel) or is_plain_model(self.in_memory)
            return "plain" if plain else "in_memory"
        return choose_backend(self.load_config(), model=self.model, loading=self.loading)

    @property
    def _short_model(self) -> str:
        if self.folder is not None:
            # With a revision, that is the folder's name, and the folder above is the series.
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
        properties = {
            "step": self.step,
            "tokens": self.tokens,
            "stage": self.stage,
            "run": self.run,
            "loss": self.loss,
        }
        known_properties = "".join(
            f", {key}={value!r}" for key, value in properties.items() if value is not None
        )
        return f"Checkpoint({self.name!r}{known_properties})"
