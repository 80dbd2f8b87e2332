"""Probing a series by a protocol that has a name."""

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

    `trace_checkpoints` with one measure. By the protocol `"grouped"` it is the logistic probe:
    grouped, stratified 5-fold cross-validation, features standardised and the penalty chosen inside
    the training folds. By `"tracingllm"` it is that of Qian et al. (2024), to reproduce published
    figures with: the first 80% of the rows are trained on and the last 20% tested, features are
    scaled over all rows, groups are not heeded. What leaks by it is counted in the trace, as
    `leak_group` and the like (see `tracingllm_probe`). The paper read its files as they are:
    `load_concepts(…, clean=False)`.

    Both can be had side by side, as
    `trace_checkpoints(…, measures=[logistic_probe(), tracingllm_probe()])`.

    Args:
        series: A `CheckpointSeries`, or one or several checkpoints; `series.loaded_with` sets
            device, number format and backend.
        concepts: A concept, several, or a mapping whose keys are the names in the trace.
        protocol: `"grouped"` or `"tracingllm"`, as described above.
        sites: As for `trace_checkpoints`, and so are the following.
        position: Which token of a statement to read.
        bos: Whether a beginning-of-sequence token stands before each statement.
        out: Run folder.
        store: Where activations are kept between sweeps.
        seed: Deals folds and draws resamples.
        batch_tokens: Tokens read at once.
        untrained: What weights tell how much was there before training.
        jobs: How many processes measure cells; None for what pays.
        executor: Measures cells in place of `jobs`.
        progress: Whether to show a bar.

    Returns:
        A trace with `accuracy`, `balanced_accuracy`, `auroc` and `cross_entropy` (nats), each with
        its interval, its n and the levels to hold it against.

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
