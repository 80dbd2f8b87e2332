"""The toy corpus as a language model takes it: a tokenizer, and rows of token ids."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tlens_trust.concepts.embedded import embedded_concepts, toy_corpus

END_OF_TEXT = "<|endoftext|>"

# The words are gathered from passages of one seed, whatever the seed of the run, so that all toy
# models share one vocabulary. Words that the passages lack are spelled in bytes.
_WORDS_FROM = 5_000
_POOL = 512


def make_tokenizer() -> Any:
    """A byte-level tokenizer with a token for every word of the toy corpus.

    As Pythia's, it knows no padding and prepends nothing. A word is a token together with the space
    before it. Any other text is spelled in bytes, so there is no unknown token.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(_vocabulary())}
    backend = Tokenizer(models.BPE(vocab=ids, merges=[], ignore_merges=True))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=backend, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT
    )


@cache
def _vocabulary() -> tuple[str, ...]:
    from tokenizers import pre_tokenizers

    split = pre_tokenizers.ByteLevel(add_prefix_space=False)
    texts = [*islice(toy_corpus(0), _WORDS_FROM)]
    texts += [s for concept in embedded_concepts().values() for s in concept.statements]
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    return (END_OF_TEXT, *letters, *sorted(words - set(letters)))


def make_rows(
    tokenizer: Any, *, seed: int, rows: int, row_length: int
) -> Int[Tensor, "row position"]:
    """Passages of the toy corpus, packed into rows of one length.

    A row begins with a passage, and passages are parted by the end of text. Long passages come
    first and short ones fill what is left, so that hardly any is cut.

    Args:
        tokenizer: As `make_tokenizer` gives it.
        seed: The corpus's seed.
        rows: How many rows.
        row_length: Tokens in a row.

    Returns:
        Token ids.
    """
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    packed = islice(_pack(_encode(tokenizer, toy_corpus(seed)), row_length, end), rows)
    return torch.tensor(list(packed), dtype=torch.int64)


def _encode(tokenizer: Any, passages: Iterable[str]) -> Iterator[list[int]]:
    passages = iter(passages)
    while batch := list(islice(passages, _POOL)):
        for encoding in tokenizer.backend_tokenizer.encode_batch(batch):
            yield encoding.ids


def _pack(passages: Iterator[list[int]], row_length: int, end: int) -> Iterator[list[int]]:
    waiting: dict[int, list[list[int]]] = {}
    for passage in islice(passages, _POOL):
        waiting.setdefault(min(len(passage), row_length), []).append(passage[:row_length])
    while True:
        row: list[int] = []
        while True:
            space = row_length - len(row)
            fitting = next((n for n in range(space, 0, -1) if waiting.get(n)), None)
            if fitting is None:
                break
            # First come, first served among passages of one length.
            row += [*waiting[fitting].pop(0), end]
            passage = next(passages)
            waiting.setdefault(min(len(passage), row_length), []).append(passage[:row_length])
        yield (row + [end] * row_length)[:row_length]
