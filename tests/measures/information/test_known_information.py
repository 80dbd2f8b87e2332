"""Estimators as they are used, fitted and all, against information that is known."""

import numpy as np
import pytest
import torch
from scipy.integrate import quad
from scipy.optimize import brentq
from scipy.stats import binom

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    AnswerInformation,
    BarberAgakov,
    Fano,
    InfoNCE,
    NearestNeighbours,
    OnlineCoding,
    infonce,
    mlp_information,
    nearest_neighbour_information,
    online_coding,
)

RUNS = 100


def two_gaussians(distance: float) -> float:
    """I(T;Y) in nats for balanced labels and unit variance, by quadrature."""

    def density(t: float) -> float:
        parts = np.exp(-t * t / 2) + np.exp(-((t - distance) ** 2) / 2)
        return float(parts / 2 / np.sqrt(2 * np.pi))

    entropy = quad(lambda t: -density(t) * np.log(density(t)), -9, 9 + distance, limit=300)[0]
    return float(entropy - 0.5 * np.log(2 * np.pi * np.e))


def mixture(distance: float, *, n: int, d: int, seed: int):
    """Two classes apart along a direction that is no axis."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(n) % 2
    x = torch.randn(n, d, generator=generator, dtype=torch.float64)
    along = torch.ones(d, dtype=torch.float64) / d**0.5
    return x + distance * labels.unsqueeze(1) * along, labels


def gaussians(rho: float, *, n: int, d: int, seed: int):
    generator = torch.Generator().manual_seed(seed)
    x, noise = torch.randn(2, n, d, generator=generator, dtype=torch.float64)
    return x, rho * x + (1 - rho**2) ** 0.5 * noise


@pytest.mark.slow
@pytest.mark.parametrize("d", [1, 2])
@pytest.mark.parametrize("truth", [0.05, 0.2, 0.4])
@pytest.mark.parametrize("estimator", [NearestNeighbours(), BarberAgakov()], ids=repr)
def test_the_mean_over_twenty_mixtures_is_what_quadrature_gives(estimator, truth, d):
    distance = brentq(lambda apart: two_gaussians(apart) - truth, 0.01, 6)
    estimates = [estimator(*mixture(distance, n=2000, d=d, seed=seed)).value for seed in range(20)]
    assert abs(np.mean(estimates) - truth) <= max(0.02, 0.05 * truth)


@pytest.mark.slow
@pytest.mark.parametrize("estimator", [BarberAgakov, Fano, AnswerInformation])
def test_a_fitted_bound_exceeds_the_truth_beyond_its_interval_in_no_more_than_5_of_100_runs(
    estimator,
):
    truth = two_gaussians(1.0)
    lower = [
        estimator(seed=seed)(*mixture(1.0, n=600, d=5, seed=seed)).interval[0]
        for seed in range(RUNS)
    ]
    assert sum(bound > truth for bound in lower) <= 0.05 * RUNS
    # A tenth of it, they nearly all would.
    assert sum(bound > 0.1 * truth for bound in lower) > 0.5 * RUNS


@pytest.mark.slow
def test_a_critics_bound_exceeds_the_truth_beyond_its_interval_in_no_more_than_5_of_100_runs():
    truth = -np.log(1 - 0.8**2) / 2
    lower = [
        InfoNCE(folds=2, batch=100, epochs=40, seed=seed)(
            *gaussians(0.8, n=200, d=1, seed=seed)
        ).interval[0]
        for seed in range(RUNS)
    ]
    assert sum(bound > truth for bound in lower) <= 0.05 * RUNS
    assert sum(bound > 0.1 * truth for bound in lower) > 0.5 * RUNS


@pytest.mark.parametrize(
    "estimate",
    [
        lambda x, y: InfoNCE(folds=2, epochs=5)(x, y.double().unsqueeze(1)).value,
        lambda x, y: OnlineCoding(orders=1)(x, y).value,
    ],
    ids=["critic", "code"],
)
def test_a_common_scale_and_shift_move_neither_critic_nor_code(estimate):
    x, labels = mixture(2.0, n=120, d=3, seed=0)
    original = estimate(x, labels)
    assert estimate(8.0 * x + 5.0, labels) == pytest.approx(original, rel=1e-3)
    # Squaring is no change of scale.
    assert estimate(x.square(), labels) != pytest.approx(original, rel=1e-2)


def meaningless(seed: int, pairs: int = 16):
    """Twins with one label each, and activations that know neither labels nor texts."""
    generator = np.random.default_rng([seed, 3])
    words = np.array(["sea", "sky", "sun", "dew", "ice", "fog"])
    labels = np.tile([0, 1], pairs)
    texts = tuple(" ".join(generator.choice(words, 4)) + f" {row}" for row in range(2 * pairs))
    names = tuple(f"pair {row // 2}" for row in range(2 * pairs))
    values = torch.from_numpy(generator.standard_normal((2 * pairs, 1, 3))).float()
    concept = Concept("meaningless", "reliability", texts, labels, names)
    return Activations(values, ("blocks.0.hook_resid_post",)), concept


@pytest.mark.slow
@pytest.mark.parametrize(
    ("measure", "variable"),
    [
        (nearest_neighbour_information(permutations=19), "information_neighbours"),
        (online_coding(orders=1, permutations=19), "description_length"),
        (infonce(epochs=2, components=3, permutations=19), "information_infonce"),
        (mlp_information(folds=3, width=4, max_epochs=4, permutations=19), "information_ba"),
    ],
    ids=lambda bound: getattr(bound, "name", bound),
)
def test_where_labels_mean_nothing_what_is_asked_for_is_claimed_at_the_nominal_rate(
    measure, variable
):
    runs, level = RUNS, 0.05
    rejected = 0
    for seed in range(runs):
        p = measure(*meaningless(seed), seed=seed)[f"{variable}_p"]
        rejected += (p.sel(against="label") if "against" in p.dims else p).item() <= level
    assert rejected <= binom.ppf(0.99, runs, level)
