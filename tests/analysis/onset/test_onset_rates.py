"""Onsets that are planted are found where they are, and none where none is, as often as is said.

Probes are really fitted, on activations whose noise changes slowly from checkpoint to checkpoint,
with groups of twins; the text is really classified.
"""

from functools import partial

import numpy as np
import pytest
import torch
import xarray as xr
from scipy.stats import binom, norm

from tlens_trust.activations import Activations
from tlens_trust.analysis.onset.onset import locate_onset, locate_saturation
from tlens_trust.analysis.onset.outcomes import CELL_VARIABLES, probe_outcomes
from tlens_trust.concepts import Concept
from tlens_trust.measures import logistic_probe
from tlens_trust.measures.resampling import GroupBootstrap

CHECKPOINTS, SITES, GROUPS, WIDTH = 8, 3, 100, 8
LEVEL = 0.025
MEASURE = logistic_probe(C=[0.01, 0.1, 1.0], resamples=20, permutations=400)
THINGS = ("lamp", "ladder", "barrel", "mirror", "chair", "bucket", "carpet", "kettle")


def twins(seed: int, told: float) -> tuple[Concept, np.ndarray]:
    """Pairs of statements, of which a share ends in a word that tells the label; and that word."""
    generator = np.random.default_rng(seed)
    labels = np.tile([0, 1], GROUPS)
    tell = generator.random(2 * GROUPS) < told
    texts = tuple(
        f"The {generator.choice(THINGS)} and the {generator.choice(THINGS)} are "
        f"{('bad', 'good')[label] if known else 'old'}"
        for label, known in zip(labels, tell, strict=True)
    )
    groups = tuple(f"{seed}/{row // 2}" for row in range(2 * GROUPS))
    concept = Concept("planted", "reliability", texts, labels, groups)
    return concept, np.where(tell, 2 * labels - 1, 0)


def kept_of(
    seed: int, strength: np.ndarray, *, told: float = 0.0, heard: float = 0.0
) -> xr.Dataset:
    """What a sweep would keep: the label at each checkpoint and site as far as `strength` says.

    `heard` is how far the word that tells the label can be read everywhere.
    """
    generator = np.random.default_rng([seed, 1])
    concept, word = twins(seed, told)
    signs = 2.0 * concept.labels - 1
    sites = tuple(f"blocks.{site}.hook_resid_post" for site in range(strength.shape[1]))
    noise = generator.standard_normal((len(signs), len(sites), WIDTH))
    cells = []
    for at_site in strength:
        fresh = generator.standard_normal(noise.shape)
        noise = 0.8 * noise + 0.6 * fresh
        values = noise.copy()
        values[:, :, 0] += np.outer(signs, at_site)
        values[:, :, 1] += heard * word[:, None]
        activations = Activations(torch.from_numpy(values).float(), sites)
        cells.append(MEASURE(activations, concept, seed=seed)[list(CELL_VARIABLES)])
    kept = xr.concat(cells, dim="checkpoint", coords="minimal", join="exact", compat="override")
    return kept.assign_coords(
        label=("example", concept.labels), group=("example", list(concept.groups))
    )


def planted(at: int, size: float) -> np.ndarray:
    """At the second site from a checkpoint on, half as far at the third, and never at the first."""
    strength = np.zeros((CHECKPOINTS, SITES))
    strength[at:, 1], strength[at:, 2] = size, size / 2
    return strength


def slowly() -> np.ndarray:
    """Rising at the second site from one checkpoint to the next, from the third on."""
    strength = np.zeros((CHECKPOINTS, SITES))
    strength[:, 1] = np.maximum(0, 0.2 * (np.arange(CHECKPOINTS) - 1))
    return strength


# Strengths, and what the text tells and is heard of. A distance of 0.75 makes a gain of about 0.25
# over a text that tells nothing, of about 0.2 over one that tells half of the labels.
NOTHING = {
    "labels mean nothing": (planted(0, 0.0), {}),
    "only what the text tells": (planted(0, 0.0), {"told": 0.5, "heard": 2.0}),
}
PLANTED = {
    "at the fourth": (planted(3, 0.75), {}),
    "at the first": (planted(0, 0.75), {}),
    "at the last": (planted(CHECKPOINTS - 1, 0.75), {}),
    "above what the text tells": (planted(4, 1.6), {"told": 0.5, "heard": 2.0}),
}
SITES_ASKED = ("best", "blocks.1.hook_resid_post")
ONSET = partial(locate_onset, margin=0.15, floor=True, level=LEVEL)
SATURATION = partial(locate_saturation, margin=0.1, floor=True, level=LEVEL)


def crossing(kept: xr.Dataset, site: str, look=ONSET):
    answers = dict(probe_outcomes(kept, None, floor=True))[site]
    bootstrap = GroupBootstrap.draw(answers.groups, seed=0, resamples=1000)
    return look(answers, bootstrap).crossing


def covers(found, at: int) -> bool:
    """Whether what came about between the checkpoint before and this one lies in the set."""
    return found.earliest <= at and (found.established is None or at <= found.established)


def naive_onset(kept: xr.Dataset) -> int | None:
    """The first checkpoint whose best site has a 95% interval above chance, as is often done."""
    right = (kept.score > 0) == (kept.label == 1)
    accuracy = right.mean("example").max("site").values
    error = np.sqrt(accuracy * (1 - accuracy) / right.sizes["example"])
    above = accuracy - 1.96 * error > 0.5
    return int(above.argmax()) if above.any() else None


def uncorrected_onset(kept: xr.Dataset) -> int | None:
    """The same bounds and p-values, each at its level, wherever they happen to be passed."""
    shown = []
    for site, answers in probe_outcomes(kept, None, floor=True):
        if site != "best":
            bootstrap = GroupBootstrap.draw(answers.groups, seed=0, resamples=1000)
            means = answers.resampled_means(
                [answers.above_chance(), answers.above_text()], bootstrap
            )
            above = (means.lower(LEVEL, over="each") > 0).all(axis=0)
            shown.append(above & (answers.p <= LEVEL))
    above = np.any(shown, axis=0)
    return int(above.argmax()) if above.any() else None


def study(runs: int, strength: np.ndarray, options: dict, look=ONSET) -> dict[str, list]:
    found = {site: [] for site in SITES_ASKED} | {"naive": [], "uncorrected": []}
    for seed in range(runs):
        kept = kept_of(seed, strength, **options)
        for site in SITES_ASKED:
            found[site].append(crossing(kept, site, look))
        found["naive"].append(naive_onset(kept))
        found["uncorrected"].append(uncorrected_onset(kept))
    return found


def at_most(level: float, runs: int) -> int:
    """How often something that happens with this probability may, but for once in a thousand."""
    return int(binom.ppf(0.999, runs, level))


def claims(found: list) -> int:
    return sum(each.established is not None for each in found)


def misses(found: list, at: int) -> int:
    return sum(not covers(each, at) for each in found)


def onset_of(strength: np.ndarray) -> int:
    return int((strength[:, 1] > 0).argmax())


@pytest.mark.parametrize("scenario", NOTHING)
def test_where_nothing_is_planted_none_is_claimed(scenario):
    found = study(6, *NOTHING[scenario])
    for site in SITES_ASKED:
        assert claims(found[site]) <= at_most(LEVEL, 6)
    # An interval for each checkpoint at its best site finds something in most of such runs.
    assert sum(each is not None for each in found["naive"]) >= 2


@pytest.mark.parametrize("scenario", ["at the fourth", "above what the text tells"])
def test_the_set_covers_a_planted_onset_and_names_it(scenario):
    strength, options = PLANTED[scenario]
    found = study(3, strength, options)
    for site in SITES_ASKED:
        assert misses(found[site], onset_of(strength)) <= at_most(2 * LEVEL, 3)
        assert claims(found[site]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("scenario", NOTHING)
def test_none_is_claimed_at_the_nominal_rate(scenario, record_property):
    found = study(200, *NOTHING[scenario])
    for site in SITES_ASKED:
        record_property(f"claimed at {site}", claims(found[site]))
        assert claims(found[site]) <= at_most(LEVEL, 200)
    for control in ("naive", "uncorrected"):
        claimed = sum(each is not None for each in found[control])
        record_property(f"claimed, {control}", claimed)
        assert claimed > at_most(LEVEL, 200)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", PLANTED)
def test_the_set_covers_the_planted_onset_at_the_nominal_rate(scenario, record_property):
    strength, options = PLANTED[scenario]
    at = onset_of(strength)
    found = study(200, strength, options)
    for site in SITES_ASKED:
        early = sum(c.established is not None and c.established < at for c in found[site])
        late = sum(c.earliest > at for c in found[site])
        record_property(f"{site}: claimed, too early, too late", (claims(found[site]), early, late))
        assert misses(found[site], at) <= at_most(2 * LEVEL, 200)
        assert early <= at_most(LEVEL, 200)
        assert late <= at_most(LEVEL, 200)
        assert claims(found[site]) >= 180


@pytest.mark.slow
def test_a_slow_rise_meets_the_set_between_its_first_trace_and_the_margin(record_property):
    strength = slowly()
    first, beyond = onset_of(strength), int((norm.cdf(strength[:, 1]) - 0.5 > 0.15).argmax())
    found = study(200, strength, {})
    for site in SITES_ASKED:
        early = sum(c.established is not None and c.established < first for c in found[site])
        late = sum(c.earliest > beyond for c in found[site])
        record_property(f"{site}: claimed, too early, too late", (claims(found[site]), early, late))
        assert early <= at_most(LEVEL, 200)
        assert late <= at_most(LEVEL, 200)


@pytest.mark.slow
@pytest.mark.parametrize("scenario", ["at the fourth", "above what the text tells"])
def test_the_set_covers_the_planted_plateau_at_the_nominal_rate(scenario, record_property):
    strength, options = PLANTED[scenario]
    at = onset_of(strength)
    found = study(200, strength, options, SATURATION)
    for site in SITES_ASKED:
        record_property(f"{site}: claimed, missed", (claims(found[site]), misses(found[site], at)))
        assert misses(found[site], at) <= at_most(2 * LEVEL, 200)


@pytest.mark.slow
def test_what_rises_at_the_last_checkpoint_is_not_said_to_be_saturated(record_property):
    found = study(200, *PLANTED["at the last"], SATURATION)
    for site in SITES_ASKED:
        record_property(f"claimed at {site}", claims(found[site]))
        assert claims(found[site]) <= at_most(LEVEL, 200)
