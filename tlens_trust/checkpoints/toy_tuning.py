"""A chat model made of the toy: a short supervised fine-tuning of its last checkpoint.

Vectors from a run's own checkpoints are tried on what became of the run, and what becomes of a
language model today is tuned to answer. So the toy is tuned to take a turn in a dialogue: the user
says what a passage of the toy corpus says, and the assistant answers with the sentence that follows
it there. Only the answer's tokens are learnt from. The tokenizer gets a chat template.
"""

import copy
import hashlib
import json
import math
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tlens_trust.checkpoints.cache import cache_folder
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.loading import quietly
from tlens_trust.checkpoints.toy_embedded import load_toy_series
from tlens_trust.concepts.embedded import toy_corpus
from tlens_trust.files import replaced_folder
from tlens_trust.threads import limited_threads

CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}"
    "Assistant: {{ message['content'] }}{{ eos_token }}"
    "{% else %}"
    "User: {{ message['content'] }}\n"
    "{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)

_RECORD = "tuning.json"
_WEIGHTS = "model.safetensors"
_STEPS = 120
_DIALOGUES_PER_STEP = 25
_LEARNING_RATE = 2e-3
_WARM_UP_STEPS = 10
# What the loss passes over, as torch.nn.functional.cross_entropy has it.
_NOT_LEARNT = -100


def tune_toy_checkpoint(
    checkpoint: Checkpoint | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    steps: int = _STEPS,
    progress: bool = True,
) -> Checkpoint:
    """Tune a toy checkpoint to answer, and return the chat model.

    By default 120 steps of 25 dialogues, about ten seconds on one core. The same checkpoint and
    seed give the same weights on one machine. What has been tuned before is returned at once.

    Args:
        checkpoint: The checkpoint to tune, of any toy run; None for the last one of
            `load_toy_series()`, whatever `seed` is. It is tuned in float32.
        folder: Where the model goes; None for one in this package's cache folder.
        seed: Draws the dialogues. Not negative.
        steps: Steps of the optimiser.
        progress: Show how training goes.

    Returns:
        A checkpoint without a step of its own, with a chat template in its tokenizer.

    Raises:
        ValueError: `folder` holds something else, the checkpoint is no toy, or a number is out of
            its range.

    Examples:
        >>> from tlens_trust.checkpoints import tune_toy_checkpoint  # doctest: +SKIP
        >>> tune_toy_checkpoint()  # doctest: +SKIP
        Checkpoint('toy-chat')
    """
    if seed < 0:
        raise ValueError(f"`seed` got {seed}. Give 0 or a larger number.")
    if steps < 1:
        raise ValueError(f"`steps` got {steps}. Give at least one step.")
    if checkpoint is None:
        checkpoint = load_toy_series()[-1]
    settings = {
        "parent": checkpoint.name,
        "parent_identity": checkpoint.identity,
        "seed": seed,
        "steps": steps,
        "dialogues_per_step": _DIALOGUES_PER_STEP,
        "learning_rate": _LEARNING_RATE,
        "dialogues": _digest(list(islice(_dialogues(seed), 1000))),
        "chat_template": CHAT_TEMPLATE,
    }
    if folder is None:
        # The last part is what the checkpoint is named after.
        folder = cache_folder() / "toy-series" / _digest(settings)[:16] / "toy-chat"
    place = Path(folder).expanduser()
    if not _is_whole(place, settings):
        _tune(checkpoint, place, settings, progress=progress)
    return Checkpoint.from_directory(place)


def _is_whole(place: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this model, unaltered. Something else in it is an error."""
    try:
        record = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        held, weights = record["settings"], record["weights"]
    except FileNotFoundError:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ValueError(
                f"{str(place)!r} holds something, but no tuned toy: it has no {_RECORD}. Name an "
                "empty folder or one that does not exist."
            ) from None
        return False
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{str(place / _RECORD)!r} is no record of a tuned toy. Name another folder, or empty "
            "this one."
        ) from error
    if held != settings:
        differing = ", ".join(
            f"{name}={held.get(name)!r} instead of {settings.get(name)!r}"
            for name in sorted({*held, *settings})
            if held.get(name) != settings.get(name)
        )
        raise ValueError(
            f"{str(place)!r} holds another tuned toy, with {differing}. Name another folder, or "
            "empty this one."
        )
    file = place / _WEIGHTS
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == weights


def _tune(checkpoint: Checkpoint, place: Path, settings: dict[str, Any], *, progress: bool) -> None:
    from tqdm.auto import tqdm
    from transformers import GPTNeoXForCausalLM

    if checkpoint.folder is None:
        raise ValueError(
            f"{checkpoint.name!r} lies in no folder. Give a checkpoint of a series that "
            "`load_toy_series` or `pretrain_toy_series` gives."
        )
    # A copy, since the checkpoint may have brought a tokenizer that others use.
    tokenizer = copy.deepcopy(checkpoint.load_tokenizer())
    tokenizer.chat_template = CHAT_TEMPLATE
    with quietly():
        model = GPTNeoXForCausalLM.from_pretrained(checkpoint.folder, dtype=torch.float32).train()
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=_LEARNING_RATE, betas=(0.9, 0.95), weight_decay=0.0, fused=True
    )
    dialogues = _dialogues(settings["seed"])
    steps = settings["steps"]
    with (
        limited_threads(1),
        tqdm(total=steps, desc="toy chat", unit="step", disable=not progress) as bar,
    ):
        for step in range(steps):
            batch = [*islice(dialogues, settings["dialogues_per_step"])]
            loss = _loss(model, *_encode(tokenizer, batch))
            for group in optimizer.param_groups:
                group["lr"] = _learning_rate(step, steps)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
            bar.set_postfix(loss=f"{loss.item():.3f}", refresh=False)
            bar.update()
    _save(place, model, tokenizer, settings)


def _dialogues(seed: int) -> Iterator[tuple[str, str]]:
    """What the user says, and what the assistant answers, endlessly."""
    # Not the passages, in their order, that a run of the same seed was trained on.
    for passage in toy_corpus(seed + 1_000_000):
        said, stop, answer = passage.removesuffix(".").rpartition(". ")
        if stop:
            yield f"{said}.", f"{answer}."


def _encode(
    tokenizer: Any, dialogues: list[tuple[str, str]]
) -> tuple[Int[Tensor, "row position"], Int[Tensor, "row position"]]:
    """Token ids, padded at the right, and of them those that are learnt from."""
    end = tokenizer.eos_token_id
    ids, learnt = [], []
    for said, answer in dialogues:
        turns = [{"role": "user", "content": said}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        turns.append({"role": "assistant", "content": answer})
        whole = tokenizer.apply_chat_template(turns, tokenize=False)
        # The answer begins with a space, which is part of its first token.
        first = tokenizer(prompt)["input_ids"]
        tokens = tokenizer(whole)["input_ids"]
        ids.append(tokens)
        learnt.append([_NOT_LEARNT] * len(first) + tokens[len(first) :])
    longest = max(map(len, ids))
    rows = [tokens + [end] * (longest - len(tokens)) for tokens in ids]
    targets = [tokens + [_NOT_LEARNT] * (longest - len(tokens)) for tokens in learnt]
    return torch.tensor(rows), torch.tensor(targets)


def _loss(
    model: nn.Module, rows: Int[Tensor, "row position"], learnt: Int[Tensor, "row position"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the answers, in nats a token."""
    # Padding stands at the right, where no token that is learnt from looks.
    logits = model(rows, use_cache=False).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), learnt[:, 1:].flatten(), ignore_index=_NOT_LEARNT
    )


def _learning_rate(step: int, steps: int) -> float:
    """A linear rise, times half a cosine to nothing."""
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * fall * min(1.0, (step + 1) / _WARM_UP_STEPS)


def _save(place: Path, model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    with replaced_folder(place) as unfinished:
        with quietly():
            model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        weights = hashlib.sha256((unfinished / _WEIGHTS).read_bytes()).hexdigest()
        record = {"settings": settings, "weights": weights}
        (unfinished / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
