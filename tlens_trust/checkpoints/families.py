"""How published families name their checkpoints: one table, read in both directions.

A row's `revisions` are templates. The same template is what a name is parsed by and what it is
formatted with, so that the two cannot drift apart:

    {step}       a whole number, no leading zeros            step1000
    {step:03}    padded with zeros to this width             ckpt_007
    {step:k}     in thousands                                step-720k
    {tokens:B}   billions of tokens                          tokens210B
    {tokens:BT}  billions, or trillions                      tokens15T
    {stage}      `stage` or `phase` and a number             stage2
    {run}        a seed or variant                           seed-default
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from decimal import Decimal
from functools import lru_cache
from string import Formatter

_LOG_THEN_THOUSANDS = (0, *(2**power for power in range(10)), *range(1000, 143_001, 1000))

# As the hub has them; TransformerLens keeps the same list, frozen.
_MISTRAL = (
    *range(0, 100, 10),
    *range(100, 2000, 50),
    *range(2000, 20_000, 100),
    *range(20_000, 400_001, 1000),
)


@dataclass(frozen=True)
class RevisionName:
    """What a revision's name says; None for what it does not say.

    Attributes:
        step: Optimiser steps taken, or the checkpoint's number in families that count those.
        tokens: Tokens seen, as rounded in the name.
        stage: One of several training stages, as `stage2` or `phase1`.
        run: A seed or variant within the repository, as `ingredient3`.
    """

    step: int
    tokens: int | None = None
    stage: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class Family:
    """One row of the table.

    Attributes:
        name: What the family is called.
        models: Pattern of its model ids on the hub.
        revisions: Templates of its revision names.
        schedule: The steps that are published, where that is known; else the repository is listed.
        tokens_per_step: Tokens in one step; None where unknown or not constant.
        tokens_at_zero: Tokens seen at step 0.
        main: The step that the branch `main` holds, where it continues the schedule.
        runs: Model ids of the family's runs by the name that `run=` takes.
        variants: What `run=` may add to a model id, as `seed3` to `…-160m` for `…-160m-seed3`.
        repository: Template of the model id where every checkpoint has a repository of its own.
    """

    name: str
    models: str
    revisions: tuple[str, ...]
    schedule: tuple[int, ...] | None = None
    tokens_per_step: int | None = None
    tokens_at_zero: int = 0
    main: int | None = None
    runs: Mapping[str, str] = field(default_factory=dict)
    variants: tuple[str, ...] = ()
    repository: str | None = None

    def parse(self, revision: str) -> RevisionName | None:
        """What a revision's name says, or None where it is no checkpoint's name."""
        if revision == "main" and self.main is not None:
            return RevisionName(self.main)
        for template in self.revisions:
            parsed = parse_template(template, revision)
            if parsed is not None:
                return parsed
        return None

    def format(self, name: RevisionName) -> str:
        """The revision's name.

        Raises:
            ValueError: No template of this family holds exactly what `name` says.
        """
        if name.step == self.main and name == RevisionName(name.step):
            return "main"
        known = {f.name for f in fields(name) if getattr(name, f.name) is not None}
        for template in self.revisions:
            if {key for _, key, _ in _parts(template) if key} == known:
                return format_template(template, name)
        raise ValueError(
            f"{self.name} names its checkpoints {' or '.join(self.revisions)}, which does not fit "
            f"{name}."
        )

    def tokens_at(self, step: int) -> int | None:
        """Tokens seen at a step, or None where the family's count is not known."""
        if self.tokens_per_step is None:
            return None
        return self.tokens_at_zero + step * self.tokens_per_step


def _mistral_runs(size: str, names: Mapping[str, int]) -> dict[str, str]:
    return {name: f"stanford-crfm/{name}-gpt2-{size}-x{seed}" for name, seed in names.items()}


_PYTHIA = r"EleutherAI/pythia-[\d.]+[mb](?:-deduped)?"

FAMILIES: tuple[Family, ...] = (
    Family(
        name="Pythia v0",
        models=_PYTHIA + "-v0",
        revisions=("step{step}",),
        schedule=tuple(range(1000, 143_001, 1000)),
        tokens_per_step=2_097_152,
    ),
    Family(
        name="Pythia and PolyPythias",
        models=_PYTHIA + r"(?:-(?:data-|weight-)?seed\d)?",
        revisions=("step{step}",),
        schedule=_LOG_THEN_THOUSANDS,
        tokens_per_step=2_097_152,
        variants=(
            *(f"seed{seed}" for seed in range(1, 10)),
            *(f"{part}-seed{seed}" for part in ("data", "weight") for seed in range(1, 4)),
            *("deduped", "v0", "deduped-v0"),
        ),
    ),
    Family(
        name="Mistral GPT-2 small",
        models=r"stanford-crfm/\w+-gpt2-small-x\d+",
        revisions=("checkpoint-{step}",),
        schedule=_MISTRAL,
        runs=_mistral_runs(
            "small",
            {"alias": 21, "battlestar": 49, "caprica": 81, "darkmatter": 343, "expanse": 777},
        ),
    ),
    Family(
        name="Mistral GPT-2 medium",
        models=r"stanford-crfm/\w+-gpt2-medium-x\d+",
        revisions=("checkpoint-{step}",),
        schedule=_MISTRAL,
        runs=_mistral_runs(
            "medium",
            {"arwen": 21, "beren": 49, "celebrimbor": 81, "durin": 343, "eowyn": 777},
        ),
    ),
    Family(
        name="Amber",
        models="LLM360/Amber",
        revisions=("ckpt_{step:03}",),
        # Counted in checkpoints: each has read one more of 360 equal parts of the data.
        schedule=tuple(range(360)),
        tokens_per_step=3_500_000_000,
        tokens_at_zero=3_500_000_000,
        main=359,
    ),
    Family(
        name="CrystalCoder",
        models="LLM360/Crystal(?:Coder)?",
        revisions=("CrystalCoder_{stage}_checkpoint_{step:06}",),
    ),
    Family(name="K2", models="LLM360/K2", revisions=("ckpt_{step:03}",)),
    Family(
        name="OLMo-2",
        models="allenai/OLMo-2-.+",
        revisions=(
            "{stage}-step{step}-tokens{tokens:B}",
            "{stage}-{run}-step{step}-tokens{tokens:B}",
        ),
    ),
    Family(name="OLMo-3", models="allenai/Olmo-3-.+", revisions=("{stage}-step{step}",)),
    Family(name="OLMo-1", models="allenai/OLMo-.+", revisions=("step{step}-tokens{tokens:B}",)),
    Family(
        name="DataDecide",
        models="allenai/DataDecide-.+",
        revisions=("step{step}-seed-{run}",),
    ),
    Family(
        name="SmolLM2",
        models="HuggingFaceTB/SmolLM2-.+-intermediate-checkpoints",
        revisions=("step-{step}",),
    ),
    Family(
        name="SmolLM3",
        models="HuggingFaceTB/SmolLM3-.+-checkpoints",
        revisions=("{stage}-step-{step}",),
        tokens_per_step=2_359_296,
    ),
    Family(
        name="Apertus",
        models="swiss-ai/Apertus-.+",
        revisions=("step{step}-tokens{tokens:BT}",),
    ),
    Family(
        name="TinyLlama",
        models="TinyLlama/.+",
        revisions=("step-{step:k}-token-{tokens:BT}",),
    ),
    Family(
        name="BLOOM",
        models="bigscience/bloom-.+-intermediate",
        revisions=("global_step{step}",),
    ),
    Family(
        name="MultiBERTs",
        models=r"google/multiberts(?:-seed_[0-4])?",
        revisions=(),
        schedule=(*range(0, 200_000, 20_000), *range(200_000, 2_000_001, 100_000)),
        runs={f"seed_{seed}": f"google/multiberts-seed_{seed}" for seed in range(5)},
        repository="google/multiberts-{run}-step_{step:k}",
    ),
    Family(
        name="Lucie",
        models="OpenLLM-France/Lucie-.+",
        revisions=("step{step:07}",),
    ),
    Family(
        name="Hugging Face Trainer",
        models=r"(?!)",  # folders, no model on the hub
        revisions=("checkpoint-{step}",),
    ),
)


def find_family(model: str) -> Family | None:
    """The row of the table that a model id on the hub belongs to, or None.

    Examples:
        >>> find_family("EleutherAI/pythia-160m-seed3").name
        'Pythia and PolyPythias'
        >>> find_family("LLM360/AmberChat") is None
        True
    """
    for family in FAMILIES:
        if re.fullmatch(family.models, model, re.IGNORECASE):
            return family
    return None


def parse_revision(revision: str, model: str | None = None) -> RevisionName | None:
    """What a revision's or folder's name says, by any scheme of the table.

    Args:
        revision: A branch, tag or folder name.
        model: Model id on the hub, whose own scheme is tried alone where it is in the table.

    Returns:
        None where no scheme parses the name.

    Examples:
        >>> parse_revision("stage2-ingredient3-step11931-tokens50B")
        RevisionName(step=11931, tokens=50000000000, stage='stage2', run='ingredient3')
        >>> parse_revision("main", "LLM360/Amber")
        RevisionName(step=359, tokens=None, stage=None, run=None)
        >>> parse_revision("main") is None
        True
    """
    family = None if model is None else find_family(model)
    if family is not None:
        return family.parse(revision)
    for template in all_templates():
        parsed = parse_template(template, revision)
        if parsed is not None:
            return parsed
    return None


def all_templates() -> tuple[str, ...]:
    """Every template of the table, each once, in the table's order."""
    return tuple(dict.fromkeys(t for family in FAMILIES for t in family.revisions))


def parse_template(template: str, name: str) -> RevisionName | None:
    """Read a name by one template.

    Examples:
        >>> parse_template("step-{step:k}-token-{tokens:BT}", "step-720k-token-1510B")
        RevisionName(step=720000, tokens=1510000000000, stage=None, run=None)
    """
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    found = match.groupdict()
    step = int(found["step"])
    if _spec_of(template, "step") == "k":
        step *= 1000
    tokens = None
    if "tokens" in found:
        tokens = int(Decimal(found["tokens"][:-1]) * _UNITS[found["tokens"][-1]])
    return RevisionName(step, tokens, found.get("stage"), found.get("run"))


def format_template(template: str, name: RevisionName) -> str:
    """Write a name by one template; the inverse of `parse_template`.

    Raises:
        ValueError: The template has a field that `name` leaves open, or writes whole thousands
            or millions only.

    Examples:
        >>> format_template("ckpt_{step:03}", RevisionName(7))
        'ckpt_007'
    """
    written = []
    for text, key, spec in _parts(template):
        written.append(text)
        if not key:
            continue
        value = getattr(name, key)
        if value is None:
            raise ValueError(f"{template!r} needs {key}, which {name} leaves open.")
        written.append(_written(value, key, spec, template))
    return "".join(written)


_UNITS = {"B": 10**9, "T": 10**12}


def _written(value: int | str, key: str, spec: str, template: str) -> str:
    if not isinstance(value, int):
        return value
    if key == "tokens":
        unit = "T" if spec == "BT" and value >= 10**12 and value % 10**11 == 0 else "B"
        return f"{(Decimal(value) / _UNITS[unit]).normalize():f}{unit}"
    if spec == "k":
        if value % 1000:
            raise ValueError(f"{template!r} counts thousands of steps, got {value}.")
        return f"{value // 1000}k"
    return f"{value:{spec}}"


@lru_cache
def _pattern(template: str) -> re.Pattern[str]:
    written = []
    for text, key, spec in _parts(template):
        written.append(re.escape(text))
        if key == "step" and spec == "k":
            written.append(r"(?P<step>0|[1-9]\d*)k")
        elif key == "step" and spec:
            width = int(spec)
            written.append(rf"(?P<step>\d{{{width}}}|[1-9]\d{{{width},}})")
        elif key == "step":
            written.append(r"(?P<step>0|[1-9]\d*)")
        elif key == "tokens":
            written.append(rf"(?P<tokens>(?:0|[1-9]\d*)(?:\.\d+)?[{spec}])")
        elif key == "stage":
            written.append(r"(?P<stage>(?:stage|phase)\d+)")
        elif key == "run":
            written.append(r"(?P<run>[a-z0-9]+(?:[-_][a-z0-9]+)*)")
    return re.compile("".join(written), re.ASCII)


def _parts(template: str) -> Iterator[tuple[str, str, str]]:
    for text, key, spec, _ in Formatter().parse(template):
        yield text, key or "", spec or ""


def _spec_of(template: str, wanted: str) -> str:
    return next(spec for _, key, spec in _parts(template) if key == wanted)
