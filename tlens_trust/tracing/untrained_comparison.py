"""How much of a score was there before training: every checkpoint against untrained weights.

The untrained weights are step 0 of the run, or random ones in the same architecture. A linear probe
on them is not at chance: length, position and the tokens themselves can be read from random
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
_RESAMPLES = 1000
_GAIN = "accuracy above that of untrained weights"


def compact_cell(cell: xr.Dataset) -> xr.Dataset:
    """A cell as it is held in memory beside many others.

    Of what is known by statement there remains what tells right from wrong: the sign of each
    held-out score (0 where it is unknown), and the folds.
    """
    compared = _COMPARED if "accuracy" in cell else ()
    light = cell.drop_vars(
        [
            name
            for name, variable in cell.data_vars.items()
            if "example" in variable.dims and name not in compared
        ]
    )
    for name in {"score", "score_fewer"} & set(light.data_vars):
        values = light[name].values
        signs = np.where(values > 0, 1, np.where(values < 0, -1, 0)).astype(np.int8)
        light[name] = (light[name].dims, signs, light[name].attrs)
    return light


def untrained_levels(
    cell: xr.Dataset, untrained: xr.Dataset | None
) -> dict[Hashable, xr.DataArray]:
    """What untrained weights give of everything that has replicates, as dependences have.

    Args:
        cell: One checkpoint.
        untrained: The cell of the untrained weights for the same concept; None where there is none.

    Returns:
        `…_untrained` for each such variable; NaN where untrained weights have no such number at
        the same places.
    """
    levels: dict[Hashable, xr.DataArray] = {}
    for name, own in cell.data_vars.items():
        if f"{name}_draws" not in cell:
            continue
        found = None if untrained is None else untrained.get(name)
        if found is None or not all(
            found.indexes[dim].equals(index) for dim, index in own.indexes.items()
        ):
            found = xr.full_like(own, np.nan)
        about = f"{own.attrs['long_name']}, of untrained weights"
        known = {**own.attrs, "long_name": about}
        levels[f"{name}_untrained"] = found.astype(np.float32).assign_attrs(known)
    return levels


class UntrainedComparison:
    """What stands beside the scores of a concept's cells: untrained weights, and the difference.

    Args:
        concept: Labels and groups.
        seed: Of the concept's cells, whose resamples of groups are drawn again.
    """

    def __init__(self, concept: Concept, *, seed: int) -> None:
        self._labels = concept.labels
        self._groups = np.asarray(concept.groups, dtype=str)
        self._seed = seed
        self._drawn: dict[tuple[bytes, int], GroupBootstrap] = {}

    def beside(self, cell: xr.Dataset, untrained: xr.Dataset | None) -> xr.Dataset:
        """The scores of untrained weights, and by how much the cell's accuracy lies above.

        Args:
            cell: One checkpoint; light will do.
            untrained: The cell of the untrained weights for the same concept, by the same measures;
                None where there is none.

        Returns:
            For each score of the cell `…_untrained` and its interval; `accuracy_above_untrained`
            and its interval. All NaN where there are no untrained weights, or they were read at
            other sites; the difference alone where they were read on other folds. Empty where the
            cell holds no accuracy with scores by statement.
        """
        if not {"accuracy", "accuracy_ci", "score", "fold"} <= set(cell.data_vars):
            return xr.Dataset()
        if untrained is not None and not untrained.indexes["site"].equals(cell.indexes["site"]):
            untrained = None
        beside = xr.Dataset()
        for name in _SCORES:
            for suffix in ("", "_ci"):
                own = cell.get(f"{name}{suffix}")
                if own is None:
                    continue
                found = None if untrained is None else untrained.get(own.name)
                known = xr.full_like(own, np.nan) if found is None else found.copy()
                known.attrs = {
                    **{k: v for k, v in own.attrs.items() if k != "leaks"},
                    "long_name": f"{own.attrs['long_name']}, of untrained weights",
                }
                beside[f"{name}_untrained{suffix}"] = known
        accuracy, interval = cell["accuracy"], cell["accuracy_ci"]
        gain, gain_interval = xr.full_like(accuracy, np.nan), xr.full_like(interval, np.nan)
        if untrained is not None:
            self._compare(cell, untrained, gain, gain_interval)
        gain.attrs = {**_kept(accuracy.attrs), "long_name": _GAIN}
        gain_interval.attrs = {
            **_kept(interval.attrs),
            "long_name": f"95% interval of the {_GAIN}, statement by statement",
        }
        beside["accuracy_above_untrained"] = gain
        beside["accuracy_above_untrained_ci"] = gain_interval
        return beside

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
            fold, other_fold = (_of_probe(each, "fold", probe) for each in (cell, untrained))
            if fold is None or other_fold is None or not np.array_equal(fold, other_fold):
                continue
            rows = fold >= 0  # below 0 where a statement is only ever trained on
            scores, others = (_signs(each, "score", probe, rows) for each in (cell, untrained))
            if scores is None or others is None:
                continue
            fewer = [_signs(each, "score_fewer", probe, rows) for each in (cell, untrained)]
            value, bounds = accuracy_gain(
                scores,
                others,
                self._labels[rows],
                fold[rows].astype(np.int64),
                self._bootstrap(rows, resamples),
                fewer=None if fewer[0] is None or fewer[1] is None else (fewer[0], fewer[1]),
            )
            where = {"probe": number} if several else {}
            gain[where] = xr.DataArray(value, dims="site")
            interval[where] = xr.DataArray(bounds, dims=("site", "bound"))

    def _bootstrap(self, rows: Bool[np.ndarray, " example"], resamples: int) -> GroupBootstrap:
        key = rows.tobytes(), resamples
        if key not in self._drawn:
            self._drawn[key] = GroupBootstrap.draw(
                self._groups[rows].tolist(), seed=self._seed, resamples=resamples
            )
        return self._drawn[key]


def _kept(attributes: dict[str, object]) -> dict[str, object]:
    return {k: v for k, v in attributes.items() if k in ("units", "resamples", "groups", "measure")}


def _of_probe(
    cell: xr.Dataset, name: str, probe: str | None
) -> Int[np.ndarray, "..."] | Float[np.ndarray, "..."] | None:
    """What one probe gave of a variable by statement; None where it did not."""
    if name not in cell:
        return None
    variable = cell[name]
    if "probe" in variable.dims:
        variable = variable.sel(probe=probe)
    elif variable.attrs.get("measure", probe) != probe:
        return None
    order = [dim for dim in ("left_out", "example", "site") if dim in variable.dims]
    values: np.ndarray = variable.transpose(*order).values
    return None if np.isnan(values).all() else values


def _signs(
    cell: xr.Dataset, name: str, probe: str | None, rows: Bool[np.ndarray, " example"]
) -> Float[np.ndarray, "..."] | None:
    """Scores of the statements that are scored; light ones are as good."""
    values = _of_probe(cell, name, probe)
    return None if values is None else np.asarray(values[..., rows, :], dtype=np.float64)
