"""An onset in words, the same in tables, in the shell and in the report."""

import re
from collections.abc import Sequence

import numpy as np
import xarray as xr
from jaxtyping import Float

from tlens_trust.analysis.onset.reasons import EXPLANATIONS, NOT_MEASURED
from tlens_trust.views.axes import format_count

# The quantity that decides each answer; it also shows the loss of a concept.
_QUANTITIES = {"onset": "gain", "saturation": "shortfall"}

_NOT_LASTING = "not lasting before"
_LOST = "lost again by"
_NOT_SHOWN = "not shown at"


def onset_text(onset: xr.Dataset, name: str = "onset") -> str:
    """Describe an onset or a saturation: its interval, whether it lasts, or why there is none.

    `9–384` means after the checkpoint of step 8 and by that of step 384; checkpoints between do not
    decide. If the first checkpoint is not excluded, it is `by step 8`. Checkpoints are named if one
    has no step, or if there are several stages: `after stage1-step8, by stage2-step4`.
    `explain_onset` gives the legend.

    Args:
        onset: What `find_onset` or `find_saturation` gives, of one concept, site and probe.
        name: `"onset"` or `"saturation"`.

    Returns:
        `"9–384"`, `"9–384, not lasting before 768"`, `"9–384, lost again by 768"`, `"by step 8"`,
        `"never (text alone reaches as much)"`, `"unknown"`, and the like.
    """
    reason = str(onset[f"{name}_reason"].item())
    if not int(onset[f"{name}_n"]) or reason == NOT_MEASURED:
        return "unknown"
    if not str(onset[f"{name}_checkpoint"].item()):
        return f"never ({reason})"
    loss = _loss(onset, name)
    return f"{_interval(onset, name)}{', ' if loss else ''}{loss}"


def token_text(onset: xr.Dataset) -> str:
    """Describe the same interval in tokens, `after 33k, by 1.6M`; empty where it is unknown.

    Args:
        onset: What `find_onset` gives, of one concept, site and probe.
    """
    start, end = (float(onset["onset_tokens_ci"].sel(bound=bound)) for bound in ("low", "high"))
    if np.isnan(end):
        return ""
    # Without a checkpoint that is excluded, the interval has no beginning to report.
    if np.isnan(start) or bool(onset["onset_at_start"]):
        return f"by {format_count(end)}"
    return f"after {format_count(start)}, by {format_count(end)}"


def explain_onset(onset: xr.Dataset, texts: Sequence[str], name: str = "onset") -> list[str]:
    """Explain in sentences the terms that `onset_text` uses for some concepts, and no others.

    Args:
        onset: What `find_onset` or `find_saturation` gives.
        texts: What `onset_text` gives for it.
        name: `"onset"` or `"saturation"`.
    """
    margin = float(onset.attrs["margin"])
    if name == "onset":
        baselines, level = "its null", "it"
        # A text, since attributes of NetCDF cannot be true or false.
        if onset.attrs["floor"] == "True":
            baselines += " and its text floor"
            level = "the higher of them"
        event = f"became decodable: accuracy above {baselines}"
        state_before = f"the gain over {level} is at most {margin:g}"
        state_after = "decodable"
    else:
        event = f"came within {margin:g} of the last checkpoint's accuracy"
        state_before = "accuracy is lower"
        state_after = "as close"
    sentences = [f"Interval in which the concept {event}."]
    # The terms are looked up in the printed texts, so that the legend explains what stands there.
    intervals = [text for text in texts if not text.startswith(("never", "unknown"))]
    if intervals:
        # The set is two-sided, so each end errs in half of what the set as a whole may err in.
        confidence = f"{(1 + float(onset.attrs['confidence'])) / 2:.1%}"
        # Where even the first checkpoint is not excluded, nothing was shown about the time before.
        has_start = any(not text.startswith("by ") for text in intervals)
        sentences += _explain_intervals(intervals)
        sentences.append(
            f"{f'Before that, {state_before}. ' if has_start else ''}Each end is {confidence} "
            "sure, over all checkpoints."
        )
    for phrase, meaning in (
        (
            _NOT_LASTING,
            f"only from that step on is it shown to be {state_after} at every checkpoint",
        ),
        (_LOST, f"at that checkpoint, the last one, the gain is at most {margin:g} again"),
        (_NOT_SHOWN, "at that checkpoint, the last one, neither a gain nor its loss is shown"),
    ):
        if any(f", {phrase} " in text for text in texts):
            sentences.append(f"{phrase[:1].upper()}{phrase[1:]}: {meaning}.")
    for reason, meaning in EXPLANATIONS.items():
        if f"never ({reason})" in texts:
            sentences.append(f"Never ({reason}): {meaning.format(margin=margin)}.")
    return sentences


def _explain_intervals(texts: Sequence[str]) -> list[str]:
    """Explain each kind of interval among the texts, with the first one as the example."""
    sentences = []
    spans = (re.match(r"(\d+)–(\d+)", text) for text in texts)
    span = next((match for match in spans if match), None)
    if span:
        start, end = span.groups()
        sentences.append(
            f"{start}–{end}: after step {int(start) - 1} and by step {end}; checkpoints between, "
            "if any, do not decide."
        )
    if any(text.startswith("by ") for text in texts):
        sentences.append("By: at that checkpoint or before it; even the first one is not excluded.")
    return sentences


def _interval(onset: xr.Dataset, name: str) -> str:
    labels, steps = _labels(onset), _steps(onset)
    members = np.flatnonzero(onset[f"{name}_set"].values)
    # The set begins with the last checkpoint that is excluded, after which the onset lies. Where
    # the onset is at the start, even the first checkpoint is not excluded.
    start, end = members[0], members[-1]
    if bool(onset[f"{name}_at_start"]):
        step = "" if np.isnan(steps[end]) else "step "
        return f"by {step}{labels[end]}{' (first checkpoint)' if start == end else ''}"
    if np.isnan(steps[[start, end]]).any():
        return f"after {labels[start]}, by {labels[end]}"
    # Steps are whole numbers, and the step of the excluded checkpoint is not part of the range.
    first_step = steps[start] + 1
    return labels[end] if first_step == steps[end] else f"{first_step:.0f}–{labels[end]}"


def _loss(onset: xr.Dataset, name: str) -> str:
    """Describe how an answer fails to last; empty where it lasts."""
    onset_checkpoint, lasting_checkpoint = (
        str(onset[f"{key}_checkpoint"].item()) for key in (name, "lasting")
    )
    if onset_checkpoint == lasting_checkpoint:
        return ""
    labels = dict(zip(onset["checkpoint"].values.tolist(), _labels(onset), strict=True))
    if lasting_checkpoint:
        return f"{_NOT_LASTING} {labels[lasting_checkpoint]}"
    value = onset[_QUANTITIES[name]]
    last_checkpoint = onset["checkpoint"].values[value.notnull().values][-1]
    if name == "saturation":
        # The last checkpoint is the one that the others are compared with.
        return f"{_NOT_LASTING} {labels[last_checkpoint]}"
    highest = onset[f"{_QUANTITIES[name]}_ci"].sel(bound="high", checkpoint=last_checkpoint)
    return f"{_LOST if highest <= onset.attrs['margin'] else _NOT_SHOWN} {labels[last_checkpoint]}"


def _labels(onset: xr.Dataset) -> list[str]:
    """Label each checkpoint by its step where the step identifies it, else by its name."""
    names = [str(name) for name in onset["checkpoint"].values]
    # Names are `model@revision`, and the model of all checkpoints would only be repeated.
    one_model = len({name.split("@")[0] for name in names}) == 1
    return [
        f"{step:.0f}" if np.isfinite(step) else name.split("@")[-1] if one_model else name
        for step, name in zip(_steps(onset), names, strict=True)
    ]


def _steps(onset: xr.Dataset) -> Float[np.ndarray, " checkpoint"]:
    """Training steps; unknown for all if there are several stages, or steps start again."""
    steps: np.ndarray = onset["step"].values.astype(float)
    known_steps = steps[np.isfinite(steps)]
    stages = set(onset["stage"].values.tolist()) if "stage" in onset.coords else set()
    one_stage = len(stages - {"", None}) < 2
    return steps if one_stage and (np.diff(known_steps) > 0).all() else np.full_like(steps, np.nan)
