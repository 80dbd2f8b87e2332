"""Collects the activations at every token of a text."""

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
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.hooked_model import HookedModel

# A decoder writes this character for bytes that are not a whole character yet.
_BROKEN = "\ufffd"


@dataclass(frozen=True, eq=False)
class TokenActivations:
    """The activations of a model at every token of a text.

    Attributes:
        tokens: The text of each token for display, special tokens included. Invisible characters,
            such as those that change the direction of writing, are shown by their code. A token
            that ends within a character shows `�`, and the token that completes it shows the
            character.
        ids: Token ids.
        values: Activations in float32 on the CPU.
        sites: Site names.
        layers: The block of each site, counted from 0.
        depths: The depth of each site, as a fraction of the blocks.
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
    """Collect the activations at every token of one text.

    The text is read once for each of its tokens, so this is meant for short texts. Nothing is
    stored.

    Args:
        model: A hooked model, a plain Hugging Face model, which needs a `tokenizer`, or a
            `Checkpoint`, which is loaded and released again.
        text: The text to read.
        sites: The sites to read, as for `collect_activations`.
        bos: Whether a beginning-of-sequence token stands before the text.
        tokenizer: A tokenizer from transformers; None for the model's own.
        batch_tokens: Tokens in one batch, padding included.
        checkpoint: The checkpoint of the weights, for a model that is passed in.

    Raises:
        ValueError: An argument is refused for the reasons given in `collect_activations`.

    Examples:
        >>> from tokenizers import Tokenizer, models, pre_tokenizers
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "true": 1}, unk_token="[UNK]"))
        >>> words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
        >>> model = GPT2LMHeadModel(GPT2Config(vocab_size=2, n_layer=2, n_embd=16, n_head=2))
        >>> activations = collect_tokens(model, "true false", tokenizer=tokenizer)
        >>> activations.values.shape
        torch.Size([2, 2, 16])
    """
    options = ReadingOptions(sites=sites, bos=bos, batch_tokens=batch_tokens, store=None)
    with ModelSource(model, checkpoint=checkpoint, tokenizer=tokenizer) as source:
        shape = ModelShape.of(source.model)
        site_names = resolve_sites(shape, options.sites)
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
            # The k-th copy of the text has token k as its last own token, which is what is read.
            [TokenisedStatement(tokenised.ids, k, k + 1) for k in range(len(tokenised))],
            sites=site_names,
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
        sites=site_names,
        layers=tuple(site_layer(site) for site in site_names),
        depths=tuple(site_depth(site, shape.n_layers) for site in site_names),
    )


def shown_tokens(tokenizer: Any, ids: Sequence[int]) -> tuple[str, ...]:
    r"""Return the text of each token for display, as `TokenActivations` describes it.

    Examples:
        >>> from tlens_trust.checkpoints.toy_text import make_tokenizer
        >>> tokenizer = make_tokenizer()
        >>> shown_tokens(tokenizer, tokenizer("The cod é\u202e")["input_ids"])
        ('The', ' cod', ' ', '�', 'é', '�', '�', '⟨U+202E⟩')
    """
    texts = []
    previous_text = ""
    for number, token in enumerate(ids, start=1):
        # Decoded from the start, since a token's text may depend on those before it.
        decoded = tokenizer.decode(list(ids[:number]), clean_up_tokenization_spaces=False)
        complete_text = decoded.rstrip(_BROKEN)
        if complete_text.startswith(previous_text):
            token_text = complete_text[len(previous_text) :] + _BROKEN * (
                len(complete_text) < len(decoded)
            )
        else:
            # Some decoders change earlier text when a token is added. Then the token itself is
            # shown as the vocabulary spells it.
            token_text = str(tokenizer.convert_ids_to_tokens(token))
        previous_text = complete_text
        texts.append("".join(map(_visible, token_text)))
    return tuple(texts)


def _visible(character: str) -> str:
    # Control, format and separator characters could hide text or turn its direction.
    if character in "\n\t" or unicodedata.category(character) not in ("Cc", "Cf", "Zl", "Zp"):
        return character
    return f"⟨U+{ord(character):04X}⟩"
