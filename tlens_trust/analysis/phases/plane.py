"""The information plane: dependence of activations on input and label, along training."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from tlens_trust.tracing.assembly import at_step_0
from tlens_trust.tracing.provenance import listed
from tlens_trust.tracing.replicates import unpack_replicates
from tlens_trust.tracing.trace import Trace

KERNELS = ("nhsic", "cka", "hsic")
NATS = ("information_x", "information_ba")
FIRST_BLOCK = "blocks.0.hook_resid_post"
_SUFFIXES = {"": (), "_ci": ("bound",), "_null": ("bound",), "_draws": ("resample",), "_p": ()}
_OF_CONTROLS = ("", "_ci", "_null", "_draws")
_INPUTS = ("first_block", "text")
# What a sensitivity sweep is along: widths of kernels, levels of noise.
_SWEPT = ("width", "noise")
_SHAPE = ("rankme", "participation_ratio", "norm_rms")


@dataclass(frozen=True)
class _Curve:
    """A selection from a variable of a trace: a place on each of its further axes."""

    variable: str
    place: Mapping[str, Any]
    name: str = ""
    kind: str = ""


def information_plane(
    trace: Trace,
    *,
    estimator: str | tuple[str, str] = "nhsic",
    against: str = "first_block",
    width: float | None = None,
) -> xr.Dataset:
    """Dependence of activations on the input and on the label, at every checkpoint and site.

    It comes with everything it has to be compared with: the null level of permuted pairs, untrained
    weights, other widths of the kernel, a flat spectrum, and the other `X`. The effective rank is
    given too, since kernel estimates follow it. `find_phases` makes claims; this makes none.

    Both axes have the same unit. Kernels give a dependence, not an information, and it is not in
    nats. A pair of which one is in nats and the other not is refused.

    The last token's state at one layer is no function of the last token's state at the layer below.
    So the data-processing inequality orders neither sites nor axes here.

    Args:
        trace: A trace of `kernel_dependence()` or `probe_information()`, with `spectrum()` for the
            rank.
        estimator: `"nhsic"` (the paper's quantity), `"cka"` or `"hsic"`; `"nats"` for
            `information_x` over `information_ba`; or the names of two variables, of `X` and of `Y`.
        against: The input in kernel estimates: `"first_block"`, the same checkpoint's first block
            as in the paper, or `"text"`, which is the same at every checkpoint.
        width: The width of the kernel, as a multiple of the median distance (of the noise, as a
            multiple of the spread, for `information_x`). None takes the one nearest to 1, and for
            noise the middle one.

    Returns:
        Along `concept`, `checkpoint` and `site`:

        - `x` and `y`, each with `…_ci`, `…_null`, `…_p`, `…_n` and `…_draws` (half-sample
          replicates, paired along checkpoints);

        - `x_untrained` and `y_untrained`: the level at step 0 of the same run. Without it, that of
          the random weights that the sweep compared the last checkpoint with, else NaN;

        - `x_control_…` and `y_control_…`, along `x_control` and `y_control` too: the same quantity
          at other widths, rank-matched, with the other input, and by other estimators. The
          coordinates `x_control_kind` and `y_control_kind` name the kind;

        - `x_matched` and `y_matched`, where the trace has them: the share of the directions that
          the rank-matched variant holds;

        - `rankme`, `participation_ratio` and `norm_rms`, where the trace has them.

        The coordinate `position` along `checkpoint` is the natural logarithm of the step, with step
        0 one step to the left. Tokens replace unknown steps, and the checkpoint's number replaces
        both where both are unknown.

    Raises:
        ValueError: The trace holds no such variable, the two have different units, or the input was
            not read.

    Source:
        Shwartz-Ziv and Tishby (2017), arXiv:1703.00810, for the plane; Qian et al. (2024),
        arXiv:2402.19465, for its use on pre-training; Saxe et al. (2018) and Goldfeld et al.
        (2019), arXiv:1810.05728, for why its phases need controls.

    Examples:
        >>> plane = information_plane(Trace.load("run"), estimator="cka")  # doctest: +SKIP
        >>> plane.x.sel(concept="toxicity").values  # doctest: +SKIP
    """
    data = trace.data
    names = _named(data, estimator)
    units = [str(data[name].attrs["units"]) for name in names]
    if units[0] != units[1] or (names[0] in KERNELS) != (names[1] in KERNELS):
        unit_texts = [f"{name!r} is in {unit}" for name, unit in zip(names, units, strict=True)]
        raise ValueError(
            f"The axes of an information plane have one unit, but {unit_texts[0]} and "
            f"{unit_texts[1]}, where 1 stands for a dependence that is no information. Choose two "
            f"variables in nats, or one of {listed(KERNELS)} for both."
        )
    if against not in _INPUTS:
        raise ValueError(f"`against` must be 'first_block' or 'text', got {against!r}.")
    selections = {
        "x": _places(data, names[0], against, width),
        "y": _places(data, names[1], "label", width),
    }
    axes = {axis: _axis(data, axis, *curves) for axis, curves in selections.items()}
    if not axes["x"]["x"].notnull().any():
        why = data[names[0]].attrs.get("first_block", "it was never measured")
        raise ValueError(
            f"{names[0]!r} holds no number with {against!r} as the input: {why}. Read it, or "
            "choose `against='text'`."
        )
    plane = xr.merge(
        [*axes.values(), *(_beside(data, name) for name in _SHAPE if name in data)],
        combine_attrs="override",
        compat="override",
        join="exact",
    )
    for axis, name in zip(("x", "y"), names, strict=True):
        share = _matched_share(data, name, against if axis == "x" else "label")
        if share is not None:
            plane[f"{axis}_matched"] = share
    main = selections["x"][0].place
    return plane.assign_coords(position=("checkpoint", _positions(data))).assign_attrs(
        model=str(data.attrs.get("model", "")),
        estimator=estimator if isinstance(estimator, str) else ", ".join(estimator),
        x=names[0],
        y=names[1],
        units=units[0],
        against=against if "against" in data[names[0]].dims else "",
        width=float(next((main[axis] for axis in _SWEPT if axis in main), np.nan)),
    )


def _named(data: xr.Dataset, estimator: str | tuple[str, str]) -> tuple[str, str]:
    if isinstance(estimator, tuple):
        names = estimator
    else:
        names = NATS if estimator == "nats" else (estimator, estimator)
    for name in names:
        if name not in data or f"{name}_draws" not in data:
            estimates = [str(n) for n in data if f"{n}_draws" in data]
            raise ValueError(
                f"The trace holds no estimate {name!r} with half-sample replicates. It holds "
                f"{listed(estimates) or 'none'}. Trace with `kernel_dependence()` or "
                "`probe_information()` among the measures."
            )
    return names


def _places(
    data: xr.Dataset, name: str, against: str, width: float | None
) -> tuple[_Curve, list[_Curve]]:
    """Which part of a variable is the curve, and which are its controls."""
    dims = data[name].dims
    place: dict[str, Any] = {}
    if "against" in dims:
        place["against"] = against
    if "variant" in dims:
        place["variant"] = "raw"
    swept = [axis for axis in _SWEPT if axis in dims]
    place |= {axis: _width(data[axis], width) for axis in swept}
    further_dims = [str(d) for d in dims if d not in ("concept", "checkpoint", "site", *place)]
    if further_dims:
        raise ValueError(
            f"{name!r} has an axis {further_dims[0]!r}, of which a plane shows one place. Choose "
            f"with `trace.sel({further_dims[0]}=…)`."
        )
    controls = []
    if "variant" in dims and "rank_matched" in data["variant"].values:
        variant = {**place, "variant": "rank_matched"}
        controls.append(_Curve(name, variant, "rank-matched", "rank-matched"))
    controls += [
        _Curve(name, {**place, axis: swept_value}, f"{axis} {swept_value:g}", axis)
        for axis in swept
        for swept_value in data[axis].values.tolist()
        if swept_value != place[axis]
    ]
    if against in _INPUTS and "against" in dims:
        controls += [
            _Curve(
                name,
                {**place, "against": swept_value},
                f"X = {swept_value.replace('_', ' ')}",
                "input",
            )
            for swept_value in _INPUTS
            if swept_value != against and swept_value in data["against"].values
        ]
    if name.startswith("information_") and name != "information_x":
        controls += [
            _Curve(str(variable), {}, str(variable).removeprefix("information_"), "estimator")
            for variable in data
            if str(variable).startswith("information_")
            and f"{variable}_draws" in data
            and variable not in (name, "information_x")
            and data[variable].dims == data[name].dims
        ]
    return _Curve(name, place), controls


def _width(swept: xr.DataArray, width: float | None) -> float:
    widths: list[float] = swept.values.tolist()
    if width is None:
        # Kernels are as wide as the median distance; of levels of noise none is the right one.
        middle = 1.0 if swept.name == "width" else float(np.median(widths))
        return min(widths, key=lambda swept_width: abs(np.log(swept_width / middle)))
    if width not in widths:
        raise ValueError(
            f"The trace holds no {swept.name} {width:g}. It holds {', '.join(map(str, widths))}."
        )
    return width


def _axis(data: xr.Dataset, axis: str, curve: _Curve, controls: Sequence[_Curve]) -> xr.Dataset:
    variables: dict[str, xr.DataArray] = {}
    for suffix, extra_dims in _SUFFIXES.items():
        if f"{curve.variable}{suffix}" in data:
            variables[f"{axis}{suffix}"] = _take(data, curve, suffix, extra_dims)
    count = f"{curve.variable}_n"
    n = data[count] if count in data else data["n_statements"]
    n = n.sel({key: value for key, value in curve.place.items() if key in n.dims})
    variables[f"{axis}_n"] = n.reset_coords(drop=True)
    variables[f"{axis}_untrained"] = _untrained(data, curve, variables[axis])
    label = f"{axis}_control"
    for suffix in _OF_CONTROLS:
        available_controls = [
            control for control in controls if f"{control.variable}{suffix}" in data
        ]
        if (
            not controls
            or len(available_controls) < len(controls)
            or f"{axis}{suffix}" not in variables
        ):
            continue
        parts = [_take(data, control, suffix, _SUFFIXES[suffix]) for control in available_controls]
        joined = xr.concat(
            parts,
            dim=xr.Variable(label, [control.name for control in controls]),
            coords="minimal",
            compat="override",
            join="outer",
            combine_attrs="override",
        )
        variables[f"{label}_value" if not suffix else f"{label}{suffix}"] = joined
    result = xr.Dataset(variables)
    if controls:
        result = result.assign_coords(
            {f"{label}_kind": (label, [control.kind for control in controls])}
        )
    result[axis].attrs["quantity"] = curve.variable
    return result


def _take(data: xr.Dataset, curve: _Curve, suffix: str, extra_dims: Sequence[str]) -> xr.DataArray:
    dims = data[f"{curve.variable}{suffix}"].dims
    place = {key: value for key, value in curve.place.items() if key in dims}
    if suffix == "_draws":
        # Of this place alone, since a byte each becomes eight.
        names = (curve.variable, f"{curve.variable}_se", f"{curve.variable}_draws")
        selection = data[[name for name in names if name in data]].sel(place)
        array = unpack_replicates(selection, curve.variable)
    else:
        array = data[f"{curve.variable}{suffix}"].sel(place)
    selected = array.drop_vars(("against", "variant", *_SWEPT), errors="ignore")
    return selected.transpose("concept", "checkpoint", "site", *extra_dims)


def _untrained(data: xr.Dataset, curve: _Curve, value: xr.DataArray) -> xr.DataArray:
    """The level of the same run's step 0, or of the random weights that the sweep added."""
    zero = np.flatnonzero(at_step_0(data))
    if len(zero):
        level, source = value.isel(checkpoint=zero[0]), str(data["checkpoint"].values[zero[0]])
    elif f"{curve.variable}_untrained" in data:
        level = _take(data, curve, "_untrained", ()).isel(checkpoint=-1)
        source = str(level.attrs.get("untrained", "unknown"))
    else:
        level, source = value.isel(checkpoint=0) * np.nan, "unknown: there is no step 0"
    level = level.drop_vars(
        [name for name, c in data.coords.items() if "checkpoint" in c.dims], errors="ignore"
    )
    return level.assign_attrs(
        units=value.attrs["units"],
        long_name=f"{value.attrs['long_name']}, of untrained weights",
        untrained=source,
    )


def _matched_share(data: xr.Dataset, name: str, against: str) -> xr.DataArray | None:
    """The share of the directions that the rank-matched variant holds, the smaller of `T` and `X`.

    None where the trace does not say.
    """
    share_name = "rank_matched_share" if name in KERNELS else f"{name}_matched_share"
    if share_name not in data:
        return None
    share = data[share_name]
    if name in KERNELS and against == "first_block" and FIRST_BLOCK in share["site"].values:
        first_block_share = share.sel(site=FIRST_BLOCK, drop=True)
        share = share.clip(max=first_block_share, keep_attrs=True)
    return share.reset_coords(drop=True)


def _beside(data: xr.Dataset, name: str) -> xr.Dataset:
    return data[[n for n in (name, f"{name}_ci", f"{name}_n") if n in data]]


def _positions(data: xr.Dataset) -> np.ndarray:
    """Positions of the checkpoints on a logarithmic axis that has a place for step 0.

    Steps are no axis where each of several stages counts them anew. Tokens are one only where they
    ascend along the trace. Otherwise the checkpoints' numbers are used.
    """
    counts = np.full(data.sizes["checkpoint"], np.nan)
    staged = "stage" in data.coords and len(set(data["stage"].values.tolist())) > 1
    for name in ("step", "tokens"):
        if name in data.coords and not np.isfinite(counts).all():
            counts = np.asarray(data[name].values, dtype=float)
            if staged and not (np.diff(counts) > 0).all():
                counts = np.full_like(counts, np.nan)
    if not np.isfinite(counts).all():
        counts = np.arange(1.0, len(counts) + 1)
    positive = np.unique(counts[counts > 0])
    if not len(positive):
        return np.zeros_like(counts)
    ratio = max(2.0, float((positive[1:] / positive[:-1]).min())) if len(positive) > 1 else 2.0
    positions: np.ndarray = np.log(np.where(counts > 0, counts, positive[0] / ratio))
    return positions
