"""Further results that are saved in the run folder of a sweep, for the report to find."""

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
    """Save a result in the run folder that it belongs to, where the report finds it.

    Args:
        run_folder: The `out=` of a sweep.
        kind: `"tokens"` for a result of `trace_tokens` or `project_tokens`; `"steering"` for one
            of `steering_matrix`; `"plane"` for one of `information_plane`, from a sweep of the same
            checkpoints and concepts.
        name: Name of the result. An earlier result of that kind and name is replaced.
        result: The result.

    Returns:
        The file, `results/KIND/….nc` in the run folder.

    Raises:
        ValueError: The folder is no run folder, the kind is none of these, or a file cannot hold
            the result.

    Examples:
        >>> save_result("run", "steering", "toxicity", matrix)  # doctest: +SKIP
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    run = RunFolder.at(run_folder)
    _ = run.manifest  # raises an error if this is no run folder
    path = run.path / "results" / kind / f"{file_name(name)}.nc"
    # A file's name cannot hold every name, so that the name is stored inside too.
    write_file(path, dataset_to_bytes(result.assign_attrs(kept_as=name)))
    return path


def load_results(run_folder: str | os.PathLike[str], kind: str) -> dict[str, xr.Dataset]:
    """Load the results of one kind that `save_result` wrote, by name.

    Raises:
        ValueError: `kind` is none of these, or a file is torn.
    """
    if kind not in KINDS:
        raise ValueError(f"`kind` must be one of {', '.join(map(repr, KINDS))}, got {kind!r}.")
    results = {}
    for path in sorted((RunFolder.at(run_folder).path / "results" / kind).glob("*.nc")):
        try:
            result = dataset_from_bytes(path.read_bytes())
        except ValueError as error:
            raise ValueError(f"{str(path)!r} cannot be read: {error} Remove it.") from error
        # Without the attribute, the result is equal to the one that was saved.
        results[str(result.attrs.pop("kept_as", path.stem))] = result
    return results
