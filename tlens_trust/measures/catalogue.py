"""Measures by their names, for whoever cannot call a function: a shell, a table of settings."""

import difflib
from collections.abc import Callable, Iterable

from tlens_trust.measures.calibration_measure import probe_calibration
from tlens_trust.measures.cross_validation import logistic_probe, mass_mean_probe
from tlens_trust.measures.directions.contrast_consistent import ccs_probe
from tlens_trust.measures.directions.lda import lda_probe
from tlens_trust.measures.directions.pair_differences import pair_difference_probe
from tlens_trust.measures.directions.ridge import ridge_probe
from tlens_trust.measures.directions.sparse import sparse_probe
from tlens_trust.measures.margin import probe_margin
from tlens_trust.measures.measure import Measure
from tlens_trust.measures.mlp import mlp_probe
from tlens_trust.measures.selectivity import probe_selectivity

_PROBES: dict[str, Callable[[], Measure]] = {
    "logistic": logistic_probe,
    "mass_mean": mass_mean_probe,
    "lda": lda_probe,
    "ridge": ridge_probe,
    "sparse": sparse_probe,
    "ccs": ccs_probe,
    "pair_difference": pair_difference_probe,
    "mlp": mlp_probe,
}
_OF_LOGISTIC: dict[str, Callable[[], Measure]] = {
    "selectivity": probe_selectivity,
    "margin": probe_margin,
    "calibration": probe_calibration,
}


def available_measures() -> dict[str, str]:
    """The names that `named_measures` takes, each with what it stands for.

    Examples:
        >>> list(available_measures())[:3], list(available_measures())[-1]
        (['logistic', 'mass_mean', 'lda'], 'calibration')
    """
    return {
        name: (factory.__doc__ or "").partition("\n")[0].rstrip(".")
        for name, factory in (_PROBES | _OF_LOGISTIC).items()
    }


def named_measures(names: Iterable[str]) -> tuple[Measure, ...]:
    """Measures with their defaults, by name.

    `selectivity`, `margin` and `calibration` are told of the logistic probe and give no accuracy,
    so the logistic probe comes with them where no probe is named.

    Args:
        names: Of `available_measures()`; one that is there twice is taken once.

    Raises:
        ValueError: A name is unknown, or there is none.

    Examples:
        >>> [measure.name for measure in named_measures(["lda", "margin"])]
        ['lda', 'margin_logistic']
        >>> [measure.name for measure in named_measures(["margin"])]
        ['logistic', 'margin_logistic']
    """
    known = _PROBES | _OF_LOGISTIC
    wanted = list(dict.fromkeys(names))
    for name in wanted:
        if name not in known:
            near = difflib.get_close_matches(name.casefold().replace("-", "_"), known, n=1)
            raise ValueError(
                f"There is no probe named {name!r}."
                + (f" Did you mean {near[0]!r}?" if near else "")
                + f" Choose among {', '.join(known)}."
            )
    if not wanted:
        raise ValueError(f"No probe is named. Choose among {', '.join(known)}.")
    if not set(wanted) & set(_PROBES):
        wanted.insert(0, "logistic")
    return tuple(known[name]() for name in wanted)
