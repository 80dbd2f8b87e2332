"""From statements to activations: what a user calls, and what a sweep calls.

One pass over a checkpoint serves every list of statements: the model is loaded once, and only
when something is asked for that the store does not hold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from types import EllipsisType
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tlens_trust.activations.activations import Activations
from tlens_trust.activations.model_source import ModelSource
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading import check_one_width, read_statements
from tlens_trust.activations.reading_options import (
    DEFAULT_BATCH_TOKENS,
    ReadingOptions,
    Sites,
    Store,
)
from tlens_trust.activations.sites import ModelShape, resolve_sites
from tlens_trust.activations.tokens import quoted, tokenise_statements
from tlens_trust.checkpoints import Checkpoint, HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.concepts.concept import statements_fingerprint


def collect_activations(
    model: HookedModel | nn.Module | Checkpoint,
    statements: Concept | Sequence[str],
    *,
    sites: Sites = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    tokenizer: Any = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    padding_side: str = "right",
    checkpoint: Checkpoint | None = None,
    store: Store = None,
    device: str | torch.device | EllipsisType | None = ...,
    dtype: torch.dtype | EllipsisType = ...,
    progress: bool = False,
) -> Activations:
    """Read what a model represents while it reads statements.

    Every statement passes through the blocks once, whatever the number of sites, in batches of
    like length; the unembedding is not computed. What is read depends on the statement alone:
    how it is batched and padded moves a reading by less than 1e-4 of its size (in float32).

    Args:
        model: A hooked model, a plain Hugging Face model (then `tokenizer` is needed; it is read
            through forward hooks and left as it is), or a `Checkpoint`, which is loaded if the
            store lacks anything.
        statements: A concept, or texts.
        sites: Where to read, as `resolve_sites` takes it.
        position: Which of the statement's own tokens to read. `"last"`; `"mean"` over all of
            them; a number, negative from the end; or a span `(start, stop)`, whose mean is read.
            Special tokens that the tokenizer puts around the statement are read by the model but
            not counted: token 0 is the statement's first, with or without a
            beginning-of-sequence token before it.
        bos: Whether a beginning-of-sequence token stands before each statement. None follows the
            tokenizer's own setting, as the model was trained.
        tokenizer: A tokenizer from transformers; None for the model's own.
        batch_tokens: Tokens read at once, padding included. Halved when memory runs out.
        padding_side: `"right"` or `"left"`.
        checkpoint: Where the weights of a model that is passed in came from.
        store: Where readings are kept; None keeps none.
        device: Torch device that a `Checkpoint` is loaded on; None for the GPU where there is one.
            What is left out (`...`) is as `checkpoint.loading` says; other ways of loading are
            set with `checkpoint.loaded_with`.
        dtype: Number format that a `Checkpoint` is loaded in.
        progress: Whether to show a bar.

    Returns:
        Readings in float32 on the CPU, in the statements' own order.

    Raises:
        ValueError: A site is unknown, a statement is empty or too long for the model's context,
            a position lies outside a statement, a reading is not finite, the store is given
            without a checkpoint to name the weights by, or `batch_tokens`, `device` or `dtype` is
            none that anything could be read with (the store may hold what is asked for or not).

    Examples:
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "true": 1}, unk_token="[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=2, n_layer=2, n_embd=16, n_head=2))
        >>> collect_activations(model, ["true", "false"], tokenizer=tokenizer)
        Activations(2 statements × 2 sites × 16 wide, blocks.0.hook_resid_post …
        blocks.1.hook_resid_post, position 'last')
    """
    if device is not ... or dtype is not ...:
        if not isinstance(model, Checkpoint):
            raise ValueError(
                "`device` and `dtype` say how a Checkpoint is loaded, and `model` is a "
                f"{type(model).__name__}, which is loaded already. Leave them out, and move or "
                "convert the model itself."
            )
        model = model.loaded_with(device=device, dtype=dtype)
    reading = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    (activations,) = collect_concepts(
        model,
        [statements],
        reading,
        tokenizer=tokenizer,
        padding_side=padding_side,
        checkpoint=checkpoint,
        progress=progress,
    )
    return activations


def collect_concepts(
    model: HookedModel | nn.Module | Checkpoint,
    statement_lists: Iterable[Concept | Sequence[str]] | Mapping[str, Concept],
    reading: ReadingOptions,
    *,
    tokenizer: Any = None,
    padding_side: str = "right",
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> Iterator[Activations]:
    """Read several concepts in one pass over a checkpoint, one after the other.

    A checkpoint is loaded when the first list comes that the store lacks. It serves all lists that
    follow, and its memory is given back at the end. The activations of one list depend on that list
    alone, bit for bit at one batch budget: what else is read, and what the store holds already,
    changes no batch. Lists of the same statements are read once.

    Args:
        model: A hooked model, a plain Hugging Face model, or a `Checkpoint`.
        statement_lists: Concepts, or lists of texts; or a mapping of concepts by name.
        reading: Sites, position and the like.
        tokenizer: A tokenizer from transformers; None for the model's own.
        padding_side: `"right"` or `"left"`.
        checkpoint: Where the weights of a model that is passed in came from.
        progress: Whether to show a bar for each list.

    Yields:
        The activations of each list, in order.

    Raises:
        ValueError: As `collect_activations` does.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"`padding_side` is 'left' or 'right', got {padding_side!r}.")
    if isinstance(statement_lists, Mapping):
        statement_lists = statement_lists.values()
    lists = [_checked_list(statements) for statements in statement_lists]
    source = ModelSource(model, checkpoint=checkpoint, tokenizer=tokenizer)
    if reading.store is not None and source.checkpoint is None:
        raise ValueError(
            "`store` keeps readings by the weights' identity, and a model that is passed in has "
            "none. Pass `checkpoint=` as well, or the Checkpoint itself, or store=None."
        )
    bos = source.bos(reading.bos, tokenizer_given=tokenizer is not None)
    return _collect(
        source,
        lists,
        replace(reading, bos=bos),
        padding_side=padding_side,
        progress=progress,
    )


def _collect(
    source: ModelSource,
    lists: Sequence[tuple[tuple[str, ...], Concept | None]],
    reading: ReadingOptions,
    *,
    padding_side: str,
    progress: bool,
) -> Iterator[Activations]:
    fingerprints = [statements_fingerprint(texts) for texts, _ in lists]
    with source:
        shared: dict[str, _Read] = {}
        for number, (texts, concept) in enumerate(lists):
            fingerprint = fingerprints[number]
            read = shared.get(fingerprint) or _read_list(
                source,
                texts,
                fingerprint,
                reading,
                padding_side=padding_side,
                progress=progress,
            )
            if fingerprint in fingerprints[number + 1 :]:
                shared[fingerprint] = read
            else:
                shared.pop(fingerprint, None)
            result = Activations(
                values=rearrange(read.values, "site example d_model -> example site d_model"),
                sites=read.sites,
                checkpoint=source.checkpoint,
                concept=concept,
                position=reading.position,
                n_layers=read.n_layers,
            )
            del read  # what is yielded is the caller's alone
            yield result
            del result


class _Read(NamedTuple):
    sites: tuple[str, ...]
    n_layers: int
    values: Float[Tensor, "site example d_model"]


def _read_list(
    source: ModelSource,
    texts: tuple[str, ...],
    fingerprint: str,
    reading: ReadingOptions,
    *,
    padding_side: str,
    progress: bool,
) -> _Read:
    store = reading.activation_store
    found: dict[str, Tensor] = {}
    key = None
    if store is not None:
        key = source.key(fingerprint, bos=reading.bos, position=reading.position)
        facts = store.facts(key)
        if facts is not None:
            shape = ModelShape(name=source.label, **facts)
            wanted = resolve_sites(shape, reading.sites)
            found = store.read(key, wanted)
            if len(found) == len(wanted):
                return _Read(wanted, shape.n_layers, _stacked(found, wanted, source))
    shape = ModelShape.of(source.model)
    wanted = resolve_sites(shape, reading.sites)
    missing = tuple(site for site in wanted if site not in found)
    unique = list(dict.fromkeys(texts))
    cfg: Any = source.model.cfg
    number = {text: index for index, text in reversed(list(enumerate(texts)))}

    def describe(row: int) -> str:
        return quoted(number[unique[row]], unique[row])

    tokenised = tokenise_statements(
        source.tokenizer,
        unique,
        numbers=[number[text] for text in unique],
        bos=reading.bos,
        n_ctx=getattr(cfg, "n_ctx", None),
        d_vocab=getattr(cfg, "d_vocab", None),
    )
    with _bar(progress, len(unique), source.label) as advance:
        values = read_statements(
            source.model,
            tokenised,
            sites=missing,
            position=reading.position,
            batch_tokens=reading.batch_tokens,
            padding_side=padding_side,
            describe=describe,
            source=source.label,
            advance=advance,
        )
    if len(unique) < len(texts):
        row = {text: index for index, text in enumerate(unique)}
        values = values[:, [row[text] for text in texts]]
    read = dict(zip(missing, values, strict=True))
    if store is not None and key is not None:
        facts = {"n_layers": shape.n_layers, "n_heads": shape.n_heads}
        store.write(key, read, facts=facts)
    if not found:
        return _Read(wanted, shape.n_layers, values)
    return _Read(wanted, shape.n_layers, _stacked(found | read, wanted, source))


def _stacked(
    readings: dict[str, Tensor], sites: tuple[str, ...], source: ModelSource
) -> Float[Tensor, "site example d_model"]:
    check_one_width({site: readings[site].shape[-1] for site in sites}, source.label)
    return torch.stack([readings[site] for site in sites])


def _checked_list(
    statements: Concept | Sequence[str],
) -> tuple[tuple[str, ...], Concept | None]:
    if isinstance(statements, Concept):
        return statements.statements, statements
    if isinstance(statements, str):
        raise ValueError(
            f"`statements` is a sequence of texts, got one text: {statements[:60]!r}. Put it in "
            "a list."
        )
    texts = tuple(statements)
    if not texts:
        raise ValueError("`statements` is empty. Pass at least one text.")
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(
                f"Statements are texts, got {text!r} of type {type(text).__name__} as number "
                f"{index}. Pass a Concept or a sequence of str."
            )
    return texts, None


@contextmanager
def _bar(progress: bool, total: int, label: str) -> Iterator[Callable[[int], object]]:
    if not progress:
        yield lambda n: None
        return
    from tqdm.auto import tqdm

    with tqdm(total=total, desc=label, unit="statement", leave=False) as bar:
        yield bar.update
