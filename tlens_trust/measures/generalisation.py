"""Scores of statements of another set, from probes that were not fitted to these statements.

Probes are fitted to a source as in cross-validation, on all folds but one, and never to the target.
A target group may also be a source group (paraphrases, for example), or may share a text with one.
It is scored by the probe that was fitted without that group. Any other target group is scored by
the mean log-odds of the probes of all folds. The target is not used to choose or scale anything.
"""

from collections import Counter

import numpy as np
from jaxtyping import Float, Int

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fitters import HeldOut

_FRACTION = "fraction of statements"


def check_same_matter(source: Concept, target: Concept) -> None:
    """Check that label 1 means the same in two concepts, and that they have one dimension.

    Raises:
        ValueError: One of the two is not so.
    """
    if source.polarity != target.polarity:
        polarised, unpolarised = (source, target) if source.polarity else (target, source)
        raise ValueError(
            f"Neither label of {unpolarised.name!r} is the trustworthy side, while one of "
            f"{polarised.name!r} is: label 1 does not mean the same in "
            "both. Transfer between sets whose label 1 is the trustworthy side."
        )
    if not source.polarity and source.name != target.name:
        raise ValueError(
            f"Neither {source.name!r} nor {target.name!r} has a trustworthy side, so nothing says "
            "that label 1 means the same in both. Give both the same name if it does."
        )
    if source.dimension != target.dimension:
        raise ValueError(
            f"{source.name!r} is about {source.dimension}, and {target.name!r} about "
            f"{target.dimension}. "
            "Transfer is between sets of one concept; give them the same `dimension` if they are."
        )


def check_same_reading(source: Activations, target: Activations) -> None:
    """Check that two sets of activations have the same sites, position and checkpoint.

    Raises:
        ValueError: One of them differs.
    """
    if source.sites != target.sites or source.values.shape[2] != target.values.shape[2]:
        raise ValueError(
            f"The source was read at {len(source.sites)} sites from {source.sites[0]!r} on, "
            f"{source.values.shape[2]} wide, the target at {len(target.sites)} from "
            f"{target.sites[0]!r} on, {target.values.shape[2]} wide. Collect both at the same "
            "sites of one model, or select their common sites with `activations.select(…)`."
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
    """Find the source fold of each target group: its probe was fitted without that group.

    The result is -1 if no source group has the name or a text of the target group.

    Raises:
        ValueError: A target group corresponds to source groups in several folds.
    """
    folds_of_group: dict[str, set[int]] = {}
    folds_of_text: dict[str, set[int]] = {}
    for text, group, number in zip(source.statements, source.groups, fold.tolist(), strict=True):
        folds_of_group.setdefault(group, set()).add(number)
        folds_of_text.setdefault(text, set()).add(number)
    judges = {group: folds_of_group.get(group, set()) for group in target.groups}
    for text, group in zip(target.statements, target.groups, strict=True):
        judges[group] = judges[group] | folds_of_text.get(text, set())
    for group, folds in judges.items():
        if len(folds) > 1:
            row = target.groups.index(group)
            raise ValueError(
                f"Group {group!r} of {target.name!r} (statement {row}: {target.statements[row]!r}) "
                f"occurs in several groups of {source.name!r}, by name or text, so every probe "
                "was fitted on a part of it. Give statements that belong together the same group "
                "in both sets, or leave them out."
            )
    return np.array([next(iter(judges[group]), -1) for group in target.groups])


def score_elsewhere(
    held_out: HeldOut, target: Activations, judged_by: Int[np.ndarray, " example"], probe: str
) -> Float[np.ndarray, "example site"]:
    """Compute log-odds of target statements, each from the probe of its fold.

    Statements without a fold (-1) get the mean of the log-odds from the probes of all folds.

    Raises:
        ValueError: The probe has no directions.
    """
    if held_out.directions is None or held_out.biases is None:
        raise ValueError(
            f"The {probe!r} probe keeps no direction to score another set with. Choose a linear "
            "probe, such as `logistic_probe()`."
        )
    folds = held_out.biases.shape[1]
    scores = np.empty(target.values.shape[:2])
    for site in range(scores.shape[1]):
        values = target.values[:, site].double().numpy()
        log_odds = values @ held_out.directions[site].T + held_out.biases[site]
        by_judge = log_odds[np.arange(len(values)), np.maximum(judged_by, 0) % folds]
        scores[:, site] = np.where(judged_by >= 0, by_judge, log_odds.mean(axis=1))
    return scores


def number_parts(
    judged_by: Int[np.ndarray, " example"], labels: Int[np.ndarray, " example"]
) -> Int[np.ndarray, " example"]:
    """Number the parts of statements that the same probe scores, from 0.

    AUROC is computed within parts, so each part needs both labels. If one lacks a label, all
    statements are one part.
    """
    parts = np.unique(judged_by, return_inverse=True)[1]
    label_counts = Counter(
        part for part, _ in set(zip(parts.tolist(), labels.tolist(), strict=True))
    )
    have_both_labels = all(count == 2 for count in label_counts.values())
    return parts if have_both_labels else np.zeros_like(parts)
