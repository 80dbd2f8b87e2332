"""Information in nats at every site of a checkpoint, from the probe of a sweep."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_validation import DEFAULT_C, ProbeMeasure, logistic_probe
from tlens_trust.measures.half_samples import (
    half_sample_interval,
    half_samples,
    replicates_about,
)
from tlens_trust.measures.information.label_bounds import (
    Bound,
    HeldOutScores,
    answer_information,
    barber_agakov,
    confusion_information,
    fano,
    fano_information,
    label_entropy,
)
from tlens_trust.measures.information.noised import information_under_noise
from tlens_trust.measures.information.usable import usable_beyond_text
from tlens_trust.measures.kernels.dependence import draw_rows
from tlens_trust.measures.kernels.spectrum_matching import default_components, flatten_spectrum
from tlens_trust.measures.nulls import in_deviations, middle_95, p_values_of
from tlens_trust.measures.references import floor_on_folds

NOISE = (1.0, 2.0, 4.0)
VARIANTS = ("raw", "rank_matched")
_BOUNDS: dict[str, tuple[Callable[[HeldOutScores], Bound], str]] = {
    "ba": (barber_agakov, "lower bound of I(T;Y), by Barber and Agakov"),
    "fano": (fano, "lower bound of I(T;Y), by Fano's inequality"),
    "confusion": (answer_information, "I(Ŷ;Y) of the probe's answers, bias-corrected"),
}
_USABLE = "usable information of the activations on the labels, beyond the text"
_Null = Mapping[str, Float[np.ndarray, "site draw"]]


@dataclass(frozen=True)
class ProbeInformation:
    """What a probe's held-out scores show that activations tell of labels: a `Measure`.

    Attributes:
        name: Short name; the `probe` coordinate where several such measures are taken.
        probe: Whose scores. Where it is measured in the same cell, it is fitted once.
        resamples: How many half samples stand behind replicates.
        beyond_text: Whether to ask what is usable beyond the text.
        noise: Levels of noise for `I(T + Z; X)`; none leaves it out.
        examples: Of more statements than this, `I(T + Z; X)` is that of whole groups drawn at
            random, the same ones at every checkpoint.
    """

    name: str
    probe: ProbeMeasure
    resamples: int = 32
    beyond_text: bool = True
    noise: tuple[float, ...] = NOISE
    examples: int = 1024

    def __post_init__(self) -> None:
        for name, least in (("resamples", 2), ("examples", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"`{name}` must be at least {least}, got {getattr(self, name)}.")
        levels = tuple(sorted({float(level) for level in self.noise}))
        if levels and not 0 < levels[0] <= levels[-1] < float("inf"):
            raise ValueError(
                f"`noise` must be positive numbers, got {self.noise!r}. They are fractions of the "
                "readings' root mean square."
            )
        object.__setattr__(self, "noise", levels)

    @property
    def identity(self) -> str:
        """Name and every parameter that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; resamples={self.resamples}, "
            f"beyond_text={self.beyond_text}, noise={list(self.noise)}, "
            f"examples={self.examples}, version=1)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Statements, labels and groups.
            seed: Deals the folds, draws resamples, half samples, permutations and noise, the same
                ones at every checkpoint.

        Returns:
            See `probe_information`.

        Raises:
            ValueError: The activations are not of this concept's statements, or its groups are too
                few.
        """
        fitted, fold = self.probe.held_out(activations, concept, seed=seed)
        held = HeldOutScores.of(
            fitted.scores,
            concept.labels,
            fold,
            concept.groups,
            fewer=fitted.fewer,
            seed=seed,
            resamples=self.probe.resamples,
            halves=self.resamples,
        )
        data = empty_dataset(activations.sites, self.resamples)
        null = self.null_draws(activations, concept, seed=seed)
        counted = {"resamples": self.probe.resamples, "groups": held.bootstrap.groups}
        for name, (bound, long_name) in _BOUNDS.items():
            put_bound(data, f"information_{name}", long_name, bound(held), len(concept), counted)
            if name in null:
                put_null(data, f"information_{name}", long_name, null[name])
        data["label_entropy"] = (
            (),
            label_entropy(concept.labels),
            {"units": "nats", "long_name": "entropy of the labels' shares"},
        )
        if self.beyond_text:
            found = self._usable(held, concept, seed)
            put_bound(data, "information_usable", _USABLE, found, len(concept), counted)
        if self.noise:
            data = data.merge(
                noised_dataset(
                    activations,
                    concept,
                    noise=self.noise,
                    resamples=self.resamples,
                    examples=self.examples,
                    seed=seed,
                )
            )
        return data

    def null_draws(self, activations: Activations, concept: Concept, *, seed: int) -> _Null:
        """What refits to permuted labels give, those to the labels themselves first."""
        draws = self.probe.null(activations, concept, seed=seed).draws
        return (
            {} if draws is None or "recall" not in draws else draws_in_nats(draws, concept.labels)
        )

    def _usable(self, held: HeldOutScores, concept: Concept, seed: int) -> Bound:
        floor = floor_on_folds(concept, held.fold, seed=seed)
        if floor is None or floor.fewer is None or held.fewer is None:
            sites = held.scores.shape[1]
            return Bound(
                np.full(sites, np.nan),
                np.full((sites, 2), np.nan),
                np.full((sites, len(held.halves)), np.nan),
            )
        return usable_beyond_text(held, floor.score, floor.fewer)


def empty_dataset(sites: Sequence[str], resamples: int) -> xr.Dataset:
    """The axes that information comes along."""
    return xr.Dataset(
        coords={
            "site": list(sites),
            "bound": ["low", "high"],
            "resample": np.arange(resamples),
        }
    )


def put_bound(
    data: xr.Dataset,
    name: str,
    long_name: str,
    bound: Bound,
    statements: int,
    counted: Mapping[str, int],
) -> None:
    """Add a value, its interval, its replicates and its n."""
    data[name] = ("site",), bound.value, {"units": "nats", "long_name": long_name}
    data[f"{name}_ci"] = (
        ("site", "bound"),
        bound.interval,
        {"units": "nats", "long_name": f"95% interval of the {long_name}", **counted},
    )
    data[f"{name}_draws"] = (
        ("site", "resample"),
        bound.draws,
        {"units": "nats", "long_name": f"half-sample replicates of the {long_name}"},
    )
    data[f"{name}_n"] = (
        ("site",),
        np.full(len(bound.value), statements),
        {"units": "statements", "long_name": f"statements behind the {long_name}"},
    )


def put_null(
    data: xr.Dataset, name: str, long_name: str, draws: Float[np.ndarray, "site draw"]
) -> None:
    """Add the band of permuted labels, and p-values by the same amount of information."""
    permutations = draws.shape[1] - 1
    p, p_best = p_values_of(in_deviations(draws))
    data[f"{name}_null"] = (
        ("site", "bound"),
        middle_95(draws[:, 1:].T),
        {
            "units": "nats",
            "long_name": f"middle 95% of the {long_name} where labels are permuted",
            "permutations": permutations,
        },
    )
    for suffix, values, how in (
        ("_p", p, ""),
        ("_p_best", p_best, ", by the null of the maximum over sites"),
    ):
        data[f"{name}{suffix}"] = (
            ("site",),
            values,
            {
                "units": "1",
                "long_name": f"permutation p-value of the {long_name}{how}",
                "permutations": permutations,
            },
        )


def draws_in_nats(
    draws: Mapping[str, Float[np.ndarray, "site draw"]], labels: Int[np.ndarray, " example"]
) -> dict[str, Float[np.ndarray, "site draw"]]:
    """The scores of refits as information; every draw has as many labels of each kind.

    Args:
        draws: `accuracy`, `recall` of label 1 and `cross_entropy` of each draw's refits.
        labels: 0 or 1.
    """
    entropy = label_entropy(labels)
    ones = int(labels.sum())
    right = draws["accuracy"] * len(labels)
    found = draws["recall"] * ones
    zeros = len(labels) - ones
    left = right - found
    table = np.stack([left, zeros - left, ones - found, found], axis=-1).round().clip(0)
    return {
        "ba": entropy - draws["cross_entropy"],
        "fano": fano_information((1 - draws["accuracy"]).clip(0, 1), entropy),
        "confusion": confusion_information(table.reshape(*right.shape, 2, 2)),
    }


def noised_dataset(
    activations: Activations,
    concept: Concept,
    *,
    noise: Sequence[float],
    resamples: int,
    examples: int,
    seed: int,
) -> xr.Dataset:
    """`I(T + Z; X)` at every site: at one level of noise, and swept.

    Args:
        activations: One reading per statement of the concept, in its order.
        concept: Its groups.
        noise: Levels; the middle one is that of `information_x`.
        resamples: How many half samples.
        examples: Of more statements, whole groups are drawn at random.
        seed: Draws them, half samples and noise.
    """
    rows = draw_rows(concept.groups, most=examples, seed=seed)
    groups = [concept.groups[row] for row in rows]
    count = len(set(groups))
    halves = half_samples(groups, resamples=resamples, seed=seed)
    sites = len(activations.sites)
    levels = list(noise)
    components = default_components(len(rows), activations.values.shape[2])
    chosen = torch.from_numpy(rows)
    value = np.full((sites, len(VARIANTS), len(levels)), np.nan)
    ceiling, on_halves = value.copy(), np.full((*value.shape, resamples), np.nan)
    for site in range(sites):
        values = activations.values[chosen, site]
        for number, variant in enumerate(VARIANTS):
            x = values if variant == "raw" else flatten_spectrum(values, components=components)
            if not x.shape[1]:
                continue
            found = information_under_noise(x, levels, halves, seed=seed)
            value[site, number] = found.value
            ceiling[site, number] = found.ceiling
            on_halves[site, number] = found.on_halves
    replicates = replicates_about(value, on_halves, groups=count)
    swept = {
        "": ((), value, "{}"),
        "_ci": (
            ("bound",),
            half_sample_interval(value, replicates, groups=count),
            "95% interval of {}",
        ),
        "_draws": (("resample",), replicates, "half-sample replicates of {}"),
        "_ceiling": ((), ceiling, "least of ln n and what a Gaussian of this spectrum has of {}"),
    }
    data = empty_dataset(activations.sites, resamples).assign_coords(
        variant=list(VARIANTS),
        noise=(
            "noise",
            levels,
            {"units": "1", "long_name": "noise as a fraction of the readings' root mean square"},
        ),
    )
    middle = len(levels) // 2
    cap = f"at most ln n = {np.log(len(rows)):.3f} nats"
    for suffix, (more, array, told) in swept.items():
        about = f"I(T+Z;X), Gaussian noise of {levels[middle]:g} times the readings' RMS, {cap}"
        attributes = {"units": "nats", "noise": levels[middle], "groups": count}
        data[f"information_x{suffix}"] = (
            ("site", *more),
            array[:, 0, middle],
            {**attributes, "long_name": told.format(about)},
        )
        about = f"I(T+Z;X) by variant and level of Gaussian noise, {cap}"
        data[f"information_x_swept{suffix}"] = (
            ("site", "variant", "noise", *more),
            array,
            {
                "units": "nats",
                "groups": count,
                "components": components,
                "long_name": told.format(about),
            },
        )
    for name in ("information_x", "information_x_swept"):
        data[f"{name}_n"] = (
            ("site",),
            np.full(sites, len(rows)),
            {"units": "statements", "long_name": "statements behind I(T+Z;X)"},
        )
    return data


def probe_information(
    *,
    C: Sequence[float] = DEFAULT_C,
    folds: int = 5,
    resamples: int = 32,
    permutations: int = 2000,
    noise: Sequence[float] = NOISE,
    beyond_text: bool = True,
    examples: int = 1024,
) -> ProbeInformation:
    """Information in nats from the logistic probe, and what noise leaves of the input: a measure.

    Of the labels `Y`, from held-out scores, in nats and at most `label_entropy` (in bits: divide by
    `ln 2`). They may be negative, and are not clipped:

    - `information_ba`: `H(Y) - CE`, Barber and Agakov's lower bound of `I(T; Y)`;
    - `information_fano`: `H(Y) - h(e)`, Fano's at the held-out error; the low end of its interval
      is what can be claimed;
    - `information_confusion`: `I(Ŷ; Y)` of the answers, by Miller and Madow's correction;
    - `information_usable`: what the probe adds to a classifier of the text (`usable_beyond_text`).

    Each with `…_ci` (of 95%, a bootstrap of groups that allows for shared training rows), `…_draws`
    (half-sample replicates, the same halves at every checkpoint), `…_n`, and the first three with
    `…_null` (the middle 95% where labels are permuted and discriminants refitted, see
    `refit_null`), `…_p` and `…_p_best`, exact at their level. Information beyond the text has
    neither: permuting labels takes the text's information away as well. Its interval is to be held
    against zero.

    Of the statement `X`: `information_x` is `I(T + Z; X)` with `X` one of the `n` statements and
    `Z` Gaussian noise, at the middle one of the levels `noise`; at most `ln n`. `I(T; X)` itself is
    infinite for any `T` that is computed from `X` without noise and takes continuous values.
    `information_x_swept` has all levels, and the same for the whitened leading principal
    components (`variant="rank_matched"`): a change that is not in both is one of spectrum.
    `…_ceiling` is what no reading with the same covariance exceeds. There is no null by
    permutation, since exchanging statements leaves it as it is.

    Args:
        C: Inverse penalty strengths to choose from, inside the training folds.
        folds: Into how many folds the groups are dealt. At least 3.
        resamples: How many half samples stand behind replicates.
        permutations: How many permutations of the labels stand behind nulls.
        noise: Standard deviations of `Z`, as fractions of the root mean square of the readings'
            coordinates about their means at the site; none leaves `I(T + Z; X)` out.
        beyond_text: Whether to ask what is usable beyond the text.
        examples: Of more statements, `I(T + Z; X)` takes whole groups drawn at random.

    Returns:
        A measure named `probe_information`. Beside `logistic_probe` with the same settings, it fits
        nothing again.

    Raises:
        ValueError: A number is out of its range.

    Example:
        >>> probe_information().name
        'probe_information'
    """
    probe = logistic_probe(C=C, folds=folds, permutations=permutations)
    return ProbeInformation(
        "probe_information", probe, resamples, beyond_text, tuple(noise), examples
    )
