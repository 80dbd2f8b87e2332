"""Collecting the activations that comparisons between checkpoints rest on."""

import os
from collections.abc import Iterable, Mapping, Sequence

import torch

from tlens_trust.activations import Activations
from tlens_trust.activations.collect import collect_concepts
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import (
    DEFAULT_BATCH_TOKENS,
    ReadingOptions,
    Sites,
    Store,
)
from tlens_trust.analysis.readings import SeriesReadings
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint, CheckpointSeries
from tlens_trust.tracing.run_folder import RunFolder
from tlens_trust.tracing.sweep_arguments import (
    Concepts,
    checked_checkpoints,
    checked_concepts,
    choose_untrained,
)


def collect_series(
    series: Checkpoint | Iterable[Checkpoint],
    concepts: Concepts,
    *,
    sites: Sites = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    store: Store = "default",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    untrained: str | None = "auto",
    seed: int = 0,
) -> SeriesReadings:
    """Collect the activations of concepts at every checkpoint, for comparisons between checkpoints.

    Arguments are checked now. A checkpoint is read when the first comparison comes to it. With a
    store, each model is loaded once, and a comparison fetches one checkpoint at a time. Without
    one, the activations of all checkpoints stay in memory.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints. `series.loaded_with` sets
            device, number format and backend.
        concepts: A concept, several, or a mapping whose keys are the names in the results.
        sites: Where to read, as `collect_activations` takes it, and so are the next four.
        position: Which token of a statement to read.
        bos: Whether a beginning-of-sequence token precedes each statement.
        store: Where activations are kept.
        batch_tokens: Tokens in one batch.
        untrained: The untrained baseline of `trace_transfer`: `"step0"`, `"random"` weights, or
            None. `"auto"` takes step 0 where it is there, else random weights where they can be
            drawn. Random weights are read only when a comparison needs them.
        seed: Draws random weights.

    Raises:
        ValueError: As `trace_checkpoints`.

    Examples:
        >>> from tlens_trust import load_concepts, load_toy_series  # doctest: +SKIP
        >>> readings = collect_series(load_toy_series(), load_concepts())  # doctest: +SKIP
        >>> direction_genealogy(readings, "toxicity")  # doctest: +SKIP
        >>> erasure_cost(readings)  # doctest: +SKIP
    """
    options = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    seed = checked_seed(seed)
    if not isinstance(series, str | Checkpoint | CheckpointSeries) and isinstance(series, Iterable):
        series = list(series)
    checkpoints = checked_checkpoints(series)
    named_concepts = checked_concepts(concepts)
    original_names = (
        [concept.name for concept in concepts.values()]
        if isinstance(concepts, Mapping)
        else [concept.name for concept in named_concepts]
    )
    weights = choose_untrained(untrained, series, checkpoints, (), seed=seed)

    def read(checkpoint: Checkpoint) -> list[Activations]:
        return list(collect_concepts(checkpoint, named_concepts, options))

    memory: dict[int, list[Activations]] = {}

    def fetch(number: int) -> Sequence[Activations]:
        if options.store is not None:
            # The store is the memory then, so that a long series need not fit into RAM.
            return read(checkpoints[number])
        if number not in memory:
            memory[number] = read(checkpoints[number])
        return memory[number]

    template = weights.template
    return SeriesReadings(
        checkpoints=tuple(checkpoint.name for checkpoint in checkpoints),
        concepts=named_concepts,
        sources=checkpoints,
        fetch=fetch,
        untrained=weights.name,
        # Drawn only now, since a model may be large and most comparisons do without.
        fetch_untrained=None if template is None else lambda: read(template.untrained(seed=seed)),
        original_names=tuple(original_names),
    )


def collect_run(
    run_folder: str | os.PathLike[str],
    series: Checkpoint | Iterable[Checkpoint],
    concepts: str | Iterable[str],
    *,
    sites: Sites | None = None,
    store: Store = "default",
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
) -> SeriesReadings:
    """Collect the activations of a run's concepts at its checkpoints, read as the run read them.

    The statements, position, beginning-of-sequence token, number format and backend come from the
    run folder.

    Args:
        run_folder: The `out=` of a sweep.
        series: The checkpoints of the run.
        concepts: The name of a concept of the run, or several names.
        sites: Where to read; None for the sites of the run.
        store: Where activations are kept, as for `collect_series`.
        batch_tokens: Tokens in one batch.

    Raises:
        ValueError: The folder holds no such concept, or as `collect_series`.

    Examples:
        >>> readings = collect_run("run", series, "toxicity")  # doctest: +SKIP
        >>> find_forgetting("run", "toxicity", readings, layer=2)  # doctest: +SKIP
    """
    run = RunFolder.at(run_folder)
    settings = run.manifest["settings"]
    names = [concepts] if isinstance(concepts, str) else list(concepts)
    position = settings["position"]
    return collect_series(
        [
            # Weights in memory stay in the number format that they are in.
            checkpoint.loaded_with(
                dtype=getattr(torch, settings["dtype"]), backend=settings["backend"]
            )
            if checkpoint.in_memory is None
            else checkpoint
            for checkpoint in checked_checkpoints(series)
        ],
        [run.read_concept(name) for name in names],
        sites=settings["sites"] if sites is None else sites,
        position=tuple(position) if isinstance(position, list) else position,
        bos=settings["bos"],
        store=store,
        batch_tokens=batch_tokens,
        untrained=None,
    )
