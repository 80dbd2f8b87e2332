"""The command that steers one checkpoint by a vector of another."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.concept_options import CsvOptions, choose_concepts, draw_groups
from tlens_trust.cli.options import Quiet, Seed, expand_options, split_entries
from tlens_trust.cli.series_options import FamilyOptions, LoadingOptions, Series, open_series
from tlens_trust.files import replaced_file

if TYPE_CHECKING:
    from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
    from tlens_trust.concepts import Concept
    from tlens_trust.steering import ForcedChoice

# Two of each side, which alternate.
_PROMPTS = 4


class EstimationMethod(StrEnum):
    """How a vector is made: the names in `tlens_trust.steering`, which is not imported for them."""

    mean_difference = "mean_difference"
    tracingllm = "tracingllm"
    pair_difference = "pair_difference"
    logistic = "logistic"
    lda = "lda"
    ridge = "ridge"
    sparse = "sparse"
    contrast_consistent = "contrast_consistent"
    iti = "iti"


class TokenChoice(StrEnum):
    """Which tokens are steered."""

    all = "all"
    prompt = "prompt"
    generated = "generated"
    last = "last"


@expand_options
def steer(
    series: Series,
    *,
    source: Annotated[
        str, typer.Option("--from", help="The checkpoint the vector is made at: a step or a name.")
    ],
    target: Annotated[
        str,
        typer.Option(
            "--to", help="What is steered: a step, or the folder or hub name of a tuned model."
        ),
    ],
    concept: Annotated[
        str | None,
        typer.Option(help="Embedded set or benchmark; NAME=PATH reads one from a file."),
    ] = None,
    csv_options: CsvOptions,
    site: Annotated[
        str | None, typer.Option(help="A layer, or a site's name; by default the middle layer.")
    ] = None,
    method: Annotated[
        EstimationMethod,
        typer.Option(
            help="How the vector is made: a difference of means (the paper's: 'tracingllm'), the "
            "direction of pair differences, a probe's weights, or single heads ('iti')."
        ),
    ] = EstimationMethod.mean_difference,
    kl: Annotated[
        float,
        typer.Option(
            help="The dose: how far the model's predictions on neutral text move, in nats a token."
        ),
    ] = 0.1,
    strength: Annotated[
        float | None, typer.Option(help="A strength in the vector's own units, in place of --kl.")
    ] = None,
    positions: Annotated[TokenChoice, typer.Option(help="Which tokens are steered.")] = (
        TokenChoice.all
    ),
    choice: Annotated[
        list[str] | None,
        typer.Option(
            help="Forced choices: 'follow_up' (toy models), 'confaide', 'stereoset', 'sst2', or "
            "'none'; by default those that go with the concept."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="A prompt that the model continues, repeated for several; by default held-out "
            "statements of both sides."
        ),
    ] = None,
    neutral: Annotated[
        Path | None, typer.Option(help="Text to measure damage on, one text a line.")
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(help="Number of the concept's groups to draw; by default all are used."),
    ] = None,
    draws: Annotated[
        int,
        typer.Option(
            help="Random directions of each kind: 50 for a claim, a few for a first impression."
        ),
    ] = 50,
    family: FamilyOptions,
    loading: LoadingOptions,
    out: Annotated[Path | None, typer.Option(help="NetCDF file for all results.")] = None,
    seed: Seed = 0,
    quiet: Quiet = False,
) -> None:
    """Steer --to by a vector made at --from. Report effect, damage, controls and continuations."""
    from tlens_trust.steering import (
        Intervention,
        SamplingOptions,
        SteeringTasks,
        evaluate_steering,
        extract_steering_vector,
        training_rows,
    )
    from tlens_trust.views import generations_table, steering_table

    chosen_concept = _choose_one_concept(concept, csv_options)
    if groups is not None:
        if groups < 4:
            raise ValueError(
                f"--groups got {groups}. Half of them make the vector: take at least 4."
            )
        chosen_concept = draw_groups(chosen_concept, groups, seed)
    neutral_lines = _read_lines(neutral)
    intervention = Intervention(
        strength=strength,
        # A strength replaces the dose, which would choose another one.
        target_kl=kl if strength is None else None,
        positions=positions.value,
    )
    sampling = SamplingOptions(draws=draws)
    checkpoints = open_series(series, "all", family, loading)
    source_checkpoint = _find_checkpoint(checkpoints, source, "--from")
    target_checkpoint = _open_target(checkpoints, target)
    is_toy = _is_toy(target_checkpoint)
    choices = _forced_choices(split_entries(choice, "--choice"), chosen_concept.name, toy=is_toy)
    vector = extract_steering_vector(
        source_checkpoint,
        chosen_concept,
        site=_parse_site(site, source_checkpoint),
        method=method.value,
        # The other rows are held out, so that no statement is scored that made the vector.
        rows=training_rows(chosen_concept, seed=seed),
        seed=seed,
        progress=not quiet,
    )
    held_out = chosen_concept.take(vector.held_out(chosen_concept))
    tasks = SteeringTasks(
        choices=choices,
        neutral_text=neutral_lines,
        # The words of the everyday questions are not in the toy's vocabulary.
        everyday=not is_toy,
        prompts=prompt or _alternating_statements(held_out),
    )
    with target_checkpoint.loaded() as model:
        results = evaluate_steering(
            model,
            vector,
            chosen_concept,
            intervention=intervention,
            tasks=tasks,
            sampling=sampling,
            seed=seed,
            # A user who names a model outside the series knows that it is another one.
            other_model="warn" if any(target_checkpoint is c for c in checkpoints) else "allow",
            progress=not quiet,
        )
    results = results.assign_attrs(model=target_checkpoint.name)
    typer.echo(steering_table(results))
    typer.echo("")
    if not prompt:
        typer.echo("Held-out statements, by turns of the trustworthy and of the other side:")
    typer.echo(generations_table(results))
    if out is not None:
        with replaced_file(out) as temporary_file:
            results.to_netcdf(temporary_file, engine="netcdf4")
        typer.echo(f"\ndata     {out}")


def _choose_one_concept(concept: str | None, csv_options: CsvOptions) -> "Concept":
    if concept is None and csv_options.csv is None:
        raise ValueError(
            "Which concept is the vector of? Name a set by --concept, or give your own by --csv."
        )
    chosen_concepts = choose_concepts(
        None if concept is None else [concept], csv_options, option="--concept"
    )
    if len(chosen_concepts) != 1:
        options = f"--concept got {concept!r}" + (
            "" if csv_options.csv is None else " beside --csv"
        )
        raise ValueError(f"{options}, which names {len(chosen_concepts)} sets. Name one.")
    return next(iter(chosen_concepts.values()))


def _find_checkpoint(series: "CheckpointSeries", text: str, option: str) -> "Checkpoint":
    """Find the checkpoint that an option names by its step, name or revision."""
    for checkpoint in series:
        if text == checkpoint.name or text == checkpoint.revision:
            return checkpoint
        if text.isdigit() and checkpoint.step == int(text):
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in series if checkpoint.step is not None)
    raise ValueError(
        f"{option} got {text!r}, which is no checkpoint of the series. Steps: {steps}."
    )


def _open_target(series: "CheckpointSeries", text: str) -> "Checkpoint":
    """Open the checkpoint or tuned model that `--to` names, to be loaded as the series is."""
    from tlens_trust.checkpoints import Checkpoint

    if text.isdigit() or any(text in (c.name, c.revision) for c in series):
        return _find_checkpoint(series, text, "--to")
    if Path(text).expanduser().is_dir():
        return replace(Checkpoint.from_directory(text), loading=series[0].loading)
    # A mistyped checkpoint is more likely than a hub model without an owner. The error lists the
    # steps of the series.
    if "/" not in text or text.startswith((".", "/", "~")):
        return _find_checkpoint(series, text, "--to")
    return replace(Checkpoint.from_hub(text), loading=series[0].loading)


def _parse_site(text: str | None, checkpoint: "Checkpoint") -> str | int:
    """Turn the text of `--site` into a layer or a hook name; the middle layer for None."""
    if text is None:
        return int(checkpoint.load_config().num_hidden_layers) // 2
    return int(text) if text.lstrip("-").isdigit() else text


def _is_toy(checkpoint: "Checkpoint") -> bool:
    """Whether a model knows few words besides those of the toy corpus."""
    from tlens_trust.steering.neutral_text import NEUTRAL_TEXT, neutral_text

    # The library chooses the toy's own text for a tokenizer that splits English into many pieces.
    return neutral_text(checkpoint.load_tokenizer()) is not NEUTRAL_TEXT


def _forced_choices(names: list[str], concept: str, *, toy: bool) -> "list[ForcedChoice]":
    """The forced choices that `--choice` names, or by default those of the concept."""
    from tlens_trust.steering import FOLLOW_UPS, PAPER_CHOICES

    if names == ["none"]:
        return []
    if not names:
        # Only a toy was trained to continue statements by one of the follow-ups.
        defaults = {**(FOLLOW_UPS if toy else {}), **PAPER_CHOICES}
        return [defaults[concept]] if concept in defaults else []
    choices = []
    for name in names:
        if name == "follow_up" and concept in FOLLOW_UPS:
            choices.append(FOLLOW_UPS[concept])
        elif name in PAPER_CHOICES:
            choices.append(PAPER_CHOICES[name])
        else:
            raise ValueError(
                f"--choice got {name!r} for {concept!r}. Give one of {', '.join(PAPER_CHOICES)}, "
                f"'none', or 'follow_up' for one of {', '.join(FOLLOW_UPS)}."
            )
    return choices


def _read_lines(file: Path | None) -> list[str] | None:
    """Read the lines of a file that are not empty; None for no file."""
    if file is None:
        return None
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ValueError(f"--neutral got {str(file)!r}, which holds no text. Put one on each line.")
    return [line for line in lines if line]


def _alternating_statements(concept: "Concept") -> list[str]:
    """A few statements of different groups, the trustworthy and the other side in turn."""
    statements: list[str] = []
    used_groups: set[str] = set()
    for number in range(_PROMPTS):
        for group, label, statement in zip(
            concept.groups, concept.labels, concept.statements, strict=True
        ):
            is_new = group not in used_groups and statement not in statements
            if is_new and label == (number + 1) % 2:
                used_groups.add(group)
                statements.append(statement)
                break
    return statements
