"""Checks of what a sweep is given: its checkpoints, concepts, measures and untrained weights."""

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
    """List the checkpoints of a sweep, in order.

    Raises:
        ValueError: There is no checkpoint, something that is none, or two have the same name.
    """
    if isinstance(series, str) or not isinstance(series, Checkpoint | Iterable):
        series = [series]  # The error below then names its type.
    checkpoints = (series,) if isinstance(series, Checkpoint) else tuple(series)
    _check_types(
        checkpoints,
        Checkpoint,
        "A series holds at least one Checkpoint",
        "Make one with `CheckpointSeries.from_hub`, `.from_directory` or, of models in memory, "
        "`.from_models`.",
    )
    _check_distinct("checkpoint", [c.name for c in checkpoints], "Give each checkpoint once.")
    return checkpoints


def shared_loading(checkpoints: Sequence[Checkpoint]) -> Loading:
    """Find the one way in which all checkpoints of a sweep are loaded.

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
    """List the concepts of a sweep, in order, each under the name that it has in the trace.

    Raises:
        ValueError: There is no concept, something that is none, two have the same name, or a file
            cannot hold a name.
    """
    if isinstance(concepts, Mapping):
        pairs = list(concepts.items())
    else:
        # A text counts as one item, so that the error below names its type and no letter.
        is_one = isinstance(concepts, str | Concept) or not isinstance(concepts, Iterable)
        items = [concepts] if is_one else list(concepts)
        pairs = [(getattr(item, "name", ""), item) for item in items]
    _check_types(
        [item for _, item in pairs],
        Concept,
        "`concepts` holds at least one Concept",
        "Get the embedded ones with `load_concepts()`, or make one with `Concept.from_csv`.",
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
    """List the measures of a sweep, in order; the logistic probe for None.

    Raises:
        ValueError: There is no measure, something that is none, or two have the same name.
    """
    if measures is None:
        return (logistic_probe(),)
    is_one = isinstance(measures, str | Measure) or not isinstance(measures, Iterable)
    items = (measures,) if is_one else tuple(measures)
    _check_types(
        items,
        Measure,
        "`measures` holds at least one Measure (a name, an identity, and a call)",
        "`logistic_probe()` and `mass_mean_probe()` make one.",
    )
    _check_distinct("measure", [measure.name for measure in items], "Give each its own name.")
    return items


@dataclass(frozen=True)
class UntrainedWeights:
    """The untrained weights that a sweep compares its checkpoints with.

    Attributes:
        name: The name of random weights; "" for step 0 of the same model; None for no comparison.
        template: The checkpoint in whose architecture random weights are drawn; None if none are
            drawn.
        missing_reason: Why some checkpoints have no untrained weights; empty if all have them.
    """

    name: str | None
    template: Checkpoint | None = None
    missing_reason: str = ""


def choose_untrained(
    untrained: Any,
    series: Any,
    checkpoints: Sequence[Checkpoint],
    earlier_records: Sequence[CheckpointRecord],
    *,
    seed: int,
) -> UntrainedWeights:
    """Choose the untrained weights of a sweep.

    Args:
        untrained: `"auto"`, `"step0"`, `"random"` or None.
        series: The series as the user gave it.
        checkpoints: The checkpoints in it.
        earlier_records: Checkpoints of earlier sweeps into the same run folder.
        seed: Seed that draws random weights.

    Raises:
        ValueError: `untrained` is another value, or there are no such weights.
    """
    if untrained is None:
        return UntrainedWeights(None, missing_reason="not asked for")
    if untrained not in ("auto", "step0", "random"):
        raise ValueError(
            f"`untrained` must be 'auto', 'step0', 'random' or None, got {untrained!r}."
        )
    # Step 0 of an earlier sweep into the run folder serves too, without reading it again.
    available: list[Checkpoint | CheckpointRecord] = [*checkpoints, *earlier_records]
    models_with_step_0 = {c.model for c in available if is_step_0(c)}
    without_step_0 = [c for c in checkpoints if c.model not in models_with_step_0]
    if untrained != "random" and not without_step_0:
        return UntrainedWeights("")
    if untrained == "step0":
        raise ValueError(
            f"untrained='step0' needs step 0 of {without_step_0[0].model!r} among the "
            "checkpoints, and it is not there. Add it to the series, or choose 'random' or None."
        )
    template = (without_step_0 or checkpoints)[0]
    name = replace(template, random_seed=seed).name
    # The series holds these random weights itself, so that they are read once.
    if name in (checkpoint.name for checkpoint in checkpoints):
        return UntrainedWeights(name)
    obstacle = _obstacle_to_drawing(template, series, checkpoints)
    if obstacle and untrained == "random":
        raise ValueError(f"Random weights cannot be drawn: {obstacle}. Choose None.")
    if obstacle:
        return UntrainedWeights("", missing_reason=f"there is no step 0, and {obstacle}")
    return UntrainedWeights(name, template=template)


def _obstacle_to_drawing(
    template: Checkpoint, series: Any, checkpoints: Sequence[Checkpoint]
) -> str:
    """Why random weights cannot be drawn; empty if they can."""
    models = dict.fromkeys(checkpoint.model for checkpoint in checkpoints)
    if len(models) > 1 and not isinstance(series, CheckpointSeries):
        return f"the checkpoints are of {len(models)} models, where random weights are of one"
    model = template.in_memory
    if model is not None and not isinstance(model, PlainModel) and not is_plain_model(model):
        return "models in memory that TransformerLens made do not tell how weights are drawn"
    if template.loading.device_map is not None:
        return "random weights are drawn in one place, while `device_map` spreads the others"
    return ""


def _check_types(items: Sequence[object], expected: type, rule: str, advice: str) -> None:
    wrong_items = [item for item in items if not isinstance(item, expected)]
    if wrong_items or not items:
        description = f"a {type(wrong_items[0]).__name__}" if wrong_items else "none"
        raise ValueError(f"{rule}, and nothing else, got {description}. {advice}")


def _check_distinct(noun: str, names: Sequence[str], advice: str) -> None:
    repeated = [name for name in names if names.count(name) > 1]
    if repeated:
        raise ValueError(f"There are two {noun}s named {repeated[0]!r}. {advice}")
