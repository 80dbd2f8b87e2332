"""Selects the published checkpoints that make up one training run."""

import itertools
import re
from collections.abc import Sequence

from tlens_trust.checkpoints.families import (
    Family,
    RevisionName,
    find_family,
    format_template,
    parse_revision,
)
from tlens_trust.checkpoints.hub import describe, is_offline, list_revisions


def model_of_run(family: Family, model: str, run: str) -> tuple[str, str | None]:
    """Find the model id of a run.

    Returns:
        The model id, and the run to select among its revisions. That run is None if the model id
        names it already.

    Raises:
        ValueError: The family has no such run, or `model` names a run itself.
    """
    choices = family.variants or tuple(family.runs)
    if not choices:
        return model, run
    if run not in choices:
        raise ValueError(f"No run {run!r} in {family.name}. Choose among {', '.join(choices)}.")
    if family.runs:
        return family.runs[run], None
    sibling = f"{model}-{run}"
    # With a second suffix, the id is outside the family.
    if find_family(sibling) is None:
        raise ValueError(f"{model!r} names a run already, and `run` is {run!r}. Give one of them.")
    return sibling, None


def list_published(family: Family | None, model: str) -> list[tuple[str, str | None, RevisionName]]:
    """List the repository, the revision and its parsed name for every published checkpoint."""
    if family is not None and family.repository is not None:
        return _list_repositories(family, model)
    if family is not None and family.schedule is not None and not is_offline():
        # Offline this does not suffice, since only what is in the cache can be loaded.
        names = [RevisionName(step) for step in family.schedule]
        return [(model, family.format(name), name) for name in names]
    revisions = list_revisions(model)
    parsed = [(model, revision, parse_revision(revision, model)) for revision in revisions]
    checkpoints = [(model, revision, name) for _, revision, name in parsed if name is not None]
    if not checkpoints:
        examples = ", ".join(revisions[:8]) + (", …" if len(revisions) > 8 else "")
        raise ValueError(
            f"No revision of {model!r} has the name of a checkpoint. There are {examples}. Load "
            "one of them with `Checkpoint.from_hub(model, revision=…)`."
        )
    return list(checkpoints)


def _list_repositories(family: Family, model: str) -> list[tuple[str, str | None, RevisionName]]:
    template = str(family.repository)
    runs = [run for run, repository in family.runs.items() if repository == model]
    if not runs:
        raise ValueError(
            f"{family.name} has several runs, and {model!r} names none. Give `run` as one of "
            f"{', '.join(family.runs)}."
        )
    rows = []
    for step in family.schedule or ():
        repository = format_template(template, RevisionName(step, run=runs[0]))
        if not is_offline() or _is_cached(repository):
            rows.append((repository, None, RevisionName(step)))
    if not rows:
        raise ValueError(
            f"Nothing of {model!r} is in the cache, and HF_HUB_OFFLINE is set. Download it where "
            "there is a network, or unset HF_HUB_OFFLINE."
        )
    return list(rows)


def _is_cached(repository: str) -> bool:
    try:
        return bool(describe(repository, None).weight_files())
    except ValueError:
        return False


def select_run(
    names: Sequence[RevisionName], series_name: str, *, run: str | None, stage: str | int | None
) -> list[RevisionName]:
    """Select the checkpoints that follow one another in one run."""
    stages = sorted({name.stage for name in names if name.stage is not None}, key=_number)
    if stage is not None:
        matching_stages = [s for s in stages if str(stage) in (s, str(_number(s)))]
        if not matching_stages:
            raise ValueError(
                f"No stage {stage!r} in {series_name!r}. "
                + (f"Choose among {', '.join(stages)}." if stages else "It has no stages.")
            )
        in_stages = [name for name in names if name.stage in matching_stages]
    elif stages and not _steps_continue(names, stages):
        # Steps that begin again in each stage cannot share one axis.
        in_stages = [name for name in names if name.stage in (None, stages[0])]
    else:
        in_stages = list(names)
    runs = sorted({name.run for name in in_stages if name.run is not None})
    if run is not None:
        if run not in runs:
            raise ValueError(
                f"No run {run!r} in {series_name!r}. "
                + (f"Choose among {', '.join(runs)}." if runs else "It has only one run.")
            )
        return [name for name in in_stages if name.run == run]
    # DataDecide calls the seed of its main run `default`.
    if len(runs) > 1 and "default" in runs:
        return [name for name in in_stages if name.run == "default"]
    if len(runs) > 1:
        raise ValueError(
            f"{series_name!r} has several runs: {', '.join(runs)}. Name one of them as `run`."
        )
    return in_stages


def _steps_continue(names: Sequence[RevisionName], stages: Sequence[str]) -> bool:
    """Whether the steps of every stage begin after those of the stage before it."""
    ends = [[name.step for name in names if name.stage == stage] for stage in stages]
    return all(max(a) < min(b) for a, b in itertools.pairwise(ends))


def _number(stage: str) -> int:
    return int(re.sub(r"\D", "", stage))


def training_order(name: RevisionName) -> tuple[int, int]:
    """Return the key that sorts checkpoints: first by stage, then by step."""
    return (0 if name.stage is None else _number(name.stage), name.step)


def tokens_seen(family: Family | None, name: RevisionName) -> int | None:
    """Return the tokens seen: the family's exact count if known, else the name's rounded count."""
    exact = None if family is None else family.tokens_at(name.step)
    return name.tokens if exact is None else exact
