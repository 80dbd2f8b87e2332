"""One pass over a series of checkpoints, for every concept and every measure.

A model is loaded once, and only if neither the run folder nor the store of activations holds what
is needed. Each list of statements is read once, at all sites. A model is freed before the next one
is loaded.

The unit of work is one checkpoint: `trace_checkpoint`, a top-level function of one picklable task.
The unit that is written is one cell, a checkpoint and a concept. Models are read in this process.
Cells are measured here or in worker processes (`workers`).
"""

import os
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.activations.collect import collect_concepts
from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import (
    DEFAULT_BATCH_TOKENS,
    ReadingOptions,
    Sites,
    Store,
)
from tlens_trust.activations.tokens import tokenizer_identity
from tlens_trust.arguments import checked_seed
from tlens_trust.checkpoints import Checkpoint, Loading
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure
from tlens_trust.threads import choose_threads
from tlens_trust.tracing.assembly import CheckpointRecord, assemble_trace_data, find_untrained
from tlens_trust.tracing.provenance import (
    concept_provenance,
    reading_versions,
    versions,
)
from tlens_trust.tracing.run_folder import RunFolder
from tlens_trust.tracing.sweep_arguments import (
    Concepts,
    UntrainedWeights,
    checked_checkpoints,
    checked_concepts,
    checked_measures,
    choose_untrained,
    shared_loading,
)
from tlens_trust.tracing.trace import Trace
from tlens_trust.tracing.untrained_comparison import compact_cell
from tlens_trust.tracing.workers import (
    CellMeasurer,
    Executor,
    MeasuredCell,
    check_workers,
    error_note,
)


@dataclass(frozen=True)
class CheckpointTask:
    """Everything that is needed to trace one checkpoint. Can be pickled.

    Attributes:
        checkpoint: The checkpoint to load.
        concepts: The concepts to read.
        measures: The measures of each cell.
        reading: How statements are read.
        seed: The seed of the sweep.
        run: The folder that cells are written to; None to keep them in memory.
        untrained: The untrained weights it is compared with, as `CheckpointRecord` has them.
        drawn: Whether these are the random weights that the others are compared with.
    """

    checkpoint: Checkpoint
    concepts: tuple[Concept, ...]
    measures: tuple[Measure, ...]
    reading: ReadingOptions
    seed: int
    run: RunFolder | None
    untrained: str | None = ""
    drawn: bool = False


@dataclass(frozen=True)
class TracedCheckpoint:
    """The result of a task.

    Attributes:
        record: The checkpoint.
        cells: The cells that were measured, by concept, as `compact_cell` gives them.
        finished_keys: Keys of the cells that the run folder held before, by concept.
    """

    record: CheckpointRecord
    cells: Mapping[str, xr.Dataset]
    finished_keys: Mapping[str, str]


def trace_checkpoints(
    series: Checkpoint | Iterable[Checkpoint],
    concepts: Concepts,
    *,
    measures: Measure | Sequence[Measure] | None = None,
    sites: Sites = "resid_post",
    position: Position = "last",
    bos: bool | None = None,
    out: str | os.PathLike[str] | None = None,
    store: Store = "default",
    seed: int = 0,
    batch_tokens: int = DEFAULT_BATCH_TOKENS,
    untrained: str | None = "auto",
    jobs: int | None = None,
    executor: Executor | None = None,
    progress: bool = True,
) -> Trace:
    """Measure concepts at every site of every checkpoint of a series.

    With `out`, each cell (one checkpoint, one concept) is written as soon as it is measured, with
    held-out scores of every statement. It is not measured again. The same call continues a sweep
    that was interrupted or failed; further concepts and checkpoints extend the folder. Without
    `out` everything stays in memory, and scores of statements are discarded.

    The result is the same, bit for bit, in any order of checkpoints and concepts, after any number
    of interruptions, and for any `jobs`. This holds at one batch budget, device and thread count.

    Models are read in this process, one after the other, with torch's own number of threads. The
    statistics of a cell run on one thread, or on a few if the matrices are large (see
    `tlens_trust.threads`). If there is enough work, worker processes measure one checkpoint while
    the next is read. The activations that wait for workers take at most 2 GiB, or those of two
    cells if these take more.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints. Device, number format and
            backend are theirs: `series.loaded_with(device="cuda", dtype=torch.bfloat16)`.
        concepts: A concept, several, or a mapping whose keys are the names in the trace.
        measures: What to measure, each under its own name; None for the logistic probe. A
            variable that several of them give has the axis `probe`.
        sites: Where to read: `"resid_post"` (after every block), `"attn_out"`, `"mlp_out"`,
            `"resid_mid"`, `"z"` (every head), layer numbers, or hook names.
        position: Which token of a statement to read: `"last"`, `"mean"`, a number or a span.
        bos: Whether a beginning-of-sequence token stands before each statement; None follows the
            tokenizer's own setting.
        out: Run folder: a new or empty folder, or one whose cells were made with the same settings.
        store: Where activations are kept between sweeps; by default a folder in the user's
            cache. None keeps none.
        seed: Seed of folds and resamples. Those of a concept depend on its content, and are the
            same at every checkpoint.
        batch_tokens: Tokens in one batch, padding included. Halved when memory runs out.
        untrained: The weights that `accuracy_untrained` and `accuracy_above_untrained` are of.
            `"step0"`: step 0 of the same model, from this call or an earlier one with the same
            `out`. `"random"`: random weights in the architecture of the first checkpoint, drawn
            from `seed` (see `Checkpoint.untrained`), which is one checkpoint more to read, but not
            to download. `"auto"`: step 0 if there is one, else random weights if they can be drawn.
            None: no comparison.
        jobs: Number of processes that measure cells; 1 for this process alone. This process is one
            of them, unless it reads on a GPU. None: one for each core that this process may use,
            or this process alone if the work is too small to start others.
        executor: Measures cells in place of `jobs`. Its `submit(function, argument)` returns an
            object with `result()`, like that of `concurrent.futures.ProcessPoolExecutor()` or of a
            Dask client's `get_executor()`. Other machines must see the folder `out`.
        progress: Whether to show a bar.

    Returns:
        A trace of the checkpoints and concepts of this call, in their order. (`trace.nc` in the
        run folder, and `Trace.load(out)`, hold those of earlier calls too.)

    Raises:
        ValueError: There is nothing to trace, two things have the same name, an argument has a
            value that is not allowed, or the run folder was made with other settings. Or loading,
            reading or measuring fails; a note then names concept, checkpoint and sites. Finished
            cells are kept.
        RuntimeError: A worker process was killed twice at one cell. Finished cells are kept.

    Warns:
        UserWarning: Worker processes cannot be started, or one was killed and its cells are
            measured again.

    Examples:
        >>> import numpy as np
        >>> from tokenizers import Tokenizer, models
        >>> from transformers import GPT2Config, GPT2LMHeadModel, PreTrainedTokenizerFast
        >>> from tlens_trust import CheckpointSeries, Concept
        >>> words = Tokenizer(models.WordLevel({"[UNK]": 0, "kind": 1}, unk_token="[UNK]"))
        >>> tokenizer = PreTrainedTokenizerFast(tokenizer_object=words, unk_token="[UNK]")
        >>> config = GPT2Config(vocab_size=2, n_layer=2, n_embd=16, n_head=2)
        >>> series = CheckpointSeries.from_models(
        ...     {0: GPT2LMHeadModel(config), 100: GPT2LMHeadModel(config)},
        ...     tokenizer=tokenizer, name="tiny")
        >>> groups = tuple(f"pair {i // 2}" for i in range(40))
        >>> concept = Concept(
        ...     "kindness", "toxicity", ("kind", "rude") * 20, np.array([1, 0] * 20), groups)
        >>> trace = trace_checkpoints(series, concept, store=None, progress=False)
        >>> trace.sel(step=100, layer=1).data.accuracy.values
        array([[[1.]]])
    """
    from tqdm.auto import tqdm

    # All arguments are checked before the run folder is written or a model is loaded.
    reading = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    check_workers(jobs, executor)
    seed = checked_seed(seed)
    checkpoints = checked_checkpoints(series)
    concept_list = checked_concepts(concepts)
    measure_list = checked_measures(measures)
    loading = shared_loading(checkpoints)
    run = None if out is None else RunFolder.at(out)
    weights = choose_untrained(untrained, series, checkpoints, _earlier_records(run), seed=seed)
    origin = {
        "settings": _settings(reading, loading, measure_list, seed),
        "arguments": {
            "batch_tokens": batch_tokens,
            "device": None if loading.device is None else str(loading.device),
            "device_map": None if loading.device_map is None else str(loading.device_map),
            "trust_remote_code": loading.trust_remote_code,
            "untrained": untrained,
            "untrained_unknown": weights.missing_reason,
        },
        "versions": versions(),
    }
    if run is not None:
        run.begin(
            origin["settings"],
            {concept.name: concept for concept in concept_list},
            arguments=origin["arguments"],
            versions=origin["versions"],
            checkpoints=[checkpoint.name for checkpoint in checkpoints],
        )

    tasks = (
        CheckpointTask(
            checkpoint=checkpoint,
            concepts=concept_list,
            measures=measure_list,
            reading=reading,
            seed=seed,
            run=run,
            untrained=weights.name,
            drawn=is_drawn,
        )
        for checkpoint, is_drawn in _checkpoints_to_read(checkpoints, weights, seed)
    )
    total = (len(checkpoints) + (weights.template is not None)) * len(concept_list)
    traced_checkpoints: list[TracedCheckpoint] = []
    with (
        tqdm(total=total, desc="trace", unit="cell", disable=not progress) as bar,
        CellMeasurer(
            measure_list,
            seed=seed,
            cells=total,
            are_kept=run is not None,
            jobs=jobs,
            executor=executor,
            # Workers of an executor may run on other machines, which share the run folder alone.
            folder=None if executor is None or run is None else run.path,
            takes_part=_reads_on_cpu(loading),
        ) as measurer,
    ):
        for task in tasks:
            bar.set_postfix_str(task.checkpoint.name)
            traced_checkpoints.append(trace_checkpoint(task, measurer=measurer, advance=bar.update))
    cells = {
        (traced.record.name, concept): cell
        for traced in traced_checkpoints
        for concept, cell in traced.cells.items()
    }
    if run is not None:
        run_trace = Trace(run.assemble(cells))
        names = tuple(c.name for c in checkpoints), tuple(c.name for c in concept_list)
        if (run_trace.checkpoints, run_trace.concepts) == names:
            return run_trace
        # The folder holds more than this call is about.
        cells = _with_finished_cells(cells, traced_checkpoints, run)
    records = [traced.record for traced in traced_checkpoints]
    untrained_records = [record for record in records if record.drawn]
    if run is not None:
        untrained_records += _add_step_0(cells, records, concept_list, run)
    data = assemble_trace_data(
        cells,
        [record for record in records if not record.drawn],
        {concept.name: concept_provenance(concept) for concept in concept_list},
        provenance=origin,
        statements={concept.name: concept for concept in concept_list},
        against=untrained_records,
    )
    return Trace(data)


def trace_checkpoint(
    task: CheckpointTask,
    *,
    measurer: CellMeasurer | None = None,
    advance: Callable[[], object] = lambda: None,
) -> TracedCheckpoint:
    """Trace one checkpoint: read and measure the cells that the run folder does not hold yet.

    Args:
        task: Checkpoint, concepts and measures.
        measurer: Measures the cells; None for this process. A cell is in the result only when the
            measurer has finished it, at the end of its `with` at the latest.
        advance: Called for each cell.

    Raises:
        ValueError: As `trace_checkpoints`.
    """
    # A single task may itself run in a worker, which must not start further processes.
    if measurer is None:
        with CellMeasurer(
            task.measures,
            seed=task.seed,
            cells=len(task.concepts),
            are_kept=task.run is not None,
            jobs=1,
        ) as measurer:
            return trace_checkpoint(task, measurer=measurer, advance=advance)
    checkpoint, run = task.checkpoint, task.run
    with error_note(f"This was at checkpoint {checkpoint.name!r}."):
        record = CheckpointRecord.of(checkpoint, drawn=task.drawn, untrained=task.untrained)
        keys = {} if run is None else _cell_keys(task, run, record)
    finished_keys = {
        name: key
        for name, key in keys.items()
        if run is not None and run.has_cell(record.name, name, key)
    }
    for _ in finished_keys:
        # How many cells remain decides whether workers are worth starting.
        measurer.skip()
        advance()
    pending = [concept for concept in task.concepts if concept.name not in finished_keys]
    cells: dict[str, xr.Dataset] = {}

    def finish(name: str, made_with: Mapping[str, Any], cell: MeasuredCell) -> None:
        if run is not None and cell.content is not None:
            run.commit_cell(record.name, name, keys[name], cell.content, made_with=made_with)
        cells[name] = cell.data
        advance()

    # After an error the model is freed at once, and not when the generator is collected.
    with closing(_collect_activations(task, pending)) as activations_of_concepts:
        for concept in pending:
            location = f"concept {concept.name!r} at checkpoint {record.name!r}"
            with error_note(f"This was in reading {location}."):
                activations = next(activations_of_concepts)
            made_with = {
                "device": str(checkpoint.loading.device),
                "batch_tokens": task.reading.batch_tokens,
                "threads": torch.get_num_threads(),
                "statistics_threads": choose_threads(activations.values),
            }
            measurer.measure(
                activations,
                # The values are bound now, since a worker may finish the cell after the loop has
                # moved on.
                partial(finish, concept.name, made_with),
                location=f"{location}, {_site_range(activations.sites)}",
            )
            # Memory must not hold two of them while the next ones are read.
            del activations
    return TracedCheckpoint(record, cells, finished_keys)


def _with_finished_cells(
    cells: Mapping[tuple[str, str], xr.Dataset],
    traced_checkpoints: Sequence[TracedCheckpoint],
    run: RunFolder,
) -> dict[tuple[str, str], xr.Dataset]:
    """Add the cells of these checkpoints that the run folder held before."""
    all_cells = dict(cells)
    for traced in traced_checkpoints:
        for concept, key in traced.finished_keys.items():
            cell = run.read_cell(traced.record.name, concept, key)
            if cell is not None:
                all_cells[traced.record.name, concept] = compact_cell(cell)
    return all_cells


def _checkpoints_to_read(
    checkpoints: Sequence[Checkpoint], weights: UntrainedWeights, seed: int
) -> Iterator[tuple[Checkpoint, bool]]:
    """Yield the checkpoints, random weights first, with whether their weights are random.

    Random weights are drawn only when they are read, since a model may be large.
    """
    if weights.template is not None:
        yield weights.template.untrained(seed=seed), True
    for checkpoint in checkpoints:
        yield checkpoint, False


def _add_step_0(
    cells: dict[tuple[str, str], xr.Dataset],
    records: Sequence[CheckpointRecord],
    concepts: Sequence[Concept],
    run: RunFolder,
) -> list[CheckpointRecord]:
    """Add cells of step 0 from an earlier sweep, and return the records of its checkpoints."""
    run_checkpoints = run.checkpoints()
    run_records = [record for record, _ in run_checkpoints.values()]
    names = {record.name for record in records}
    candidates = [find_untrained(record, run_records) for record in records]
    step_0 = {r.name: r for r in candidates if r is not None and r.name not in names}
    for name in step_0:
        for concept in concepts:
            key = run.cell_key(run_checkpoints[name][1], concept.name)
            cell = run.read_cell(name, concept.name, key)
            if cell is not None:
                cells[name, concept.name] = compact_cell(cell)
    return list(step_0.values())


def _earlier_records(run: RunFolder | None) -> list[CheckpointRecord]:
    return [] if run is None else [record for record, _ in run.checkpoints().values()]


def _collect_activations(
    task: CheckpointTask, concepts: Sequence[Concept]
) -> Generator[Activations]:
    yield from collect_concepts(task.checkpoint, concepts, task.reading)


def _cell_keys(task: CheckpointTask, run: RunFolder, record: CheckpointRecord) -> dict[str, str]:
    tokenizer = task.checkpoint.load_tokenizer()
    identities = {
        "weights": record.identity,
        "tokenizer": "" if tokenizer is None else tokenizer_identity(tokenizer),
    }
    run.note_checkpoint(record, identities)
    # The settings are compared again, since another sweep may have begun in the folder.
    settings = _settings(task.reading, task.checkpoint.loading, task.measures, task.seed)
    return {
        concept.name: run.cell_key(identities, concept.name, settings=settings)
        for concept in task.concepts
    }


def _settings(
    reading: ReadingOptions, loading: Loading, measures: Sequence[Measure], seed: int
) -> dict[str, Any]:
    """Everything besides weights and concept that changes a cell, as JSON holds it."""

    def as_json(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {
        # Device and batch budget are left out: they change rounding alone, and may change between
        # two calls of one sweep.
        "sites": as_json(reading.sites),
        "position": as_json(reading.position),
        "bos": reading.bos,
        "dtype": str(loading.dtype).removeprefix("torch."),
        "backend": loading.backend,
        "seed": seed,
        "measures": [measure.identity for measure in measures],
        "reads_with": reading_versions(),
    }


def _reads_on_cpu(loading: Loading) -> bool:
    if loading.device is None:
        # Loading chooses the GPU by itself if there is one.
        return not torch.cuda.is_available()
    return torch.device(loading.device).type == "cpu"


def _site_range(sites: Sequence[str]) -> str:
    return f"site {sites[0]}" if len(sites) == 1 else f"sites {sites[0]} to {sites[-1]}"
