"""Pre-trains a toy model from random weights, on the embedded corpus.

The model has Pythia's architecture and is small enough to be trained in a minute on one core. Its
corpus is about the same world as the five embedded concept sets. So it gives a series of
checkpoints, without a download, in which the five concepts become decodable during training.
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

from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints.cache import cache_folder
from tlens_trust.checkpoints.loading import quietly
from tlens_trust.checkpoints.series import CheckpointSeries
from tlens_trust.checkpoints.toy_text import make_rows, make_tokenizer
from tlens_trust.concepts.embedded.corpus import toy_corpus
from tlens_trust.files import remove_abandoned, replaced_folder, write_file
from tlens_trust.threads import limited_threads

CHECKPOINT_STEPS = (0, 1, 2, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512, 768)

_RECORD = "series.json"
_STATE = "training_state.pt"
_WEIGHTS = "model.safetensors"
# Together 1000 tokens a step.
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

    `load_toy_series` gives such a series without training. Use this function for other seeds, and
    to watch the training.

    The model is a GPT-NeoX of 4 blocks and 64 dimensions. It is trained for 768 steps of 1000
    tokens, on the CPU and on one thread, which takes about 45 seconds. It is saved at 15 steps from
    0 to 768. The same seed gives the same weights on one machine.

    A run that was interrupted continues from its last checkpoint, and ends with the same weights as
    a run without interruption. A run that is finished is returned at once.

    Args:
        folder: Folder for the checkpoints; None for one in this package's cache folder, which the
            environment variable `TLENS_TRUST_CACHE` moves.
        seed: Seed of the weights, the corpus and its order. Not negative.
        progress: Whether to show a progress bar.

    Returns:
        The series, with the tokens and the training loss of every checkpoint.

    Raises:
        ValueError: `folder` holds something else, or `seed` is negative.
    """
    settings = run_settings(seed=seed)
    if folder is None:
        # Checkpoints get their name from the last part of the path: toy@step512.
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
    """Collect all settings that determine the weights of a run; smaller numbers make a shorter run.

    Args:
        seed: Seed of the weights, the corpus and its order.
        steps: The steps at which a checkpoint is saved, from 0 to the last step.
        d_model: Width of the residual stream.
        n_layers: Number of blocks.
        n_heads: Attention heads in a block.
        rows: Number of rows in the corpus, from which each step draws its batch.

    Returns:
        The settings in the form that `series.json` stores.

    Raises:
        ValueError: `seed` is negative, or `steps` do not start at 0 and increase.
    """
    seed = checked_seed(seed)
    if len(steps) < 2 or steps[0] != 0 or sorted(set(steps)) != list(steps):
        raise ValueError(f"`steps` got {steps!r}. Give at least two that increase from 0.")
    # The first passages stand for the corpus: with another version of it, this is another run.
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
    """Train a run to its end, starting from its last checkpoint if there is one.

    Every checkpoint is a Hugging Face folder `step{n}` with weights, configuration and tokenizer.
    The last one also holds the state of the optimiser and of the generator that draws the rows, so
    that the run can continue from it.

    `series.json` beside the folders holds the settings, the tokens per step, and the loss and the
    hash of the weights of every checkpoint. The loss is that of the batch that the checkpoint would
    be trained on next. A checkpoint whose weights do not have the recorded hash is trained again.

    Args:
        folder: Folder for the checkpoints.
        settings: The settings from `run_settings`.
        progress: Whether to show a progress bar.

    Raises:
        ValueError: `folder` holds something other than this run.
    """
    run_folder = Path(folder).expanduser()
    record = _open_record(run_folder, settings)
    finished_steps = _intact_steps(run_folder, record)
    if finished_steps == settings["steps"]:
        return
    # With one thread, the weights do not depend on the number of cores. Matrices of this size gain
    # little from a second thread, and where the cores are busy they wait for it for a long time.
    with limited_threads(1):
        _train(
            run_folder,
            settings,
            record,
            _last_with_state(run_folder, finished_steps),
            progress=progress,
        )
    remove_abandoned(run_folder)


def _train(
    run_folder: Path,
    settings: dict[str, Any],
    record: dict[str, Any],
    start_step: int,
    *,
    progress: bool,
) -> None:
    from tqdm.auto import tqdm

    tokenizer = make_tokenizer()
    rows = make_rows(
        tokenizer, seed=settings["seed"], rows=settings["rows"], row_length=settings["row_length"]
    )
    model = _make_model(settings, tokenizer)
    optimizer = _make_optimizer(model)
    generator = torch.Generator().manual_seed(settings["seed"])
    if start_step:
        _restore(run_folder / f"step{start_step}" / _STATE, model, optimizer, generator)
    *_, last_step = settings["steps"]
    with tqdm(
        total=last_step, initial=start_step, desc="toy series", unit="step", disable=not progress
    ) as bar:
        for step in range(start_step, last_step + 1):
            # The state before the draw, so that a resumed run draws this step's rows once more.
            generator_state = generator.get_state()
            row_indices = torch.randint(
                len(rows), (settings["rows_per_step"],), generator=generator
            )
            loss = _loss(model, rows[row_indices])
            # The checkpoint at which a run resumes is saved already.
            if step in settings["steps"] and (step > start_step or not start_step):
                bar.set_postfix(loss=f"{loss.item():.3f}")
                state = {
                    "model": model.state_dict(),
                    "optimizer": optimizer.state_dict(),
                    "rows": generator_state,
                }
                # In this order, an interruption always leaves a recorded checkpoint with its state.
                _save(run_folder, step, model, tokenizer, state)
                record["loss"][str(step)] = loss.item()
                record["weights"][str(step)] = _hash(run_folder / f"step{step}" / _WEIGHTS)
                _write_record(run_folder, record)
                for earlier in settings["steps"][: settings["steps"].index(step)]:
                    (run_folder / f"step{earlier}" / _STATE).unlink(missing_ok=True)
            if step < last_step:
                rate = _learning_rate(step, last_step)
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
        # Pythia rotates a quarter of each head's dimensions. In heads this small, these would be
        # too few to tell neighbouring positions apart.
        rotary_pct=1.0,  # type: ignore[call-arg]
        # Pythia's small_init.
        initializer_range=math.sqrt(2 / (5 * d_model)),
        bos_token_id=end,
        eos_token_id=end,
    )
    # The user's stream of random numbers must not change.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings["seed"])
        model: nn.Module = GPTNeoXForCausalLM(config).train()
    return model


def _make_optimizer(model: nn.Module) -> torch.optim.AdamW:
    matrices = [p for p in model.parameters() if p.dim() > 1]
    vectors = [p for p in model.parameters() if p.dim() <= 1]
    # Betas and weight decay are Pythia's; biases and norms are not decayed.
    return torch.optim.AdamW(
        [{"params": matrices, "weight_decay": 0.1}, {"params": vectors, "weight_decay": 0.0}],
        lr=_LEARNING_RATE,
        betas=(0.9, 0.95),
        fused=True,
    )


def _learning_rate(step: int, last_step: int) -> float:
    """A linear warm-up, times half a cosine from the first rate to the last."""
    fall = (1 + math.cos(math.pi * step / last_step)) / 2
    rate = _LAST_LEARNING_RATE + (_LEARNING_RATE - _LAST_LEARNING_RATE) * fall
    return rate * min(1.0, (step + 1) / _WARM_UP_STEPS)


def _loss(model: nn.Module, batch: Int[Tensor, "row position"]) -> Float[Tensor, ""]:
    """Cross-entropy in nats per token."""
    # Each position predicts the next token, so the last one has no target.
    logits = model(batch, use_cache=False).logits
    return nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1), batch[:, 1:].flatten())


def _save(run_folder: Path, step: int, model: Any, tokenizer: Any, state: dict[str, Any]) -> None:
    with replaced_folder(run_folder / f"step{step}") as unfinished:
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


def _open_record(run_folder: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Read `series.json` of this run, or write it if the run is new."""
    fresh = {
        "tokens_per_step": settings["rows_per_step"] * settings["row_length"],
        "settings": settings,
        "loss": {},
        "weights": {},
    }
    try:
        record: dict[str, Any] = json.loads((run_folder / _RECORD).read_text(encoding="utf-8"))
        recorded_settings = record["settings"]
    except FileNotFoundError:
        if run_folder.exists() and (not run_folder.is_dir() or any(run_folder.iterdir())):
            raise ValueError(
                f"{str(run_folder)!r} is not empty and holds no toy run: it has no {_RECORD}. Name "
                "an empty folder or one that does not exist."
            ) from None
        _write_record(run_folder, fresh)
        return fresh
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(
            f"{str(run_folder / _RECORD)!r} is not the record of a toy run. Name another folder, "
            "or empty this one."
        ) from error
    if recorded_settings != settings:
        differing = ", ".join(
            f"{name}={recorded_settings.get(name)!r} instead of {settings.get(name)!r}"
            for name in sorted({*recorded_settings, *settings})
            if recorded_settings.get(name) != settings.get(name)
        )
        raise ValueError(
            f"{str(run_folder)!r} holds another toy run, with {differing}. Name another folder, or "
            "empty this one."
        )
    return record


def _write_record(run_folder: Path, record: dict[str, Any]) -> None:
    write_file(run_folder / _RECORD, json.dumps(record, indent=1))


def _intact_steps(run_folder: Path, record: dict[str, Any]) -> list[int]:
    """Return the steps before the first one whose checkpoint is missing or altered."""
    intact_steps = []
    for step in record["settings"]["steps"]:
        weights = run_folder / f"step{step}" / _WEIGHTS
        # Training goes on from a checkpoint, so those after a gap are of no use.
        if not weights.is_file() or _hash(weights) != record["weights"].get(str(step)):
            break
        intact_steps.append(step)
    return intact_steps


def _last_with_state(run_folder: Path, intact_steps: list[int]) -> int:
    """Return the last step that training can continue from; 0 for the beginning."""
    return max(
        (step for step in intact_steps if (run_folder / f"step{step}" / _STATE).is_file()),
        default=0,
    )


def _hash(file: Path) -> str:
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _digest(settings: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()
