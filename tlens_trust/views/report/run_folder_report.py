"""The report of a run folder, with every result that the folder holds."""

import os
from contextlib import suppress
from pathlib import Path

import xarray as xr

from tlens_trust.analysis import find_onset, find_phases, information_plane
from tlens_trust.analysis.phases.phase_records import Phases
from tlens_trust.tracing import Trace, load_results
from tlens_trust.tracing.run_folder import RunFolder
from tlens_trust.views.report.trace_report import write_report
from tlens_trust.views.tokens.token_view import draw_tokens

# Finding the phases of more curves than this takes longer than a reader wants to wait for a page.
_MOST_CURVES = 120


def report_run(
    run_folder: str | os.PathLike[str],
    path: str | os.PathLike[str] | None = None,
    *,
    title: str | None = None,
    seed: int = 0,
) -> Path:
    """Write the report of a run folder: the trace, and all other results that the folder holds.

    Onsets are reported where the scores of statements were stored. The information plane and its
    phases are shown where a dependence or an information was measured, or where `save_result` has
    stored a plane. Token views and steering matrices are shown where `save_result` has stored them.
    No activations are collected, and nothing is fitted.

    Args:
        run_folder: The `out=` of a sweep.
        path: A file that ends in `.html`; None for `report.html` in the run folder.
        title: Of the page.
        seed: Of resamples.

    Returns:
        The file.

    Raises:
        ValueError: There is no run folder, or the file has another ending.

    Examples:
        >>> report_run("run")  # doctest: +SKIP
    """
    folder = Path(run_folder)
    trace = Trace.load(folder)
    run = RunFolder.at(folder)
    plane, phases = _information(trace, folder, seed)
    return write_report(
        trace,
        folder / "report.html" if path is None else path,
        onset=_onset(trace, folder, seed),
        plane=plane,
        phases=phases,
        steering=list(load_results(folder, "steering").values()),
        tokens=[draw_tokens(scores) for scores in load_results(folder, "tokens").values()],
        title=title,
        # Several calls may have written into the folder; the last one is the command to repeat.
        command=str(run.manifest["calls"][-1].get("command", "")),
        unfinished=run.unfinished(),
    )


def _onset(trace: Trace, folder: Path, seed: int) -> xr.Dataset | None:
    if not {"accuracy", "accuracy_ci"} <= set(trace.data):
        return None
    floors = trace.data.get("accuracy_floor")
    # Under the paper's protocol there are no folds to choose a site on.
    with suppress(ValueError):
        return find_onset(
            folder,
            concepts=trace.concepts,
            checkpoints=trace.checkpoints,
            floor=floors is not None and bool(floors.notnull().any()),
            seed=seed,
        )
    return None


def _information(trace: Trace, folder: Path, seed: int) -> tuple[xr.Dataset | None, Phases | None]:
    plane = _plane(trace, folder)
    # Each concept and site has two curves, I(T;X) and I(T;Y).
    if plane is None or 2 * plane.sizes["concept"] * plane.sizes["site"] > _MOST_CURVES:
        return plane, None
    # A single checkpoint has no phases.
    with suppress(ValueError):
        return plane, find_phases(plane, seed=seed)
    return None, None


def _plane(trace: Trace, folder: Path) -> xr.Dataset | None:
    """The plane of the trace itself, or else one that was stored in the run folder."""
    # The paper's quantity comes first, where both were measured.
    for estimator, variable in (("nhsic", "nhsic"), ("nats", "information_x")):
        if variable in trace.data:
            with suppress(ValueError):
                return information_plane(trace, estimator=estimator)
    return next(iter(load_results(folder, "plane").values()), None)
