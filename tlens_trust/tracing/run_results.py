"""Results beside a trace, kept in its run folder for the report to find."""

import os
from pathlib import Path

import xarray as xr

from tlens_trust.files import write_file
from tlens_trust.tracing.manifest import file_name
from tlens_trust.tracing.netcdf import dataset_from_bytes, dataset_to_bytes
from tlens_trust.tracing.run_folder import RunFolder

KINDS = ("tokens", "steering", "plane")


def save_result(
    run_folder: str | os.PathLike[str], kind: str, name: str, result: xr.Dataset
) -> Path:
    """Keep a result with the run that it belongs to, where the report finds it.

    Args:
        run_folder: The `out=` of a sweep.
        kind: `"tokens"`, what `trace_tokens` or `project_tokens` gives; `"steering"`, what
            `steering_matrix` gives; or `"plane"`, what `information_plane` gives of a sweep of the
            same checkpoints and concepts by other measures.
        name: What to call it; one of that kind and name is replaced.
        result: What to keep.

    Returns:
        The file, `results/KIND/….nc` in the run folder.

    Raises:
        ValueError: There is no run folder, the kind is none of those, or the result holds what no
            file can.

    Examples:
        >>> save_result("run", "steering", "toxicity", matrix)  # doctest: +SKIP
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    run = RunFolder.at(run_folder)
    _ = run.manifest  # which says what is wrong where there is none
    path = run.path / "results" / kind / f"{file_name(name)}.nc"
    write_file(path, dataset_to_bytes(result.assign_attrs(kept_as=name)))
    return path


def load_results(run_folder: str | os.PathLike[str], kind: str) -> dict[str, xr.Dataset]:
    """What `save_result` has kept of a kind, by name.

    Raises:
        ValueError: `kind` is none of those, or a file is torn.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    found = {}
    for path in sorted((RunFolder.at(run_folder).path / "results" / kind).glob("*.nc")):
        try:
            result = dataset_from_bytes(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{str(path)!r} cannot be read: {error} Remove it.") from error
        found[str(result.attrs.pop("kept_as", path.stem))] = result
    return found
