"""The model to read: one that is loaded already, or a checkpoint that may have to be loaded."""

import hashlib
from importlib.metadata import version
from types import TracebackType
from typing import Any

from tlens_trust.activations.activations import checkpoint_name
from tlens_trust.activations.forward_pass import attached_hooks, wrapped_model
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import ReadingOptions
from tlens_trust.activations.sites import ModelShape, resolve_sites
from tlens_trust.activations.store import ActivationKey
from tlens_trust.activations.tokens import tokenizer_identity
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.checkpoints.loading import release
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.checkpoints.weights import has_tokenizer, needed_names
from tlens_trust.concepts import Concept
from tlens_trust.concepts.concept import statements_fingerprint


class ModelSource:
    """A model to read, which is loaded only when it is needed.

    Use it in a `with`, which releases a checkpoint that was loaded here.

    Attributes:
        checkpoint: The checkpoint of the weights; None where unknown.
        label: Name of the model in an error.

    Raises:
        ValueError: `model` is neither a hooked model, a Hugging Face model nor a Checkpoint.
    """

    def __init__(
        self,
        model: object,
        *,
        checkpoint: Checkpoint | None = None,
        tokenizer: Any = None,
    ) -> None:
        self._tokenizer = tokenizer
        self._model: HookedModel | None = None
        self._to_load: Checkpoint | None = None
        self.checkpoint = checkpoint
        if isinstance(model, Checkpoint):
            # The same checkpoint given twice does no harm.
            if checkpoint is not None and checkpoint != model:
                raise ValueError(
                    f"`checkpoint` says where a model that is passed in came from, and `model` is "
                    f"a Checkpoint itself: {checkpoint_name(model)}. Leave `checkpoint` out."
                )
            self.checkpoint = model
            if model.in_memory is None:
                self._to_load = model
            else:
                self._model = model.load()
                if model.tokenizer is not None:
                    self._tokenizer = self._tokenizer or model.load_tokenizer()
        elif is_plain_model(model):
            self._model = PlainModel(model, tokenizer)  # type: ignore[arg-type]
        elif isinstance(model, HookedModel):
            self._model = model
        else:
            raise ValueError(
                f"`model` must be a hooked model from TransformerLens, a Hugging Face model or a "
                f"Checkpoint, got a {type(model).__name__}."
            )

    @property
    def label(self) -> str:
        """Name of the model in an error."""
        if self.checkpoint is not None:
            return checkpoint_name(self.checkpoint)
        return repr(str(getattr(self.model.cfg, "model_name", None) or type(self.model).__name__))

    @property
    def model(self) -> HookedModel:
        """The hooked model, which is loaded at the first use."""
        if self._model is None:
            assert self._to_load is not None
            self._model = self._to_load.load()
        return self._model

    @property
    def tokenizer(self) -> Any:
        """The tokenizer, which does not need a checkpoint's weights.

        Raises:
            ValueError: The model has no tokenizer.
        """
        if self._tokenizer is None:
            if self._to_load is None:
                self._tokenizer = own_tokenizer(self.model)
            else:
                self._tokenizer = self._to_load.load_tokenizer()
        if self._tokenizer is None:
            raise ValueError(
                f"{self.label} has no tokenizer. Pass the one it was trained with as `tokenizer=`."
            )
        return self._tokenizer

    def bos(self, bos: bool | None, *, tokenizer_given: bool) -> bool | None:
        """Decide on a beginning-of-sequence token; None leaves it to the tokenizer."""
        # The setting of a tokenizer that was passed in or published holds. Only a model that the
        # user built with TransformerLens has another one.
        if bos is not None or tokenizer_given or self._to_load is not None:
            return bos
        return own_bos(self.model)

    def key(self, statements: str, *, bos: bool | None, position: Position) -> ActivationKey:
        """Make the key under which a store keeps activations of these weights.

        Args:
            statements: Fingerprint of the texts.
            bos: The result of `bos`.
            position: The result of `checked_position`.

        Raises:
            ValueError: The model has hooks, so it may not compute what its checkpoint does.
        """
        assert self.checkpoint is not None
        # A model that is loaded here carries no hooks of the user's.
        if self._to_load is None:
            hooks = attached_hooks(self.model)
            if hooks:
                raise ValueError(
                    f"A function is hooked to {hooks[0]!r}, so {self.label} may not compute what "
                    "its checkpoint does, and a store must not keep its activations as the "
                    "checkpoint's. Leave the `with` that attached it, or pass store=None."
                )
        return ActivationKey(
            checkpoint=self.checkpoint.identity,
            tokenizer=self._tokenizer_identity(),
            bos=bos,
            backend=self._backend(),
            dtype=self._dtype(),
            position=position,
            statements=statements,
        )

    def _backend(self) -> str:
        lens = f"transformer-lens {version('transformer-lens')}"
        transformers = f"transformers {version('transformers')}"
        if self._to_load is not None:
            # The bridge loads every architecture, so config.json is not needed.
            backend = self._to_load.loading.backend
            if backend != "bridge":
                backend = self._to_load.resolve_backend()
            return f"{backend}, {lens}, {transformers}"
        if isinstance(self.model, PlainModel):
            # TransformerLens takes no part, so its release does not matter.
            return f"plain, {transformers}"
        backend = "hooked_transformer" if wrapped_model(self.model) is None else "bridge"
        return f"{backend}, {lens}, {transformers}"

    def _dtype(self) -> str:
        if self._to_load is not None:
            return str(self._to_load.loading.dtype)
        return str(getattr(self.model.cfg, "dtype", None))

    def __enter__(self) -> "ModelSource":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._to_load is not None and self._model is not None:
            release(self._model)
            self._model = None

    def _tokenizer_identity(self) -> str:
        if self._to_load is None or self._tokenizer is not None:
            return tokenizer_identity(self.tokenizer)
        # A sweep needs the identity at every checkpoint, and loading a tokenizer takes longer than
        # loading the activations from the store. So identities are kept by the tokenizer's files.
        files = _tokenizer_files(self._to_load)
        if files is None:
            return tokenizer_identity(self.tokenizer)
        if files not in _TOKENIZER_IDENTITIES:
            _TOKENIZER_IDENTITIES[files] = tokenizer_identity(self.tokenizer)
        return _TOKENIZER_IDENTITIES[files]


def is_stored(checkpoint: Checkpoint, concept: Concept, options: ReadingOptions) -> bool:
    """Whether the store holds the activations, so the model need not be loaded."""
    store = options.activation_store
    if store is None:
        return False
    with ModelSource(checkpoint) as source:
        fingerprint = statements_fingerprint(concept.statements)
        key = source.key(fingerprint, bos=options.bos, position=options.position)
        facts = store.facts(key)
        if facts is None:
            return False
        # Reading checks the values' hashes: a torn file counts as missing.
        sites = resolve_sites(ModelShape(name=source.label, **facts), options.sites)
        return len(store.read(key, sites)) == len(sites)


_TOKENIZER_IDENTITIES: dict[str, str] = {}


def _tokenizer_files(checkpoint: Checkpoint) -> str | None:
    """Describe the files that a checkpoint's tokenizer is loaded from; None where unknown."""
    if checkpoint.tokenizer is not None:
        return None
    if checkpoint.folder is None:
        # Python files count, since one of them may define the tokenizer.
        files = checkpoint.snapshot.needed(weights=False, remote_code=True)
        if not has_tokenizer(file.name for file in files):
            return None
        rows = [(file.name, file.sha256 or file.oid) for file in files]
    else:
        for folder in (checkpoint.folder, checkpoint.folder.parent):
            names = [path.name for path in folder.iterdir()]
            if has_tokenizer(names):
                break
        else:
            return None
        rows = [
            (name, hashlib.sha256((folder / name).read_bytes()).hexdigest())
            for name in needed_names(names, weights=False, remote_code=True)
        ]
    # These two files change along a series and do not affect the tokenizer.
    irrelevant = ("trainer_state.json", "generation_config.json")
    return repr(sorted(row for row in rows if row[0] not in irrelevant))
