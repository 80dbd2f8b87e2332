"""Greedy continuations of prompts, and scores of the generated text."""

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
    """The text that a model generated after a prompt.

    Attributes:
        prompt: The prompt.
        text: The generated text, without the prompt and without special tokens.
        tokens: Ids of the generated tokens, up to the end of text.
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
    """Continue prompts greedily, always with the most likely token.

    The hooks that are in place apply. Nothing is drawn at random, so a difference between two
    conditions is a difference between models.

    Args:
        model: A hooked model.
        prompts: The prompts.
        max_new_tokens: How many tokens to generate at most.
        chat: Whether a prompt is a user's turn, by the tokenizer's chat template. None: if the
            tokenizer has one.

    Returns:
        One generation for each prompt, in order.

    Raises:
        ValueError: A prompt with its continuation is longer than the model's context.
    """
    templated = wants_chat(model, chat)
    tokenizer = own_tokenizer(model)
    context = getattr(model.cfg, "n_ctx", None)
    texts = [as_turn(model, prompt) if templated else prompt for prompt in prompts]
    rows = [
        statement.ids[: statement.stop]
        for statement in tokenise_statements(
            tokenizer,
            texts,
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
    by_prompt: dict[int, tuple[int, ...]] = {}

    def generate(batch: list[int]) -> None:
        tokens = _generate(model, [rows[number] for number in batch], max_new_tokens, end)
        for number, row in zip(batch, tokens, strict=True):
            stop = row.index(end) if end in row else len(row)
            by_prompt[number] = tuple(row[:stop])

    with evaluation_mode(model):
        # Generated tokens count as well, since they take memory in the key-value cache.
        read_in_batches([len(row) + max_new_tokens for row in rows], _BATCH_TOKENS, generate)
    return [
        Generation(
            prompt, tokenizer.decode(by_prompt[number], skip_special_tokens=True), by_prompt[number]
        )
        for number, prompt in enumerate(prompts)
    ]


def _generate(
    model: HookedModel, rows: Sequence[tuple[int, ...]], count: int, end: int | None
) -> list[list[int]]:
    device = input_device(model)
    wrapped = wrapped_model(model)
    if wrapped is None:
        # A HookedTransformer's own loop takes no attention mask, so it runs row by row.
        run: Any = model
        new_tokens = []
        for row in rows:
            tokens = run.generate(
                torch.tensor([row], device=device),
                max_new_tokens=count,
                do_sample=False,
                stop_at_eos=end is not None,
                eos_token_id=end,
                return_type="tokens",
                verbose=False,
            )
            new_tokens.append(tokens[0, len(row) :].tolist())
        return new_tokens
    # Padding at the left lets every row continue in the same column.
    tokens, is_token = pad_batch(rows, padding_side="left")
    generator: Any = wrapped
    with torch.no_grad():
        sequences = generator.generate(
            input_ids=tokens.to(device),
            attention_mask=is_token.long().to(device),
            max_new_tokens=count,
            # Set explicitly, since a model's own generation settings may ask for sampling or beams.
            do_sample=False,
            num_beams=1,
            eos_token_id=end,
            # A row that ends early is padded with the end of text, at which it is then cut.
            pad_token_id=0 if end is None else end,
        )
    continuations: list[list[int]] = sequences[:, tokens.shape[1] :].tolist()
    return continuations


def generation_quantities(
    generations: Sequence[Generation], judge: Judge | None = None
) -> list[Quantity]:
    """Compute `distinct_1`, `distinct_2` and, with a judge, `judged`, prompt by prompt.

    Raises:
        ValueError: The judge does not return one finite number for each text.
    """
    groups = tuple(str(number) for number in range(len(generations)))
    tokens = [generation.tokens for generation in generations]
    quantities = [
        Quantity(
            f"distinct_{n}",
            distinct_share(tokens, n),
            groups,
            f"fraction of runs of {n}" if n > 1 else "fraction of tokens",
            f"distinct runs of {n} generated tokens" if n > 1 else "distinct generated tokens",
            effect=False,
        )
        for n in (1, 2)
    ]
    if judge is not None:
        scores = np.asarray(judge([generation.text for generation in generations]), dtype=float)
        if scores.shape != (len(generations),) or not np.isfinite(scores).all():
            raise ValueError(
                f"A judge returns one finite number for each of the {len(generations)} texts, got "
                f"shape {scores.shape}. Larger numbers mean the trustworthy side."
            )
        quantities.append(
            Quantity("judged", scores, groups, "judge's score", "score of the generated text")
        )
    return quantities


def classifier_judge(model: str | Path, *, label: str, device: str | None = None) -> Judge:
    """Make a judge from a local Hugging Face text-classification model.

    Args:
        model: A folder or the id of a model, as `transformers.pipeline` takes it.
        label: The label of the trustworthy side. The score is its probability.
        device: The device to run on. None for the CPU.

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
    labels = sorted(map(str, classify.model.config.id2label.values()))
    if label not in labels:
        raise ValueError(f"{str(model)!r} has no label {label!r}. It has {', '.join(labels)}.")

    def judge(texts: Sequence[str]) -> Float[np.ndarray, " text"]:
        results = classify(list(texts), truncation=True)
        return np.array(
            [next(entry["score"] for entry in row if entry["label"] == label) for row in results]
        )

    return judge


def distinct_share(tokens: Sequence[Sequence[int]], n: int) -> Float[np.ndarray, " text"]:
    """The share of distinct runs among all runs of `n` tokens of each text.

    1 if nothing is repeated. A text without a run of that length counts as 1.

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
