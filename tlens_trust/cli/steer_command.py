"""The command that steers one checkpoint by a vector of another."""

from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tlens_trust.cli.checkpoints_command import open_series
from tlens_trust.cli.concept_commands import choose_concepts, some_groups
from tlens_trust.cli.options import (
    Backend,
    Csv,
    Dtype,
    GroupColumn,
    LabelColumn,
    Quiet,
    RunName,
    Stage,
    StatementColumn,
    Trustworthy,
    several,
)
from tlens_trust.files import replaced_file

if TYPE_CHECKING:
    from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
    from tlens_trust.concepts import Concept
    from tlens_trust.steering import ForcedChoice

_PROMPTS = 4


class Method(StrEnum):
    """How a vector is made; as `tlens_trust.steering` knows them, without importing it."""

    mean_difference = "mean_difference"
    tracingllm = "tracingllm"
    pair_difference = "pair_difference"
    logistic = "logistic"
    lda = "lda"
    ridge = "ridge"
    sparse = "sparse"
    contrast_consistent = "contrast_consistent"
    iti = "iti"


class Where(StrEnum):
    """Which tokens are steered."""

    all = "all"
    prompt = "prompt"
    generated = "generated"
    last = "last"


def steer(
    series: Annotated[str, typer.Argument(help="A hub model, or a folder of checkpoint folders.")],
    source: Annotated[str, typer.Option("--from", help="Where the vector is taken: a step.")],
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
    csv: Csv = None,
    statement: StatementColumn = "statement",
    label: LabelColumn = "label",
    group: GroupColumn = None,
    trustworthy: Trustworthy = None,
    site: Annotated[
        str | None, typer.Option(help="A layer, or a site's name; by default the middle layer.")
    ] = None,
    method: Annotated[
        Method,
        typer.Option(
            help="How the vector is made: a difference of means (the paper's: 'tracingllm'), the "
            "direction of pair differences, a probe's weights, or single heads ('iti')."
        ),
    ] = Method.mean_difference,
    kl: Annotated[
        float, typer.Option(help="The dose: how far neutral text is moved, in nats a token.")
    ] = 0.1,
    strength: Annotated[
        float | None, typer.Option(help="A strength in the vector's own units, in place of --kl.")
    ] = None,
    positions: Annotated[Where, typer.Option(help="Which tokens are steered.")] = Where.all,
    choice: Annotated[
        list[str] | None,
        typer.Option(
            help="Forced choices: 'follow_up' (toy models), 'confaide', 'stereoset', 'sst2', or "
            "'none'; by default what goes with the concept."
        ),
    ] = None,
    prompt: Annotated[
        list[str] | None,
        typer.Option(
            help="What to go on from, repeated; by default held-out statements of either side."
        ),
    ] = None,
    neutral: Annotated[
        Path | None, typer.Option(help="Text to measure damage on, one a line.")
    ] = None,
    groups: Annotated[
        int | None,
        typer.Option(help="So many groups of the concept, drawn by the seed; by default all."),
    ] = None,
    draws: Annotated[
        int, typer.Option(help="Random directions of each kind: 50 for a claim, a few for a look.")
    ] = 50,
    run: RunName = None,
    stage: Stage = None,
    out: Annotated[Path | None, typer.Option(help="NetCDF file for all of it.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of groups, directions and resamples.")] = 0,
    device: Annotated[str | None, typer.Option(help="Torch device, as 'cuda'.")] = None,
    dtype: Annotated[Dtype, typer.Option(help="Number format of the weights.")] = Dtype.float32,
    backend: Annotated[Backend, typer.Option(help="Which hooked model.")] = Backend.auto,
    quiet: Quiet = False,
) -> None:
    """Steer --to by a vector taken at --from: effect, damage and controls, and what is written."""
    about = _about(concept, csv, statement, label, group, trustworthy)
    if groups is not None:
        if groups < 4:
            raise ValueError(f"--groups got {groups}. Half make the vector: take at least 4.")
        about = some_groups(about, groups, seed)
    text = _lines(neutral)
    opened = open_series(series, "all", run, stage, device, dtype, backend)
    giver, taker = _named(opened, source, "--from"), _target(opened, target)
    toy = _is_toy(taker)
    choices = _choices(several(choice, "--choice"), about.name, toy=toy)
    from tlens_trust.steering import evaluate_steering, extract_steering_vector, training_rows
    from tlens_trust.views import generations_table, steering_table

    vector = extract_steering_vector(
        giver,
        about,
        site=_site(site, giver),
        method=method.value,
        rows=training_rows(about, seed=seed),
        seed=seed,
        progress=not quiet,
    )
    prompts = prompt or _statements(about.take(vector.held_out(about)))
    with taker.loaded() as model:
        found = evaluate_steering(
            model,
            vector,
            about,
            strength=strength,
            target_kl=kl if strength is None else None,
            positions=positions.value,
            choices=choices,
            prompts=prompts,
            neutral=text,
            # Which has never heard of what these are about.
            everyday=not toy,
            draws=draws,
            seed=seed,
            # A model outside the series was named as such.
            other_model="warn" if any(taker is each for each in opened) else "allow",
            progress=not quiet,
        )
    found = found.assign_attrs(model=taker.name)
    typer.echo(steering_table(found))
    typer.echo("")
    if not prompt:
        typer.echo("Held-out statements, by turns of the trustworthy and of the other side:")
    typer.echo(generations_table(found))
    if out is not None:
        with replaced_file(out) as unfinished:
            found.to_netcdf(unfinished, engine="netcdf4")
        typer.echo(f"\ndata     {out}")


def _about(
    concept: str | None,
    csv: Path | None,
    statement: str,
    label: str,
    group: str | None,
    trustworthy: int | None,
) -> "Concept":
    if concept is None and csv is None:
        raise ValueError(
            "What is the vector to be of? Name a set by --concept, or give your own by --csv."
        )
    chosen = choose_concepts(
        None if concept is None else [concept],
        csv,
        statement,
        label,
        group,
        trustworthy,
        option="--concept",
    )
    if len(chosen) != 1:
        given = f"--concept got {concept!r}" + ("" if csv is None else " beside --csv")
        raise ValueError(f"{given}, which names {len(chosen)} sets. Name one.")
    return next(iter(chosen.values()))


def _named(series: "CheckpointSeries", text: str, option: str) -> "Checkpoint":
    for checkpoint in series:
        if text == checkpoint.name or text == checkpoint.revision:
            return checkpoint
        if text.isdigit() and checkpoint.step == int(text):
            return checkpoint
    steps = ", ".join(str(checkpoint.step) for checkpoint in series if checkpoint.step is not None)
    raise ValueError(
        f"{option} got {text!r}, which is no checkpoint of the series. Steps: {steps}."
    )


def _target(series: "CheckpointSeries", text: str) -> "Checkpoint":
    from tlens_trust.checkpoints import Checkpoint

    if text.isdigit() or any(text in (each.name, each.revision) for each in series):
        return _named(series, text, "--to")
    if Path(text).expanduser().is_dir():
        return replace(Checkpoint.from_directory(text), loading=series[0].loading)
    if "/" not in text or text.startswith((".", "/", "~")):
        return _named(series, text, "--to")
    return replace(Checkpoint.from_hub(text), loading=series[0].loading)


def _site(text: str | None, checkpoint: "Checkpoint") -> str | int:
    if text is None:
        return int(checkpoint.load_config().num_hidden_layers) // 2
    return int(text) if text.lstrip("-").isdigit() else text


def _is_toy(checkpoint: "Checkpoint") -> bool:
    """Whether a model knows few words but those of the toy corpus."""
    from tlens_trust.steering import NEUTRAL_TEXT, neutral_text

    return neutral_text(checkpoint.load_tokenizer()) is not NEUTRAL_TEXT


def _choices(named: list[str], concept: str, *, toy: bool) -> "list[ForcedChoice]":
    from tlens_trust.steering import FOLLOW_UPS, PAPER_CHOICES

    if named == ["none"]:
        return []
    if not named:
        # After the sentences of the embedded sets, only a toy goes on with one of these.
        known = {**(FOLLOW_UPS if toy else {}), **PAPER_CHOICES}
        return [known[concept]] if concept in known else []
    found = []
    for name in named:
        if name == "follow_up" and concept in FOLLOW_UPS:
            found.append(FOLLOW_UPS[concept])
        elif name in PAPER_CHOICES:
            found.append(PAPER_CHOICES[name])
        else:
            raise ValueError(
                f"--choice got {name!r} for {concept!r}. Give one of {', '.join(PAPER_CHOICES)}, "
                f"'none', or 'follow_up' for one of {', '.join(FOLLOW_UPS)}."
            )
    return found


def _lines(file: Path | None) -> list[str] | None:
    if file is None:
        return None
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines()]
    if not any(lines):
        raise ValueError(f"--neutral got {str(file)!r}, which holds no text. Put one on each line.")
    return [line for line in lines if line]


def _statements(concept: "Concept") -> list[str]:
    """Statements of different groups, by turns of the trustworthy and of the other side."""
    found: list[str] = []
    used: set[str] = set()
    for place in range(_PROMPTS):
        for group, label, said in zip(
            concept.groups, concept.labels, concept.statements, strict=True
        ):
            if group not in used and said not in found and label == (place + 1) % 2:
                used.add(group)
                found.append(said)
                break
    return found
