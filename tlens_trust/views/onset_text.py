"""An onset in words: the one phrasing that tables, the shell and the report share."""

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.analysis.onset.reasons import EXPLANATIONS, NOT_MEASURED
from tlens_trust.views.axes import format_count

# What is looked at for each answer, in which the loss of a concept is seen.
_LOOKED_AT = {"onset": "gain", "saturation": "shortfall"}

_NOT_LASTING = "not lasting before"
_LOST = "lost again by"
_NOT_SHOWN = "not shown at"


def onset_text(found: xr.Dataset, name: str = "onset") -> str:
    """An onset or a saturation in words: its interval, whether it lasts, or why there is none.

    `9–384` says: after the checkpoint of step 8 and by that of step 384, and the checkpoints
    between do not decide. Where the first checkpoint is not excluded it is `by step 8`; where
    a checkpoint has no step, or there are several stages, checkpoints are named: `after
    stage1-step8, by stage2-step4`. `explain_onset` gives the legend.

    Args:
        found: What `find_onset` or `find_saturation` gives, of one concept, site and probe.
        name: `"onset"` or `"saturation"`.

    Returns:
        `"9–384"`, `"9–384, not lasting before 768"`, `"9–384, lost again by 768"`, `"by step 8"`,
        `"never (text alone reaches as much)"`, `"unknown"`, and the like.
    """
    reason = str(found[f"{name}_reason"].item())
    if not int(found[f"{name}_n"]) or reason == NOT_MEASURED:
        return "unknown"
    if not str(found[f"{name}_checkpoint"].item()):
        return f"never ({reason})"
    loss = _loss(found, name)
    return f"{_interval(found, name)}{', ' if loss else ''}{loss}"


def token_text(found: xr.Dataset) -> str:
    """The same interval in tokens seen: `after 33k, by 1.6M`; nothing where they are unknown.

    Args:
        found: What `find_onset` gives, of one concept, site and probe.
    """
    after, by = (float(found["onset_tokens_ci"].sel(bound=bound)) for bound in ("low", "high"))
    if np.isnan(by):
        return ""
    if np.isnan(after) or bool(found["onset_at_start"]):
        return f"by {format_count(by)}"
    return f"after {format_count(after)}, by {format_count(by)}"


def explain_onset(found: xr.Dataset, texts: Sequence[str], name: str = "onset") -> list[str]:
    """Sentences that explain what `onset_text` says of some concepts, and nothing else.

    Args:
        found: What `find_onset` or `find_saturation` gives.
        texts: What `onset_text` says of it.
        name: `"onset"` or `"saturation"`.
    """
    margin = float(found.attrs["margin"])
    if name == "onset":
        above, them = "its permutation null", "it"
        if found.attrs["floor"] == "True":
            above += " and its text-only baseline (text floor)"
            them = "the higher of them"
        became = f"became decodable: held-out accuracy above {above}"
        before = f"the gain over {them} is at most {margin:g}"
        so = "decodable"
    else:
        became = f"came within {margin:g} of the last checkpoint's accuracy"
        before = "accuracy is lower"
        so = "as close"
    told = [f"Interval of training in which the concept {became}."]
    dated = [text for text in texts if not text.startswith(("never", "unknown"))]
    if dated:
        sure = f"{(1 + float(found.attrs['confidence'])) / 2:.1%}"
        begun = any(not text.startswith("by ") for text in dated)
        told += _explain_intervals(dated)
        told.append(
            f"{f'Before that, {before}. ' if begun else ''}Each end is {sure} sure, over all "
            "checkpoints."
        )
    for phrase, meaning in (
        (_NOT_LASTING, f"only from that step on is it shown to be {so} at every checkpoint"),
        (_LOST, f"at that checkpoint, the last one, the gain is at most {margin:g} again"),
        (_NOT_SHOWN, "at that checkpoint, the last one, neither a gain nor its loss is shown"),
    ):
        if any(f", {phrase} " in text for text in texts):
            told.append(f"{phrase[:1].upper()}{phrase[1:]}: {meaning}.")
    for reason, meaning in EXPLANATIONS.items():
        if f"never ({reason})" in texts:
            told.append(f"Never ({reason}): {meaning.format(margin=margin)}.")
    return told


def _explain_intervals(texts: Sequence[str]) -> list[str]:
    """What the kinds of intervals among the texts mean, by the first of each."""
    told = []
    spans = (re.match(r"(\d+)–(\d+)", text) for text in texts)
    span = next((match for match in spans if match), None)
    if span:
        first, by = span.groups()
        told.append(
            f"{first}–{by}: after step {int(first) - 1} and by step {by}; checkpoints between, if "
            "any, do not decide."
        )
    if any(text.startswith("by ") for text in texts):
        told.append("By: at that checkpoint or before it; even the first one is not excluded.")
    return told


def _interval(found: xr.Dataset, name: str) -> str:
    labels, steps = _labels(found), _steps(found)
    members = np.flatnonzero(found[f"{name}_set"].values)
    after, by = members[0], members[-1]
    if bool(found[f"{name}_at_start"]):
        step = "" if np.isnan(steps[by]) else "step "
        return f"by {step}{labels[by]}{' (first checkpoint)' if after == by else ''}"
    if np.isnan(steps[[after, by]]).any():
        return f"after {labels[after]}, by {labels[by]}"
    first = steps[after] + 1
    return labels[by] if first == steps[by] else f"{first:.0f}–{labels[by]}"


def _loss(found: xr.Dataset, name: str) -> str:
    """What speaks against an answer that holds from there on; nothing where it does hold."""
    by, lasting = (str(found[f"{key}_checkpoint"].item()) for key in (name, "lasting"))
    if by == lasting:
        return ""
    labels = dict(zip(found["checkpoint"].values.tolist(), _labels(found), strict=True))
    if lasting:
        return f"{_NOT_LASTING} {labels[lasting]}"
    value = found[_LOOKED_AT[name]]
    last = found["checkpoint"].values[value.notnull().values][-1]
    if name == "saturation":
        # The last checkpoint is what the others are held against.
        return f"{_NOT_LASTING} {labels[last]}"
    highest = found[f"{_LOOKED_AT[name]}_ci"].sel(bound="high", checkpoint=last)
    return f"{_LOST if highest <= found.attrs['margin'] else _NOT_SHOWN} {labels[last]}"


def _labels(found: xr.Dataset) -> list[str]:
    """Each checkpoint by its step where that is enough to find it, else by its name."""
    names = [str(name) for name in found["checkpoint"].values]
    one_model = len({name.split("@")[0] for name in names}) == 1
    return [
        f"{step:.0f}" if np.isfinite(step) else name.split("@")[-1] if one_model else name
        for step, name in zip(_steps(found), names, strict=True)
    ]


def _steps(found: xr.Dataset) -> Float[np.ndarray, " checkpoint"]:
    """Training steps; unknown for all where stages follow each other or steps start again."""
    steps: np.ndarray = found["step"].values.astype(float)
    known = steps[np.isfinite(steps)]
    stages = set(found["stage"].values.tolist()) if "stage" in found.coords else set()
    one_stage = len(stages - {"", None}) < 2
    return steps if one_stage and (np.diff(known) > 0).all() else np.full_like(steps, np.nan)
