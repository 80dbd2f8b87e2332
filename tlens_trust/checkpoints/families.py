"""The table of published model families and of how they name their checkpoints.

A row's `revisions` are templates. The same template parses a name and formats it, so the two cannot
disagree. These are the fields of a template:

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

# Pythia's steps: 0, powers of two up to 512, then every thousandth.
_LOG_THEN_THOUSANDS = (0, *(2**power for power in range(10)), *range(1000, 143_001, 1000))

# The published steps on the hub. TransformerLens holds the same list.
_MISTRAL = (
    *range(0, 100, 10),
    *range(100, 2000, 50),
    *range(2000, 20_000, 100),
    *range(20_000, 400_001, 1000),
)


@dataclass(frozen=True)
class RevisionName:
    """What a revision's name says about its checkpoint; None for what it does not say.

    Attributes:
        step: Optimiser steps taken, or the checkpoint's number in families that count those.
        tokens: Tokens seen, as rounded in the name.
        stage: Name of the training stage, such as `stage2` or `phase1`.
        run: A seed or variant within the repository, such as `ingredient3`.
    """

    step: int
    tokens: int | None = None
    stage: str | None = None
    run: str | None = None


@dataclass(frozen=True)
class Family:
    """One family of models: how its checkpoints are named, and which are published.

    Attributes:
        name: Name of the family.
        models: Regular expression for its model ids on the hub.
        revisions: Templates of its revision names.
        schedule: The published steps; None where unknown, and then the repository is listed.
        tokens_per_step: Tokens in one step; None where unknown or not constant.
        tokens_at_zero: Tokens seen at step 0.
        main: The step of the branch `main`, where it continues the schedule.
        runs: Model ids of the family's runs, by the name that `run=` takes.
        variants: Suffixes that `run=` may add to a model id, such as `seed3` for `…-160m-seed3`.
        repository: Template of the model id, where every checkpoint has its own repository.
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
        """Parse a revision's name; None where it is not the name of a checkpoint."""
        if revision == "main" and self.main is not None:
            return RevisionName(self.main)
        for template in self.revisions:
            revision_name = parse_template(template, revision)
            if revision_name is not None:
                return revision_name
        return None

    def format(self, name: RevisionName) -> str:
        """Write a revision's name by the template that has the right fields.

        Raises:
            ValueError: No template of this family has exactly the fields that `name` has.
        """
        if name.step == self.main and name == RevisionName(name.step):
            return "main"
        # OLMo-2 has names with and without an ingredient, so the fields decide which template fits.
        known_fields = {f.name for f in fields(name) if getattr(name, f.name) is not None}
        for template in self.revisions:
            if {key for _, key, _ in _parts(template) if key} == known_fields:
                return format_template(template, name)
        raise ValueError(
            f"{self.name} names its checkpoints {' or '.join(self.revisions)}, which does not fit "
            f"{name}."
        )

    def tokens_at(self, step: int) -> int | None:
        """Return the tokens seen at a step; None where the number of tokens per step is unknown."""
        if self.tokens_per_step is None:
            return None
        return self.tokens_at_zero + step * self.tokens_per_step


def _mistral_runs(size: str, names: Mapping[str, int]) -> dict[str, str]:
    return {name: f"stanford-crfm/{name}-gpt2-{size}-x{seed}" for name, seed in names.items()}


_PYTHIA = r"EleutherAI/pythia-[\d.]+[mb](?:-deduped)?"

# The first row whose pattern matches is used, so a general pattern stands after the special ones:
# `allenai/OLMo-.+` after those of OLMo-2 and OLMo-3.
FAMILIES: tuple[Family, ...] = (
    Family(
        name="Pythia v0",
        models=_PYTHIA + "-v0",
        revisions=("step{step}",),
        # The first release of Pythia lacks the early steps.
        schedule=tuple(range(1000, 143_001, 1000)),
        tokens_per_step=2_097_152,
    ),
    Family(
        name="Pythia and PolyPythias",
        models=_PYTHIA + r"(?:-(?:data-|weight-)?seed\d)?",
        revisions=("step{step}",),
        schedule=_LOG_THEN_THOUSANDS,
        # 1024 sequences of 2048 tokens.
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
        # Steps count checkpoints: each was trained on one more of 360 equal parts of the data.
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
        models=r"(?!)",  # only folders, no model on the hub
        revisions=("checkpoint-{step}",),
    ),
)


def find_family(model: str) -> Family | None:
    """Find the family of a model id on the hub; None where it is not in the table.

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
    """Parse the name of a revision or a folder by the naming schemes of the table.

    Args:
        revision: A branch, tag or folder name.
        model: Model id on the hub. If its family is in the table, only that scheme is tried.

    Returns:
        None if the name follows none of the schemes.

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
    # The family is unknown, as for a folder, so any naming scheme may apply.
    for template in all_templates():
        revision_name = parse_template(template, revision)
        if revision_name is not None:
            return revision_name
    return None


def all_templates() -> tuple[str, ...]:
    """Return every template of the table once, in the table's order."""
    return tuple(dict.fromkeys(t for family in FAMILIES for t in family.revisions))


def parse_template(template: str, name: str) -> RevisionName | None:
    """Parse a name by one template.

    Examples:
        >>> parse_template("step-{step:k}-token-{tokens:BT}", "step-720k-token-1510B")
        RevisionName(step=720000, tokens=1510000000000, stage=None, run=None)
    """
    match = _pattern(template).fullmatch(name)
    if match is None:
        return None
    groups = match.groupdict()
    step = int(groups["step"])
    if _spec_of(template, "step") == "k":
        step *= 1000
    tokens = None
    if "tokens" in groups:
        # In floating point, 4.1T would become one token too few.
        tokens = int(Decimal(groups["tokens"][:-1]) * _UNITS[groups["tokens"][-1]])
    return RevisionName(step, tokens, groups.get("stage"), groups.get("run"))


def format_template(template: str, name: RevisionName) -> str:
    """Write a name by one template; the inverse of `parse_template`.

    Raises:
        ValueError: `name` lacks a field of the template, or its step is not a whole number of
            thousands where the template counts in thousands.

    Examples:
        >>> format_template("ckpt_{step:03}", RevisionName(7))
        'ckpt_007'
    """
    pieces = []
    for text, key, spec in _parts(template):
        pieces.append(text)
        if not key:
            continue
        value = getattr(name, key)
        if value is None:
            raise ValueError(f"{template!r} needs {key}, which {name} does not have.")
        pieces.append(_format_field(value, key, spec, template))
    return "".join(pieces)


_UNITS = {"B": 10**9, "T": 10**12}


def _format_field(value: int | str, key: str, spec: str, template: str) -> str:
    if not isinstance(value, int):
        return value
    if key == "tokens":
        # Published names write trillions with at most one decimal, and other counts as 1510B.
        unit = "T" if spec == "BT" and value >= 10**12 and value % 10**11 == 0 else "B"
        return f"{(Decimal(value) / _UNITS[unit]).normalize():f}{unit}"
    if spec == "k":
        if value % 1000:
            raise ValueError(f"{template!r} counts thousands of steps, got {value}.")
        return f"{value // 1000}k"
    return f"{value:{spec}}"


@lru_cache
def _pattern(template: str) -> re.Pattern[str]:
    pieces = []
    for text, key, spec in _parts(template):
        pieces.append(re.escape(text))
        if key == "step" and spec == "k":
            pieces.append(r"(?P<step>0|[1-9]\d*)k")
        elif key == "step" and spec:
            width = int(spec)
            # A number wider than the padding has no leading zero. So each step has one name, and
            # parsing undoes formatting.
            pieces.append(rf"(?P<step>\d{{{width}}}|[1-9]\d{{{width},}})")
        elif key == "step":
            pieces.append(r"(?P<step>0|[1-9]\d*)")
        elif key == "tokens":
            pieces.append(rf"(?P<tokens>(?:0|[1-9]\d*)(?:\.\d+)?[{spec}])")
        elif key == "stage":
            pieces.append(r"(?P<stage>(?:stage|phase)\d+)")
        elif key == "run":
            pieces.append(r"(?P<run>[a-z0-9]+(?:[-_][a-z0-9]+)*)")
    # In ASCII only, since `\d` would otherwise match the digits of every script.
    return re.compile("".join(pieces), re.ASCII)


def _parts(template: str) -> Iterator[tuple[str, str, str]]:
    for text, key, spec, _ in Formatter().parse(template):
        yield text, key or "", spec or ""


def _spec_of(template: str, field_name: str) -> str:
    return next(spec for _, key, spec in _parts(template) if key == field_name)
