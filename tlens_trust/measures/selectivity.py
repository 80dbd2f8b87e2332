"""Control tasks: what a probe reads beyond what it could learn by heart.

A probe that is rich enough can learn any labels of the words that it sees, and its accuracy then
says little about the representation. A control task asks for just that: every type of statement is
given a label by lot, the same in training and in test, so that the only way to get it right is to
learn types by heart. The type is a feature of the text that recurs across groups, such as one of
its words: a type that lies within one group, and so within one fold, could not be learnt.

What Hewitt and Liang count on is that types are many. Where they are few and stand in plain sight
(the word that statements end in, read at that very word), any linear probe sorts them as it likes:
control accuracy is 1 whatever the probe, and selectivity, which cannot be above what is left, says
nothing. So by default the type is the word that differs most between statements and does not stand
where was read; and a control task that is learnt whole is said to be one.
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
# Of statements, whose type stands in another group too, where it can be helped.
_RECURRING = 0.9
# A control task that is told so well leaves selectivity no room.
_LEARNT_WHOLE = 0.95


def last_content_word(statement: str) -> str:
    """The last word that is not one of scikit-learn's English stop words, in lower case.

    Where there is none, the last word; where there is no word at all, the statement.

    Examples:
        >>> last_content_word("Paris is the capital that France chose for itself.")
        'chose'
    """
    return _content_words(statement)[-1]


def first_content_word(statement: str) -> str:
    """The first word that is not one of scikit-learn's English stop words, in lower case.

    Where there is none, the first word; where there is no word at all, the statement.

    Examples:
        >>> first_content_word("The capital of France is Paris.")
        'capital'
    """
    return _content_words(statement)[0]


def recurring_word(
    statements: Sequence[str], groups: Sequence[str], *, position: Position = "last"
) -> tuple[int, list[str]]:
    """The content word that differs most between statements and recurs in other groups.

    Of the first, the second content word and so on, that with the most types (by the exponential of
    their entropy), of those places where nine in ten statements have a word that stands in another
    group at the same place; of equals, the first. Left out is the place where was read: the last
    word for a reading from the end, the first for one from the beginning. No label is looked at.

    Args:
        statements: All of a concept's.
        groups: The group of each.
        position: Where their activations were read.

    Returns:
        Which content word it is, counted from 0, and that of each statement; where it has fewer,
        its last.

    Examples:
        >>> said = ["Reds ate plums.", "Blues ate figs.", "Reds had figs.", "Blues had plums."]
        >>> recurring_word(said, ["a", "b", "c", "d"])
        (0, ['reds', 'blues', 'reds', 'blues'])
    """
    words = [_content_words(statement) for statement in statements]
    shared = int(np.quantile([len(each) for each in words], 1 - _RECURRING))
    places = list(range(max(shared, 1)))
    from_the_end = position == "last" or (isinstance(position, int) and position < 0)
    if len(places) > 1 and from_the_end:
        ends = [_ends_in(words, statements, place) for place in places]
        places = [place for place in places if ends[place] < 0.5] or places
    elif len(places) > 1 and isinstance(position, int):
        places = places[1:]

    def rank(place: int) -> tuple[float, float]:
        types = [each[min(place, len(each) - 1)] for each in words]
        _, counts = np.unique(types, return_counts=True)
        share = counts / len(types)
        recurring = _in_several(types, groups)
        return min(recurring, _RECURRING), float(np.exp(-(share * np.log(share)).sum()))

    chosen = max(places, key=lambda place: (*rank(place), -place))
    return chosen, [each[min(chosen, len(each) - 1)] for each in words]


def _content_words(statement: str) -> list[str]:
    words = [word.lower() for word in _WORD.findall(statement)]
    content = [word for word in words if word not in ENGLISH_STOP_WORDS]
    return content or words or [statement]


def _ends_in(words: Sequence[Sequence[str]], statements: Sequence[str], place: int) -> float:
    """The share of statements of which that content word is the last of all words."""
    last = [([*_WORD.findall(statement)] or [statement])[-1].lower() for statement in statements]
    return float(
        np.mean([len(w) <= place + 1 and w[-1] == end for w, end in zip(words, last, strict=True)])
    )


def control_labels(
    types: Sequence[str], labels: Int[np.ndarray, " example"], *, seed: int
) -> Int[np.ndarray, " example"]:
    """Give every type a label by lot, with as many statements of label 1 as the concept has.

    Types are put in an order drawn by the seed; the first ones get label 1, as many as come
    closest to the concept's own number of statements with label 1. A statement's control label
    depends on the types there are and on the seed, not on the order of statements.

    Args:
        types: The type of each statement.
        labels: The concept's own labels, of which only the share of ones is used.
        seed: Draws the order.

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
            f"All {len(types)} statements are of the one type {types[0]!r}, and a control task "
            "needs at least two. Choose other types."
        )
    drawn = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names.tolist()]
    order = np.array(sorted(range(len(names)), key=lambda number: drawn[number]))
    reached = np.cumsum(sizes[order])[:-1]
    ones = 1 + int(np.abs(reached - int((labels == 1).sum())).argmin())
    of_type = np.zeros(len(names), dtype=np.int64)
    of_type[order[:ones]] = 1
    control: np.ndarray = of_type[kind]
    return control


@dataclass(frozen=True)
class SelectivityMeasure:
    """A probe's accuracy beside its accuracy on control tasks: a `Measure`.

    Attributes:
        probe: What is fitted to the concept and to the controls.
        types: The type of a statement; None for what `recurring_word` chooses.
        types_name: What to call the types.
        controls: How many control tasks are drawn.
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
        """`selectivity_` and the probe's name, and the types if they are not the default."""
        suffix = "" if self.types is None else f"_{self.types_name.split('.')[-1]}"
        return f"selectivity_{self.probe.name}{suffix}"

    @property
    def identity(self) -> str:
        """Name, types, and everything that changes the probe."""
        return (
            f"{self.name}({self.probe.identity}; types={self.types_name}, "
            f"controls={self.controls}, version=4)"
        )

    def __call__(self, activations: Activations, concept: Concept, *, seed: int) -> xr.Dataset:
        """Measure at every site.

        Args:
            activations: One reading per statement of the concept, in its order.
            concept: Labels and groups.
            seed: Deals the folds, draws the control labels and the resamples.

        Returns:
            `selectivity` and `control_accuracy`, each with its interval and number, `control_seen`
            and `control_types`.

        Raises:
            ValueError: As the probe; or all statements are of one type.
        """
        held_out, fold = self.probe.held_out(activations, concept, seed=seed)
        correct = _correct(held_out.scores, concept.labels)
        fewer = _fewer_correct(held_out.fewer, concept.labels)
        types, told_types = self._types(activations, concept)
        control = np.zeros_like(correct)
        control_fewer = None if fewer is None else np.zeros_like(fewer)
        for number in range(self.controls):
            labels = control_labels(types, concept.labels, seed=seed + number)
            fitted = self.probe.cross_fitter(
                activations.values, torch.from_numpy(labels), concept.groups, fold
            )
            control += _correct(fitted.scores, labels) / self.controls
            without = _fewer_correct(fitted.fewer, labels)
            if control_fewer is not None and without is not None:
                control_fewer += without / self.controls
        bootstrap = GroupBootstrap.draw(concept.groups, seed=seed, resamples=self.probe.resamples)
        gained = None if fewer is None or control_fewer is None else fewer - control_fewer
        gap_resampled, control_resampled = (
            bootstrap.means(rows) for rows in (correct - control, control)
        )
        gap_interval, control_interval = (
            stretched_interval(
                rows.mean(axis=0),
                resampled,
                bootstrap.groups,
                added=mean_covariance(rows, without, fold),
            )
            for rows, resampled, without in (
                (correct - control, gap_resampled, gained),
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
            attributes={"types": told_types},
            resampling=resampling,
        )
        variables |= labelled(
            "control_seen",
            np.full(len(sites), _seen_elsewhere(types, fold)),
            units=_FRACTION,
            long_name="statements whose type occurs in another fold, so that its control label can "
            "be learnt",
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
        """The type of each statement, and what it is."""
        if self.types is not None:
            return [self.types(statement) for statement in concept.statements], self.types_name
        place, types = recurring_word(
            concept.statements, concept.groups, position=activations.position
        )
        return types, f"content word {place + 1}"


def _caution(control: Float[np.ndarray, " site"], types: Sequence[str]) -> str:
    """What to say where the control task is learnt whole; empty where it is not."""
    whole = int((control >= _LEARNT_WHOLE).sum())
    if not whole:
        return ""
    return (
        f"the control task is learnt whole at {whole} of {len(control)} sites (accuracy from "
        f"{_LEARNT_WHOLE}), where selectivity could not be above {1 - _LEARNT_WHOLE:.2f} whatever "
        f"the concept. There are {len(set(types))} types for {len(types)} statements: too few, or "
        "read at the very word. Give other `types`, or a probe that can learn less, as "
        "`logistic_probe(C=[0.01])`."
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
    """The share of statements whose type occurs in several parts."""
    found: dict[str, set[object]] = {}
    for kind, part in zip(types, parts, strict=True):
        found.setdefault(kind, set()).add(part)
    return float(np.mean([len(found[kind]) > 1 for kind in types]))


_NAMED: dict[str, Callable[[str], str] | None] = {
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
    """A probe's selectivity: its accuracy minus its accuracy on control tasks.

    A control task labels every type of statement by lot (see `control_labels`), and the same kind
    of probe is fitted to it in the same folds. Selectivity near zero says that the probe would
    have read anything at all of these types; near accuracy minus one half, that it learns nothing
    by heart. `control_seen` says how many statements have a type that occurs in another fold: at
    0 nothing *could* be learnt by heart under these folds, whatever the probe.

    A control task has to be hard enough to be failed. Selectivity is never above 1 minus the
    control accuracy, and where types are few, or stand where activations are read, any linear probe
    has them all: it is low then because of the types, and not of the probe. Where the control task
    is learnt whole (accuracy from 0.95) at a site, there is a warning, and `selectivity` says so in
    its attribute `caution`. Compare the probe with a weaker one, as Hewitt and Liang do, or choose
    types that are more: `control_types` says how many there are.

    The interval is over resampled groups, paired, for the fitted probes and the control tasks
    that were drawn, and stretched for the training rows that folds share.

    Args:
        probe: Whose selectivity; None for the logistic probe.
        types: `"recurring_word"`, the word that differs most between statements, at whatever place
            but the one that was read (see `recurring_word`); `"last_word"` or `"first_word"`, of
            those that are not stop words; or a named function from a statement to its type.
        controls: How many control tasks to draw, whose accuracy is averaged.

    Returns:
        A measure named `selectivity_` and the probe's name, and the types if they are not the
        default.

    Raises:
        ValueError: `types` is none of the names nor a named function, or `controls` is less
            than 1.

    Source:
        Hewitt and Liang (2019), Designing and interpreting probes with control tasks,
        arXiv:1909.03368; here a type is a statement's and not a word's.

    Examples:
        >>> probe_selectivity().name
        'selectivity_logistic'
    """
    taken = logistic_probe() if probe is None else probe
    if callable(types):
        name = getattr(types, "__qualname__", "<nameless>")
        if "<" in name.replace("<locals>", ""):
            raise ValueError(
                "`types` must be a function with a name, since a cached result is found again by "
                f"that name, got {types!r}. Write it as a `def`."
            )
        name = f"{getattr(types, '__module__', None) or 'builtins'}.{name}"
        return SelectivityMeasure(taken, types, name, controls)
    if types not in _NAMED:
        allowed = ", ".join(f'"{name}"' for name in _NAMED)
        raise ValueError(
            f"`types` must be one of {allowed}, or a function from a statement to its type, got "
            f"{types!r}."
        )
    return SelectivityMeasure(taken, _NAMED[types], types, controls)
