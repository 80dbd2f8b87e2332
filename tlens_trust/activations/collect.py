"""From statements to activations: what a user calls, and what a sweep calls.

One pass over a checkpoint serves every list of statements: the model is loaded once, and only
when something is asked for that the store does not hold.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tlens_trust.activations.activations import Activations
from tlens_trust.activations.arguments import check_reading, checked_sites
from tlens_trust.activations.positions import Position, checked_position
from tlens_trust.activations.reading import check_one_width, read_statements
from tlens_trust.activations.sites import ModelShape, resolve_sites
from tlens_trust.activations.source import Source
from tlens_trust.activations.store import ActivationStore
from tlens_trust.activations.tokens import quoted, tokenise_statements
from tlens_trust.checkpoints import Checkpoint, HookedModel
from tlens_trust.concepts import Concept
from tlens_trust.concepts.concept import statements_fingerprint

DEFAULT_BATCH_TOKENS = 4096


def collect_activations(
    model: HookedModel | nn.Module | Checkpoint,
    statements: Concept | Sequence[str],
    *,
    sites: str | int | Sequence[str | int] = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    tokenizer: Any = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    padding_side: str = "right",
    checkpoint: Checkpoint | None = None,
    store: ActivationStore | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
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
        device: Where to load a `Checkpoint`; None for the GPU where there is one.
        dtype: What a `Checkpoint` is loaded in.
        backend: What runs a `Checkpoint`: `"auto"`, `"hooked_transformer"` or `"bridge"`.
        device_map: How a `Checkpoint` too large for one device is spread.
        trust_remote_code: Whether a `Checkpoint` may bring its own code.
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
    (activations,) = collect_each(
        model,
        [statements],
        sites=sites,
        position=position,
        bos=bos,
        tokenizer=tokenizer,
        batch_tokens=batch_tokens,
        padding_side=padding_side,
        checkpoint=checkpoint,
        store=store,
        device=device,
        dtype=dtype,
        backend=backend,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
        progress=progress,
    )
    return activations


def collect_each(
    model: HookedModel | nn.Module | Checkpoint,
    statement_lists: Iterable[Concept | Sequence[str]] | Mapping[str, Concept],
    *,
    sites: str | int | Sequence[str | int] = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    tokenizer: Any = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    padding_side: str = "right",
    checkpoint: Checkpoint | None = None,
    store: ActivationStore | None = None,
    device: str | torch.device | None = None,
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
    device_map: Any = None,
    trust_remote_code: bool = False,
    progress: bool = False,
) -> Iterator[Activations]:
    """Read several concepts in one pass over a checkpoint, one after the other.

    A checkpoint is loaded when the first list is come upon that the store lacks, serves all that
    follow, and is let go of at the end. Readings of one list are a function of that list alone,
    bit for bit at one batch budget: what else is read, and what the store held already, changes
    no batch. Lists of the same statements are read once.

    Args:
        model: A hooked model, a plain Hugging Face model, or a `Checkpoint`.
        statement_lists: Concepts, or lists of texts; or a mapping of concepts by name.
        sites: This and what follows: as for `collect_activations`.
        position: Which of a statement's own tokens to read.
        bos: Whether a beginning-of-sequence token stands before each statement.
        tokenizer: A tokenizer from transformers; None for the model's own.
        batch_tokens: Tokens read at once, padding included.
        padding_side: `"right"` or `"left"`.
        checkpoint: Where the weights of a model that is passed in came from.
        store: Where readings are kept.
        device: Where to load a `Checkpoint`.
        dtype: What a `Checkpoint` is loaded in.
        backend: What runs a `Checkpoint`.
        device_map: How a `Checkpoint` is spread over devices.
        trust_remote_code: Whether a `Checkpoint` may bring its own code.
        progress: Whether to show a bar for each list.

    Yields:
        The readings of each list, in order.

    Raises:
        ValueError: As `collect_activations` does.
    """
    if padding_side not in ("left", "right"):
        raise ValueError(f"`padding_side` is 'left' or 'right', got {padding_side!r}.")
    if isinstance(statement_lists, Mapping):
        statement_lists = statement_lists.values()
    lists = [_checked_list(statements) for statements in statement_lists]
    check_reading(store=store, batch_tokens=batch_tokens, device=device, dtype=dtype)
    wanted = checked_sites(sites)
    source = Source(
        model,
        checkpoint=checkpoint,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        backend=backend,
        device_map=device_map,
        trust_remote_code=trust_remote_code,
    )
    if store is not None and source.checkpoint is None:
        raise ValueError(
            "`store` keeps readings by the weights' identity, and a model that is passed in has "
            "none. Pass `checkpoint=` as well, or the Checkpoint itself, or store=None."
        )
    return _collect_each(
        source,
        lists,
        sites=wanted,
        position=checked_position(position),
        bos=source.bos(bos, tokenizer_given=tokenizer is not None),
        batch_tokens=batch_tokens,
        padding_side=padding_side,
        store=store,
        progress=progress,
    )


def _collect_each(
    source: Source,
    lists: Sequence[tuple[tuple[str, ...], Concept | None]],
    *,
    sites: str | int | Sequence[str | int],
    position: Position,
    bos: bool | None,
    batch_tokens: int,
    padding_side: str,
    store: ActivationStore | None,
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
                sites=sites,
                position=position,
                bos=bos,
                batch_tokens=batch_tokens,
                padding_side=padding_side,
                store=store,
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
                position=position,
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
    source: Source,
    texts: tuple[str, ...],
    fingerprint: str,
    *,
    sites: str | int | Sequence[str | int],
    position: Position,
    bos: bool | None,
    batch_tokens: int,
    padding_side: str,
    store: ActivationStore | None,
    progress: bool,
) -> _Read:
    found: dict[str, Tensor] = {}
    key = None
    if store is not None:
        key = source.key(fingerprint, bos=bos, position=position)
        facts = store.facts(key)
        if facts is not None:
            shape = ModelShape(name=source.label, **facts)
            wanted = resolve_sites(shape, sites)
            found = store.read(key, wanted)
            if len(found) == len(wanted):
                return _Read(wanted, shape.n_layers, _stacked(found, wanted, source))
    shape = ModelShape.of(source.model)
    wanted = resolve_sites(shape, sites)
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
        bos=bos,
        n_ctx=getattr(cfg, "n_ctx", None),
        d_vocab=getattr(cfg, "d_vocab", None),
    )
    with _bar(progress, len(unique), source.label) as advance:
        values = read_statements(
            source.model,
            tokenised,
            sites=missing,
            position=position,
            batch_tokens=batch_tokens,
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
    readings: dict[str, Tensor], sites: tuple[str, ...], source: Source
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
