"""Which of a model's published checkpoints make up one training run."""

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
    """The model id of a run, and what is left of `run` to look for in revision names."""
    choices = family.variants or tuple(family.runs)
    if not choices:
        return model, run
    if run not in choices:
        raise ValueError(f"No run {run!r} in {family.name}. Choose among {', '.join(choices)}.")
    if family.runs:
        return family.runs[run], None
    sibling = f"{model}-{run}"
    if find_family(sibling) is None:
        raise ValueError(f"{model!r} names a run already, and `run` got {run!r}. Give one of them.")
    return sibling, None


def published(family: Family | None, model: str) -> list[tuple[str, str | None, RevisionName]]:
    """Repository, revision and meaning of every checkpoint that there is."""
    if family is not None and family.repository is not None:
        return _published_apart(family, model)
    if family is not None and family.schedule is not None and not is_offline():
        names = [RevisionName(step) for step in family.schedule]
        return [(model, family.format(name), name) for name in names]
    revisions = list_revisions(model)
    parsed = [(model, revision, parse_revision(revision, model)) for revision in revisions]
    found = [(model, revision, name) for _, revision, name in parsed if name is not None]
    if not found:
        some = ", ".join(revisions[:8]) + (", …" if len(revisions) > 8 else "")
        raise ValueError(
            f"No revision of {model!r} is named as a checkpoint: there are {some}. Read one of "
            "them with `Checkpoint.from_hub(model, revision=…)`."
        )
    return list(found)


def _published_apart(family: Family, model: str) -> list[tuple[str, str | None, RevisionName]]:
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
            f"Nothing of {model!r} is in the cache, and HF_HUB_OFFLINE is set. Fetch it where "
            "there is a network, or unset HF_HUB_OFFLINE."
        )
    return list(rows)


def _is_cached(repository: str) -> bool:
    try:
        return bool(describe(repository, None).weight_files())
    except ValueError:
        return False


def one_run(
    names: Sequence[RevisionName], where: str, *, run: str | None, stage: str | int | None
) -> list[RevisionName]:
    """Those checkpoints that follow one another in one run."""
    stages = sorted({name.stage for name in names if name.stage is not None}, key=_number)
    if stage is not None:
        wanted = [s for s in stages if str(stage) in (s, str(_number(s)))]
        if not wanted:
            raise ValueError(
                f"No stage {stage!r} in {where!r}. "
                + (f"Choose among {', '.join(stages)}." if stages else "It has no stages.")
            )
        kept = [name for name in names if name.stage in wanted]
    elif stages and not _counted_on(names, stages):
        kept = [name for name in names if name.stage in (None, stages[0])]
    else:
        kept = list(names)
    runs = sorted({name.run for name in kept if name.run is not None})
    if run is not None:
        if run not in runs:
            raise ValueError(
                f"No run {run!r} in {where!r}. "
                + (f"Choose among {', '.join(runs)}." if runs else "It has one run only.")
            )
        return [name for name in kept if name.run == run]
    if len(runs) > 1 and "default" in runs:
        return [name for name in kept if name.run == "default"]
    if len(runs) > 1:
        raise ValueError(
            f"{where!r} has several runs: {', '.join(runs)}. Name one of them as `run`."
        )
    return kept


def _counted_on(names: Sequence[RevisionName], stages: Sequence[str]) -> bool:
    """Whether each stage's steps begin behind the last stage's."""
    ends = [[name.step for name in names if name.stage == stage] for stage in stages]
    return all(max(a) < min(b) for a, b in itertools.pairwise(ends))


def _number(stage: str) -> int:
    return int(re.sub(r"\D", "", stage))


def training_order(name: RevisionName) -> tuple[int, int]:
    """What to sort checkpoints by: the stage, then the step."""
    return (0 if name.stage is None else _number(name.stage), name.step)


def tokens_seen(family: Family | None, name: RevisionName) -> int | None:
    """Tokens seen, by the family's own count where it is known, else as the name rounds them."""
    counted = None if family is None else family.tokens_at(name.step)
    return name.tokens if counted is None else counted
