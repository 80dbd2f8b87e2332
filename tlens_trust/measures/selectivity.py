"""Control tasks: the accuracy of a probe minus what it could reach by memorising.

A probe with enough capacity can memorise any labels of the words in its input. Its accuracy then
says little about the representation. A control task measures this. Every type of statement has a
random label, the same in training and test, so a probe can only solve the task by memorising types.
The type is a feature of the text that occurs in several groups, such as one of its words. A type
that occurs in one group, and so in one fold, could not be memorised.

The method of Hewitt and Liang assumes many types. If types are few and easy to see, any linear
probe separates them. An example is the last word of the statement, with activations collected at
that word. Then control accuracy is 1 for any probe, selectivity has no room above 0, and nothing
follows. So by default the type is the word that differs most between statements and is not at the
position of the activations. If a probe solves the control task, the measure warns.
"""

import hashlib
import re
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xarray as xr
from jaxtyping import Float, Int
from sklearn.feature_extraction.text import ENGLISH_STOP_WORDS

from tlens_trust.activations import Activations
from tlens_trust.activations.positions import Position
from tlens_trust.arguments import check_counts
from tlens_trust.concepts import Concept
from tlens_trust.measures.cross_fold import mean_covariance
from tlens_trust.measures.cross_validation import ProbeMeasure, check_probe, logistic_probe
from tlens_trust.measures.intervals import (
    difference_interval,
    fraction_interval,
    stretched_interval,
)
from tlens_trust.measures.labelled import labelled
from tlens_trust.measures.resampling import GroupBootstrap

_WORD = re.compile(r"[^\W\d_]+(?:['’-][^\W\d_]+)*")
_FRACTION = "fraction of statements"
# The share of statements whose type should occur in another group too.
_RECURRING = 0.9
# A control accuracy from which selectivity has too little room to say anything.
_SOLVED = 0.95


def last_content_word(statement: str) -> str:
    """Give the last word that is not one of scikit-learn's English stop words, in lower case.

    If all words are stop words, this is the last word. If there is no word, it is the statement.

    Examples:
        >>> last_content_word("Paris is the capital that France chose for itself.")
        'chose'
    """
    return _content_words(statement)[-1]


def first_content_word(statement: str) -> str:
    """Give the first word that is not one of scikit-learn's English stop words, in lower case.

    If all words are stop words, this is the first word. If there is no word, it is the statement.

    Examples:
        >>> first_content_word("The capital of France is Paris.")
        'capital'
    """
    return _content_words(statement)[0]


def recurring_word(
    statements: Sequence[str], groups: Sequence[str], *, position: Position = "last"
) -> tuple[int, list[str]]:
    """Find the content word that differs most between statements and occurs in several groups.

    The candidates are the first content word, the second one, and so on. A candidate qualifies if
    nine in ten statements have a word there that another group has at the same place. Of these, the
    result is the one with the most types, measured by the exponential of their entropy. Of equals,
    it is the first. The place of the activations is left out: the last word for positions counted
    from the end, and the first for positions counted from the beginning. Labels are not used.

    Args:
        statements: All statements of a concept.
        groups: The group of each statement.
        position: The position of their activations.

    Returns:
        The number of the content word, counted from 0, and this word of each statement. A statement
        with fewer content words has its last one instead.

    Examples:
        >>> texts = ["Reds ate plums.", "Blues ate figs.", "Reds had figs.", "Blues had plums."]
        >>> recurring_word(texts, ["a", "b", "c", "d"])
        (0, ['reds', 'blues', 'reds', 'blues'])
    """
    words = [_content_words(statement) for statement in statements]
    # Nine in ten statements have at least this many content words.
    common_length = int(np.quantile([len(content) for content in words], 1 - _RECURRING))
    places = list(range(max(common_length, 1)))
    from_the_end = position == "last" or (isinstance(position, int) and position < 0)
    if len(places) > 1 and from_the_end:
        ends = [_ends_in(words, statements, place) for place in places]
        places = [place for place in places if ends[place] < 0.5] or places
    elif len(places) > 1 and isinstance(position, int):
        places = places[1:]

    def rank(place: int) -> tuple[float, float]:
        types = [content[min(place, len(content) - 1)] for content in words]
        _, counts = np.unique(types, return_counts=True)
        share = counts / len(types)
        recurring = _in_several(types, groups)
        return min(recurring, _RECURRING), float(np.exp(-(share * np.log(share)).sum()))

    best_place = max(places, key=lambda place: (*rank(place), -place))
    return best_place, [content[min(best_place, len(content) - 1)] for content in words]


def _content_words(statement: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(statement)]
    content = [word for word in words if word not in ENGLISH_STOP_WORDS]
    return content or words or [statement]


def _ends_in(words: Sequence[Sequence[str]], statements: Sequence[str], place: int) -> float:
    """Compute the share of statements that end in the content word at a place."""
    endings = [([*_WORD.findall(statement)] or [statement])[-1].lower() for statement in statements]
    return float(
        np.mean(
            [
                len(content) <= place + 1 and content[-1] == ending
                for content, ending in zip(words, endings, strict=True)
            ]
        )
    )


def control_labels(
    types: Sequence[str], labels: Int[np.ndarray, " example"], *, seed: int
) -> Int[np.ndarray, " example"]:
    """Give every type a random label, with about as many statements of label 1 as the concept has.

    The seed puts the types in a random order. The first ones get label 1: as many as come closest
    to the number of statements of label 1 in the concept. The control label of a statement depends
    on the set of types and on the seed, not on the order of the statements.

    Args:
        types: The type of each statement.
        labels: The labels of the concept. Only the number of ones is used.
        seed: Seed of the order of the types.

    Returns:
        0 or 1 for each statement.

    Raises:
        ValueError: All statements are of one type.

    Examples:
        >>> types = ["red", "blue", "red", "green", "blue", "red"]
        >>> control = control_labels(types, np.array([0, 1, 0, 1, 0, 1]), seed=0)
        >>> len({(kind, label) for kind, label in zip(types, control.tolist())})
        3
    """
    names, kind, sizes = np.unique(
        np.asarray(types, dtype=str), return_inverse=True, return_counts=True
    )
    if len(names) < 2:
        raise ValueError(
            f"All {len(types)} statements have the same type {types[0]!r}, and a control task "
            "needs at least two types. Choose other types."
        )
    # Hashes, unlike draws of a generator, do not depend on the other types or their order.
    keys = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names.tolist()]
    order = np.array(sorted(range(len(names)), key=lambda number: keys[number]))
    # Without the last: at least one type keeps label 0.
    counts = np.cumsum(sizes[order])[:-1]
    ones = 1 + int(np.abs(counts - int((labels == 1).sum())).argmin())
    label_of_type = np.zeros(len(names), dtype=np.int64)
    label_of_type[order[:ones]] = 1
    control: np.ndarray = label_of_type[kind]
    return control


@dataclass(frozen=True)
class SelectivityMeasure:
    """The accuracy of a probe minus its accuracy on control tasks: a `Measure`.

    Attributes:
        probe: The probe that is fitted to the concept and to the control tasks.
        types: A function from a statement to its type. None uses `recurring_word`.
        types_name: Name of the types.
        controls: The number of control tasks.
    """

    probe: ProbeMeasure
    types: Callable[[str], str] | None
    types_name: str
    controls: int

    def __post_init__(self) -> None:
        check_probe(self.probe)
        check_counts(self, {"controls": 1})

    @property
    def name(self) -> str:
        """`selectivity_`, the name of the probe, and the types if they are not the default."""
        suffix = "" if self.types is None else f"_{self.types_name.split('.')[-1]}"
        return f"selectivity_{self.probe.name}{suffix}"

    @property
    def identity(self) -> str:
        """Give the name and every parameter that changes the result."""
        return (
            f"{self.name}({self.probe.identity}; types={self.types_name}, "
            f"controls={self.controls}, version=4)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Compute the selectivity at every site.

        Args:
            activations: One row per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Seed of the folds, the control labels and the resamples.

        Returns:
            `selectivity` and `control_accuracy`, each with its interval and number of statements,
            `control_seen` and `control_types`.

        Raises:
            ValueError: All statements have one type, or the probe raises the error.
        """
        held_out, fold = self.probe.held_out(activations, concept, seed=seed)
        correct = _correct(held_out.scores, concept.labels)
        fewer = _fewer_correct(held_out.fewer, concept.labels)
        types, types_label = self._types(activations, concept)
        control = np.zeros_like(correct)
        control_fewer = None if fewer is None else np.zeros_like(fewer)
        for number in range(self.controls):
            labels = control_labels(types, concept.labels, seed=seed + number)
            control_held_out = self.probe.cross_fitter(
                activations.values, torch.from_numpy(labels), concept.groups, fold
            )
            control += _correct(control_held_out.scores, labels) / self.controls
            task_fewer = _fewer_correct(control_held_out.fewer, labels)
            if control_fewer is not None and task_fewer is not None:
                control_fewer += task_fewer / self.controls
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=self.probe.resamples)
        gap_fewer = None if fewer is None or control_fewer is None else fewer - control_fewer
        gap_resampled, control_resampled = (
            bootstrap.means(rows) for rows in (correct - control, control)
        )
        gap_interval, control_interval = (
            stretched_interval(
                rows.mean(axis=0),
                resampled,
                bootstrap.groups,
                added=mean_covariance(rows, rows_fewer, fold),
            )
            for rows, resampled, rows_fewer in (
                (correct - control, gap_resampled, gap_fewer),
                (control, control_resampled, control_fewer),
            )
        )
        gap_interval = difference_interval(
            (correct - control).mean(axis=0), gap_interval, gap_resampled, bootstrap.groups
        )
        control_interval = fraction_interval(
            control.mean(axis=0), control_interval, control_resampled, bootstrap.groups
        )
        sites = activations.sites
        caution = _caution(control.mean(axis=0), types)
        if caution:
            warnings.warn(f"{self.name} of {concept.name!r}: {caution}", stacklevel=2)
        resampling = {"resamples": self.probe.resamples, "groups": bootstrap.groups}
        task = f"held-out accuracy of the {self.probe.name} probe on control tasks"
        gap = f"accuracy of the {self.probe.name} probe minus that on control tasks"
        variables = labelled(
            "selectivity",
            (correct - control).mean(axis=0),
            units=_FRACTION,
            long_name=gap,
            interval=gap_interval.clip(-1, 1),
            n=len(concept),
            attributes={"caution": caution} if caution else {},
            resampling=resampling,
        )
        variables |= labelled(
            "control_accuracy",
            control.mean(axis=0),
            units=_FRACTION,
            long_name=task,
            interval=control_interval,
            n=len(concept),
            attributes={"types": types_label},
            resampling=resampling,
        )
        variables |= labelled(
            "control_seen",
            np.full(len(sites), _seen_elsewhere(types, fold)),
            units=_FRACTION,
            long_name="statements whose type occurs in another fold, so that a probe can memorise "
            "its control label",
        )
        variables |= labelled(
            "control_types",
            len(set(types)),
            units="types",
            long_name="types of statements in the control tasks",
            dims=(),
        )
        return xr.Dataset(variables, coords={"site": list(sites), "bound": ["low", "high"]})

    def _types(self, activations: Activations, concept: Concept) -> tuple[list[str], str]:
        """Give the type of each statement, and a label for the types."""
        if self.types is not None:
            return [self.types(statement) for statement in concept.statements], self.types_name
        place, types = recurring_word(
            concept.statements, concept.groups, position=activations.position
        )
        return types, f"content word {place + 1}"


def _caution(control: Float[np.ndarray, " site"], types: Sequence[str]) -> str:
    """Write a caution if the probe solves the control task at some site. Otherwise it is empty."""
    solved = int((control >= _SOLVED).sum())
    if not solved:
        return ""
    return (
        f"the probe solves the control task at {solved} of {len(control)} sites (accuracy from "
        f"{_SOLVED}), where selectivity cannot be above {1 - _SOLVED:.2f} for any concept. "
        f"There are {len(set(types))} types for {len(types)} statements. They are too few, or the "
        "activations are those of the word that is the type. Give other `types`, or a probe with "
        "less capacity, such as `logistic_probe(C=[0.01])`."
    )


def _correct(
    scores: Float[np.ndarray, "example site"], labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "example site"]:
    correct: np.ndarray = ((scores > 0) == (labels == 1)[:, None]).astype(np.float64)
    return correct


def _fewer_correct(
    fewer: Float[np.ndarray, "fold example site"] | None, labels: Int[np.ndarray, " example"]
) -> Float[np.ndarray, "fold example site"] | None:
    return None if fewer is None else np.stack([_correct(scores, labels) for scores in fewer])


def _seen_elsewhere(types: Sequence[str], fold: Int[np.ndarray, " example"]) -> float:
    return _in_several(types, fold.tolist())


def _in_several(types: Sequence[str], parts: Sequence[object]) -> float:
    """Compute the share of statements whose type occurs in several parts."""
    parts_of_type: dict[str, set[object]] = {}
    for kind, part in zip(types, parts, strict=True):
        parts_of_type.setdefault(kind, set()).add(part)
    return float(np.mean([len(parts_of_type[kind]) > 1 for kind in types]))


_TYPE_FUNCTIONS: dict[str, Callable[[str], str] | None] = {
    "recurring_word": None,
    "last_word": last_content_word,
    "first_word": first_content_word,
}


def probe_selectivity(
    probe: ProbeMeasure | None = None,
    *,
    types: str | Callable[[str], str] = "recurring_word",
    controls: int = 3,
) -> SelectivityMeasure:
    """The selectivity of a probe as a measure: its accuracy minus that on control tasks.

    A control task gives every type of statement a random label (see `control_labels`). The same
    kind of probe is fitted to it in the same folds. If selectivity is near zero, the probe could
    decode any labels of these types. If it is near accuracy minus one half, the probe memorises
    nothing. `control_seen` is the share of statements with a type that occurs in another fold. At
    0, no probe *could* memorise anything under these folds.

    A control task must be hard enough that a probe can fail it. Selectivity is never above 1 minus
    the control accuracy. If types are few, or are at the position of the activations, any linear
    probe solves the task. Selectivity is then low because of the types, not because of the probe.
    If the probe solves the task (accuracy from 0.95) at a site, the measure warns, and
    `selectivity` has an attribute `caution`. Compare the probe with a weaker one, as Hewitt and
    Liang do, or choose more types. `control_types` is their number.

    The interval is over resampled groups, paired, for these fitted probes and these control tasks.
    It is stretched for the training rows that folds share.

    Args:
        probe: The measure of the probe. None uses the logistic probe.
        types: The type of a statement. `"recurring_word"` is the word that differs most between
            statements, not at the position of the activations (see `recurring_word`).
            `"last_word"` and `"first_word"` are the last and the first word that is not a stop
            word. Or give a function, with a name, from a statement to its type.
        controls: The number of control tasks, over which the control accuracy is averaged.

    Returns:
        A measure. Its name is `selectivity_`, the name of the probe, and the types if they are not
        the default.

    Raises:
        ValueError: `types` is neither one of the names nor a function with a name, or `controls`
            is less than 1.

    Source:
        Hewitt and Liang (2019), Designing and interpreting probes with control tasks,
        arXiv:1909.03368. Here types are of statements, not of words.

    Examples:
        >>> probe_selectivity().name
        'selectivity_logistic'
    """
    probe_measure = logistic_probe() if probe is None else probe
    if callable(types):
        name = getattr(types, "__qualname__", "<nameless>")
        if "<" in name.replace("<locals>", ""):
            raise ValueError(
                "`types` must be a function with a name, since the name is part of the cache key, "
                f"got {types!r}. Write it as a `def`."
            )
        name = f"{getattr(types, '__module__', None) or 'builtins'}.{name}"
        return SelectivityMeasure(probe_measure, types, name, controls)
    if types not in _TYPE_FUNCTIONS:
        allowed = ", ".join(f'"{name}"' for name in _TYPE_FUNCTIONS)
        raise ValueError(
            f"`types` must be one of {allowed}, or a function from a statement to its type, got "
            f"{types!r}."
        )
    return SelectivityMeasure(probe_measure, _TYPE_FUNCTIONS[types], types, controls)
