"""The toy pre-training run: a small model from random weights, on the embedded corpus.

It is Pythia's architecture, small enough to be trained in a minute on one core, on text of the
world that the five embedded sets speak of. So there is a series of checkpoints to try everything on
without a download, in which the five concepts come to be known while one watches.
"""

import hashlib
import json
import math
import os
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tlens_trust.checkpoints.cache import cache_folder
from tlens_trust.checkpoints.loading import quietly
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy_text import make_rows, make_tokenizer
from tlens_trust.concepts.embedded import toy_corpus
from tlens_trust.files import remove_abandoned, replaced_folder, write_file
from tlens_trust.threads import limited_threads

CHECKPOINT_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768)

_RECORD = "series.json"
_STATE = "training_state.pt"
_WEIGHTS = "model.safetensors"
_ROW_LENGTH = 40
_ROWS_PER_STEP = 25
_LEARNING_RATE = 8e-3
_LAST_LEARNING_RATE = 8e-4
_WARM_UP_STEPS = 20
_CONTEXT = 512


def pretrain_toy_series(
    folder: str | os.PathLike[str] | None = None, *, seed: int = 0, progress: bool = True
) -> CheckpointSeries:
    """Pre-train a toy model and return its checkpoints.

    Where a trained series is all that is wanted, `load_toy_series` has one at once. This function
    is for other seeds, and to see training itself.

    The model is a GPT-NeoX of 4 blocks and 64 dimensions. It is trained on the processor, on one
    thread, for 768 steps of 1000 tokens, which takes about 45 seconds, and is saved at 15 steps
    from 0 to 768. The same seed gives the same weights on one machine.

    A run that was interrupted goes on from its last checkpoint and ends with the weights that it
    would have had. One that is finished is returned at once.

    Args:
        folder: Where the checkpoints go; None for one in this package's cache folder, which the
            environment variable `TLENS_TRUST_CACHE` moves.
        seed: Draws the weights, the corpus and its order. Not negative.
        progress: Show how training goes.

    Returns:
        The series, with tokens and training loss known at every checkpoint.

    Raises:
        ValueError: `folder` holds something else, or `seed` is negative.
    """
    settings = run_settings(seed=seed)
    if folder is None:
        # The last part is what checkpoints are named after: toy@step512.
        folder = cache_folder() / "toy-series" / _digest(settings)[:16] / "toy"
    train_toy_run(folder, settings, progress=progress)
    return CheckpointSeries.from_directory(Path(folder))


def run_settings(
    *,
    seed: int = 0,
    steps: Sequence[int] = CHECKPOINT_STEPS,
    d_model: int = 64,
    n_layers: int = 4,
    n_heads: int = 4,
    rows: int = 16_000,
) -> dict[str, Any]:
    """Everything that decides what weights a run ends with; smaller numbers make a shorter run.

    Args:
        seed: Draws the weights, the corpus and its order.
        steps: When to save a checkpoint, from 0 to the last step.
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        n_heads: Attention heads in a block.
        rows: Rows of the corpus from which each step draws.

    Returns:
        As `series.json` keeps them.

    Raises:
        ValueError: `seed` is negative, or `steps` do not rise from 0.
    """
    if seed < 0:
        raise ValueError(f"`seed` got {seed}. Give 0 or a larger number.")
    if len(steps) < 2 or steps[0] != 0 or sorted(set(steps)) != list(steps):
        raise ValueError(f"`steps` got {steps!r}. Give at least two that rise from 0.")
    sample = "\n".join(islice(toy_corpus(seed), 1000))
    return {
        "architecture": "gpt_neox",
        "d_model": d_model,
        "n_layers": n_layers,
        "n_heads": n_heads,
        "seed": seed,
        "steps": list(steps),
        "rows": rows,
        "row_length": _ROW_LENGTH,
        "rows_per_step": _ROWS_PER_STEP,
        "learning_rate": [_LEARNING_RATE, _LAST_LEARNING_RATE],
        "warm_up_steps": _WARM_UP_STEPS,
        "corpus": hashlib.sha256(sample.encode()).hexdigest(),
    }


def train_toy_run(
    folder: str | os.PathLike[str], settings: dict[str, Any], *, progress: bool = False
) -> None:
    """Train a run to its end, from its last checkpoint if it has one.

    Every checkpoint is a Hugging Face folder `step{n}` with weights, configuration and tokenizer.
    The last one also holds what it takes to go on: the optimiser's state and that of the generator
    that draws the rows. `series.json` beside them holds the settings, the tokens of a step, the
    loss of every checkpoint on the rows that it would be trained on next, and the hash of its
    weights. Folders are written aside and renamed into place; a checkpoint whose weights are not
    those that were written is made again.

    Args:
        folder: Where the checkpoints go.
        settings: As `run_settings` gives them.
        progress: Show how training goes.

    Raises:
        ValueError: `folder` holds something else than this run.
    """
    place = Path(folder).expanduser()
    record = _open_record(place, settings)
    done = _whole_checkpoints(place, record)
    if done == settings["steps"]:
        return
    # One thread, so that the weights depend neither on the number of cores nor on who else wants
    # them: matrices of this size gain little from a second thread and wait for it at length.
    with limited_threads(1):
        _train(place, settings, record, _last_with_state(place, done), progress=progress)
    remove_abandoned(place)


def _train(
    place: Path, settings: dict[str, Any], record: dict[str, Any], start: int, *, progress: bool
) -> None:
    from tqdm.auto import tqdm

    tokenizer = make_tokenizer()
    rows = make_rows(
        tokenizer, seed=settings["seed"], rows=settings["rows"], row_length=settings["row_length"]
    )
    model = _make_model(settings, tokenizer)
    optimizer = _make_optimizer(model)
    generator = torch.Generator().manual_seed(settings["seed"])
    if start:
        _restore(place / f"step{start}" / _STATE, model, optimizer, generator)
    *_, last = settings["steps"]
    with tqdm(
        total=last, initial=start, desc="toy series", unit="step", disable=not progress
    ) as bar:
        for step in range(start, last + 1):
            before = generator.get_state()
            drawn = torch.randint(len(rows), (settings["rows_per_step"],), generator=generator)
            loss = _loss(model, rows[drawn])
            if step in settings["steps"] and (step > start or not start):
                bar.set_postfix(loss=f"{loss.item():.3f}")
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rows": before,
                }
                _save(place, step, model, tokenizer, state)
                record["loss"][str(step)] = loss.item()
                record["weights"][str(step)] = _hash(place / f"step{step}" / _WEIGHTS)
                _write_record(place, record)
                for earlier in settings["steps"][: settings["steps"].index(step)]:
                    (place / f"step{earlier}" / _STATE).unlink(missing_ok=True)
            if step < last:
                rate = _learning_rate(step, last)
                for group in optimizer.param_groups:
                    group["lr"] = rate
                optimizer.zero_grad()
                loss.backward()  # type: ignore[no-untyped-call]
                nn.utils.clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                bar.update()


def _make_model(settings: dict[str, Any], tokenizer: Any) -> nn.Module:
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    d_model = settings["d_model"]
    end = tokenizer.eos_token_id
    config = GPTNeoXConfig(
        vocab_size=math.ceil(len(tokenizer) / 64) * 64,
        hidden_size=d_model,
        num_hidden_layers=settings["n_layers"],
        num_attention_heads=settings["n_heads"],
        intermediate_size=4 * d_model,
        max_position_embeddings=_CONTEXT,
        # Pythia turns a quarter of each head; of heads this small that leaves too little to tell
        # one place from the next.
        rotary_pct=1.0,  # type: ignore[call-arg]
        # Pythia's small_init.
        initializer_range=math.sqrt(2 / (5 * d_model)),
        bos_token_id=end,
        eos_token_id=end,
    )
    # The user's own random numbers go on as if nothing had been drawn.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        model: nn.Module = GPTNeoXForCausalLM(config).train()
    return model


def _make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    others = [p for p in model.parameters() if p.dim() <= 1]
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}],
        lr=_LEARNING_RATE,
        betas=(0.9, 0.95),
        fused=True,
    )


def _learning_rate(step: int, last: int) -> float:
    """A linear rise, times half a cosine from the first rate to the last."""
    fall = (1 + math.cos(math.pi * step / last)) / 2
    rate = _LAST_LEARNING_RATE + (_LEARNING_RATE - _LAST_LEARNING_RATE) * fall
    return rate * min(1.0, (step + 1) / _WARM_UP_STEPS)


def _loss(model: nn.Module, batch: Int[Tensor, "row position"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats a token."""
    logits = model(batch, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


def _save(place: Path, step: int, model: Any, tokenizer: Any, state: dict[str, Any]) -> None:
    with replaced_folder(place / f"step{step}") as unfinished:
        with quietly():
            model.save_pretrained(unfinished)
        tokenizer.save_pretrained(unfinished)
        torch.save(state, unfinished / _STATE)


def _restore(
    file: Path, model: nn.Module, optimizer: torch.optim.Optimizer, rows: torch.Generator
) -> None:
    state = torch.load(file, weights_only=True)
    model.load_state_dict(state["model"])
    optimizer.load_state_dict(state["optimizer"])
    rows.set_state(state["rows"])


def _open_record(place: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """What `series.json` says of this run so far."""
    fresh = {
        "tokens_per_step": settings["rows_per_step"] * settings["row_length"],
        "settings": settings,
        "loss": {},
        "weights": {},
    }
    try:
        record: dict[str, Any] = json.loads((place / _RECORD).read_text(encoding="utf-8"))
        held = record["settings"]
    except FileNotFoundError:
        if place.exists() and (not place.is_dir() or any(place.iterdir())):
            raise ValueError(
                f"{str(place)!r} holds something, but no toy run: it has no {_RECORD}. Name an "
                "empty folder or one that does not exist."
            ) from None
        _write_record(place, fresh)
        return fresh
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{str(place / _RECORD)!r} is no record of a toy run. Name another folder, or empty "
            "this one."
        ) from error
    if held != settings:
        differing = ", ".join(
            f"{name}={held.get(name)!r} instead of {settings.get(name)!r}"
            for name in sorted({*held, *settings})
            if held.get(name) != settings.get(name)
        )
        raise ValueError(
            f"{str(place)!r} holds another toy run, with {differing}. Name another folder, or "
            "empty this one."
        )
    return record


def _write_record(place: Path, record: dict[str, Any]) -> None:
    write_file(place / _RECORD, json.dumps(record, indent=1))


def _whole_checkpoints(place: Path, record: dict[str, Any]) -> list[int]:
    """The steps up to the first whose checkpoint is missing or not what was written."""
    whole = []
    for step in record["settings"]["steps"]:
        weights = place / f"step{step}" / _WEIGHTS
        if not weights.is_file() or _hash(weights) != record["weights"].get(str(step)):
            break
        whole.append(step)
    return whole


def _last_with_state(place: Path, whole: list[int]) -> int:
    """The step to go on from; 0, which means from the beginning, where none can be."""
    return max((s for s in whole if (place / f"step{s}" / _STATE).is_file()), default=0)


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
