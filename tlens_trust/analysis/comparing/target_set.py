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
from tlens_trust.measures.labelled import Variables, labelled
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
        held_out: Held-out scores and directions.
        fold: The fold of each statement.
        seed: Seed of the folds.
        shared: Variance of each score that comes from shared folds.
    """

    concept: Concept
    activations: Activations
    probe: ProbeMeasure
    held_out: HeldOut
    fold: Int[np.ndarray, " example"]
    seed: int
    shared: dict[str, Float[np.ndarray, " site"]]

    @classmethod
    def fit(
        cls, concept: Concept, activations: Activations, probe: ProbeMeasure, *, seed: int
    ) -> "SourceProbes":
        """Fit a probe without each fold; `seed` is that of a sweep."""
        concept_seed = cell_seed(seed, concept)
        held_out, fold = probe.held_out(activations, concept, seed=concept_seed)
        shared_variances = {name: np.zeros(len(activations.sites)) for name in _SCORES}
        if held_out.fewer is not None:
            shared_variances |= cross_fold_variance(
                held_out.scores, held_out.fewer, concept.labels, fold
            )
        return cls(concept, activations, probe, held_out, fold, concept_seed, shared_variances)

    def scores(self, suffix: str, description: str) -> xr.Dataset:
        """Held-out accuracy and AUROC, as in a sweep, under names with a suffix."""
        scored_statements = score_dataset(
            self.held_out.scores,
            self.concept.labels,
            self.fold,
            self.concept.groups,
            sites=self.activations.sites,
            seed=self.seed,
            fewer=self.held_out.fewer,
            resamples=self.probe.resamples,
        )
        return _chosen(scored_statements, suffix, description)

    @property
    def correct(self) -> Float[np.ndarray, "example site"]:
        """Whether each statement is classified correctly, held out."""
        return _right(self.held_out.scores, self.concept.labels)

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
            null = fitter.null(
                self.activations.values, self.held_out.scores, self.permuted, self.fold
            )
        else:
            null = held_out_null(self.held_out.scores, self.permuted, self.fold)
        return null.p, null.p_best


@dataclass(frozen=True, eq=False)
class TargetScores:
    """The scores of the scored set at one checkpoint.

    Attributes:
        data: The variables along `site`.
        correct: Whether each statement is classified correctly.
        shared: Variance of the accuracy that comes from shared folds.
    """

    data: xr.Dataset
    correct: Float[np.ndarray, "example site"]
    shared: Float[np.ndarray, " site"]


@dataclass(frozen=True, eq=False)
class TargetSet:
    """A set that is scored by probes of another set, and which of them score which statement.

    Attributes:
        concept: The scored set.
        source: The set that probes are fitted to.
        statements: Which fold's probe scores which statement.
        text: Log-odds by classifiers of the source's text; None where there are none.
        resamples: Number of resamples behind an interval.
        seed: The seed of a sweep.
    """

    concept: Concept
    source: Concept
    statements: TargetStatements
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
        statements = TargetStatements(concept.labels, judged_by, parts)
        return cls(concept, source, statements, text, probe.resamples, seed)

    def levels(self) -> xr.Dataset:
        """Levels that are the same at all checkpoints: chance, text-only baseline, `held_out_n`."""
        text_scores = np.zeros(len(self.concept)) if self.text is None else self.text
        scored_text = self._score(text_scores[:, None], ("text",))
        floor = _chosen(scored_text, "floor", "of classifiers fitted to the other set's text")
        floor = floor.isel(site=0, drop=True).drop_vars([f"{name}_floor_n" for name in _SCORES])
        if self.text is None:
            floor = floor.map(lambda values: xr.full_like(values, np.nan, dtype=float))
        data = floor.merge(chance_dataset(self.concept))
        data["held_out_n"] = (
            (),
            int((self.statements.judged_by >= 0).sum()),
            {
                "units": "statements",
                "long_name": "statements whose group or text is in the fitted set too, scored "
                "by a probe that was fitted without it",
            },
        )
        return data

    def score(self, source_probes: SourceProbes, activations: Activations) -> TargetScores:
        """Score the set at one checkpoint, by the source's probes there and by its own probes."""
        check_same_reading(source_probes.activations, activations)
        probe = source_probes.probe
        scores = score_elsewhere(
            source_probes.held_out, activations, self.statements.judged_by, probe.name
        )
        correct = _right(scores, self.concept.labels)
        bootstrap = self.bootstrap
        shared_variances = {name: np.zeros(len(activations.sites)) for name in _SCORES}
        if (self.statements.judged_by >= 0).any():
            # The fold that holds a group decides who scores it: what the source's own folds share,
            # the scores of its paraphrases share.
            shared_variances = source_probes.shared
        data = _chosen(self._score(scores, activations.sites), "", "of another set's probes")
        for name in _SCORES:
            interval = data[f"{name}_ci"]
            widened = widened_interval(
                data[name].values, interval.values, shared_variances[name], groups=bootstrap.groups
            )
            data[f"{name}_ci"] = interval.copy(data=widened.clip(0, 1))
        data = data.merge(self._null(source_probes, activations, scores))
        own_probes = SourceProbes.fit(self.concept, activations, probe, seed=self.seed)
        data = data.merge(own_probes.scores("target", "of probes fitted to the scored set itself"))
        drop, drop_interval = self._drop(
            source_probes.correct,
            correct,
            source_probes.shared["accuracy"] + shared_variances["accuracy"],
        )
        long_name = "held-out accuracy in the fitted set minus accuracy in the scored one"
        data = data.assign(
            difference(
                "accuracy_drop",
                drop,
                drop_interval,
                long_name,
                resamples=self.resamples,
                groups=bootstrap.groups,
            )
        )
        gain = np.full(correct.shape[1], np.nan)
        gain_interval = np.full((correct.shape[1], 2), np.nan)
        if self.text is not None:
            differences = correct - _right(self.text[:, None], self.concept.labels)
            gain = differences.mean(axis=0)
            gain_interval = paired_interval(
                differences, bootstrap, added=shared_variances["accuracy"]
            )
        long_name = "accuracy above that of classifiers fitted to the other set's text"
        data = data.assign(
            difference(
                "accuracy_above_floor",
                gain,
                gain_interval,
                long_name,
                resamples=self.resamples,
                groups=bootstrap.groups,
            )
        )
        return TargetScores(data, correct, shared_variances["accuracy"])

    @property
    def bootstrap(self) -> GroupBootstrap:
        """Resamples of its groups."""
        concept_seed = cell_seed(self.seed, self.concept)
        return GroupBootstrap.draw(self.concept.groups, seed=concept_seed, resamples=self.resamples)

    def _score(
        self, scores: Float[np.ndarray, "example site"], sites: tuple[str, ...]
    ) -> xr.Dataset:
        return score_dataset(
            scores,
            self.concept.labels,
            self.statements.parts,
            self.concept.groups,
            sites=sites,
            seed=cell_seed(self.seed, self.concept),
            resamples=self.resamples,
        )

    def _null(
        self,
        source_probes: SourceProbes,
        activations: Activations,
        scores: Float[np.ndarray, "example site"],
    ) -> xr.Dataset:
        """p-values and null bands."""
        probe = source_probes.probe
        fitter = probe.cross_fitter
        transfer_p_values = target_null(
            scores,
            self.concept.groups,
            self.statements,
            permutations=probe.permutations,
            seed=cell_seed(self.seed, self.concept),
        )
        bands = target_refit_bands(
            source_probes.activations.values,
            activations.values,
            source_probes.permuted,
            source_probes.fold,
            self.statements,
            C=fitter.C if isinstance(fitter, LogisticCrossFitter) else (),
        )
        # Both have to be rejected, so the larger p-value holds for either being true.
        p, p_best = (
            np.maximum(source_p, transfer_p)
            for source_p, transfer_p in zip(source_probes.p_values, transfer_p_values, strict=True)
        )
        described = {"units": "1", "permutations": probe.permutations}
        p_value_name = (
            "permutation p-value, by the AUROC, of labels being read in the fitted set and its "
            "probes telling those of the scored set"
        )
        variables: dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, object]]] = {
            "accuracy_p": (("site",), p, {**described, "long_name": p_value_name}),
            "accuracy_p_best": (
                ("site",),
                p_best,
                {
                    **described,
                    "long_name": f"{p_value_name}, by the null of the maximum over sites",
                },
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
        source_correct: Float[np.ndarray, "source site"],
        target_correct: Float[np.ndarray, "example site"],
        shared_variance: Float[np.ndarray, " site"],
    ) -> tuple[Float[np.ndarray, " site"], Float[np.ndarray, "site bound"]]:
        """The source's held-out accuracy minus the target's; groups in both are drawn together."""
        joint_bootstrap = GroupBootstrap.draw(
            self.source.groups + self.concept.groups,
            seed=cell_seed(self.seed, self.concept),
            resamples=self.resamples,
        )
        rows = np.concatenate([source_correct, target_correct])
        is_source = (np.arange(len(rows)) < len(source_correct)).astype(np.float64)
        with np.errstate(invalid="ignore"):
            # A resample may draw groups of one set alone; the interval leaves it out.
            sides = [
                joint_bootstrap.sums(rows * side[:, None]) / joint_bootstrap.sums(side)[:, None]
                for side in (is_source, 1 - is_source)
            ]
        drop = source_correct.mean(axis=0) - target_correct.mean(axis=0)
        resampled = sides[0] - sides[1]
        interval = stretched_interval(
            drop, resampled, joint_bootstrap.groups, added=shared_variance
        )
        # The set of fewer groups says least of what was not seen.
        groups = min(len(set(self.source.groups)), len(set(self.concept.groups)))
        return drop, difference_interval(drop, interval, resampled, groups)


def difference(
    name: str,
    value: Float[np.ndarray, "..."],
    interval: Float[np.ndarray, "... bound"],
    long_name: str,
    *,
    resamples: int,
    groups: int,
) -> Variables:
    """Label a difference of accuracies along `site`, and its interval."""
    return labelled(
        name,
        value,
        units=_FRACTION,
        long_name=long_name,
        interval=interval.clip(-1, 1),
        resampling={"resamples": resamples, "groups": groups},
    )


def _chosen(scored_statements: xr.Dataset, suffix: str, description: str) -> xr.Dataset:
    """Accuracy and AUROC with interval and n, under names with a suffix."""
    name_suffix = f"_{suffix}" if suffix else ""
    data = xr.Dataset(
        coords={"site": scored_statements["site"], "bound": scored_statements["bound"]}
    )
    for name in _SCORES:
        for ending in ("", "_ci", "_n"):
            variable = scored_statements[f"{name}{ending}"].copy()
            variable.attrs["long_name"] += f", {description}"
            data[f"{name}{name_suffix}{ending}"] = variable
    return data


def _right(
    scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    correct: np.ndarray = ((scores > 0) == (labels == 1)[:, None]).astype(np.float64)
    return correct
