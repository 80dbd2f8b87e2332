import numpy as np
import pytest
import torch
from scipy.stats import binom

from tlens_trust.activations import Activations
from tlens_trust.analysis import SeriesReadings, direction_genealogy
from tlens_trust.analysis.comparing.cosines import jackknife_interval
from tlens_trust.analysis.comparing.half_directions import SplitHalves
from tlens_trust.concepts import Concept

QUICK = {"splits": 4, "blocks": 5, "permutations": 20, "progress": False}


def genealogy_of(activations, **options):
    """The genealogy of activations at hand."""
    return direction_genealogy(SeriesReadings.from_activations(activations), **options)


def turned(angle, size=3.0, width=8):
    direction = np.zeros(width)
    direction[:2] = size * np.cos(angle), size * np.sin(angle)
    return direction


@pytest.fixture(scope="module")
def turning(planted):
    """Nothing at step 0; then a direction that turns by 60°, and by 90°."""
    series = planted(
        {0: None, 1: turned(0), 2: turned(0), 3: turned(np.pi / 3), 4: turned(np.pi / 2)},
        groups=150,
    )
    return {
        # A stronger penalty, on standardised features, would turn the probe's raw direction.
        kind: genealogy_of(series, direction=kind, C=10.0, **QUICK).isel(site=0)
        for kind in ("logistic", "mass_mean")
    }


ANGLES = np.array([0, 0, np.pi / 3, np.pi / 2])


def test_the_cosine_of_a_planted_rotation_is_found_once_noise_is_taken_out(turning):
    found = turning["mass_mean"].sel(space="raw").cosine_corrected.values[1:, 1:]
    np.testing.assert_allclose(found, np.cos(ANGLES[:, None] - ANGLES), atol=0.12)


def test_the_intervals_of_a_noisier_direction_hold_the_planted_rotation(turning):
    """A logistic probe's direction rests on the few statements near its boundary."""
    data = turning["logistic"].sel(space="raw").isel(source=slice(1, None), target=slice(1, None))
    low, high = (data.cosine_corrected_ci.sel(bound=bound).values for bound in ("low", "high"))
    planted = np.cos(ANGLES[:, None] - ANGLES)
    upper = np.triu_indices(4, 1)
    assert ((low <= planted) & (planted <= high))[upper].mean() >= 5 / 6
    assert np.median((high - low)[upper]) < 0.8


def test_what_two_fits_of_one_direction_reach_is_no_rotation(turning):
    raw = turning["mass_mean"].sel(space="raw")
    low, high = (raw.cosine_ci.sel(bound=bound).values for bound in ("low", "high"))
    same = raw.cosine_same.values
    # One and two have the same direction, and noise of their own: below 1, at its level.
    assert raw.cosine.values[1, 2] < 0.97
    assert low[1, 2] <= same[1, 2] <= high[1, 2]
    assert high[1, 3] < same[1, 3]


def test_where_nothing_was_planted_there_is_no_direction(turning):
    for data in turning.values():
        raw = data.sel(space="raw")
        high = raw.cosine_null.sel(bound="high")
        assert raw.cosine.values[0, 0] <= high.values[0, 0]
        assert np.isnan(raw.cosine_corrected.values[0]).all()
        assert np.isnan(raw.cosine_corrected.values[:, 0]).all()
        assert np.isfinite(raw.cosine_corrected.values[1:, 1:]).all()
        assert (np.diagonal(raw.cosine.values)[1:] > high.values[range(1, 5), range(1, 5)]).all()


def test_directions_of_one_half_alone_would_share_their_accidents(planted):
    """Without a direction, fits to the same statements agree; fits to disjoint halves do not."""
    from tlens_trust.measures.probe import fit_mass_mean_probe

    series = planted({1: None, 2: None}, groups=60, kept=0.9, seed=3)
    labels = torch.tensor(series[0].concept.labels.tolist())
    naive = [fit_mass_mean_probe(each.at(0), labels).direction for each in series]
    assert float(torch.cosine_similarity(*naive, dim=0)) > 0.6
    found = genealogy_of(series, direction="mass_mean", **QUICK).sel(space="raw")
    low, high = found.cosine_null.isel(site=0).values[0, 1]
    assert low <= float(found.cosine[0, 1, 0]) <= high


def test_the_null_is_wide_where_activations_lie_along_one_axis(planted):
    series = planted({1: None, 2: np.zeros(8)}, groups=60)
    stretched = [
        Activations(each.values * scale, each.sites, each.checkpoint, each.concept)
        for each, scale in zip(
            series, (torch.ones(8), torch.tensor([20.0, *[1.0] * 7])), strict=True
        )
    ]
    found = genealogy_of(stretched, direction="mass_mean", **QUICK).sel(space="raw")
    width = np.ptp(found.cosine_null.isel(site=0).values, axis=-1)
    assert width[1, 1] > 1.5 * width[0, 0]


def test_principal_angles_are_those_of_the_planted_plane(turning):
    angle = turning["mass_mean"].sel(space="raw").principal_angle.values[..., 0]
    assert angle[1, 2] < 30
    assert 40 < angle[1, 3] < 75
    assert angle[1, 4] > 60
    null = turning["mass_mean"].sel(space="raw").principal_angle_null.values
    assert (null[..., 0] <= null[..., 1]).all()
    assert angle[1, 1] < null[1, 1, 0, 0]


def test_a_rescaled_feature_turns_raw_directions_and_no_standardised_ones(planted):
    series = planted({1: turned(np.pi / 4), 2: turned(np.pi / 4)}, groups=150)
    scale = torch.tensor([10.0, *[1.0] * 7])
    rescaled = Activations(
        series[1].values * scale, series[1].sites, series[1].checkpoint, series[1].concept
    )
    found = genealogy_of([series[0], rescaled], **QUICK).isel(site=0)
    corrected = found.cosine_corrected.isel(source=0, target=1)
    assert float(corrected.sel(space="raw")) < 0.85
    assert float(corrected.sel(space="standardised")) > 0.9


def test_a_groups_half_depends_on_its_name_and_the_seed_alone():
    labels = np.arange(80) % 2
    groups = tuple(f"g{row // 2}" for row in range(80))
    concept = Concept("a", "a", tuple(f"s{row}" for row in range(80)), labels, groups)
    order = np.random.default_rng(0).permutation(80)
    mixed = Concept(
        "b",
        "b",
        tuple(f"t{row}" for row in order),
        1 - labels[order],
        tuple(groups[row] for row in order),
    )
    draw = {"splits": 6, "blocks": 4, "permutations": 2}
    here = SplitHalves.draw(concept, seed=1, **draw)
    there = SplitHalves.draw(mixed, seed=1, **draw)
    np.testing.assert_array_equal(here.half[:, order], there.half)
    np.testing.assert_array_equal(here.block[order], there.block)
    assert (SplitHalves.draw(concept, seed=2, **draw).half != here.half).any()
    for half in here.half:
        assert len({*zip(groups, half.tolist(), strict=True)}) == 40
        assert 0.2 < half.mean() < 0.8


def test_the_jackknife_of_a_mean_is_its_standard_error():
    values = np.random.default_rng(0).normal(size=40)
    left = [np.delete(values, number).mean() for number in range(40)]
    low, high = jackknife_interval(np.array([values.mean(), *left]))
    error = values.std(ddof=1) / np.sqrt(40)
    assert low == pytest.approx(values.mean() - 2.0227 * error, abs=1e-4)
    assert high == pytest.approx(values.mean() + 2.0227 * error, abs=1e-4)


def test_too_few_groups_or_a_wrong_argument_is_refused_in_a_sentence(planted):
    series = planted({1: turned(0), 2: turned(0)}, groups=3)
    with pytest.raises(ValueError, match="too few"):
        genealogy_of(series, splits=20, progress=False)
    with pytest.raises(ValueError, match="No direction named 'svm'"):
        genealogy_of(series, direction="svm", progress=False)
    with pytest.raises(ValueError, match="`subspace`"):
        genealogy_of(series, subspace=50, progress=False)
    with pytest.raises(ValueError, match="`C` must be positive"):
        genealogy_of(series, C=0.0, progress=False)


@pytest.mark.slow
def test_the_interval_of_a_corrected_cosine_covers_the_planted_one(planted):
    """95% intervals, by a binomial bound: at least 90% over 200 runs cover cos 45°."""
    covered = 0
    for seed in range(200):
        series = planted({1: turned(0), 2: turned(np.pi / 4)}, groups=60, seed=1000 + seed)
        found = genealogy_of(
            series, direction="mass_mean", splits=6, blocks=10, permutations=10, progress=False
        )
        low, high = found.cosine_corrected_ci.sel(space="raw").isel(source=0, target=1, site=0)
        covered += float(low) <= np.cos(np.pi / 4) <= float(high)
    assert covered >= 0.90 * 200


@pytest.mark.slow
def test_where_nothing_was_planted_cosines_leave_their_null_at_its_rate(planted):
    """300 runs, by a binomial bound: between two checkpoints, and between halves of one."""
    runs, outside = 300, np.zeros(2, dtype=int)
    for seed in range(runs):
        series = planted({1: None, 2: None}, groups=50, kept=0.8, seed=5000 + seed)
        found = genealogy_of(
            series, direction="mass_mean", splits=4, blocks=5, permutations=40, progress=False
        )
        raw = found.sel(space="raw").isel(site=0, source=0)
        low, high = (raw.cosine_null.sel(bound=bound).values for bound in ("low", "high"))
        cosine = raw.cosine.values
        outside += (cosine < low) | (cosine > high)
    most = binom.ppf(0.999, runs, 0.05)
    assert (outside <= most).all(), outside
