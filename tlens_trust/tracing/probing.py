"""The entrance function that probes a series by a named protocol."""

import os
from collections.abc import Callable, Iterable

from tlens_trust.activations.positions import Position
from tlens_trust.activations.reading_options import DEFAULT_BATCH_TOKENS, Sites, Store
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.measures import Measure, logistic_probe, tracingllm_probe
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.sweep import trace_checkpoints
from tlens_trust.tracing.sweep_arguments import Concepts
from tlens_trust.tracing.trace import Trace
from tlens_trust.tracing.workers import Executor

_PROTOCOLS: dict[str, Callable[[], Measure]] = {
    "grouped": logistic_probe,
    "tracingllm": tracingllm_probe,
}


def probe_checkpoints(
    series: Checkpoint | Iterable[Checkpoint],
    concepts: Concepts,
    *,
    protocol: str = "grouped",
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
    """Probe concepts at every site of every checkpoint of a series.

    This is `trace_checkpoints` with one measure, which the protocol chooses:

    - `"grouped"` is the logistic probe: grouped, stratified 5-fold cross-validation. Features are
      standardised, and the penalty is chosen, inside the training folds.
    - `"tracingllm"` is the probe of Qian et al. (2024), to reproduce published figures. It is
      trained on the first 80% of the rows and tested on the last 20%. Features are scaled over all
      rows, and groups are ignored. The trace counts what leaks, as `leak_group` and the like (see
      `tracingllm_probe`). The paper did not clean its files: `load_concepts(…, clean=False)`.

    `trace_checkpoints(…, measures=[logistic_probe(), tracingllm_probe()])` gives both.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints; `series.loaded_with` sets
            device, number format and backend.
        concepts: A concept, several, or a mapping whose keys are the names in the trace.
        protocol: `"grouped"` or `"tracingllm"`, as described above.
        sites: Where to read. This and the following are as for `trace_checkpoints`.
        position: Which token of a statement to read.
        bos: Whether a beginning-of-sequence token stands before each statement.
        out: Run folder.
        store: Where activations are kept between sweeps.
        seed: Seed of folds and resamples.
        batch_tokens: Tokens in one batch.
        untrained: The untrained weights that checkpoints are compared with.
        jobs: Number of processes that measure cells.
        executor: Measures cells in place of `jobs`.
        progress: Whether to show a bar.

    Returns:
        A trace with `accuracy`, `balanced_accuracy`, `auroc` and `cross_entropy` (nats), each with
        its interval, its n and its reference levels.

    Raises:
        ValueError: As `trace_checkpoints`, or `protocol` is unknown.

    Examples:
        >>> from tlens_trust import load_concepts, load_toy_series  # doctest: +SKIP
        >>> trace = probe_checkpoints(
        ...     load_toy_series(), load_concepts(), out="run")  # doctest: +SKIP
        >>> trace.plot.heatmap("accuracy").show()  # doctest: +SKIP
    """
    if protocol not in _PROTOCOLS:
        raise ValueError(
            f"There is no protocol {protocol!r}. Allowed are {listed(list(_PROTOCOLS))}."
        )
    return trace_checkpoints(
        series,
        concepts,
        measures=[_PROTOCOLS[protocol]()],
        sites=sites,
        position=position,
        bos=bos,
        out=out,
        store=store,
        seed=seed,
        batch_tokens=batch_tokens,
        untrained=untrained,
        jobs=jobs,
        executor=executor,
        progress=progress,
    )
