"""What a user names for a sweep: checkpoints, concepts and measures, checked and in order."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, TypeAlias

from tlens_trust.checkpoints import Checkpoint, CheckpointSeries, Loading
from tlens_trust.checkpoints.plain_model import PlainModel, is_plain_model
from tlens_trust.concepts import Concept
from tlens_trust.measures import Measure, logistic_probe
from tlens_trust.tracing.assembly import CheckpointRecord, is_step_0
from tlens_trust.tracing.netcdf import check_text

Concepts: TypeAlias = Concept | Iterable[Concept] | Mapping[str, Concept]


def checked_checkpoints(series: Any) -> tuple[Checkpoint, ...]:
    """The checkpoints of a sweep, in order.

    Raises:
        ValueError: None, something else, or two of one name.
    """
    if isinstance(series, str) or not isinstance(series, Checkpoint | Iterable):
        series = [series]  # and say what it is
    found = (series,) if isinstance(series, Checkpoint) else tuple(series)
    strange = [each for each in found if not isinstance(each, Checkpoint)]
    if strange or not found:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            f"A series holds at least one Checkpoint, and nothing else, got {got}. Make one with "
            "`CheckpointSeries.from_hub`, `.from_directory` or, of models in memory, "
            "`.from_models`."
        )
    _check_distinct("checkpoint", [each.name for each in found], "Take each checkpoint once.")
    return found


def shared_loading(checkpoints: Sequence[Checkpoint]) -> Loading:
    """The one way in which all checkpoints of a sweep are loaded.

    Raises:
        ValueError: Two checkpoints are loaded in different ways, so that their activations could
            not be compared.
    """
    loading = checkpoints[0].loading
    for checkpoint in checkpoints:
        if checkpoint.loading != loading:
            raise ValueError(
                f"{checkpoints[0].name!r} is loaded with {loading} and {checkpoint.name!r} with "
                f"{checkpoint.loading}. Load all checkpoints in one way: `series.loaded_with(…)`."
            )
    return loading


def checked_concepts(concepts: Any) -> tuple[Concept, ...]:
    """The concepts of a sweep, in order, each under the name that it has in the trace.

    Raises:
        ValueError: None, something else, two of one name, or a name that no file can hold.
    """
    if isinstance(concepts, Mapping):
        pairs = list(concepts.items())
    else:
        one = isinstance(concepts, str | Concept) or not isinstance(concepts, Iterable)
        single = [concepts] if one else list(concepts)
        pairs = [(getattr(each, "name", ""), each) for each in single]
    strange = [each for _, each in pairs if not isinstance(each, Concept)]
    if strange or not pairs:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            f"`concepts` holds at least one Concept, and nothing else, got {got}. Get the "
            "embedded ones with `load_concepts()`, or make one with `Concept.from_csv`."
        )
    _check_distinct(
        "concept", [name for name, _ in pairs], "Pass a mapping from a name to each concept."
    )
    for name, _ in pairs:
        check_text(name, "The name of a concept")
    return tuple(
        concept if concept.name == name else replace(concept, name=name) for name, concept in pairs
    )


def checked_measures(measures: Any) -> tuple[Measure, ...]:
    """The measures of a sweep, in order; the logistic probe for None.

    Raises:
        ValueError: None, something else, or two of one name.
    """
    if measures is None:
        return (logistic_probe(),)
    one = isinstance(measures, str | Measure) or not isinstance(measures, Iterable)
    taken = (measures,) if one else tuple(measures)
    strange = [each for each in taken if not isinstance(each, Measure)]
    if strange or not taken:
        got = f"a {type(strange[0]).__name__}" if strange else "none"
        raise ValueError(
            "`measures` holds at least one Measure (a name, an identity, and a call), and nothing "
            f"else, got {got}. `logistic_probe()` and `mass_mean_probe()` make one."
        )
    _check_distinct("measure", [m.name for m in taken], "Give each a name of its own.")
    return taken


@dataclass(frozen=True)
class UntrainedWeights:
    """What a sweep holds its checkpoints against.

    Attributes:
        named: What a checkpoint's record says: the name of random weights, "" for step 0 of the
            same model, None for nothing.
        drawn_like: The checkpoint in whose architecture random weights are drawn; None where none
            are.
        unknown: Why there are none for some; empty where there are for all.
    """

    named: str | None
    drawn_like: Checkpoint | None = None
    unknown: str = ""


def choose_untrained(
    untrained: Any,
    series: Any,
    checkpoints: Sequence[Checkpoint],
    known: Sequence[CheckpointRecord],
    *,
    seed: int,
) -> UntrainedWeights:
    """Which untrained weights a sweep takes.

    Args:
        untrained: `"auto"`, `"step0"`, `"random"` or None.
        series: The series as it was given.
        checkpoints: What is in it.
        known: Checkpoints of earlier sweeps into the same run folder.
        seed: Draws random weights.

    Raises:
        ValueError: Another word; or what was asked for is not to be had.
    """
    if untrained is None:
        return UntrainedWeights(None, unknown="not asked for")
    if untrained not in ("auto", "step0", "random"):
        raise ValueError(
            f"`untrained` must be 'auto', 'step0', 'random' or None, got {untrained!r}."
        )
    there: list[Checkpoint | CheckpointRecord] = [*checkpoints, *known]
    begun = {each.model for each in there if is_step_0(each)}
    lacking = [each for each in checkpoints if each.model not in begun]
    if untrained != "random" and not lacking:
        return UntrainedWeights("")
    if untrained == "step0":
        raise ValueError(
            f"untrained='step0' needs step 0 of {lacking[0].model!r} among the checkpoints, and it "
            "is not there. Add it to the series, or take 'random' weights, or None."
        )
    like = (lacking or checkpoints)[0]
    name = replace(like, random_seed=seed).name
    if name in (each.name for each in checkpoints):
        return UntrainedWeights(name)
    obstacle = _why_not_drawn(like, series, checkpoints)
    if obstacle and untrained == "random":
        raise ValueError(f"There are no random weights to be had: {obstacle}. Take None.")
    if obstacle:
        return UntrainedWeights("", unknown=f"there is no step 0, and {obstacle}")
    return UntrainedWeights(name, drawn_like=like)


def _why_not_drawn(like: Checkpoint, series: Any, checkpoints: Sequence[Checkpoint]) -> str:
    models = dict.fromkeys(each.model for each in checkpoints)
    if len(models) > 1 and not isinstance(series, CheckpointSeries):
        return f"the checkpoints are of {len(models)} models, where random weights are of one"
    model = like.in_memory
    if model is not None and not isinstance(model, PlainModel) and not is_plain_model(model):
        return "models in memory that TransformerLens made do not tell how weights are drawn"
    if like.loading.device_map is not None:
        return "random weights are drawn in one place, while `device_map` spreads the others"
    return ""


def _check_distinct(what: str, names: Sequence[str], way_out: str) -> None:
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise ValueError(f"There are two {what}s named {twice[0]!r}. {way_out}")
