"""The scored set of a transfer, and the probes of the fitted set, at one checkpoint."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.analysis.comparing.paired_intervals import paired_interval, widened_interval
from tlens_trust.analysis.comparing.set_transfer_null import (
    MOST_REFITS,
    TargetStatements,
    target_null,
    target_refit_bands,
    target_text_scores,
)
from tlens_trust.concepts import Concept
from tlens_trust.measures import ProbeMeasure
from tlens_trust.measures.cross_fitters import HeldOut, LogisticCrossFitter, Refitter
from tlens_trust.measures.cross_fold import cross_fold_variance
from tlens_trust.measures.generalisation import (
    check_same_reading,
    find_judges,
    number_parts,
    score_elsewhere,
)
from tlens_trust.measures.intervals import difference_interval, stretched_interval
from tlens_trust.measures.nulls import held_out_null
from tlens_trust.measures.permutations import PermutedLabels, permute_labels
from tlens_trust.measures.reference_levels import chance_dataset
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.scores import score_dataset
from tlens_trust.tracing.cells import cell_seed

_SCORES = ("accuracy", "auroc")
_FRACTION = "fraction of statements"


@dataclass(frozen=True, eq=False)
class SourceProbes:
    """Probes of the fitted set at one checkpoint, cross-validated.

    Attributes:
        concept: The fitted set.
        activations: Its activations at the checkpoint.
        probe: The measure of the probe.
        held: Held-out scores and directions.
        fold: The fold of each statement.
        seed: Seed of the folds.
        shared: Variance of each score that comes from shared folds.
    """

    concept: Concept
    activations: Activations
    probe: ProbeMeasure
    held: HeldOut
    fold: Int[np.ndarray, " example"]
    seed: int
    shared: dict[str, Float[np.ndarray, " site"]]

    @classmethod
    def fit(
        cls, concept: Concept, activations: Activations, probe: ProbeMeasure, *, seed: int
    ) -> "SourceProbes":
        """Fit a probe without each fold; `seed` is that of a sweep."""
        own = cell_seed(seed, concept)
        held, fold = probe.held_out(activations, concept, seed=own)
        shared = {name: np.zeros(len(activations.sites)) for name in _SCORES}
        if held.fewer is not None:
            shared |= cross_fold_variance(held.scores, held.fewer, concept.labels, fold)
        return cls(concept, activations, probe, held, fold, own, shared)

    def scores(self, suffix: str, told: str) -> xr.Dataset:
        """Held-out accuracy and AUROC, as in a sweep, under names with a suffix."""
        scored = score_dataset(
            self.held.scores,
            self.concept.labels,
            self.fold,
            self.concept.groups,
            sites=self.activations.sites,
            seed=self.seed,
            fewer=self.held.fewer,
            resamples=self.probe.resamples,
        )
        return _chosen(scored, suffix, told)

    @property
    def right(self) -> Float[np.ndarray, "example site"]:
        """Whether each statement is classified correctly, held out."""
        return _right(self.held.scores, self.concept.labels)

    @cached_property
    def permuted(self) -> PermutedLabels:
        """Its labels, permuted as for the null of a sweep."""
        return permute_labels(
            self.concept.labels,
            self.concept.groups,
            self.fold,
            permutations=self.probe.permutations,
            seed=self.seed,
        )

    @cached_property
    def p_values(self) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, " site"]]:
        """p-values of its labels at each site, alone and by the maximum over sites."""
        fitter = self.probe.cross_fitter
        if isinstance(fitter, Refitter):
            null = fitter.null(self.activations.values, self.held.scores, self.permuted, self.fold)
        else:
            null = held_out_null(self.held.scores, self.permuted, self.fold)
        return null.p, null.p_best


@dataclass(frozen=True, eq=False)
class TargetScores:
    """The scores of the scored set at one checkpoint.

    Attributes:
        data: The variables along `site`.
        right: Whether each statement is classified correctly.
        shared: Variance of the accuracy that comes from shared folds.
    """

    data: xr.Dataset
    right: Float[np.ndarray, "example site"]
    shared: Float[np.ndarray, " site"]


@dataclass(frozen=True, eq=False)
class TargetSet:
    """A set that is scored by probes of another set, and which of them score which statement.

    Attributes:
        concept: The scored set.
        source: The set that probes are fitted to.
        how: Which fold's probe scores which statement.
        text: Log-odds by classifiers of the source's text; None where there are none.
        resamples: Number of resamples behind an interval.
        seed: The seed of a sweep.
    """

    concept: Concept
    source: Concept
    how: TargetStatements
    text: Float[np.ndarray, " example"] | None
    resamples: int
    seed: int

    @classmethod
    def of(
        cls,
        concept: Concept,
        source: Concept,
        fold: Int[np.ndarray, " source"],
        probe: ProbeMeasure,
        *,
        seed: int,
    ) -> "TargetSet":
        """Assign the source's folds to the statements, and score the text of the set."""
        judged_by = find_judges(source, concept, fold)
        text = None
        if probe.floor:
            text = target_text_scores(
                source, concept, fold, judged_by, seed=cell_seed(seed, source)
            )
        parts = number_parts(judged_by, concept.labels)
        how = TargetStatements(concept.labels, judged_by, parts)
        return cls(concept, source, how, text, probe.resamples, seed)

    def levels(self) -> xr.Dataset:
        """Levels that are the same at all checkpoints: chance, text-only baseline, `held_out_n`."""
        known = np.zeros(len(self.concept)) if self.text is None else self.text
        scored = self._score(known[:, None], ("text",))
        floor = _chosen(scored, "floor", "of classifiers fitted to the other set's text")
        floor = floor.isel(site=0, drop=True).drop_vars([f"{name}_floor_n" for name in _SCORES])
        if self.text is None:
            floor = floor.map(lambda values: xr.full_like(values, np.nan, dtype=float))
        data = floor.merge(chance_dataset(self.concept))
        data["held_out_n"] = (
            (),
            int((self.how.judged_by >= 0).sum()),
            {
                "units": "statements",
                "long_name": "statements whose group or text stands in the fitted set too, scored "
                "by a probe that was fitted without it",
            },
        )
        return data

    def score(self, fitted: SourceProbes, activations: Activations) -> TargetScores:
        """Score the set at one checkpoint, by the source's probes there and by its own probes."""
        check_same_reading(fitted.activations, activations)
        probe = fitted.probe
        scores = score_elsewhere(fitted.held, activations, self.how.judged_by, probe.name)
        right = _right(scores, self.concept.labels)
        bootstrap = self.bootstrap
        shared = {name: np.zeros(len(activations.sites)) for name in _SCORES}
        if (self.how.judged_by >= 0).any():
            # The fold that holds a group decides who scores it: what the source's own folds share,
            # the scores of its paraphrases share.
            shared = fitted.shared
        data = _chosen(self._score(scores, activations.sites), "", "of another set's probes")
        for name in _SCORES:
            interval = data[f"{name}_ci"]
            wider = widened_interval(
                data[name].values, interval.values, shared[name], groups=bootstrap.groups
            )
            data[f"{name}_ci"] = interval.copy(data=wider.clip(0, 1))
        data = data.merge(self._null(fitted, activations, scores))
        own = SourceProbes.fit(self.concept, activations, probe, seed=self.seed)
        data = data.merge(own.scores("target", "of probes fitted to the scored set itself"))
        drop, drop_interval = self._drop(
            fitted.right, right, fitted.shared["accuracy"] + shared["accuracy"]
        )
        told = "held-out accuracy in the fitted set minus accuracy in the scored one"
        data["accuracy_drop"], data["accuracy_drop_ci"] = difference(
            drop, drop_interval, told, resamples=self.resamples, groups=bootstrap.groups
        )
        gain = np.full(right.shape[1], np.nan)
        gain_interval = np.full((right.shape[1], 2), np.nan)
        if self.text is not None:
            more = right - _right(self.text[:, None], self.concept.labels)
            gain = more.mean(axis=0)
            gain_interval = paired_interval(more, bootstrap, added=shared["accuracy"])
        told = "accuracy above that of classifiers fitted to the other set's text"
        data["accuracy_above_floor"], data["accuracy_above_floor_ci"] = difference(
            gain, gain_interval, told, resamples=self.resamples, groups=bootstrap.groups
        )
        return TargetScores(data, right, shared["accuracy"])

    @property
    def bootstrap(self) -> GroupBootstrap:
        """Resamples of its groups."""
        own = cell_seed(self.seed, self.concept)
        return GroupBootstrap.draw(self.concept.groups, seed=own, resamples=self.resamples)

    def _score(
        self, scores: Float[np.ndarray, "example site"], sites: tuple[str, ...]
    ) -> xr.Dataset:
        return score_dataset(
            scores,
            self.concept.labels,
            self.how.parts,
            self.concept.groups,
            sites=sites,
            seed=cell_seed(self.seed, self.concept),
            resamples=self.resamples,
        )

    def _null(
        self,
        fitted: SourceProbes,
        activations: Activations,
        scores: Float[np.ndarray, "example site"],
    ) -> xr.Dataset:
        """p-values and null bands."""
        probe = fitted.probe
        fitter = probe.cross_fitter
        here = target_null(
            scores,
            self.concept.groups,
            self.how,
            permutations=probe.permutations,
            seed=cell_seed(self.seed, self.concept),
        )
        bands = target_refit_bands(
            fitted.activations.values,
            activations.values,
            fitted.permuted,
            fitted.fold,
            self.how,
            C=fitter.C if isinstance(fitter, LogisticCrossFitter) else (),
        )
        # Both have to be rejected, so the larger p-value holds for either being true.
        p, p_best = (
            np.maximum(one, other) for one, other in zip(fitted.p_values, here, strict=True)
        )
        described = {"units": "1", "permutations": probe.permutations}
        told = (
            "permutation p-value, by the AUROC, of labels being read in the fitted set and its "
            "probes telling those of the scored set"
        )
        variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, object]]] = {
            "accuracy_p": (("site",), p, {**described, "long_name": told}),
            "accuracy_p_best": (
                ("site",),
                p_best,
                {**described, "long_name": f"{told}, by the null of the maximum over sites"},
            ),
        }
        for name, units in (("accuracy", _FRACTION), ("auroc", "1")):
            variables[f"{name}_null"] = (
                ("site", "bound"),
                bands[name],
                {
                    "units": units,
                    "long_name": f"middle 95% of the {name} in the scored set where labels are "
                    "permuted in the fitted set",
                    "permutations": min(probe.permutations, MOST_REFITS),
                },
            )
        return xr.Dataset(variables)

    def _drop(
        self,
        before: Float[np.ndarray, "source site"],
        after: Float[np.ndarray, "example site"],
        shared: Float[np.ndarray, " site"],
    ) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
        """The source's held-out accuracy minus the target's; groups in both are drawn together."""
        together = GroupBootstrap.draw(
            self.source.groups + self.concept.groups,
            seed=cell_seed(self.seed, self.concept),
            resamples=self.resamples,
        )
        rows = np.concatenate([before, after])
        first = (np.arange(len(rows)) < len(before)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            # A resample may draw groups of one set alone; the interval leaves it out.
            sides = [
                together.sums(rows * side[:, None]) / together.sums(side)[:, None]
                for side in (first, 1 - first)
            ]
        drop = before.mean(axis=0) - after.mean(axis=0)
        resampled = sides[0] - sides[1]
        interval = stretched_interval(drop, resampled, together.groups, added=shared)
        # The set of fewer groups says least of what was not seen.
        groups = min(len(set(self.source.groups)), len(set(self.concept.groups)))
        return drop, difference_interval(drop, interval, resampled, groups)


def difference(
    value: Float[np.ndarray, "..."],
    interval: Float[np.ndarray, "... bound"],
    told: str,
    *,
    resamples: int,
    groups: int,
) -> tuple[tuple[object, ...], tuple[object, ...]]:
    """A difference of accuracies along `site`, and its interval, as variables."""
    described = {"units": _FRACTION, "long_name": told}
    behind = {
        **described,
        "long_name": f"95% interval of the {told}",
        "resamples": resamples,
        "groups": groups,
    }
    return (("site",), value, described), (("site", "bound"), interval.clip(-1, 1), behind)


def _chosen(scored: xr.Dataset, suffix: str, told: str) -> xr.Dataset:
    """Accuracy and AUROC with interval and n, under names with a suffix."""
    behind = f"_{suffix}" if suffix else ""
    found = xr.Dataset(coords={"site": scored["site"], "bound": scored["bound"]})
    for name in _SCORES:
        for part in ("", "_ci", "_n"):
            variable = scored[f"{name}{part}"].copy()
            variable.attrs["long_name"] += f", {told}"
            found[f"{name}{behind}{part}"] = variable
    return found


def _right(
    scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    right: np.ndarray = ((scores > 0) == (labels == 1)[:, None]).astype(np.float64)
    return right
