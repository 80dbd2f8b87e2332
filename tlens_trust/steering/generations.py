"""What a model writes, and what somebody else makes of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from tlens_trust.activations.batches import pad_batch, read_in_batches
from tlens_trust.activations.forward_pass import evaluation_mode, input_device, wrapped_model
from tlens_trust.activations.tokens import tokenise_statements
from tlens_trust.checkpoints.hooked_model import HookedModel, own_bos, own_tokenizer
from tlens_trust.steering.choices import as_turn, wants_chat
from tlens_trust.steering.quantities import Quantity
from tlens_trust.steering.tasks import Judge

_BATCH_TOKENS = 4096


@dataclass(frozen=True)
class Generation:
    """What a model wrote after a prompt.

    Attributes:
        prompt: As it was given.
        text: Without the prompt, and without special tokens.
        tokens: What was written, up to the end of text.
    """

    prompt: str
    text: str
    tokens: tuple[int, ...]


def generate_texts(
    model: HookedModel,
    prompts: Sequence[str],
    *,
    max_new_tokens: int = 32,
    chat: bool | None = None,
) -> list[Generation]:
    """Let a model go on, always with the token that it finds likeliest.

    Runs inside whatever hooks are in place. Nothing is drawn at random, so that a difference
    between two conditions is one between models.

    Args:
        model: A hooked model.
        prompts: What to go on from.
        max_new_tokens: How many tokens to write at most.
        chat: Whether a prompt is a user's turn, by the tokenizer's chat template. None: where the
            tokenizer has one.

    Returns:
        One for each prompt, in order.

    Raises:
        ValueError: A prompt and what is to follow are longer than the model's context.
    """
    templated = wants_chat(model, chat)
    tokenizer = own_tokenizer(model)
    context = getattr(model.cfg, "n_ctx", None)
    whole = [as_turn(model, prompt) if templated else prompt for prompt in prompts]
    rows = [
        statement.ids[: statement.stop]
        for statement in tokenise_statements(
            tokenizer,
            whole,
            bos=False if templated else own_bos(model),
            n_ctx=context,
            d_vocab=getattr(model.cfg, "d_vocab", None),
        )
    ]
    longest = max(map(len, rows), default=0)
    if context is not None and longest + max_new_tokens > context:
        raise ValueError(
            f"A prompt of {longest} tokens and {max_new_tokens} more do not fit into the model's "
            f"context of {context}. Ask for fewer `max_new_tokens`, or shorten the prompt."
        )
    end = getattr(tokenizer, "eos_token_id", None)
    written: dict[int, tuple[int, ...]] = {}

    def read(batch: list[int]) -> None:
        tokens = _generate(model, [rows[number] for number in batch], max_new_tokens, end)
        for number, row in zip(batch, tokens, strict=True):
            stop = row.index(end) if end in row else len(row)
            written[number] = tuple(row[:stop])

    with evaluation_mode(model):
        read_in_batches([len(row) + max_new_tokens for row in rows], _BATCH_TOKENS, read)
    return [
        Generation(
            prompt, tokenizer.decode(written[number], skip_special_tokens=True), written[number]
        )
        for number, prompt in enumerate(prompts)
    ]


def _generate(
    model: HookedModel, rows: Sequence[tuple[int, ...]], count: int, end: int | None
) -> list[list[int]]:
    device = input_device(model)
    wrapped = wrapped_model(model)
    if wrapped is None:
        # A HookedTransformer's own loop: it has no attention mask to be given, so row by row.
        run: Any = model
        found = []
        for row in rows:
            whole = run.generate(
                torch.tensor([row], device=device),
                max_new_tokens=count,
                do_sample=False,
                stop_at_eos=end is not None,
                eos_token_id=end,
                return_type="tokens",
                verbose=False,
            )
            found.append(whole[0, len(row) :].tolist())
        return found
    tokens, kept = pad_batch(rows, padding_side="left")
    writer: Any = wrapped
    with torch.no_grad():
        whole = writer.generate(
            input_ids=tokens.to(device),
            attention_mask=kept.long().to(device),
            max_new_tokens=count,
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            pad_token_id=0 if end is None else end,
        )
    written: list[list[int]] = whole[:, tokens.shape[1] :].tolist()
    return written


def generation_quantities(
    generations: Sequence[Generation], judge: Judge | None = None
) -> list[Quantity]:
    """`distinct_1`, `distinct_2` and, with a judge, `judged`, per prompt.

    Raises:
        ValueError: The judge does not give one finite number for each text.
    """
    groups = tuple(str(number) for number in range(len(generations)))
    tokens = [generation.tokens for generation in generations]
    found = [
        Quantity(
            f"distinct_{n}",
            distinct_share(tokens, n),
            groups,
            f"fraction of runs of {n}" if n > 1 else "fraction of tokens",
            f"different ones among runs of {n} tokens written"
            if n > 1
            else "different ones among tokens written",
            effect=False,
        )
        for n in (1, 2)
    ]
    if judge is not None:
        scores = np.asarray(judge([generation.text for generation in generations]), dtype=float)
        if scores.shape != (len(generations),) or not np.isfinite(scores).all():
            raise ValueError(
                f"A judge gives one finite number for each of the {len(generations)} texts, got "
                f"shape {scores.shape}. Larger numbers speak for the trustworthy side."
            )
        found.append(
            Quantity("judged", scores, groups, "judge's score", "score of what is written")
        )
    return found


def classifier_judge(model: str | Path, *, label: str, device: str | None = None) -> Judge:
    """A judge made of a local Hugging Face text-classification model.

    Args:
        model: A folder, or the id of a model; whatever `transformers.pipeline` takes.
        label: Which of its labels is the trustworthy side; the score is the probability of it.
        device: Where to run it; None for the CPU.

    Raises:
        ValueError: The model has no such label.

    Examples:
        >>> judge = classifier_judge("tomh/toxigen_roberta", label="LABEL_0")  # doctest: +SKIP
        >>> judge(["What a lovely day."])  # doctest: +SKIP
    """
    from transformers import pipeline

    classify: Any = pipeline(
        "text-classification", model=str(model), top_k=None, device=device or "cpu"
    )
    known = sorted(map(str, classify.model.config.id2label.values()))
    if label not in known:
        raise ValueError(f"{str(model)!r} has no label {label!r}. It has {', '.join(known)}.")

    def judge(texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        results = classify(list(texts), truncation=True)
        return np.array(
            [next(each["score"] for each in row if each["label"] == label) for row in results]
        )

    return judge


def distinct_share(tokens: Sequence[Sequence[int]], n: int) -> Float[np.ndarray, " text"]:
    """The share of different ones among the runs of `n` tokens of each text.

    1 where nothing is repeated; a text with no run of that length counts as 1.

    Source:
        Li et al. (2016), arXiv:1510.03055 (distinct-n), here text by text.

    Examples:
        >>> distinct_share([[1, 2, 1, 2, 1]], 2).tolist()
        [0.5]
    """
    shares = []
    for row in tokens:
        runs = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        shares.append(len(set(runs)) / len(runs) if runs else 1.0)
    return np.array(shares)
