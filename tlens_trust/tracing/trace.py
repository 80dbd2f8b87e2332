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
from tlens_trust.tracing.selection import Choice, choose
from tlens_trust.tracing.trace_checks import check_trace_data

if TYPE_CHECKING:
    import pandas

_T = TypeVar("_T", bound=type)

Names: TypeAlias = str | Sequence[str]

# What stands beside a quantity under its name and one of these belongs to it.
_SUFFIXES = (
    "_ci", "_se", "_draws", "_n", "_null", "_p", "_p_best", "_q", "_chance", "_floor", "_floor_ci",
    "_above_floor", "_above_floor_ci", "_untrained", "_untrained_ci", "_above_untrained",
    "_above_untrained_ci",
)  # fmt: skip


@dataclass(frozen=True, eq=False, repr=False)
class Trace:
    """Quantities of concepts along training, by checkpoint and site, each labelled.

    `data` has the dimensions `concept`, `checkpoint` and `site`, `probe` on what several measures
    give, `run` where several series stand side by side (`combine_runs`), and `bound` (low, high) on
    intervals. Along `concept` stand the coordinates `dimension`,
    `polarity`, `n_statements` and `n_groups`; along `checkpoint` `step`, `tokens`, `stage`,
    `revision`, `loss` and `identity` (a hash of the weights); along `site` `layer` and `depth`,
    the fraction of the blocks behind the site, and where heads were read `head` (NaN for a site
    that is none). Every variable has `units` and `long_name` in its
    attributes. A quantity `accuracy` may be joined by `accuracy_ci` (its interval) and
    `accuracy_n` (what it rests on; where there is no `…_n`, all `n_statements`), and by the levels
    that it has to be held against: `accuracy_chance` (the larger class), `accuracy_null` (a band
    where labels are permuted), `accuracy_p` and `accuracy_p_best` (p-values of a site by itself and
    among all), `accuracy_q` (of the best site, corrected for all concepts and checkpoints that the
    trace held when it was put together), `accuracy_floor` (a classifier of the text alone),
    `accuracy_above_floor`, `accuracy_untrained` (the same site of untrained weights: step 0, or
    random ones; its attribute `untrained` says which, or why it is unknown) and
    `accuracy_above_untrained`.
    NaN, and "" among texts, stand for "unknown".

    Two traces are equal if they hold the same labels and numbers, to the last bit, and the same
    attributes, `created` apart.

    Attributes:
        data: The labelled numbers. Take a copy before changing it.

    Raises:
        ValueError: `data` lacks a dimension or a coordinate, a name stands twice on an axis, or a
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

    plot = LazyAccessor[Any]("plot", home="tlens_trust.views")
    report = LazyAccessor[Any]("report", home="tlens_trust.views")

    def __post_init__(self) -> None:
        check_trace_data(self.data)
        object.__setattr__(self, "data", self.data.copy())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Trace) and _undated(self.data).identical(_undated(other.data))

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return "\n".join([self._title(), *(f"  {key:<9}  {text}" for key, text in self._facts())])

    def _repr_html_(self) -> str:
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
        """Variables that are no interval, count or level of another one."""
        names = [str(name) for name in self.data.data_vars]
        own = {name + suffix for name in names for suffix in _SUFFIXES}
        return tuple(name for name in names if name not in own)

    @property
    def provenance(self) -> dict[str, Any]:
        """What the trace was made with: versions, settings, arguments, concepts' sources.

        Empty for a trace that was not made by a sweep.
        """
        found: dict[str, Any] = json.loads(self.data.attrs.get("provenance", "{}"))
        return found

    def sel(
        self,
        *,
        concept: Names | None = None,
        checkpoint: Names | None = None,
        step: Choice = None,
        stage: Names | None = None,
        site: Names | None = None,
        layer: Choice = None,
        head: Choice = None,
        probe: Names | None = None,
        run: Names | None = None,
    ) -> "Trace":
        """Take a part of the trace.

        Axes stay, with length 1 where one thing is chosen; only `probe` and `run` go when one is
        chosen, so that the result is the trace of that probe or run.

        Args:
            concept: One or several names.
            checkpoint: One or several names.
            step: One or several steps, or a `slice` of them with both ends included.
            stage: One or several training stages.
            site: One or several hook names.
            layer: One or several layers, or a `slice` of them with both ends included. Every site
                in them is taken.
            head: One or several heads, or a `slice` of them, of the layers that are chosen; of a
                sweep with `sites="z"`.
            probe: One or several measures' names.
            run: One or several runs' names, where several series stand side by side.

        Raises:
            ValueError: Something is chosen that the trace does not hold; the message lists what
                it does hold, and for a step its neighbours.

        Examples:
            >>> from tlens_trust.tracing import Trace
            >>> trace = Trace.load("trace.nc")  # doctest: +SKIP
            >>> trace.sel(concept="toxicity", layer=8, step=1000)  # doctest: +SKIP
        """
        chosen = choose(
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
        for axis, wanted in (("probe", probe), ("run", run)):
            if isinstance(wanted, str):
                chosen = chosen.isel({axis: 0})
        return Trace(chosen)

    def best_site(self, variable: str = "accuracy", *, lowest: bool = False) -> xr.Dataset:
        """The site with the largest value, for each concept and checkpoint.

        The site is chosen by the very numbers that are then shown, so the value is optimistic:
        the largest of several noisy numbers lies above what that site would give on fresh
        statements, and its interval does not know of the choice. A statement about the best site
        needs it chosen on other statements.

        Args:
            variable: A quantity along `site`.
            lowest: Take the smallest value, as for a cross-entropy.

        Returns:
            The variable and what stands beside it (`…_ci`, `…_n`) at that site, without the `site`
            axis; `site`, `layer` and `depth` become coordinates along what remains. NaN, with the
            site "", where the variable is unknown at every site.

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
        held = [name for name in self.quantities if "site" in self.data[name].dims]
        if variable not in held:
            raise ValueError(
                f"The trace holds no quantity {variable!r} along `site`. It holds {listed(held)}."
            )
        values = self.data[variable]
        worst = np.inf if lowest else -np.inf
        ranked = values.astype(float).fillna(worst)
        index = ranked.argmin("site") if lowest else ranked.argmax("site")
        known = values.notnull().any("site")
        beside = [variable, *(f"{variable}{suffix}" for suffix in _SUFFIXES)]
        best = self.data[[name for name in beside if name in self.data]].isel(site=index)
        best = best.reset_coords(["site", "layer"])
        if not known.all():
            best = best.where(known)
            best["site"] = best["site"].where(known, "").astype(str)
        extreme = "smallest" if lowest else "largest"
        best.attrs["note"] = f"site of the {extreme} {variable}, chosen post hoc: optimistic"
        return best.set_coords(["site", "layer"])

    def above_floor(self, variable: str = "accuracy") -> xr.DataArray:
        """Where the representation adds something to the text.

        Statement by statement, the probe is right more often than a classifier of the text alone on
        the same folds: the 95% interval of the difference lies above 0. Each interval speaks for
        itself, and is not corrected for sites, checkpoints or concepts.

        Args:
            variable: A quantity that a measure gives a floor of.

        Returns:
            True or False for each concept, checkpoint and site (and probe); False where unknown.
            By how much stands in `trace.data.accuracy_above_floor`.

        Raises:
            ValueError: The trace holds no such floor.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.above_floor().any("site")  # doctest: +SKIP
        """
        return self._above(variable, "floor", "Probes measure it unless `floor=False`.")

    def above_untrained(self, variable: str = "accuracy") -> xr.DataArray:
        """Where training has added something to what untrained weights hold.

        Statement by statement, the probe is right more often than one on the same site of untrained
        weights, on the same folds: the 95% interval of the difference lies above 0. Each interval
        speaks for itself, and is not corrected for sites, checkpoints or concepts.

        Args:
            variable: A quantity that a sweep holds against untrained weights.

        Returns:
            True or False for each concept, checkpoint and site (and probe); False where unknown.
            By how much stands in `trace.data.accuracy_above_untrained`.

        Raises:
            ValueError: The trace holds no such comparison.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.above_untrained().any("site")  # doctest: +SKIP
        """
        return self._above(variable, "untrained", "Sweeps take it for a probe's accuracy.")

    def _above(self, variable: str, level: str, way_out: str) -> xr.DataArray:
        name = f"{variable}_above_{level}_ci"
        if name not in self.data:
            held = [q for q in self.quantities if f"{q}_above_{level}_ci" in self.data]
            what = "floor" if level == "floor" else "untrained level"
            raise ValueError(
                f"The trace holds no {what} of {variable!r}. It holds those of {listed(held)}. "
                f"{way_out}"
            )
        above = (self.data[name].sel(bound="low", drop=True) > 0).rename(name.removesuffix("_ci"))
        what = "its floor" if level == "floor" else "that of untrained weights"
        return above.assign_attrs(units="1", long_name=f"whether the {variable} is above {what}")

    def to_frame(self, *variables: str) -> "pandas.DataFrame":
        """A tidy table: a row for each concept, checkpoint, site (and probe, and run).

        An interval `accuracy_ci` becomes the columns `accuracy_low` and `accuracy_high`, any other
        variable with bounds, such as `accuracy_null`, `accuracy_null_low` and `…_high`.
        Coordinates are columns too.

        Args:
            variables: What to lay out; by default everything that has these axes and no others.
                What has more, such as the width of a kernel, is asked for by name, and gets a row
                for each of its places.

        Raises:
            ValueError: The trace holds no such variable.

        Examples:
            >>> trace = Trace.load("run")  # doctest: +SKIP
            >>> trace.to_frame().query("layer == 2")  # doctest: +SKIP
            >>> trace.to_frame("nhsic", "nhsic_ci")  # doctest: +SKIP
        """
        missing = [name for name in variables if name not in self.data]
        if missing:
            raise ValueError(
                f"The trace holds no variable {missing[0]!r}. It holds "
                f"{listed([str(name) for name in self.data])}."
            )
        held = self.data[list(variables)] if variables else self._without_further_axes()
        columns: dict[str, xr.DataArray] = {}
        for name, variable in held.data_vars.items():
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
        order = [*(axis for axis in axes if axis in flat.dims), *_others(flat.dims, axes)]
        return flat.to_dataframe(dim_order=order).reset_index()

    def _without_further_axes(self) -> xr.Dataset:
        known = {"concept", "checkpoint", "site", "probe", "run", "bound"}
        return self.data[[n for n, v in self.data.data_vars.items() if set(v.dims) <= known]]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the trace as a NetCDF file, which `load` gives back exactly.

        The file is written beside its place and renamed into it.

        Args:
            path: A file; what is there is replaced.

        Raises:
            ValueError: An attribute is nothing that a file can hold.
        """
        write_file(path, dataset_to_bytes(self.data))

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Trace":
        """Read a trace from a file that `save` wrote, or from a run folder.

        Of a run folder everything that is finished is read, whatever calls it was written by; a
        concept and checkpoint that have not met yet are NaN.

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
        missing = self._cells_without_a_number()
        if missing:
            total = len(self.concepts) * len(self.checkpoints)
            facts.append(("unknown", f"{missing} of {total} concepts × checkpoints"))
        return facts

    def _along(self, name: str) -> list[Any]:
        return list(self.data[name].values.tolist())

    def _cells_without_a_number(self) -> int:
        first = self.data[self.quantities[0]]
        if not {"concept", "checkpoint"} <= set(first.dims):
            return 0
        rest = _others(first.dims, ["concept", "checkpoint"])
        return int(first.isnull().all(rest).sum())


def register_trace_accessor(name: str) -> Callable[[_T], _T]:
    """Register a class so that `trace.NAME` is an instance of it, made with the trace.

    Args:
        name: A public identifier that `Trace` does not have yet.

    Returns:
        A class decorator.

    Raises:
        ValueError: `name` is no public identifier, or is taken.

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


def _others(dims: Any, known: Sequence[str]) -> list[Any]:
    return [dim for dim in dims if dim not in known]


def _ends(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{names[0]} … {names[-1]}"
