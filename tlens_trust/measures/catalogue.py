"""Measures by name, for use in a shell or a configuration file."""

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
    """List the names that `named_measures` accepts, each with a description.

    Examples:
        >>> list(available_measures())[:3], list(available_measures())[-1]
        (['logistic', 'mass_mean', 'lda'], 'calibration')
    """
    return {
        name: (factory.__doc__ or "").partition("\n")[0].rstrip(".")
        for name, factory in (_PROBES | _OF_LOGISTIC).items()
    }


def named_measures(names: Iterable[str]) -> tuple[Measure, ...]:
    """Make measures with default parameters, by name.

    `selectivity`, `margin` and `calibration` use the logistic probe and give no accuracy. So the
    logistic probe is added if `names` contains no probe.

    Args:
        names: Names from `available_measures()`. Repeated names count once.

    Raises:
        ValueError: A name is unknown, or `names` is empty.

    Examples:
        >>> [measure.name for measure in named_measures(["lda", "margin"])]
        ['lda', 'margin_logistic']
        >>> [measure.name for measure in named_measures(["margin"])]
        ['logistic', 'margin_logistic']
    """
    factories = _PROBES | _OF_LOGISTIC
    unique_names = list(dict.fromkeys(names))
    for name in unique_names:
        if name not in factories:
            guess = difflib.get_close_matches(name.casefold().replace("-", "_"), factories, n=1)
            raise ValueError(
                f"There is no probe named {name!r}."
                + (f" Did you mean {guess[0]!r}?" if guess else "")
                + f" Choose among {', '.join(factories)}."
            )
    if not unique_names:
        raise ValueError(f"No probe is named. Choose among {', '.join(factories)}.")
    if not set(unique_names) & set(_PROBES):
        unique_names.insert(0, "logistic")
    return tuple(factories[name]() for name in unique_names)
