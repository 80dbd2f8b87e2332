"""The result of a sweep: every number by concept, checkpoint and site."""

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
import xarray as xr
from markupsafe import Markup

from tlens_trust.accessors import LazyAccessor, register_on
from tlens_trust.files import write_file
from tlens_trust.html import render
from tlens_trust.tracing.netcdf import dataset_from_bytes, dataset_to_bytes
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.selection import Selector, select
from tlens_trust.tracing.trace_checks import check_trace_data

if TYPE_CHECKING:
    import pandas

_T = TypeVar("_T", bound=type)

Names: TypeAlias = str | Sequence[str]

# A variable whose name is that of a quantity and one of these suffixes belongs to the quantity.
_SUFFIXES = (
    "_ci", "_se", "_draws", "_n", "_null", "_p", "_p_best", "_q", "_chance", "_floor", "_floor_ci",
    "_above_floor", "_above_floor_ci", "_untrained", "_untrained_ci", "_above_untrained",
    "_above_untrained_ci",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """The quantities that a sweep measures, by concept, checkpoint and site, with labels.

    `data` has the dimensions `concept`, `checkpoint` and `site`. It has `probe` if several measures
    give a variable, `run` if several series are combined (`combine_runs`), and `bound` (low, high)
    for intervals. NaN stands for an unknown number, and "" for an unknown text.

    The coordinates are:

    - along `concept`: `dimension`, `polarity`, `n_statements` and `n_groups`.
    - along `checkpoint`: `step`, `tokens`, `stage`, `revision`, `loss` and `identity` (a hash of
      the weights).
    - along `site`: `layer`, `depth` (the fraction of the blocks up to the site) and, if heads were
      read, `head` (NaN for a site that is no head).

    Every variable has the attributes `units` and `long_name`. A quantity such as `accuracy` comes
    with other variables, as far as its measure gives them:

    - `accuracy_ci`: its interval.
    - `accuracy_n`: the number of statements it is computed from; without it, all `n_statements`.
    - `accuracy_chance`: the share of the larger class.
    - `accuracy_null`: the band of accuracies with permuted labels.
    - `accuracy_p`, `accuracy_p_best`: p-values of a site, alone and among all sites.
    - `accuracy_q`: the p-value of the best site, corrected for all concepts and checkpoints that
      were assembled together.
    - `accuracy_floor`, `accuracy_above_floor`: a classifier of the text alone, and the difference.
    - `accuracy_untrained`, `accuracy_above_untrained`: the same site of untrained weights, and the
      difference. The attribute `untrained` names the weights, or says why they are unknown.

    Two traces are equal if their labels, numbers (to the last bit) and attributes are equal,
    except for the attribute `created`.

    Attributes:
        data: The labelled numbers. Take a copy before changing it.

    Raises:
        ValueError: `data` lacks a dimension or a coordinate, an axis has a name twice, or a
            variable has no unit or long name.

    Examples:
        >>> data = xr.Dataset(
        ...     {"accuracy": (("concept", "checkpoint", "site"), [[[0.5, 0.6], [0.7, 0.9]]],
        ...                   {"units": "fraction of statements", "long_name": "accuracy"})},
        ...     coords={"concept": ["truth"], "checkpoint": ["m@step0", "m@step512"],
        ...             "step": ("checkpoint", [0, 512]),
        ...             "site": ["blocks.0.hook_resid_post", "blocks.1.hook_resid_post"],
        ...             "layer": ("site", [0, 1])},
        ...     attrs={"model": "m"})
        >>> trace = Trace(data)
        >>> trace
        Trace of m: 1 concept × 2 checkpoints × 2 sites
          concepts   truth
          steps      0 … 512
          sites      blocks.0.hook_resid_post … blocks.1.hook_resid_post
          variables  accuracy (fraction of statements)
        >>> float(trace.sel(concept="truth", layer=1, step=512).data.accuracy.squeeze())
        0.9
    """

    data: xr.Dataset

    # The types are `Any`, since `views`, which defines the accessors, imports this module.
    plot = LazyAccessor[Any]("plot", home="tlens_trust.views")
    report = LazyAccessor[Any]("report", home="tlens_trust.views")

    def __post_init__(self) -> None:
        check_trace_data(self.data)
        # A shallow copy: variables that the caller adds or removes later do not reach the trace.
        object.__setattr__(self, "data", self.data.copy())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and _undated(self.data).identical(_undated(other.data))

    # A data set can be changed in place, so that its trace cannot be a key of a mapping.
    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {key:<9}  {text}" for key, text in self._facts())])

    def _repr_html_(self) -> str:
        # xarray has escaped the names and values in its own table.
        data = Markup(self.data._repr_html_())
        return render(
            "notebook/trace",
            {"title": self._title(), "facts": dict(self._facts()), "data": data},
        )

    @property
    def concepts(self) -> tuple[str, ...]:
        """Names along `concept`."""
        return tuple(self.data["concept"].values.tolist())

    @property
    def checkpoints(self) -> tuple[str, ...]:
        """Names along `checkpoint`."""
        return tuple(self.data["checkpoint"].values.tolist())

    @property
    def steps(self) -> tuple[int | None, ...]:
        """Optimiser steps along `checkpoint`; None where unknown."""
        steps = np.asarray(self.data["step"].values, dtype=float)
        return tuple(int(step) if np.isfinite(step) else None for step in steps)

    @property
    def sites(self) -> tuple[str, ...]:
        """Names along `site`."""
        return tuple(self.data["site"].values.tolist())

    @property
    def quantities(self) -> tuple[str, ...]:
        """Names of the variables that are no interval, count or level of another one."""
        names = [str(name) for name in self.data.data_vars]
        companions = {name + suffix for name in names for suffix in _SUFFIXES}
        return tuple(name for name in names if name not in companions)

    @property
    def provenance(self) -> dict[str, Any]:
        """Versions, settings, arguments and sources of concepts that the trace was made with.

        Empty for a trace that was not made by a sweep.
        """
        provenance: dict[str, Any] = json.loads(self.data.attrs.get("provenance", "{}"))
        return provenance

    def sel(
        self,
        *,
        concept: Names | None = None,
        checkpoint: Names | None = None,
        step: Selector = None,
        stage: Names | None = None,
        site: Names | None = None,
        layer: Selector = None,
        head: Selector = None,
        probe: Names | None = None,
        run: Names | None = None,
    ) -> "Trace":
        """Select a part of the trace.

        Axes stay, with length 1 if one label is selected. Only `probe` and `run` are dropped if
        one is selected, so that the result is the trace of that probe or run.

        Args:
            concept: One or several names.
            checkpoint: One or several names.
            step: One or several steps, or a `slice` of them with both ends included.
            stage: One or several training stages.
            site: One or several hook names.
            layer: One or several layers, or a `slice` of them with both ends included. Every site
                in them is selected.
            head: One or several heads, or a `slice` of them, in the selected layers. For a sweep
                with `sites="z"`.
            probe: Names of one or several measures.
            run: Names of one or several runs, if the trace combines several series.

        Raises:
            ValueError: The trace does not hold what is selected. The message lists what it holds,
                or for a step its neighbours.

        Examples:
            >>> from tlens_trust.tracing import Trace
            >>> trace = Trace.load("trace.nc")  # doctest: +SKIP
            >>> trace.sel(concept="toxicity", layer=8, step=1000)  # doctest: +SKIP
        """
        selection = select(
            self.data,
            concept=concept,
            checkpoint=checkpoint,
            step=step,
            stage=stage,
            site=site,
            layer=layer,
            head=head,
            probe=probe,
            run=run,
        )
        for axis, name in (("probe", probe), ("run", run)):
            if isinstance(name, str):
                selection = selection.isel({axis: 0})
        return Trace(selection)

    def best_site(self, variable: str = "accuracy", *, lowest: bool = False) -> xr.Dataset:
        """Find the site with the largest value, for each concept and checkpoint.

        The value is optimistic, since the site is chosen by the same numbers. The largest of
        several noisy numbers lies above what its site would give on new statements, and its
        interval does not account for the choice. To claim something about the best site, choose it
        on other statements.

        Args:
            variable: A quantity along `site`.
            lowest: Whether to find the smallest value, as for a cross-entropy.

        Returns:
            The variable and its companions (`…_ci`, `…_n`) at that site, without the `site` axis.
            `site`, `layer` and `depth` become coordinates along the other axes. If the variable is
            unknown at every site, it is NaN and the site is "".

        Raises:
            ValueError: The trace holds no such quantity.

        Examples:
            >>> import numpy as np, xarray as xr
            >>> data = xr.Dataset(
            ...     {"accuracy": (("concept", "checkpoint", "site"), [[[0.5, 0.6], [0.9, 0.7]]],
            ...                   {"units": "fraction", "long_name": "accuracy"})},
            ...     coords={"concept": ["truth"], "checkpoint": ["a", "b"], "site": ["x", "y"],
            ...             "step": ("checkpoint", [0, 8]), "layer": ("site", [0, 1])})
            >>> best = Trace(data).best_site("accuracy")
            >>> best.accuracy.values.tolist(), best.site.values.tolist()
            ([[0.6, 0.9]], [['y', 'x']])
        """
        names = [name for name in self.quantities if "site" in self.data[name].dims]
        if variable not in names:
            raise ValueError(
                f"The trace holds no quantity {variable!r} along `site`. It holds {listed(names)}."
            )
        values = self.data[variable]
        worst = np.inf if lowest else -np.inf
        # `argmax` fails where all values are NaN. Such places are made unknown again below.
        ranked = values.astype(float).fillna(worst)
        index = ranked.argmin("site") if lowest else ranked.argmax("site")
        is_known = values.notnull().any("site")
        group = [variable, *(f"{variable}{suffix}" for suffix in _SUFFIXES)]
        best = self.data[[name for name in group if name in self.data]].isel(site=index)
        best = best.reset_coords(["site", "layer"])
        if not is_known.all():
            # There the first site was chosen, of which nothing is known.
            best = best.where(is_known)
            best["site"] = best["site"].where(is_known, "").astype(str)
        extreme = "smallest" if lowest else "largest"
        best.attrs["note"] = f"site of the {extreme} {variable}, chosen post hoc: optimistic"
        return best.set_coords(["site", "layer"])

    def above_floor(self, variable: str = "accuracy") -> xr.DataArray:
        """Find where the probe classifies better than a classifier of the text alone.

        The two are compared statement by statement, on the same folds. True means that the 95%
        interval of the difference lies above 0. The intervals are not corrected for the number of
        sites, checkpoints or concepts.

        Args:
            variable: A quantity with a text floor.

        Returns:
            True or False for each concept, checkpoint and site (and probe); False where unknown.
            `trace.data.accuracy_above_floor` is the size of the difference.

        Raises:
            ValueError: The trace holds no such floor.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.above_floor().any("site")  # doctest: +SKIP
        """
        return self._above(variable, "floor", "Probes measure it unless `floor=False`.")

    def above_untrained(self, variable: str = "accuracy") -> xr.DataArray:
        """Find where the probe classifies better than one on the same site of untrained weights.

        The two are compared statement by statement, on the same folds. True means that the 95%
        interval of the difference lies above 0. The intervals are not corrected for the number of
        sites, checkpoints or concepts.

        Args:
            variable: A quantity that a sweep compares with untrained weights.

        Returns:
            True or False for each concept, checkpoint and site (and probe); False where unknown.
            `trace.data.accuracy_above_untrained` is the size of the difference.

        Raises:
            ValueError: The trace holds no such comparison.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.above_untrained().any("site")  # doctest: +SKIP
        """
        return self._above(variable, "untrained", "A sweep computes it for the accuracy of probes.")

    def _above(self, variable: str, level: str, advice: str) -> xr.DataArray:
        name = f"{variable}_above_{level}_ci"
        if name not in self.data:
            names = [q for q in self.quantities if f"{q}_above_{level}_ci" in self.data]
            noun = "floor" if level == "floor" else "untrained level"
            raise ValueError(
                f"The trace holds no {noun} of {variable!r}. It holds those of {listed(names)}. "
                f"{advice}"
            )
        # NaN is not above 0, so that an unknown difference counts as False.
        is_above = (self.data[name].sel(bound="low", drop=True) > 0).rename(
            name.removesuffix("_ci")
        )
        reference = "its floor" if level == "floor" else "that of untrained weights"
        return is_above.assign_attrs(
            units="1", long_name=f"whether the {variable} is above {reference}"
        )

    def to_frame(self, *variables: str) -> "pandas.DataFrame":
        """Make a tidy table with a row for each concept, checkpoint, site (and probe, and run).

        An interval `accuracy_ci` becomes the columns `accuracy_low` and `accuracy_high`. Any other
        variable with bounds, such as `accuracy_null`, becomes `accuracy_null_low` and `…_high`.
        Coordinates are columns too.

        Args:
            variables: The variables of the table; by default all that have these axes and no
                others. A variable with a further axis, such as the width of a kernel, must be
                named. It gets a row for each label of that axis.

        Raises:
            ValueError: The trace holds no such variable.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.to_frame().query("layer == 2")  # doctest: +SKIP
            >>> trace.to_frame("nhsic", "nhsic_ci")  # doctest: +SKIP
        """
        missing_names = [name for name in variables if name not in self.data]
        if missing_names:
            raise ValueError(
                f"The trace holds no variable {missing_names[0]!r}. It holds "
                f"{listed([str(name) for name in self.data])}."
            )
        table = self.data[list(variables)] if variables else self._without_further_axes()
        columns: dict[str, xr.DataArray] = {}
        for name, variable in table.data_vars.items():
            if "bound" in variable.dims:
                stem = str(name).removesuffix("_ci")
                for bound in ("low", "high"):
                    columns[f"{stem}_{bound}"] = variable.sel(bound=bound, drop=True)
            else:
                columns[str(name)] = variable
        flat = xr.Dataset(columns)
        flat = flat.assign_coords(
            {name: c for name, c in self.data.coords.items() if set(c.dims) <= set(flat.dims)}
        )
        axes = ["concept", "checkpoint", "site"]
        order = [*(axis for axis in axes if axis in flat.dims), *_without(flat.dims, axes)]
        return flat.to_dataframe(dim_order=order).reset_index()

    def _without_further_axes(self) -> xr.Dataset:
        axes = {"concept", "checkpoint", "site", "probe", "run", "bound"}
        return self.data[[n for n, v in self.data.data_vars.items() if set(v.dims) <= axes]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a NetCDF file, which `load` reads back exactly.

        The file is written under another name and then renamed, so that it is never incomplete.

        Args:
            path: The file. An existing one is replaced.

        Raises:
            ValueError: A file cannot hold one of the attributes.
        """
        write_file(path, dataset_to_bytes(self.data))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read a trace from a file that `save` wrote, or from a run folder.

        Everything that is finished in a run folder is read, from all its calls. The numbers of a
        concept and a checkpoint that no sweep has combined yet are NaN.

        Raises:
            ValueError: There is no such file or folder, or it holds no trace.
        """
        place = Path(path)
        if place.is_dir():
            from tlens_trust.tracing.run_folder import RunFolder

            return cls(RunFolder(place).trace_data())
        try:
            return cls(dataset_from_bytes(place.read_bytes()))
        except FileNotFoundError:
            raise ValueError(
                f"There is no file or folder {str(path)!r}. Give a file that `Trace.save` wrote, "
                "or the run folder (`out=`) of a sweep."
            ) from None
        except ValueError as error:
            raise ValueError(f"{str(path)!r} does not hold a trace. {error}") from error

    def _title(self) -> str:
        axes = {
            "concept": len(self.concepts),
            "checkpoint": len(self.checkpoints),
            "site": len(self.sites),
        }
        shape = " × ".join(f"{size} {noun}{'s' * (size != 1)}" for noun, size in axes.items())
        return f"Trace of {self.data.attrs.get('model', 'an unnamed model')}: {shape}"

    def _facts(self) -> list[tuple[str, str]]:
        steps = ["?" if step is None else str(step) for step in self.steps]
        facts = [
            ("concepts", ", ".join(self.concepts)),
            ("steps", _ends(steps)),
            ("sites", _ends(self.sites)),
        ]
        facts += [
            (f"{axis}s", ", ".join(map(str, self.data[axis].values)))
            for axis in ("probe", "run")
            if axis in self.data.dims
        ]
        described = [(name, str(self.data[name].attrs["units"])) for name in self.quantities]
        facts.append(
            ("variables", ", ".join(n if u == "1" else f"{n} ({u})" for n, u in described))
        )
        if "polarity" in self.data.coords and not self.data["polarity"].all():
            without = [
                n for n, p in zip(self.concepts, self._along("polarity"), strict=True) if not p
            ]
            facts.append(
                ("polarity", f"neither label is the trustworthy side: {', '.join(without)}")
            )
        n_unknown = self._cells_without_a_number()
        if n_unknown:
            total = len(self.concepts) * len(self.checkpoints)
            facts.append(("unknown", f"{n_unknown} of {total} concepts × checkpoints"))
        return facts

    def _along(self, name: str) -> list[Any]:
        return list(self.data[name].values.tolist())

    def _cells_without_a_number(self) -> int:
        quantity = self.data[self.quantities[0]]
        if not {"concept", "checkpoint"} <= set(quantity.dims):
            return 0
        other_axes = _without(quantity.dims, ["concept", "checkpoint"])
        return int(quantity.isnull().all(other_axes).sum())


def register_trace_accessor(name: str) -> Callable[[_T], _T]:
    """Register a class so that `trace.NAME` is an instance of it, made with the trace.

    Args:
        name: A public identifier that is not an attribute of `Trace` yet.

    Returns:
        A class decorator.

    Raises:
        ValueError: `name` is no public identifier, or is an attribute already.

    Examples:
        >>> @register_trace_accessor("counts")
        ... class TraceCounts:
        ...     def __init__(self, trace: Trace) -> None:
        ...         self.cells = len(trace.concepts) * len(trace.checkpoints)
        >>> Trace.counts
        <class '...TraceCounts'>
    """
    return register_on(Trace, name)


def _undated(data: xr.Dataset) -> xr.Dataset:
    return data.assign_attrs(created="")


def _without(dims: Any, names: Sequence[str]) -> list[Any]:
    return [dim for dim in dims if dim not in names]


def _ends(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
