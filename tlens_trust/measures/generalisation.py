"""Which probe scores a statement of another set, so that none scores what it was fitted to.

Probes are fitted to a source as in cross-validation, on all folds but one, and never to the target.
A target group that is a source group too (paraphrases, say), or of which a text stands in the
source, is scored by the probe that was fitted without that group. Any other is scored by the mean
log-odds of all folds' probes. Nothing of the target is used to choose or scale anything.
"""

from collections import Counter

import numpy as np
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import HeldOut

_FRACTION = "fraction of statements"


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
