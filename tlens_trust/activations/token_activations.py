"""Reading every token of a text, to see where in it a direction is written."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from tlens_trust.activations.model_source import ModelSource
from tlens_trust.activations.reading import read_statements
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS, ReadingOptions, Sites
from tlens_trust.activations.sites import ModelShape, resolve_sites, site_depth, site_layer
from tlens_trust.activations.tokens import TokenisedStatement, quoted, tokenise_statements
from tlens_trust.checkpoints import Checkpoint, HookedModel

# What a decoder writes for bytes that are no whole character yet.
_BROKEN = "\ufffd"


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """What a model represents at every token of a text.

    Attributes:
        tokens: The text of each token, special tokens included, as it is to be shown: characters
            without a shape, such as those that turn the direction of writing, are written by their
            code, and a token that ends in the middle of a character shows `�`; the token that
            completes the character shows it.
        ids: Token ids.
        values: Readings in float32 on the CPU.
        sites: Where was read.
        layers: The block of each site.
        depths: The fraction of the blocks behind each site.
    """

    tokens: tuple[str, ...]
    ids: tuple[int, ...]
    values: Float[Tensor, "token site d_model"]
    sites: tuple[str, ...]
    layers: tuple[int, ...]
    depths: tuple[float, ...]


def collect_tokens(
    model: HookedModel | nn.Module | Checkpoint,
    text: str,
    *,
    sites: Sites = "resid_post",
    bos: bool | None = None,
    tokenizer: Any = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    checkpoint: Checkpoint | None = None,
) -> TokenActivations:
    """Read every token of one text, at all sites.

    The text is read once for each of its tokens, so this is for texts that one looks at, and not
    for books. Nothing is kept.

    Args:
        model: A hooked model, a plain Hugging Face model (then `tokenizer` is needed), or a
            `Checkpoint`, which is loaded and let go of.
        text: What to read.
        sites: This and what follows: as for `collect_activations`.
        bos: Whether a beginning-of-sequence token stands before the text.
        tokenizer: A tokenizer from transformers; None for the model's own.
        batch_tokens: Tokens read at once.
        checkpoint: Where the weights of a model that is passed in came from.

    Raises:
        ValueError: As `collect_activations`.

    Examples:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "true": 1}, unk_token="[UNK]"))
        >>> words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=2, n_layer=2, n_embd=16, n_head=2))
        >>> readings = collect_tokens(model, "true false", tokenizer=tokenizer)
        >>> readings.values.shape
        torch.Size([2, 2, 16])
    """
    reading = ReadingOptions(sites=sites, bos=bos, batch_tokens=batch_tokens, store=None)
    with ModelSource(model, checkpoint=checkpoint, tokenizer=tokenizer) as source:
        shape = ModelShape.of(source.model)
        wanted = resolve_sites(shape, reading.sites)
        cfg: Any = source.model.cfg
        (tokenised,) = tokenise_statements(
            source.tokenizer,
            [text],
            bos=source.bos(bos, tokenizer_given=tokenizer is not None),
            n_ctx=getattr(cfg, "n_ctx", None),
            d_vocab=getattr(cfg, "d_vocab", None),
        )
        values = read_statements(
            source.model,
            # The token that is read of each copy is its last own one.
            [TokenisedStatement(tokenised.ids, k, k + 1) for k in range(len(tokenised))],
            sites=wanted,
            position="last",
            batch_tokens=batch_tokens,
            padding_side="right",
            describe=lambda k: f"token {k} of {quoted(0, text)}",
            source=source.label,
        )
        tokens = shown_tokens(source.tokenizer, tokenised.ids)
    return TokenActivations(
        tokens=tokens,
        ids=tokenised.ids,
        values=rearrange(values, "site token d_model -> token site d_model"),
        sites=wanted,
        layers=tuple(site_layer(site) for site in wanted),
        depths=tuple(site_depth(site, shape.n_layers) for site in wanted),
    )


def shown_tokens(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    r"""The text of each token, as it is to be shown (see `TokenActivations`).

    Examples:
        >>> from tlens_trust.checkpoints.toy_text import make_tokenizer
        >>> tokenizer = make_tokenizer()
        >>> shown_tokens(tokenizer, tokenizer("The cod é\u202e")["input_ids"])
        ('The', ' cod', ' ', '�', 'é', '�', '�', '⟨U+202E⟩')
    """
    shown = []
    done = ""
    for number, token in enumerate(ids, start=1):
        whole = tokenizer.decode(list(ids[:number]), clean_up_tokenization_spaces=False)
        settled = whole.rstrip(_BROKEN)
        if settled.startswith(done):
            new = settled[len(done) :] + _BROKEN * (len(settled) < len(whole))
        else:
            # A decoder that writes the beginning of a text anew once it knows how it goes on.
            new = str(tokenizer.convert_ids_to_tokens(token))
        done = settled
        shown.append("".join(map(_visible, new)))
    return tuple(shown)


def _visible(character: str) -> str:
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
