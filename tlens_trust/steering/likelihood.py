"""How likely a model finds what follows: log-likelihoods of continuations, in batches.

What is conditioned on is a row's first tokens, and what is scored are all that follow. Where a
prompt ends and an answer begins is settled in tokens and not in letters: all candidates of one
prompt are scored from the first token at which any of them differs from the prompt alone. So a
tokenizer that draws the last letter of a prompt and the first of an answer together misleads
nobody, and likelihoods of candidates are conditioned on the same tokens.
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
# Logits of a batch, in bytes of float32: with the vocabularies of today they are by far the
# largest thing in memory.
_MOST_LOGITS = 512 * 2**20


@dataclass(frozen=True)
class Continuation:
    """Token ids, of which all from `start` on are scored.

    Attributes:
        ids: What the model reads, with what the tokenizer puts around it.
        start: The first token that is scored; at least 1, since the first of all cannot be.
    """

    ids: tuple[int, ...]
    start: int


@dataclass(frozen=True, eq=False)
class Likelihoods:
    """What a model finds of continuations.

    Attributes:
        log_likelihood: Summed over the tokens that are scored, in nats.
        tokens: How many those are.
        greedy: Whether the first of them is the one that the model finds likeliest.
    """

    log_likelihood: Float[np.ndarray, " continuation"]
    tokens: Int[np.ndarray, " continuation"]
    greedy: Bool[np.ndarray, " continuation"]

    @property
    def per_token(self) -> Float[np.ndarray, " continuation"]:
        """Mean over the tokens that are scored, in nats."""
        mean: np.ndarray = self.log_likelihood / self.tokens
        return mean

    def take(self, rows: slice) -> "Likelihoods":
        """Some of them."""
        return Likelihoods(self.log_likelihood[rows], self.tokens[rows], self.greedy[rows])


def tokenise_candidates(
    model: HookedModel,
    texts: Sequence[str],
    *,
    prompt: str | None = None,
    templated: bool = False,
) -> list[Continuation]:
    """Texts that begin alike, scored from where they part.

    Args:
        model: Whose tokenizer reads them.
        texts: Whole texts, prompt and answer.
        prompt: What they are said to share. None: what is scored begins at the first token in
            which any two of them differ.
        templated: Whether a chat template has written the texts, and with it whatever special
            tokens they need.

    Raises:
        ValueError: A text is empty or too long; or texts differ in their first token, and the
            tokenizer has none to set before them.
    """
    tokenizer = own_tokenizer(model)
    bos = False if templated else own_bos(model)
    whole = [*texts] if prompt is None else [prompt, *texts]
    ids = _tokenised(model, whole, bos)
    start = _scored_from(ids, prompt)
    if start < 1:
        # A first token has a likelihood only behind another.
        if getattr(tokenizer, "bos_token_id", None) is None:
            raise ValueError(
                f"{texts[0][:60]!r} and what it is compared with differ in their first token, and "
                "the tokenizer has no token that could stand before it. Give them a prompt."
            )
        ids = _tokenised(model, whole, True)
        start = _scored_from(ids, prompt)
    return [Continuation(own, start) for own in (ids if prompt is None else ids[1:])]


def tokenise_texts(model: HookedModel, texts: Sequence[str]) -> list[Continuation]:
    """Texts scored whole, but for a first token that nothing stands before.

    Raises:
        ValueError: A text has less than two tokens, or is too long.
    """
    found = []
    for text, ids in zip(texts, _tokenised(model, texts, own_bos(model)), strict=True):
        if len(ids) < 2:
            raise ValueError(f"{text!r} has a single token; of two the second can be predicted.")
        found.append(Continuation(ids, 1))
    return found


def score_continuations(
    model: HookedModel,
    continuations: Sequence[Continuation],
    *,
    steering: Steering | None = None,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> Likelihoods:
    """Score what follows: `Σ_t log p(id_t | id_<t)` over the tokens from `start` on, in nats.

    What the model is fed is each row without its last token; rows fed alike are fed once. Runs
    inside whatever hooks are in place, in batches padded at the right.

    Args:
        model: A hooked model.
        continuations: What to score.
        steering: What `steer` gave, to be told that the prompt ends where scoring begins.
        batch_tokens: Tokens read at once, padding included; less where the vocabulary is large.

    Raises:
        ValueError: There is nothing to score, or a likelihood is not finite.
    """
    if not continuations:
        raise ValueError("There is nothing to score. Give at least one continuation.")
    # Where the prompt ends decides what is steered, and so do two rows of one text differ.
    fed: dict[tuple[tuple[int, ...], int], list[int]] = {}
    for index, each in enumerate(continuations):
        fed.setdefault((each.ids[:-1], each.start), []).append(index)
    rows = list(fed)
    total = np.zeros(len(continuations))
    greedy = np.zeros(len(continuations), dtype=bool)
    device = input_device(model)

    def read(batch: list[int]) -> None:
        starts = [rows[row][1] for row in batch]
        first = min(starts) - 1
        tokens, kept = pad_batch([rows[row][0] for row in batch], padding_side="right")
        with nullcontext() if steering is None else steering.prompt(starts):
            logits = compute_logits(model, tokens.to(device), kept.to(device), first=first).float()
        place = [
            (row, each.start - 1 - first + offset, token, index, offset == 0)
            for row, number in enumerate(batch)
            for index in fed[rows[number]]
            for each in (continuations[index],)
            for offset, token in enumerate(each.ids[each.start :])
        ]
        row, pos, token, index, opening = (np.array(column) for column in zip(*place, strict=True))
        norms = logits.logsumexp(dim=-1)
        scored = (logits[row, pos, token] - norms[row, pos]).double().cpu().numpy()
        np.add.at(total, index, scored)
        likeliest = logits[row[opening], pos[opening]].argmax(dim=-1).cpu().numpy()
        greedy[index[opening]] = likeliest == token[opening]

    with evaluation_mode(model), without_idle_norms(model):
        read_in_batches([len(ids) for ids, _ in rows], budget(model, batch_tokens), read)
    if not np.isfinite(total).all():
        raise ValueError(
            f"The model gives {int((~np.isfinite(total)).sum())} of {len(total)} continuations a "
            "likelihood that is not finite. The steering may be too strong, or the dtype too "
            "narrow: choose a smaller dose, or load the model in float32."
        )
    tokens = np.array([len(each.ids) - each.start for each in continuations])
    return Likelihoods(total, tokens, greedy)


def compute_logits(
    model: HookedModel,
    tokens: Int[Tensor, "batch pos"],
    kept: Bool[Tensor, "batch pos"],
    *,
    first: int = 0,
) -> Float[Tensor, "batch predicted d_vocab"]:
    """Run a whole model, hooks and all, without gradients and without a cache.

    Args:
        model: A hooked model, in evaluation mode.
        tokens: Token ids, padded at the right.
        kept: False where a token is padding.
        first: The first token whose successor is to be predicted; those before it are not
            unembedded, where the model lets itself be told so.

    Returns:
        Logits of the token after each one from the first on, on the model's device.
    """
    with torch.no_grad():
        wrapped = wrapped_model(model)
        if wrapped is None:
            run: Any = model
            logits: Tensor = run(tokens, return_type="logits", attention_mask=kept.long())
            return logits[:, first:]
        known = inspect.signature(wrapped.forward).parameters
        extras: dict[str, Any] = {"use_cache": False} if "use_cache" in known else {}
        narrow = first > 0 and "logits_to_keep" in known
        if narrow:
            extras["logits_to_keep"] = torch.arange(first, tokens.shape[1], device=tokens.device)
        logits = wrapped(input_ids=tokens, attention_mask=kept.long(), **extras).logits
        return logits if narrow else logits[:, first:]


def budget(model: HookedModel, batch_tokens: int) -> int:
    """Tokens of a batch whose logits fit into memory."""
    vocabulary = int(getattr(model.cfg, "d_vocab", None) or 1)
    return max(1, min(batch_tokens, _MOST_LOGITS // (4 * vocabulary)))


def _tokenised(model: HookedModel, texts: Sequence[str], bos: bool | None) -> list[tuple[int, ...]]:
    """Token ids of each text, without what a tokenizer puts behind it."""
    statements = tokenise_statements(
        own_tokenizer(model),
        texts,
        bos=bos,
        n_ctx=getattr(model.cfg, "n_ctx", None),
        d_vocab=getattr(model.cfg, "d_vocab", None),
    )
    return [statement.ids[: statement.stop] for statement in statements]


def _scored_from(rows: Sequence[Sequence[int]], prompt: str | None) -> int:
    """The first token in which any two rows differ, or the last of the shortest candidate."""
    shared = 0
    for tokens in zip(*rows, strict=False):
        if len(set(tokens)) > 1:
            break
        shared += 1
    # A candidate that begins all the others still has to have something that is scored.
    return min(shared, *(len(row) - 1 for row in (rows if prompt is None else rows[1:])))
