"""Collects activations of statements, for users and for a sweep.

One pass over a checkpoint serves every list of statements. The model is loaded once, and only if
the store lacks some of the activations.
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
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel
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
    """Collect a model's activations for statements.

    Every statement passes through the blocks once, whatever the number of sites. Batches hold
    statements of similar length, and the unembedding is not computed. The activations depend on the
    statement alone: batching and padding change them by less than 1e-4 of their size (in float32).

    Args:
        model: A hooked model, a plain Hugging Face model, or a `Checkpoint`, which is loaded if
            the store lacks some of the activations. A plain model needs a `tokenizer`. It is read
            through forward hooks and not changed.
        statements: A concept, or texts.
        sites: The sites to read: `"resid_post"` (after every block), `"resid_pre"`, `"resid_mid"`,
            `"attn_out"`, `"mlp_out"`, `"z"` (every head), layer numbers, hook names, or a sequence
            of these. `tlens_trust.activations.sites.resolve_sites` describes them.
        position: The token to read: `"last"`, `"mean"` over all tokens, a number (negative from the
            end), or a span `(start, stop)`, whose mean is read. Special tokens that the tokenizer
            adds are not counted: token 0 is the statement's first, with or without a
            beginning-of-sequence token before it.
        bos: Whether a beginning-of-sequence token stands before each statement. None follows the
            tokenizer's own setting, with which the model was trained.
        tokenizer: A tokenizer from transformers; None for the model's own.
        batch_tokens: Tokens in one batch, padding included. Halved when memory runs out.
        padding_side: `"right"` or `"left"`.
        checkpoint: The checkpoint of the weights, for a model that is passed in.
        store: Where activations are kept; None keeps none.
        device: Torch device that a `Checkpoint` is loaded on; None for the GPU where there is one.
            The default (`...`) is the device in `checkpoint.loading`. `checkpoint.loaded_with`
            changes the other settings for loading.
        dtype: Number format that a `Checkpoint` is loaded in.
        progress: Whether to show a progress bar.

    Returns:
        Activations in float32 on the CPU, in the order of the statements.

    Raises:
        ValueError: A site is unknown, a statement is empty or too long for the model's context, a
            position is outside a statement, or an activation is not finite. Or `store` is given for
            a model without a checkpoint, or another argument is out of its range. Arguments are
            checked even if the store holds all of the activations.

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
                "`device` and `dtype` are settings for loading a Checkpoint, and `model` is a "
                f"{type(model).__name__}, which is loaded already. Leave them out, and move or "
                "convert the model itself."
            )
        model = model.loaded_with(device=device, dtype=dtype)
    options = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    (activations,) = collect_concepts(
        model,
        [statements],
        options,
        tokenizer=tokenizer,
        padding_side=padding_side,
        checkpoint=checkpoint,
        progress=progress,
    )
    return activations


def collect_concepts(
    model: HookedModel | nn.Module | Checkpoint,
    statement_lists: Iterable[Concept | Sequence[str]] | Mapping[str, Concept],
    options: ReadingOptions,
    *,
    tokenizer: Any = None,
    padding_side: str = "right",
    checkpoint: Checkpoint | None = None,
    progress: bool = False,
) -> Iterator[Activations]:
    """Collect the activations of several concepts in one pass over a checkpoint.

    A checkpoint is loaded at the first list that the store lacks. It stays loaded for all lists
    that follow, and its memory is freed at the end. Lists of the same statements are read once.

    The activations of one list depend on that list alone, bit for bit at one batch budget. Neither
    the other lists nor the contents of the store change the batches.

    Args:
        model: A hooked model, a plain Hugging Face model, or a `Checkpoint`.
        statement_lists: Concepts, or lists of texts; or a mapping of concepts by name.
        options: Sites, position, batch budget and store.
        tokenizer: A tokenizer from transformers; None for the model's own.
        padding_side: `"right"` or `"left"`.
        checkpoint: The checkpoint of the weights, for a model that is passed in.
        progress: Whether to show a progress bar for each list.

    Yields:
        The activations of each list, in order.

    Raises:
        ValueError: As `collect_activations` does.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"`padding_side` must be 'left' or 'right', got {padding_side!r}.")
    if isinstance(statement_lists, Mapping):
        statement_lists = statement_lists.values()
    lists = [_checked_list(statements) for statements in statement_lists]
    source = ModelSource(model, checkpoint=checkpoint, tokenizer=tokenizer)
    if options.store is not None and source.checkpoint is None:
        raise ValueError(
            "`store` keeps activations by the weights' identity, and a model that is passed in has "
            "none. Pass `checkpoint=` as well, or the Checkpoint itself, or store=None."
        )
    bos = source.bos(options.bos, tokenizer_given=tokenizer is not None)
    # A generator of its own, so that arguments are checked at the call and not at the first item.
    return _collect(
        source,
        lists,
        replace(options, bos=bos),
        padding_side=padding_side,
        progress=progress,
    )


def _collect(
    source: ModelSource,
    lists: Sequence[tuple[tuple[str, ...], Concept | None]],
    options: ReadingOptions,
    *,
    padding_side: str,
    progress: bool,
) -> Iterator[Activations]:
    fingerprints = [statements_fingerprint(texts) for texts, _ in lists]
    with source:
        repeated_lists: dict[str, _ListValues] = {}
        for number, (texts, concept) in enumerate(lists):
            fingerprint = fingerprints[number]
            list_values = repeated_lists.get(fingerprint) or _read_list(
                source,
                texts,
                fingerprint,
                options,
                padding_side=padding_side,
                progress=progress,
            )
            # Values are held only as long as a later list needs them, since they may be large.
            if fingerprint in fingerprints[number + 1 :]:
                repeated_lists[fingerprint] = list_values
            else:
                repeated_lists.pop(fingerprint, None)
            activations = Activations(
                values=rearrange(
                    list_values.values, "site example d_model -> example site d_model"
                ),
                sites=list_values.sites,
                checkpoint=source.checkpoint,
                concept=concept,
                position=options.position,
                n_layers=list_values.n_layers,
            )
            del list_values  # so that only the caller refers to the values, and can free them
            yield activations
            del activations


class _ListValues(NamedTuple):
    sites: tuple[str, ...]
    n_layers: int
    values: Float[Tensor, "site example d_model"]


def _read_list(
    source: ModelSource,
    texts: tuple[str, ...],
    fingerprint: str,
    options: ReadingOptions,
    *,
    padding_side: str,
    progress: bool,
) -> _ListValues:
    store = options.activation_store
    stored: dict[str, Tensor] = {}
    key = None
    if store is not None:
        key = source.key(fingerprint, bos=options.bos, position=options.position)
        facts = store.facts(key)
        if facts is not None:
            # The stored shape resolves site names, so the model need not be loaded.
            shape = ModelShape(name=source.label, **facts)
            site_names = resolve_sites(shape, options.sites)
            stored = store.read(key, site_names)
            if len(stored) == len(site_names):
                return _ListValues(site_names, shape.n_layers, _stacked(stored, site_names, source))
    shape = ModelShape.of(source.model)
    site_names = resolve_sites(shape, options.sites)
    # Only the sites differ with what is stored. Batches are made of all statements, so that the
    # store does not change a bit of the result.
    missing_names = tuple(site for site in site_names if site not in stored)
    unique_texts = list(dict.fromkeys(texts))
    cfg: Any = source.model.cfg
    # Reversed, so that a repeated text keeps the number of its first occurrence.
    first_number = {text: index for index, text in reversed(list(enumerate(texts)))}

    def describe(row: int) -> str:
        return quoted(first_number[unique_texts[row]], unique_texts[row])

    tokenised = tokenise_statements(
        source.tokenizer,
        unique_texts,
        numbers=[first_number[text] for text in unique_texts],
        bos=options.bos,
        n_ctx=getattr(cfg, "n_ctx", None),
        d_vocab=getattr(cfg, "d_vocab", None),
    )
    with _bar(progress, len(unique_texts), source.label) as advance:
        values = read_statements(
            source.model,
            tokenised,
            sites=missing_names,
            position=options.position,
            batch_tokens=options.batch_tokens,
            padding_side=padding_side,
            describe=describe,
            source=source.label,
            advance=advance,
        )
    if len(unique_texts) < len(texts):
        row = {text: index for index, text in enumerate(unique_texts)}
        # The store and the caller get a row for every statement, repeats included.
        values = values[:, [row[text] for text in texts]]
    values_by_site = dict(zip(missing_names, values, strict=True))
    if store is not None and key is not None:
        facts = {"n_layers": shape.n_layers, "n_heads": shape.n_heads}
        store.write(key, values_by_site, facts=facts)
    if not stored:
        return _ListValues(site_names, shape.n_layers, values)
    return _ListValues(
        site_names, shape.n_layers, _stacked(stored | values_by_site, site_names, source)
    )


def _stacked(
    values_by_site: dict[str, Tensor], sites: tuple[str, ...], source: ModelSource
) -> Float[Tensor, "site example d_model"]:
    check_one_width({site: values_by_site[site].shape[-1] for site in sites}, source.label)
    return torch.stack([values_by_site[site] for site in sites])


def _checked_list(
    statements: Concept | Sequence[str],
) -> tuple[tuple[str, ...], Concept | None]:
    if isinstance(statements, Concept):
        return statements.statements, statements
    if isinstance(statements, str):
        raise ValueError(
            f"`statements` must be a sequence of texts, got one text: {statements[:60]!r}. Put it "
            "in a list."
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
