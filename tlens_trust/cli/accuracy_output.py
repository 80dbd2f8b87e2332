"""What is printed and drawn of the accuracies of a sweep."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:
    from tlens_trust.tracing import Trace


def show_accuracies(trace: "Trace", out: Path, *, find_onsets: bool = True) -> None:
    """Print the accuracies of a sweep's last checkpoint, and draw those of all checkpoints.

    Args:
        trace: A trace of one or several probes.
        out: Its run folder. The figures are written into it.
        find_onsets: Whether to find onsets, which takes held-out scores by folds.
    """
    from tlens_trust.analysis import find_onset
    from tlens_trust.views import summary_table

    onsets, note = None, ""
    if find_onsets:
        floors = trace.data.get("accuracy_floor")
        try:
            onsets = find_onset(
                out,
                concepts=trace.concepts,
                checkpoints=trace.checkpoints,
                # A concept of few groups has no text floor.
                floor=floors is not None and bool(floors.notnull().any()),
            )
        except ValueError as error:
            # The accuracies are worth showing without onsets.
            note = f"\nonset    unknown: {error}"
    typer.echo(summary_table(trace, onsets) + note)
    typer.echo(f"\ntrace    {out / 'trace.nc'}")
    for suffix, probe_trace in _traces_of_one_probe(trace):
        figure = probe_trace.plot.heatmap("accuracy").save(out / f"accuracy{suffix}.html")
        typer.echo(f"heatmap  {figure}")


def _traces_of_one_probe(trace: "Trace") -> "Iterator[tuple[str, Trace]]":
    """The trace of each probe, since a figure shows one, with a suffix for its file name."""
    if "probe" not in trace.data.dims:
        yield "", trace
        return
    for probe in trace.data["probe"].values.tolist():
        yield f"-{probe}", trace.sel(probe=probe)
