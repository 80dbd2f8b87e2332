"""The untrained baseline: every checkpoint compared with untrained weights.

The untrained weights are step 0 of the run, or random ones in the same architecture. A linear probe
on them is not at chance: length, position and the tokens themselves can be decoded from random
features. Folds are the same at every checkpoint, so the two are compared statement by statement.
"""

from collections.abc import Hashable

import numpy as np
import xarray as xr
from jaxtyping import Bool, Float, Int

from tlens_trust.concepts import Concept
from tlens_trust.measures.reference_levels import accuracy_gain
from tlens_trust.measures.resampling import GroupBootstrap

_SCORES = ("accuracy", "balanced_accuracy", "auroc", "cross_entropy")
_COMPARED = ("score", "score_fewer", "fold")
# The default of the probes, for an interval that does not say how many it was made of.
_RESAMPLES = 1000
_GAIN = "accuracy above that of untrained weights"


def compact_cell(cell: xr.Dataset) -> xr.Dataset:
    """Reduce a cell to what must stay in memory during a sweep.

    Of the values by statement it keeps the folds and the sign of each held-out score (0 where it is
    unknown). They suffice to compare accuracies.
    """
    names = _COMPARED if "accuracy" in cell else ()
    compact = cell.drop_vars(
        [
            name
            for name, variable in cell.data_vars.items()
            if "example" in variable.dims and name not in names
        ]
    )
    for name in {"score", "score_fewer"} & set(compact.data_vars):
        values = compact[name].values
        # NaN is neither above nor below 0, so that an unknown score becomes 0.
        signs = np.where(values > 0, 1, np.where(values < 0, -1, 0)).astype(np.int8)
        compact[name] = (compact[name].dims, signs, compact[name].attrs)
    return compact


def untrained_levels(
    cell: xr.Dataset, untrained: xr.Dataset | None
) -> dict[Hashable, xr.DataArray]:
    """Take the values of untrained weights for every variable with replicates.

    Args:
        cell: The cell of one checkpoint.
        untrained: The cell of the untrained weights for the same concept; None if there is none.

    Returns:
        `…_untrained` for each such variable; NaN if the untrained weights have no such variable
        with the same labels.
    """
    levels: dict[Hashable, xr.DataArray] = {}
    for name, variable in cell.data_vars.items():
        if f"{name}_draws" not in cell:
            continue
        level = None if untrained is None else untrained.get(name)
        if level is None or not all(
            level.indexes[dim].equals(index) for dim, index in variable.indexes.items()
        ):
            level = xr.full_like(variable, np.nan)
        long_name = f"{variable.attrs['long_name']}, of untrained weights"
        attributes = {**variable.attrs, "long_name": long_name}
        levels[f"{name}_untrained"] = level.astype(np.float32).assign_attrs(attributes)
    return levels


class UntrainedComparison:
    """Compares the scores of a concept's cells with those of untrained weights.

    Args:
        concept: Labels and groups.
        seed: The seed of the concept's cells, so that the same groups are resampled.
    """

    def __init__(self, concept: Concept, *, seed: int) -> None:
        self._labels = concept.labels
        self._groups = np.asarray(concept.groups, dtype=str)
        self._seed = seed
        self._drawn: dict[tuple[bytes, int], GroupBootstrap] = {}

    def compare(self, cell: xr.Dataset, untrained: xr.Dataset | None) -> xr.Dataset:
        """Give the scores of untrained weights, and how much the cell's accuracy lies above.

        Args:
            cell: The cell of one checkpoint, whole or as `compact_cell` gives it.
            untrained: The cell of the untrained weights for the same concept, by the same measures;
                None if there is none.

        Returns:
            For each score of the cell, `…_untrained` and its interval; and
            `accuracy_above_untrained` and its interval. All are NaN if there are no untrained
            weights, or they were read at other sites. Only the difference is NaN if the folds
            differ. Empty if the cell holds no accuracy with scores by statement.
        """
        if not {"accuracy", "accuracy_ci", "score", "fold"} <= set(cell.data_vars):
            return xr.Dataset()
        if untrained is not None and not untrained.indexes["site"].equals(cell.indexes["site"]):
            untrained = None
        levels = xr.Dataset()
        for name in _SCORES:
            for suffix in ("", "_ci"):
                score = cell.get(f"{name}{suffix}")
                if score is None:
                    continue
                level = None if untrained is None else untrained.get(score.name)
                level = xr.full_like(score, np.nan) if level is None else level.copy()
                level.attrs = {
                    **{k: v for k, v in score.attrs.items() if k != "leaks"},
                    "long_name": f"{score.attrs['long_name']}, of untrained weights",
                }
                levels[f"{name}_untrained{suffix}"] = level
        accuracy, interval = cell["accuracy"], cell["accuracy_ci"]
        gain, gain_interval = xr.full_like(accuracy, np.nan), xr.full_like(interval, np.nan)
        if untrained is not None:
            self._compare(cell, untrained, gain, gain_interval)
        gain.attrs = {**_shared_attributes(accuracy.attrs), "long_name": _GAIN}
        gain_interval.attrs = {
            **_shared_attributes(interval.attrs),
            "long_name": f"95% interval of the {_GAIN}, statement by statement",
        }
        levels["accuracy_above_untrained"] = gain
        levels["accuracy_above_untrained_ci"] = gain_interval
        return levels

    def _compare(
        self,
        cell: xr.Dataset,
        untrained: xr.Dataset,
        gain: xr.DataArray,
        interval: xr.DataArray,
    ) -> None:
        """Fill in the difference, probe by probe."""
        accuracy = cell["accuracy"]
        several = "probe" in accuracy.dims
        probes = accuracy["probe"].values.tolist() if several else [accuracy.attrs.get("measure")]
        resamples = int(cell["accuracy_ci"].attrs.get("resamples", _RESAMPLES))
        for number, probe in enumerate(probes):
            fold, other_fold = (_probe_values(c, "fold", probe) for c in (cell, untrained))
            # On other folds, a statement is scored by probes that were fitted to other statements.
            if fold is None or other_fold is None or not np.array_equal(fold, other_fold):
                continue
            # The fold is below 0 for a statement that is trained on and never scored.
            rows = fold >= 0
            scores, untrained_scores = (_signs(c, "score", probe, rows) for c in (cell, untrained))
            if scores is None or untrained_scores is None:
                continue
            fewer = [_signs(c, "score_fewer", probe, rows) for c in (cell, untrained)]
            value, bounds = accuracy_gain(
                scores,
                untrained_scores,
                self._labels[rows],
                fold[rows].astype(np.int64),
                self._bootstrap(rows, resamples),
                fewer=None if fewer[0] is None or fewer[1] is None else (fewer[0], fewer[1]),
            )
            place = {"probe": number} if several else {}
            gain[place] = xr.DataArray(value, dims="site")
            interval[place] = xr.DataArray(bounds, dims=("site", "bound"))

    def _bootstrap(self, rows: Bool[np.ndarray, " example"], resamples: int) -> GroupBootstrap:
        # Every checkpoint needs the same resamples. An array cannot be a key, but its bytes can.
        key = rows.tobytes(), resamples
        if key not in self._drawn:
            self._drawn[key] = GroupBootstrap.draw(
                self._groups[rows].tolist(), seed=self._seed, resamples=resamples
            )
        return self._drawn[key]


def _shared_attributes(attributes: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in attributes.items() if k in ("units", "resamples", "groups", "measure")}


def _probe_values(
    cell: xr.Dataset, name: str, probe: str | None
) -> Int[np.ndarray, "..."] | Float[np.ndarray, "..."] | None:
    """The values of a variable by statement for one probe; None if it gave none."""
    if name not in cell:
        return None
    variable = cell[name]
    if "probe" in variable.dims:
        variable = variable.sel(probe=probe)
    elif variable.attrs.get("measure", probe) != probe:
        return None
    # `_signs` selects statements on the last axis but one.
    order = [dim for dim in ("left_out", "example", "site") if dim in variable.dims]
    values: np.ndarray = variable.transpose(*order).values
    return None if np.isnan(values).all() else values


def _signs(
    cell: xr.Dataset, name: str, probe: str | None, rows: Bool[np.ndarray, " example"]
) -> Float[np.ndarray, "..."] | None:
    """The scores of some statements; their signs, if the cell was made compact."""
    values = _probe_values(cell, name, probe)
    return None if values is None else np.asarray(values[..., rows, :], dtype=np.float64)
