"""A cell: the results of all measures for one concept at one checkpoint, as one data set.

A cell is a pure function of the activations, the concept, the measures and the seed. Its seed
depends only on the sweep's seed and the concept's content, not on the order of a sweep or the
checkpoint. So a concept is split into the same folds at every checkpoint, and two checkpoints can
be compared statement by statement.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.arguments import checked_seed
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure
from tlens_trust.threads import choose_threads, limited_threads
from tlens_trust.tracing.provenance import listed

# In a data set, a variable of one of these names would take the place of a coordinate.
_RESERVED = (
    "concept", "checkpoint", "site", "probe", "bound", "example", "step", "tokens", "stage",
    "revision", "loss", "identity", "layer", "head", "depth", "dimension", "polarity",
    "n_statements", "n_groups", "label", "group", "statement",
)  # fmt: skip


def cell_seed(seed: int, concept: Concept) -> int:
    """Derive the seed of a concept's cells, below 2³², from the sweep's seed.

    Raises:
        ValueError: `seed` is not a whole number from 0.

    Examples:
        >>> import numpy as np
        >>> concept = Concept("x", "x", ("Yes.", "No."), np.array([1, 0]), ("a", "a"))
        >>> cell_seed(0, concept) == cell_seed(0, concept) != cell_seed(1, concept)
        True
    """
    # The content counts and not the name, so that a renamed concept keeps its folds.
    digest = hashlib.sha256(f"{checked_seed(seed)}\0{concept.fingerprint}".encode()).digest()
    # Four bytes, since scikit-learn accepts no seed from 2³² on.
    return int.from_bytes(digest[:4], "big")


def measure_cell(
    activations: Activations,
    concept: Concept,
    measures: Sequence[Measure],
    *,
    seed: int,
    threads: int | None = None,
) -> xr.Dataset:
    """Take every measure of one concept at one checkpoint.

    Args:
        activations: The activations of the concept's statements.
        concept: Labels and groups.
        measures: The measures, each under its own name.
        seed: The seed of the sweep.
        threads: Number of threads that the measures run on; None for `choose_threads`.

    Returns:
        Variables along `site`, with the coordinates `layer` and `depth`. A variable that several
        measures give has the axis `probe`. Values of single statements have the axis `example`.

    Raises:
        ValueError: A measure labels its sites differently from the activations, a variable has no
            unit or long name, or two measures give a variable in different units.
    """
    seed_of_concept = cell_seed(seed, concept)
    results = {}
    # The number of threads can change last bits, so it depends on the size of the activations and
    # not on the process that measures them.
    with limited_threads(choose_threads(activations.values) if threads is None else threads):
        for measure in measures:
            result = measure(activations, concept, seed=seed_of_concept)
            _check_result(result, measure.name, activations, concept)
            results[measure.name] = result
    cell = _merge_results(results)
    return cell.assign_coords(
        layer=("site", np.array(activations.layers, dtype=np.int64)),
        depth=("site", np.array(activations.depths, dtype=np.float64)),
    )


def _check_result(result: object, measure: str, activations: Activations, concept: Concept) -> None:
    if not isinstance(result, xr.Dataset) or not result.data_vars:
        raise ValueError(
            f"The measure {measure!r} must give an xarray.Dataset with at least one variable, got "
            f"{type(result).__name__}."
        )
    if "site" not in result.coords or result["site"].values.tolist() != list(activations.sites):
        raise ValueError(
            f"The measure {measure!r} must label its axis 'site' with the activations' own sites, "
            "in their order. Set `coords={'site': list(activations.sites)}`."
        )
    if result.sizes.get("example", len(concept)) != len(concept):
        raise ValueError(
            f"The measure {measure!r} gives {result.sizes['example']} examples for the "
            f"{len(concept)} statements of {concept.name!r}. Give one value for each."
        )
    for name, variable in result.data_vars.items():
        if name in _RESERVED:
            raise ValueError(
                f"The measure {measure!r} gives a variable {name!r}, which is the name of an axis "
                "or a coordinate of a trace. Choose another name."
            )
        if not np.issubdtype(variable.dtype, np.number) and variable.dtype != bool:
            raise ValueError(
                f"The variable {name!r} of the measure {measure!r} must hold numbers, got "
                f"{variable.dtype}."
            )
        if not all(isinstance(variable.attrs.get(key), str) for key in ("units", "long_name")):
            raise ValueError(
                f"The variable {name!r} of the measure {measure!r} must have 'units' and "
                "'long_name' among its attributes. The unit of a bare number is '1'."
            )


def _merge_results(results: Mapping[str, xr.Dataset]) -> xr.Dataset:
    """Merge the results of measures; variables that several give are stacked along `probe`."""
    names = list(dict.fromkeys(name for result in results.values() for name in result.data_vars))
    sources = {name: [m for m, result in results.items() if name in result] for name in names}
    # The labels of `probe`: all measures that share at least one variable with another.
    probes = [m for m in results if any(m in s and len(s) > 1 for s in sources.values())]
    variables = {}
    for name in names:
        parts = [results[measure][name] for measure in sources[name]]
        if len(parts) == 1:
            # A copy, since the attribute below must not appear in the measure's own result.
            variables[name] = parts[0].copy()
            if len(results) > 1:
                # Nothing else says which measure gave a variable without the axis `probe`.
                variables[name].attrs["measure"] = sources[name][0]
            continue
        units = {part.attrs["units"] for part in parts}
        if len(units) > 1:
            raise ValueError(
                f"The measures {listed(sources[name])} give {name!r} in different units: "
                f"{listed(sorted(units))}. Give one of them another name."
            )
        stacked = xr.concat(
            parts,
            dim=xr.Variable("probe", sources[name]),
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="drop_conflicts",
        )
        # A probe may share other variables but not this one. All need the same axis `probe`.
        variables[name] = stacked if sources[name] == probes else stacked.reindex(probe=probes)
        # Where measures describe the variable in different words, xarray has dropped the text.
        variables[name].attrs.setdefault("long_name", parts[0].attrs["long_name"])
    return _dataset_of(variables)


def _dataset_of(arrays: Mapping[Hashable, xr.DataArray]) -> xr.Dataset:
    """Make one data set of arrays, which are aligned only if their coordinates differ."""
    coordinates: dict[str, xr.Variable] = {}
    for array in arrays.values():
        for name, coordinate in array.coords.items():
            new = coordinate.variable
            earlier = coordinates.setdefault(str(name), new)
            if earlier is not new and not earlier.identical(new):  # type: ignore[no-untyped-call]
                return xr.Dataset(arrays)
    # xarray would align a hundred aligned arrays, in a tenth of the time of a small cell.
    variables = {name: array.variable for name, array in arrays.items()}
    return xr.Dataset(variables, coords=coordinates)
