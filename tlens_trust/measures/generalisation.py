"""Whether a probe reads the same concept in other words: transfer to another set of statements."""

from collections import Counter

import numpy as np
import xarray as xr
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.arguments import checked_seed
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.cross_validation import ProbeMeasure, check_probe, logistic_probe
from tlens_trust.measures.intervals import percentile_interval
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.measures.scores import score_dataset

_FRACTION = "fraction of statements"


def transfer_score(
    source: Activations,
    target: Activations,
    *,
    probe: ProbeMeasure | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Fit probes on one set of statements and score them on another set of the same concept.

    The other set may be paraphrases of the first, or statements of another make. Probes are
    fitted to the source as in cross-validation, on all folds but one, and never to the target:

    - a target group that is a source group too (paraphrases, say), or of which a text stands in
      the source, is scored by the probe that was fitted without that group;
    - any other is scored by the mean log-odds of all folds' probes.

    Nothing of the target is used to choose or scale anything. AUROC is averaged over statements
    scored by one probe where each such part holds both labels, and taken over all together where
    not.

    Args:
        source: Activations of the concept that probes are fitted to.
        target: Activations of the same checkpoint, sites and position for the other set.
        probe: A linear probe's measure; None for the logistic probe.
        seed: Deals the source's folds and draws the resamples.

    Returns:
        What `score_dataset` gives, along `site` and the target's `example`s; then
        `source_accuracy`, held out, and `accuracy_drop`, the source's accuracy minus the
        target's, with its interval over groups (those in both sets are drawn together). A drop
        may come of the target being harder, too: compare with a probe of its own.

    Raises:
        ValueError: Activations without a concept, of other checkpoints, sites or positions; one
            concept has a polarity and the other none, or neither has and their names differ; the
            probe is not linear; or a target group stands in several groups of the source.

    Examples:
        >>> import torch
        >>> def read(name, seed):
        ...     labels = np.arange(80) % 2
        ...     texts = tuple(f"{name} {row}" for row in range(80))
        ...     concept = Concept(name, "reliability", texts, labels, texts)
        ...     values = torch.randn(80, 1, 4, generator=torch.Generator().manual_seed(seed))
        ...     values[:, 0, 2] += torch.from_numpy(3.0 * labels).float()
        ...     return Activations(values, ("blocks.0.hook_resid_post",), concept=concept)
        >>> bool(transfer_score(read("first", 0), read("second", 1)).accuracy[0] > 0.85)
        True
    """
    taken = logistic_probe() if probe is None else probe
    check_probe(taken)
    seed = checked_seed(seed)
    for which, given in (("source", source), ("target", target)):
        if not isinstance(given, Activations):
            raise ValueError(
                f"`{which}` must be the Activations of a set of statements, got "
                f"{type(given).__name__}. Get them with `collect_activations(checkpoint, concept)`."
            )
    concepts = _checked(source, target)
    held_out, fold = taken.held_out(source, concepts[0], seed=seed)
    judged_by = find_judges(*concepts, fold)
    scores = score_elsewhere(held_out, target, judged_by, taken.name)
    parts = number_parts(judged_by, concepts[1].labels)
    data = score_dataset(
        scores,
        concepts[1].labels,
        parts,
        concepts[1].groups,
        sites=target.sites,
        seed=seed,
        resamples=taken.resamples,
    )
    data["fold"].attrs["long_name"] = "part within which AUROC is taken"
    correct = [
        ((each > 0) == (concept.labels == 1)[:, None]).astype(np.float64)
        for each, concept in zip((held_out.scores, scores), concepts, strict=True)
    ]
    bootstrap = GroupBootstrap.draw(
        concepts[0].groups + concepts[1].groups, seed=seed, resamples=taken.resamples
    )
    first = (np.arange(len(concepts[0]) + len(concepts[1])) < len(concepts[0])).astype(np.float64)
    rows = np.concatenate(correct)
    with np.errstate(invalid="ignore"):
        # A resample may draw groups of one set alone; the interval leaves it out.
        sides = [
            bootstrap.sums(rows * side[:, None]) / bootstrap.sums(side)[:, None]
            for side in (first, 1 - first)
        ]
    told = "held-out accuracy in the source"
    drop = f"{told} minus accuracy in the target"
    data["source_accuracy"] = (
        ("site",),
        correct[0].mean(axis=0),
        {"units": _FRACTION, "long_name": told},
    )
    data["accuracy_drop"] = (
        ("site",),
        correct[0].mean(axis=0) - correct[1].mean(axis=0),
        {"units": _FRACTION, "long_name": drop},
    )
    data["accuracy_drop_ci"] = (
        ("site", "bound"),
        percentile_interval(sides[0] - sides[1]),
        {
            "units": _FRACTION,
            "long_name": f"95% interval of the {drop}",
            "resamples": taken.resamples,
            "groups": bootstrap.groups,
        },
    )
    return data.assign_attrs(
        source=concepts[0].name,
        target=concepts[1].name,
        probe=taken.name,
        statements_in_shared_groups=int((judged_by >= 0).sum()),
    )


def _checked(source: Activations, target: Activations) -> tuple[Concept, Concept]:
    """The two concepts, if probes of one can be scored on the other."""
    if source.concept is None or target.concept is None:
        which = "source" if source.concept is None else "target"
        raise ValueError(
            f"The {which} activations have no concept, and so no labels. Collect them from a "
            "Concept and not from a list of statements."
        )
    one, other = source.concept, target.concept
    check_same_matter(one, other)
    check_same_reading(source, target)
    return one, other


def check_same_matter(one: Concept, other: Concept) -> None:
    """Refuse concepts whose label 1 does not mean the same, or not about the same matter."""
    if one.polarity != other.polarity:
        lacking = other if one.polarity else one
        raise ValueError(
            f"Neither label of {lacking.name!r} is the trustworthy side, while one of "
            f"{(one if one.polarity else other).name!r} is: label 1 does not mean the same in "
            "both. Transfer between sets whose label 1 is the trustworthy side."
        )
    if not one.polarity and one.name != other.name:
        raise ValueError(
            f"Neither {one.name!r} nor {other.name!r} has a trustworthy side, so nothing says "
            "that label 1 means the same in both. Give both the same name if it does."
        )
    if one.dimension != other.dimension:
        raise ValueError(
            f"{one.name!r} is about {one.dimension} and {other.name!r} about {other.dimension}. "
            "Transfer is between sets of one concept; give them the same `dimension` if they are."
        )


def check_same_reading(source: Activations, target: Activations) -> None:
    """Refuse activations of other sites, positions or checkpoints."""
    if source.sites != target.sites or source.values.shape[2] != target.values.shape[2]:
        raise ValueError(
            f"The source was read at {len(source.sites)} sites from {source.sites[0]!r} on, "
            f"{source.values.shape[2]} wide, the target at {len(target.sites)} from "
            f"{target.sites[0]!r} on, {target.values.shape[2]} wide. Collect both at the same "
            "sites of one model, or choose those in common with `activations.select(…)`."
        )
    if source.position != target.position:
        raise ValueError(
            f"The source was read at position {source.position!r}, the target at "
            f"{target.position!r}. Collect both at the same position."
        )
    if source.checkpoint is not None and target.checkpoint is not None:
        names = source.checkpoint.name, target.checkpoint.name
        if source.checkpoint != target.checkpoint:
            raise ValueError(
                f"The source was read from {names[0]!r} and the target from {names[1]!r}. Collect "
                "both from one checkpoint."
            )


def find_judges(
    source: Concept, target: Concept, fold: Int[np.ndarray, " source"]
) -> Int[np.ndarray, " target"]:
    """The fold whose probe has not seen a target statement's group; -1 where none has seen it."""
    places: dict[str, set[int]] = {}
    of_text: dict[str, set[int]] = {}
    for text, group, number in zip(source.statements, source.groups, fold.tolist(), strict=True):
        places.setdefault(group, set()).add(number)
        of_text.setdefault(text, set()).add(number)
    judges = {group: places.get(group, set()) for group in target.groups}
    for text, group in zip(target.statements, target.groups, strict=True):
        judges[group] = judges[group] | of_text.get(text, set())
    for group, folds in judges.items():
        if len(folds) > 1:
            row = target.groups.index(group)
            raise ValueError(
                f"Group {group!r} of {target.name!r} (statement {row}: {target.statements[row]!r}) "
                f"stands in several groups of {source.name!r}, by name or text, so that every "
                "probe was fitted on a part of it. Give what belongs together the same group in "
                "both sets, or leave it out."
            )
    return np.array([next(iter(judges[group]), -1) for group in target.groups])


def score_elsewhere(
    held_out: HeldOut, target: Activations, judged_by: Int[np.ndarray, " example"], probe: str
) -> Float[np.ndarray, "example site"]:
    """Log-odds of each target statement by the probe, or the mean of the probes, it falls to."""
    if held_out.directions is None or held_out.biases is None:
        raise ValueError(
            f"The {probe!r} probe keeps no direction to score another set with. Choose a linear "
            "probe, `logistic_probe()` for one."
        )
    folds = held_out.biases.shape[1]
    scores = np.empty(target.values.shape[:2])
    for site in range(scores.shape[1]):
        values = target.values[:, site].double().numpy()
        log_odds = values @ held_out.directions[site].T + held_out.biases[site]
        own = log_odds[np.arange(len(values)), np.maximum(judged_by, 0) % folds]
        scores[:, site] = np.where(judged_by >= 0, own, log_odds.mean(axis=1))
    return scores


def number_parts(
    judged_by: Int[np.ndarray, " example"], labels: Int[np.ndarray, " example"]
) -> Int[np.ndarray, " example"]:
    """Statements scored alike, numbered from 0, where each part holds both labels."""
    parts = np.unique(judged_by, return_inverse=True)[1]
    held = Counter(part for part, _ in set(zip(parts.tolist(), labels.tolist(), strict=True)))
    whole = all(count == 2 for count in held.values())
    return parts if whole else np.zeros_like(parts)
