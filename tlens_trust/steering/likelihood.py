"""Log-likelihoods of continuations, in batches.

The first tokens of a row are the condition, and all tokens after them are scored. The border
between a prompt and an answer is set in tokens, not in letters. All candidates of one prompt are
scored from the first token at which any of them differs from the prompt alone. So a tokenizer may
merge the last letter of a prompt with the first of an answer, and the likelihoods of all candidates
are still conditioned on the same tokens.
"""

import inspect
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tlens_trust.activations.batches import pad_batch, read_in_batches
from tlens_trust.activations.forward_pass import (
    evaluation_mode,
    input_device,
    without_idle_norms,
    wrapped_model,
)
from tlens_trust.activations.tokens import tokenise_statements
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.steering.hooks import Steering

DEFAULT_BATCH_TOKENS = 4096
# Bytes of a batch's logits in float32. With large vocabularies they are by far the largest tensor.
_MOST_LOGITS = 512 * 2**20


@dataclass(frozen=True)
class Continuation:
    """Token ids, of which all from `start` on are scored.

    Attributes:
        ids: The model's input, with the special tokens that the tokenizer adds.
        start: The first token that is scored. At least 1: the first of all has no likelihood.
    """

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """A model's likelihoods of continuations.

    Attributes:
        log_likelihood: Sum over the scored tokens, in nats.
        tokens: The number of scored tokens.
        greedy: Whether the first scored token is the model's most likely one.
    """

    log_likelihood: Float[np.ndarray, " continuation"]
    tokens: Int[np.ndarray, " continuation"]
    greedy: Bool[np.ndarray, " continuation"]

    @property
    def per_token(self) -> Float[np.ndarray, " continuation"]:
        """Mean over the scored tokens, in nats."""
        mean: np.ndarray = self.log_likelihood / self.tokens
        return mean

    def take(self, rows: slice) -> "Likelihoods":
        """The likelihoods of some rows."""
        return Likelihoods(self.log_likelihood[rows], self.tokens[rows], self.greedy[rows])


def tokenise_candidates(
    model: HookedModel,
    texts: Sequence[str],
    *,
    prompt: str | None = None,
    templated: bool = False,
) -> list[Continuation]:
    """Tokenise texts with a common beginning, to score them from where they differ.

    Args:
        model: The model, whose tokenizer is used.
        texts: Whole texts, prompt and answer.
        prompt: Their common beginning. None: scoring begins at the first token in which any two
            texts differ.
        templated: Whether a chat template wrote the texts, with all special tokens they need.

    Raises:
        ValueError: A text is empty or too long; or texts differ in their first token, and the
            tokenizer has no token to put before it.
    """
    tokenizer = own_tokenizer(model)
    bos = False if templated else own_bos(model)
    rows = [*texts] if prompt is None else [prompt, *texts]
    ids = _tokenised(model, rows, bos)
    start = _scored_from(ids, prompt)
    if start < 1:
        # A first token has a likelihood only after another.
        if getattr(tokenizer, "bos_token_id", None) is None:
            raise ValueError(
                f"{texts[0][:60]!r} and another candidate differ in their first token, and the "
                "tokenizer has no token to put before it. Give them a prompt."
            )
        ids = _tokenised(model, rows, True)
        start = _scored_from(ids, prompt)
    return [Continuation(row, start) for row in (ids if prompt is None else ids[1:])]


def tokenise_texts(model: HookedModel, texts: Sequence[str]) -> list[Continuation]:
    """Tokenise texts to score them as a whole, except for the first token of each.

    Raises:
        ValueError: A text has less than two tokens, or is too long.
    """
    continuations = []
    for text, ids in zip(texts, _tokenised(model, texts, own_bos(model)), strict=True):
        if len(ids) < 2:
            raise ValueError(
                f"{text!r} has a single token, and the first token of a text is never scored. Give "
                "longer texts."
            )
        continuations.append(Continuation(ids, 1))
    return continuations


def score_continuations(
    model: HookedModel,
    continuations: Sequence[Continuation],
    *,
    steering: Steering | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Likelihoods:
    """Score continuations: `Σ_t log p(id_t | id_<t)` over the tokens from `start` on, in nats.

    The model's input is each row without its last token. Equal inputs are run once. The hooks that
    are in place apply. Batches are padded at the right.

    Args:
        model: A hooked model.
        continuations: The continuations.
        steering: The handle of `steer`, which is told that the prompt ends where scoring begins.
        batch_tokens: Tokens in one batch, padding included. Fewer if the vocabulary is large.

    Raises:
        ValueError: There is no continuation, or a likelihood is not finite.
    """
    if not continuations:
        raise ValueError("There is nothing to score. Give at least one continuation.")
    # The end of the prompt decides what is steered, so it distinguishes two rows of one text.
    by_input: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for index, continuation in enumerate(continuations):
        key = (continuation.ids[:-1], continuation.start)
        by_input.setdefault(key, []).append(index)
    rows = list(by_input)
    total = np.zeros(len(continuations))
    greedy = np.zeros(len(continuations), dtype=bool)
    device = input_device(model)

    def score(batch: list[int]) -> None:
        starts = [rows[row][1] for row in batch]
        # A token is predicted at the one before it.
        first_column = min(starts) - 1
        tokens, is_token = pad_batch([rows[row][0] for row in batch], padding_side="right")
        tokens, is_token = tokens.to(device), is_token.to(device)
        with nullcontext() if steering is None else steering.prompt(starts):
            logits = compute_logits(model, tokens, is_token, first_column=first_column).float()
        places = [
            (row, continuation.start - 1 - first_column + offset, token, index, offset == 0)
            for row, number in enumerate(batch)
            for index in by_input[rows[number]]
            for continuation in (continuations[index],)
            for offset, token in enumerate(continuation.ids[continuation.start :])
        ]
        row, pos, token, index, is_first = (
            np.array(column) for column in zip(*places, strict=True)
        )
        # A softmax of all logits would take as much memory again; only these entries are needed.
        norms = logits.logsumexp(dim=-1)
        log_p = (logits[row, pos, token] - norms[row, pos]).double().cpu().numpy()
        most_likely = logits[row[is_first], pos[is_first]].argmax(dim=-1).cpu().numpy()
        # Only now, since a batch that runs out of memory above is scored again. An index occurs
        # once for each token, and `total[index] += log_p` would add only one of them.
        np.add.at(total, index, log_p)
        greedy[index[is_first]] = most_likely == token[is_first]

    with evaluation_mode(model), without_idle_norms(model):
        read_in_batches([len(ids) for ids, _ in rows], budget(model, batch_tokens), score)
    if not np.isfinite(total).all():
        raise ValueError(
            f"The model gives {int((~np.isfinite(total)).sum())} of {len(total)} continuations a "
            "likelihood that is not finite. The steering may be too strong, or the dtype too "
            "narrow: choose a smaller dose, or load the model in float32."
        )
    counts = np.array([len(row.ids) - row.start for row in continuations])
    return Likelihoods(total, counts, greedy)


def compute_logits(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    is_token: Bool[Tensor, "batch pos"],
    *,
    first_column: int = 0,
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Run a whole model, with its hooks, without gradients and without a cache.

    Args:
        model: A hooked model, in evaluation mode.
        tokens: Token ids, padded at the right.
        is_token: False where a token is padding.
        first_column: The first token whose successor is predicted. Earlier tokens are not
            unembedded, if the model has an option for that.

    Returns:
        Logits for the successor of each token from the first on, on the model's device.
    """
    with torch.no_grad():
        # With padding at the right, a token's column is its position, which models assume.
        wrapped = wrapped_model(model)
        if wrapped is None:
            run: Any = model
            logits: Tensor = run(tokens, return_type="logits", attention_mask=is_token.long())
            return logits[:, first_column:]
        parameters = inspect.signature(wrapped.forward).parameters
        # Each row is run once, so a key-value cache would only take memory.
        extras: dict[str, Any] = {"use_cache": False} if "use_cache" in parameters else {}
        is_narrowed = first_column > 0 and "logits_to_keep" in parameters
        if is_narrowed:
            extras["logits_to_keep"] = torch.arange(
                first_column, tokens.shape[1], device=tokens.device
            )
        logits = wrapped(input_ids=tokens, attention_mask=is_token.long(), **extras).logits
        return logits if is_narrowed else logits[:, first_column:]


def budget(model: HookedModel, batch_tokens: int) -> int:
    """The number of tokens in a batch whose logits fit in memory."""
    vocabulary = int(getattr(model.cfg, "d_vocab", None) or 1)
    # A logit takes 4 bytes.
    return max(1, min(batch_tokens, _MOST_LOGITS // (4 * vocabulary)))


def _tokenised(model: HookedModel, texts: Sequence[str], bos: bool | None) -> list[tuple[int, ...]]:
    """Token ids of each text, without special tokens at its end."""
    statements = tokenise_statements(
        own_tokenizer(model),
        texts,
        bos=bos,
        n_ctx=getattr(model.cfg, "n_ctx", None),
        d_vocab=getattr(model.cfg, "d_vocab", None),
    )
    # A closing special token would be scored as a part of the answer.
    return [statement.ids[: statement.stop] for statement in statements]


def _scored_from(rows: Sequence[Sequence[int]], prompt: str | None) -> int:
    """The first token in which any two rows differ, or the last of the shortest candidate."""
    common_tokens = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        common_tokens += 1
    # A candidate that is the beginning of all others still needs a token that is scored.
    return min(common_tokens, *(len(row) - 1 for row in (rows if prompt is None else rows[1:])))
