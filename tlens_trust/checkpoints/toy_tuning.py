"""Makes a chat model from a toy checkpoint by a short supervised fine-tuning.

Steering vectors from the checkpoints of a run are evaluated on the model that the run led to, which
today is usually tuned to answer. So the toy model is tuned to take a turn in a dialogue. The user
says the beginning of a passage of the toy corpus, and the assistant answers with its last sentence.
The loss covers only the answer's tokens. The tokenizer gets a chat template.
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

from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints.cache import cache_folder
from tlens_trust.checkpoints.checkpoint import Checkpoint
from tlens_trust.checkpoints.loading import quietly
from tlens_trust.checkpoints.toy_embedded import load_toy_series
from tlens_trust.concepts.embedded.corpus import toy_corpus
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
# The default `ignore_index` of torch.nn.functional.cross_entropy.
_IGNORED_TARGET = -100


def tune_toy_checkpoint(
    checkpoint: Checkpoint | None = None,
    folder: str | os.PathLike[str] | None = None,
    *,
    seed: int = 0,
    steps: int = _STEPS,
    progress: bool = True,
) -> Checkpoint:
    """Tune a toy checkpoint to answer, and return the chat model.

    The default of 120 steps of 25 dialogues takes about ten seconds on one core. The same
    checkpoint and seed give the same weights on one machine. A model that was tuned before is
    returned at once.

    Args:
        checkpoint: The checkpoint to tune, of any toy run; None for the last one of
            `load_toy_series()`, whatever `seed` is. It is tuned in float32.
        folder: Folder for the model; None for one in this package's cache folder.
        seed: Seed of the dialogues. Not negative.
        steps: Steps of the optimiser.
        progress: Whether to show a progress bar.

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
    seed = checked_seed(seed)
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
        # The checkpoint gets its name from the last part of the path.
        folder = cache_folder() / "toy-series" / _digest(settings)[:16] / "toy-chat"
    model_folder = Path(folder).expanduser()
    if not _is_tuned(model_folder, settings):
        _tune(checkpoint, model_folder, settings, progress=progress)
    return Checkpoint.from_directory(model_folder)


def _is_tuned(model_folder: Path, settings: dict[str, Any]) -> bool:
    """Whether the folder holds this model, unaltered.

    Raises:
        ValueError: The folder holds something else.
    """
    try:
        record = json.loads((model_folder / _RECORD).read_text(encoding="utf-8"))
        recorded_settings, weights = record["settings"], record["weights"]
    except FileNotFoundError:
        if model_folder.exists() and (not model_folder.is_dir() or any(model_folder.iterdir())):
            raise ValueError(
                f"{str(model_folder)!r} is not empty and holds no tuned toy: it has no {_RECORD}. "
                "Name an empty folder or one that does not exist."
            ) from None
        return False
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{str(model_folder / _RECORD)!r} is not the record of a tuned toy. Name another "
            "folder, or empty this one."
        ) from error
    if recorded_settings != settings:
        differing = ", ".join(
            f"{name}={recorded_settings.get(name)!r} instead of {settings.get(name)!r}"
            for name in sorted({*recorded_settings, *settings})
            if recorded_settings.get(name) != settings.get(name)
        )
        raise ValueError(
            f"{str(model_folder)!r} holds another tuned toy, with {differing}. Name another "
            "folder, or empty this one."
        )
    # A torn file is tuned again, and not refused.
    file = model_folder / _WEIGHTS
    return file.is_file() and hashlib.sha256(file.read_bytes()).hexdigest() == weights


def _tune(
    checkpoint: Checkpoint, model_folder: Path, settings: dict[str, Any], *, progress: bool
) -> None:
    from tqdm.auto import tqdm
    from transformers import GPTNeoXForCausalLM

    if checkpoint.folder is None:
        raise ValueError(
            f"{checkpoint.name!r} is not on disk. Give a checkpoint of a series from "
            "`load_toy_series` or `pretrain_toy_series`."
        )
    # A copy, since the tokenizer may be the caller's, and its chat template must not change.
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
    _save(model_folder, model, tokenizer, settings)


def _dialogues(seed: int) -> Iterator[tuple[str, str]]:
    """Yield pairs of what the user says and what the assistant answers, without end."""
    # Another seed, so that these are not the passages that a run of the same seed was trained on.
    for passage in toy_corpus(seed + 1_000_000):
        question, stop, answer = passage.removesuffix(".").rpartition(". ")
        if stop:
            yield f"{question}.", f"{answer}."


def _encode(
    tokenizer: Any, dialogues: list[tuple[str, str]]
) -> tuple[Int[Tensor, "row position"], Int[Tensor, "row position"]]:
    """Encode dialogues as token ids, padded at the right, and as targets of the loss."""
    end = tokenizer.eos_token_id
    ids, target_rows = [], []
    for question, answer in dialogues:
        turns = [{"role": "user", "content": question}]
        prompt = tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        turns.append({"role": "assistant", "content": answer})
        dialogue = tokenizer.apply_chat_template(turns, tokenize=False)
        # The answer begins with a space, which is part of its first token.
        prompt_tokens = tokenizer(prompt)["input_ids"]
        tokens = tokenizer(dialogue)["input_ids"]
        ids.append(tokens)
        target_rows.append([_IGNORED_TARGET] * len(prompt_tokens) + tokens[len(prompt_tokens) :])
    # Padding has no target, so the choice of the token does not matter.
    longest = max(map(len, ids))
    rows = [tokens + [end] * (longest - len(tokens)) for tokens in ids]
    targets = [tokens + [_IGNORED_TARGET] * (longest - len(tokens)) for tokens in target_rows]
    return torch.tensor(rows), torch.tensor(targets)


def _loss(
    model: nn.Module, rows: Int[Tensor, "row position"], targets: Int[Tensor, "row position"]
) -> Float[Tensor, ""]:
    """Cross-entropy of the answers, in nats a token."""
    # No attention mask is needed: padding is at the right, and attention looks only to the left.
    logits = model(rows, use_cache=False).logits
    return nn.functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), targets[:, 1:].flatten(), ignore_index=_IGNORED_TARGET
    )


def _learning_rate(step: int, steps: int) -> float:
    """A linear warm-up, times half a cosine to zero."""
    fall = (1 + math.cos(math.pi * step / steps)) / 2
    return _LEARNING_RATE * fall * min(1.0, (step + 1) / _WARM_UP_STEPS)


def _save(model_folder: Path, model: Any, tokenizer: Any, settings: dict[str, Any]) -> None:
    with replaced_folder(model_folder) as unfinished:
        with quietly():
            model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        weights = hashlib.sha256((unfinished / _WEIGHTS).read_bytes()).hexdigest()
        record = {"settings": settings, "weights": weights}
        (unfinished / _RECORD).write_text(json.dumps(record, indent=1), encoding="utf-8")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
