"""Turns the toy corpus into training data: a tokenizer, and rows of token ids."""

from collections.abc import Iterable, Iterator
from functools import cache
from itertools import islice
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor

from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.concepts.embedded.sets import embedded_concepts

END_OF_TEXT = "<|endoftext|>"

# The vocabulary comes from passages of one seed, whatever the seed of the run, so that all toy
# models share it. Words that are not in these passages are spelled in bytes.
_VOCABULARY_PASSAGES = 5_000

# Passages that wait to be packed. More of them fill rows better and take longer to search.
_POOL = 512


def make_tokenizer() -> Any:
    """Make a byte-level tokenizer with a token for every word of the toy corpus.

    Like Pythia's, it has no padding token and prepends nothing. A token is a word together with the
    space before it. Any other text is spelled in bytes, so there is no unknown token.

    Returns:
        A `transformers.PreTrainedTokenizerFast`.
    """
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    ids = {token: i for i, token in enumerate(_vocabulary())}
    # Without merges, a text is one token if the vocabulary has it, and is spelled in bytes if not.
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
    texts = [*islice(toy_corpus(0), _VOCABULARY_PASSAGES)]
    texts += [s for concept in embedded_concepts().values() for s in concept.statements]
    words = {word for text in texts for word, _ in split.pre_tokenize_str(text)}
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    # Sorted, so that the ids do not depend on the order of a set.
    return (END_OF_TEXT, *letters, *sorted(words - set(letters)))


def make_rows(
    tokenizer: Any, *, seed: int, rows: int, row_length: int
) -> Int[Tensor, "row position"]:
    """Pack passages of the toy corpus into rows of one length.

    A row begins with a passage, and passages are separated by the end-of-text token. The longest
    passage that fits is added to a row first, so that few passages are cut.

    Args:
        tokenizer: The tokenizer from `make_tokenizer`.
        seed: Seed of the corpus.
        rows: Number of rows.
        row_length: Tokens in a row.

    Returns:
        Token ids.
    """
    end = tokenizer.convert_tokens_to_ids(END_OF_TEXT)
    token_rows = islice(_pack(_encode(tokenizer, toy_corpus(seed)), row_length, end), rows)
    return torch.tensor(list(token_rows), dtype=torch.int64)


def _encode(tokenizer: Any, passages: Iterable[str]) -> Iterator[list[int]]:
    passages = iter(passages)
    while batch := list(islice(passages, _POOL)):
        for encoding in tokenizer.backend_tokenizer.encode_batch(batch):
            yield encoding.ids


def _pack(passages: Iterator[list[int]], row_length: int, end: int) -> Iterator[list[int]]:
    passages_by_length: dict[int, list[list[int]]] = {}
    for passage in islice(passages, _POOL):
        passages_by_length.setdefault(min(len(passage), row_length), []).append(
            passage[:row_length]
        )
    while True:
        row: list[int] = []
        while True:
            space = row_length - len(row)
            length = next(
                (
                    candidate
                    for candidate in range(space, 0, -1)
                    if passages_by_length.get(candidate)
                ),
                None,
            )
            if length is None:
                break
            # The oldest of the passages of this length, so that none waits for ever.
            row += [*passages_by_length[length].pop(0), end]
            passage = next(passages)
            passages_by_length.setdefault(min(len(passage), row_length), []).append(
                passage[:row_length]
            )
        # The token after the last passage may not fit, and some rows are not full.
        yield (row + [end] * row_length)[:row_length]
