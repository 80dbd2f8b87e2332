"""Tokenises statements with the model's own tokenizer, and never cuts one."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary


@dataclass(frozen=True)
class TokenisedStatement:
    """The tokens of one statement.

    Attributes:
        ids: Token ids, including the special tokens that the tokenizer adds.
        start: Index of the statement's own first token: 1 after a beginning-of-sequence token.
        stop: One past the index of the statement's own last token.
    """

    ids: tuple[int, ...]
    start: int
    stop: int

    def __len__(self) -> int:
        return len(self.ids)


def quoted(index: int, statement: str) -> str:
    """Describe a statement in an error message by its number and its first words."""
    text = statement if len(statement) <= 60 else f"{statement[:57]}..."
    return f"statement {index}, {text!r}"


def tokenise_statements(
    tokenizer: Any,
    statements: Sequence[str],
    *,
    numbers: Sequence[int] | None = None,
    bos: bool | None = None,
    n_ctx: int | None = None,
    d_vocab: int | None = None,
) -> list[TokenisedStatement]:
    """Tokenise statements one by one, without cutting or padding.

    Args:
        tokenizer: The model's own tokenizer, from transformers.
        statements: The texts.
        numbers: The statements' numbers in errors; None counts from 0.
        bos: Whether a beginning-of-sequence token stands before each statement; None follows
            the tokenizer's own setting.
        n_ctx: The model's context length in tokens; None for no limit.
        d_vocab: Size of the model's vocabulary; None leaves token ids unchecked.

    Returns:
        One entry per statement, in order, without padding.

    Raises:
        ValueError: A statement has no tokens or more than `n_ctx`, or a token id is outside the
            model's vocabulary. Or `bos` is True and the tokenizer has no beginning-of-sequence
            token.
    """
    bos_id = getattr(tokenizer, "bos_token_id", None)
    if bos and bos_id is None:
        raise ValueError(
            f"`bos=True` asks for a beginning-of-sequence token, but {_name_of(tokenizer)} has "
            "none. Use bos=None, which follows the tokenizer's own setting, or bos=False."
        )
    if not statements:
        return []
    encodings = tokenizer(
        list(statements), return_special_tokens_mask=True, return_attention_mask=False
    )
    numbers = range(len(statements)) if numbers is None else numbers
    tokenised = []
    for number, statement, ids, special in zip(
        numbers, statements, encodings["input_ids"], encodings["special_tokens_mask"], strict=True
    ):
        if 0 not in special:
            raise ValueError(
                f"There are no tokens to read in {quoted(number, statement)}. Leave it out."
            )
        # Tokens that the tokenizer adds stand before or after the statement's own.
        start = special.index(0)
        stop = len(special) - special[::-1].index(0)
        # A BOS token that is written in the text is one of the statement's own, and stays.
        has_bos = start > 0 and ids[0] == bos_id
        if bos and not has_bos:
            ids, start, stop = [bos_id, *ids], start + 1, stop + 1
        elif bos is False and has_bos:
            ids, start, stop = ids[1:], start - 1, stop - 1
        if n_ctx is not None and len(ids) > n_ctx:
            raise ValueError(
                f"Too long to read: {quoted(number, statement)} has {len(ids)} tokens, and the "
                f"model's context holds {n_ctx}. Statements are not cut, so shorten it or leave it "
                "out."
            )
        if d_vocab is not None and max(ids) >= d_vocab:
            raise ValueError(
                f"The tokenizer gives {quoted(number, statement)} the token id "
                f"{max(ids)}, but the model's vocabulary ends at {d_vocab - 1}. Pass the "
                "model's own tokenizer."
            )
        tokenised.append(TokenisedStatement(tuple(ids), start, stop))
    return tokenised


def tokenizer_identity(tokenizer: Any) -> str:
    """Hash everything in a tokenizer that determines the ids of a text.

    Two tokenizers with the same identity give every text the same ids. Padding and truncation are
    not included, since statements are tokenised without them.

    Args:
        tokenizer: A tokenizer from transformers, fast or not.

    Returns:
        64 hexadecimal digits.
    """
    # A tokenizer may be changed after it was hashed, so its settings are compared.
    state = _settings(tokenizer)
    cached_state, cached_identity = _IDENTITIES.get(tokenizer, (None, ""))
    if cached_state == state:
        return cached_identity
    # The backend's rules do not say which token `bos=True` puts in front.
    digest = hashlib.sha256(repr(getattr(tokenizer, "bos_token_id", None)).encode())
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is not None:
        rules = json.loads(backend.to_str())
        rules["padding"] = rules["truncation"] = None
        digest.update(json.dumps(rules, sort_keys=True).encode())
    else:
        # A slow tokenizer has no backend to serialise, only the files that it saves.
        with tempfile.TemporaryDirectory() as folder:
            tokenizer.save_pretrained(folder)
            for path in sorted(Path(folder).iterdir()):
                digest.update(path.name.encode())
                digest.update(path.read_bytes())
    identity = digest.hexdigest()
    _IDENTITIES[tokenizer] = state, identity
    return identity


# A large vocabulary takes most of a second to serialise, and a sweep needs the identity for every
# concept.
_IDENTITIES: WeakKeyDictionary[Any, tuple[list[Any] | None, str]] = WeakKeyDictionary()


def _settings(tokenizer: Any) -> list[Any]:
    names = ("bos_token_id", "eos_token_id", "add_bos_token", "add_eos_token")
    return [len(tokenizer), *(getattr(tokenizer, name, None) for name in names)]


def _name_of(tokenizer: Any) -> str:
    name = getattr(tokenizer, "name_or_path", "")
    return f"the tokenizer of {name!r}" if name else type(tokenizer).__name__
