"""One pass over a series of checkpoints, for every concept and every measure.

A model is loaded once, and only if something is asked of it that neither the run folder nor the
store of activations holds; each list of statements is read once, at all sites; the model is gone
before the next one is loaded. What one checkpoint takes is a task of its own, a top-level function
of one picklable argument; what is kept is one cell, a checkpoint and a concept. Models are read in
this process, and cells are measured here or in worker processes (`workers`).
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
from tlens_trust.checkpoints import Checkpoint, Loading
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure
from tlens_trust.measures.arguments import checked_seed
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
    noting,
)


@dataclass(frozen=True)
class CheckpointTask:
    """Everything that tracing one checkpoint takes. Can be pickled.

    Attributes:
        checkpoint: The checkpoint to load.
        concepts: The concepts to read.
        measures: The measures of each cell.
        reading: How statements are read.
        seed: The seed of the sweep.
        run: The folder that cells are written to; None for memory.
        untrained: What its record says of untrained weights.
        drawn: Whether these are random weights that the others are held against.
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
    """What came of a task.

    Attributes:
        record: The checkpoint.
        cells: Cells that were made, by concept, light.
        kept: Keys of the cells that stand in the run folder already, by concept.
    """

    record: CheckpointRecord
    cells: Mapping[str, xr.Dataset]
    kept: Mapping[str, str]


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

    With `out`, what is done is kept: each cell (one checkpoint, one concept) is written as soon as
    it is measured, with held-out scores of every statement, and is not made again. A call that
    was interrupted, or failed at some checkpoint, is continued by the same call; further concepts
    and checkpoints extend the folder. The result is the same, bit for bit, whatever the order of
    checkpoints and concepts, however often the sweep was interrupted and whatever `jobs` is, at one
    batch budget, device and thread count. Without `out` everything stays in memory and scores of
    statements are not kept.

    Models are read in this process, one after the other, with torch's own number of threads. The
    statistics of a cell run on one thread, or on a few where the matrices are large (see
    `tlens_trust.threads`), and in worker processes where there is enough to do, so that the next
    checkpoint is read while the last is measured. As many readings wait at one time as there are
    workers, and one more; more than two only within 2 GiB.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints. Device, number format and
            backend are theirs: `series.loaded_with(device="cuda", dtype=torch.bfloat16)`.
        concepts: A concept, several, or a mapping whose keys are the names in the trace.
        measures: What to measure, each with a name of its own; None for the logistic probe. What
            several of them give gets the axis `probe`.
        sites: Where to read: `"resid_post"` (after every block), `"attn_out"`, `"mlp_out"`,
            `"resid_mid"`, `"z"` (every head), layer numbers, or hook names.
        position: Which token of a statement to read: `"last"`, `"mean"`, a number or a span.
        bos: Whether a beginning-of-sequence token stands before each statement; None follows the
            tokenizer's own setting.
        out: Run folder: a new or empty folder, or one whose cells were made with the same settings.
        store: Where activations are kept between sweeps; by default a folder in the user's
            cache. None keeps none.
        seed: Deals folds and draws resamples, for each concept by its content, alike at every
            checkpoint.
        batch_tokens: Tokens read at once, padding included. Halved when memory runs out.
        untrained: What `accuracy_untrained` and `accuracy_above_untrained` are taken from.
            `"step0"`: step 0 of the same model, from this call or an earlier one with the same
            `out`; it must be there. `"random"`: random weights in the architecture of the first
            checkpoint, drawn from `seed` (see `Checkpoint.untrained`), which is one checkpoint more
            to read, though none to fetch. `"auto"`: step 0 where it is there, else random weights
            where they can be drawn. None: nothing; no checkpoint is read for it.
        jobs: How many processes measure cells; 1 for this process alone. This process is one of
            them, unless it reads on a GPU. None: one for each core that this process may use, and
            this process alone where the work is too small for others to be worth their start.
        executor: Measures cells in place of `jobs`: anything whose `submit(function, argument)`
            gives something with `result()`, as `concurrent.futures.ProcessPoolExecutor()` or a Dask
            client's `get_executor()`. On other machines it needs an `out` that they see too.
        progress: Whether to show a bar.

    Returns:
        A trace of the checkpoints and concepts of this call, in their order. (`trace.nc` in the
        run folder, and `Trace.load(out)`, hold those of earlier calls too.)

    Raises:
        ValueError: Nothing to trace, a name that stands twice, an argument that nothing could be
            read with, a run folder made with other settings, or what loading, reading or measuring
            finds wrong, with a note that says at which concept, checkpoint and sites. What was
            finished before is kept.
        RuntimeError: A worker process was killed twice at one cell. What was finished is kept.

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

    reading = ReadingOptions(
        sites=sites, position=position, bos=bos, batch_tokens=batch_tokens, store=store
    )
    check_workers(jobs, executor)
    seed = checked_seed(seed)
    checkpoints = checked_checkpoints(series)
    named = checked_concepts(concepts)
    taken = checked_measures(measures)
    loading = shared_loading(checkpoints)
    run = None if out is None else RunFolder.at(out)
    against = choose_untrained(untrained, series, checkpoints, _known(run), seed=seed)
    origin = {
        "settings": _settings(reading, loading, taken, seed),
        "arguments": {
            "batch_tokens": batch_tokens,
            "device": None if loading.device is None else str(loading.device),
            "device_map": None if loading.device_map is None else str(loading.device_map),
            "trust_remote_code": loading.trust_remote_code,
            "untrained": untrained,
            "untrained_unknown": against.unknown,
        },
        "versions": versions(),
    }
    if run is not None:
        run.begin(
            origin["settings"],
            {concept.name: concept for concept in named},
            arguments=origin["arguments"],
            versions=origin["versions"],
            checkpoints=[checkpoint.name for checkpoint in checkpoints],
        )

    tasks = (
        CheckpointTask(
            checkpoint=checkpoint,
            concepts=named,
            measures=taken,
            reading=reading,
            seed=seed,
            run=run,
            untrained=against.named,
            drawn=drawn,
        )
        for checkpoint, drawn in _to_read(checkpoints, against, seed)
    )
    total = (len(checkpoints) + (against.drawn_like is not None)) * len(named)
    traced: list[TracedCheckpoint] = []
    with (
        tqdm(total=total, desc="trace", unit="cell", disable=not progress) as bar,
        CellMeasurer(
            taken,
            seed=seed,
            cells=total,
            are_kept=run is not None,
            jobs=jobs,
            executor=executor,
            folder=None if executor is None or run is None else run.path,
            takes_part=_reads_on_cpu(loading),
        ) as measurer,
    ):
        for task in tasks:
            bar.set_postfix_str(task.checkpoint.name)
            traced.append(trace_checkpoint(task, measurer=measurer, advance=bar.update))
    cells = {
        (each.record.name, concept): cell for each in traced for concept, cell in each.cells.items()
    }
    if run is not None:
        whole = Trace(run.assemble(cells))
        asked = tuple(c.name for c in checkpoints), tuple(c.name for c in named)
        if (whole.checkpoints, whole.concepts) == asked:
            return whole
        cells = _filled(cells, traced, run)
    records = [each.record for each in traced]
    beside = [record for record in records if record.drawn]
    if run is not None:
        beside += _add_step_0(cells, records, named, run)
    data = assemble_trace_data(
        cells,
        [record for record in records if not record.drawn],
        {concept.name: concept_provenance(concept) for concept in named},
        provenance=origin,
        statements={concept.name: concept for concept in named},
        against=beside,
    )
    return Trace(data)


def trace_checkpoint(
    task: CheckpointTask,
    *,
    measurer: CellMeasurer | None = None,
    advance: Callable[[], object] = lambda: None,
) -> TracedCheckpoint:
    """Do one checkpoint: take what is finished from the run folder, and make the rest.

    Args:
        task: What to do.
        measurer: Measures the cells; None for this process. Cells are in the result when the
            measurer has finished them, at the end of its `with`.
        advance: Called for each cell.

    Raises:
        ValueError: As `trace_checkpoints`.
    """
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
    with noting(f"This was at checkpoint {checkpoint.name!r}."):
        record = CheckpointRecord.of(checkpoint, drawn=task.drawn, untrained=task.untrained)
        keys = {} if run is None else _cell_keys(task, run, record)
    kept = {
        name: key
        for name, key in keys.items()
        if run is not None and run.has_cell(record.name, name, key)
    }
    for _ in kept:
        measurer.skip()
        advance()
    pending = [concept for concept in task.concepts if concept.name not in kept]
    cells: dict[str, xr.Dataset] = {}

    def finish(name: str, made_with: Mapping[str, Any], cell: MeasuredCell) -> None:
        if run is not None and cell.content is not None:
            run.commit_cell(record.name, name, keys[name], cell.content, made_with=made_with)
        cells[name] = cell.data
        advance()

    with closing(_readings(task, pending)) as readings:
        for concept in pending:
            where = f"concept {concept.name!r} at checkpoint {record.name!r}"
            with noting(f"This was in reading {where}."):
                activations = next(readings)
            made_with = {
                "device": str(checkpoint.loading.device),
                "batch_tokens": task.reading.batch_tokens,
                "threads": torch.get_num_threads(),
                "statistics_threads": choose_threads(activations.values),
            }
            measurer.measure(
                activations,
                partial(finish, concept.name, made_with),
                where=f"{where}, {_span(activations.sites)}",
            )
            del activations  # before the next ones are read
    return TracedCheckpoint(record, cells, kept)


def _filled(
    cells: Mapping[tuple[str, str], xr.Dataset], traced: Sequence[TracedCheckpoint], run: RunFolder
) -> dict[tuple[str, str], xr.Dataset]:
    """The cells that were made, and those that were kept."""
    filled = dict(cells)
    for each in traced:
        for concept, key in each.kept.items():
            cell = run.read_cell(each.record.name, concept, key)
            if cell is not None:
                filled[each.record.name, concept] = compact_cell(cell)
    return filled


def _to_read(
    checkpoints: Sequence[Checkpoint], against: UntrainedWeights, seed: int
) -> Iterator[tuple[Checkpoint, bool]]:
    """Random weights first, which are drawn only now, since a model may be large."""
    if against.drawn_like is not None:
        yield against.drawn_like.untrained(seed=seed), True
    for checkpoint in checkpoints:
        yield checkpoint, False


def _add_step_0(
    cells: dict[tuple[str, str], xr.Dataset],
    records: Sequence[CheckpointRecord],
    concepts: Sequence[Concept],
    run: RunFolder,
) -> list[CheckpointRecord]:
    """Add what an earlier sweep made of step 0 to the cells, and say which checkpoints it is."""
    known = run.checkpoints()
    there = {record.name for record in records}
    found = [find_untrained(record, [r for r, _ in known.values()]) for record in records]
    added = {r.name: r for r in found if r is not None and r.name not in there}
    for name in added:
        for concept in concepts:
            key = run.cell_key(known[name][1], concept.name)
            cell = run.read_cell(name, concept.name, key)
            if cell is not None:
                cells[name, concept.name] = compact_cell(cell)
    return list(added.values())


def _known(run: RunFolder | None) -> list[CheckpointRecord]:
    return [] if run is None else [record for record, _ in run.checkpoints().values()]


def _readings(task: CheckpointTask, concepts: Sequence[Concept]) -> Generator[Activations]:
    yield from collect_concepts(task.checkpoint, concepts, task.reading)


def _cell_keys(task: CheckpointTask, run: RunFolder, record: CheckpointRecord) -> dict[str, str]:
    tokenizer = task.checkpoint.load_tokenizer()
    identities = {
        "weights": record.identity,
        "tokenizer": "" if tokenizer is None else tokenizer_identity(tokenizer),
    }
    run.note_checkpoint(record, identities)
    settings = _settings(task.reading, task.checkpoint.loading, task.measures, task.seed)
    return {
        concept.name: run.cell_key(identities, concept.name, settings=settings)
        for concept in task.concepts
    }


def _settings(
    reading: ReadingOptions, loading: Loading, measures: Sequence[Measure], seed: int
) -> dict[str, Any]:
    """What changes a cell, beside weights and concept; as JSON holds it."""

    def listed_if_many(value: Any) -> Any:
        return list(value) if isinstance(value, tuple) else value

    return {
        "sites": listed_if_many(reading.sites),
        "position": listed_if_many(reading.position),
        "bos": reading.bos,
        "dtype": str(loading.dtype).removeprefix("torch."),
        "backend": loading.backend,
        "seed": seed,
        "measures": [measure.identity for measure in measures],
        "reads_with": reading_versions(),
    }


def _reads_on_cpu(loading: Loading) -> bool:
    if loading.device is None:
        return not torch.cuda.is_available()
    return torch.device(loading.device).type == "cpu"


def _span(sites: Sequence[str]) -> str:
    return f"site {sites[0]}" if len(sites) == 1 else f"sites {sites[0]} to {sites[-1]}"
