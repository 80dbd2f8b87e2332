"""What every measure says of one concept at one checkpoint, as one data set.

A cell is a pure function of the activations, the concept, the measures and the seed. Its seed comes
of the sweep's seed and the concept's content alone: neither the order of a sweep nor the
checkpoint changes it, so that a concept is split into the same folds at every checkpoint, and two
checkpoints can be compared statement by statement.
"""

import hashlib
from collections.abc import Hashable, Mapping, Sequence

import numpy as np
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure
from tlens_trust.measures.arguments import checked_seed
from tlens_trust.threads import choose_threads, limited_threads
from tlens_trust.tracing.provenance import listed

_RESERVED = (
    "concept", "checkpoint", "site", "probe", "bound", "example", "step", "tokens", "stage",
    "revision", "loss", "identity", "layer", "head", "depth", "dimension", "polarity",
    "n_statements", "n_groups", "label", "group", "statement",
)  # fmt: skip


def cell_seed(seed: int, concept: Concept) -> int:
    """The seed of a concept's cells, below 2³².

    Raises:
        ValueError: `seed` is no whole number, or negative.

    Examples:
        >>> import numpy as np
        >>> concept = Concept("x", "x", ("Yes.", "No."), np.array([1, 0]), ("a", "a"))
        >>> cell_seed(0, concept) == cell_seed(0, concept) != cell_seed(1, concept)
        True
    """
    digest = hashlib.sha256(f"{checked_seed(seed)}\0{concept.fingerprint}".encode()).digest()
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
        activations: One reading for each statement of the concept.
        concept: Labels and groups.
        measures: Each with a name of its own.
        seed: The sweep's.
        threads: How many threads the measures run on; None for what `choose_threads` gives.

    Returns:
        Variables along `site`, with the coordinates `layer` and `depth`; along `probe` too where
        several measures give them; along `example` what is known of each statement.

    Raises:
        ValueError: A measure labels its sites otherwise than the activations, or gives a variable
            without unit or long name, or in another unit than another measure's.
    """
    own = cell_seed(seed, concept)
    given = {}
    with limited_threads(choose_threads(activations.values) if threads is None else threads):
        for measure in measures:
            result = measure(activations, concept, seed=own)
            _check_result(result, measure.name, activations, concept)
            given[measure.name] = result
    cell = _merge_results(given)
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


def _merge_results(given: Mapping[str, xr.Dataset]) -> xr.Dataset:
    names = list(dict.fromkeys(name for result in given.values() for name in result.data_vars))
    givers = {name: [m for m, result in given.items() if name in result] for name in names}
    shared = [m for m in given if any(m in g and len(g) > 1 for g in givers.values())]
    merged = {}
    for name in names:
        parts = [given[measure][name] for measure in givers[name]]
        if len(parts) == 1:
            merged[name] = parts[0].copy()
            if len(given) > 1:
                merged[name].attrs["measure"] = givers[name][0]
            continue
        units = {part.attrs["units"] for part in parts}
        if len(units) > 1:
            raise ValueError(
                f"The measures {listed(givers[name])} give {name!r} in different units: "
                f"{listed(sorted(units))}. Give one of them another name."
            )
        stacked = xr.concat(
            parts,
            dim=xr.Variable("probe", givers[name]),
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="drop_conflicts",
        )
        # A measure that shares other variables with others, but not this one.
        merged[name] = stacked if givers[name] == shared else stacked.reindex(probe=shared)
        merged[name].attrs.setdefault("long_name", parts[0].attrs["long_name"])
    return _dataset_of(merged)


def _dataset_of(arrays: Mapping[Hashable, xr.DataArray]) -> xr.Dataset:
    """The arrays as one data set, aligned only where their coordinates differ."""
    coordinates: dict[str, xr.Variable] = {}
    for array in arrays.values():
        for name, coordinate in array.coords.items():
            known = coordinates.setdefault(str(name), coordinate.variable)
            other = coordinate.variable
            if known is not other and not known.identical(other):  # type: ignore[no-untyped-call]
                return xr.Dataset(arrays)
    # Aligning a hundred arrays that are aligned takes a tenth of a small cell.
    variables = {name: array.variable for name, array in arrays.items()}
    return xr.Dataset(variables, coords=coordinates)
