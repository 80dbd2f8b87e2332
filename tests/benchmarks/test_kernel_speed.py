"""What sharing factorisations saves the kernel estimators, beside straightforward code and hyppo.

Run with `python -m pytest tests/benchmarks/test_kernel_speed.py -s`; hyppo comes with the extra
`bench`. Every round runs both
contenders one after the other, so that another load on the machine falls on both, and ratios are
medians over rounds. One thread for all: where another process takes a core, threads wait for each
other a thousandfold, and ratios are of that. The straightforward version does one site a round;
ours is what all sites share and one site; totals are worked out for 30 sites.
"""

import statistics
import time

import numpy as np
import pytest
import torch
from threadpoolctl import threadpool_limits

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import kernel_dependence, tracingllm_dependence
from tlens_trust.measures.kernels.normalised import resolvent
from tlens_trust.measures.kernels.permutation_test import permutation_test, permutation_test_labels
from tlens_trust.measures.kernels.tracingllm_dependence import (
    EPSILON,
    SIGMA,
    tracingllm_factor,
    tracingllm_kernel,
)

SITES, WIDTH = 30, 576


@pytest.fixture(autouse=True)
def _one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


def timed(run):
    start = time.perf_counter()
    result = run()
    return time.perf_counter() - start, result


def readings(n: int, sites: int, seed: int = 0) -> torch.Tensor:
    """A residual stream: each site adds to the one before; the spectrum falls off."""
    generator = torch.Generator().manual_seed(seed)
    spread = torch.arange(1, WIDTH + 1) ** -0.7
    values = [torch.randn(n, WIDTH, generator=generator) * spread]
    for _ in range(sites - 1):
        mixed = torch.tanh(values[-1] @ torch.randn(WIDTH, WIDTH, generator=generator))
        values.append(values[-1] + 0.3 * mixed * spread)
    return torch.stack(values, 1)


def straightforward(x: torch.Tensor, y: torch.Tensor) -> float:
    """The reference code's estimator in float64: two inverses for each pair of readings."""
    m = len(x)
    H = torch.eye(m, dtype=torch.float64) - 1 / m
    ridge = EPSILON * m * torch.eye(m, dtype=torch.float64)
    R = []
    for values in (x, y):
        squares = values.square().sum(1)
        squared = (squares[:, None] - 2 * values @ values.T + squares).abs()
        K = torch.exp(-squared / (2 * SIGMA**2 * values.shape[1])) @ H
        R.append(K @ torch.linalg.inv(K + ridge))
    return float((R[0] * R[1].T).sum())


@pytest.mark.parametrize(("rows", "rounds"), [(1560, 3), (5200, 1)])
def test_the_papers_estimator_takes_straightforward_code_at_least_four_times_as_long(rows, rounds):
    values = readings(rows, 2).double()
    x, t = ((v - v.mean(0)) / v.std(0) for v in values.unbind(1))
    y = (torch.arange(rows) % 2).double().unsqueeze(1)
    ratios = []
    for _ in range(rounds):
        plain, expected = timed(lambda: (straightforward(x, t), straightforward(t, y)))
        shared, others = timed(lambda: [resolvent(tracingllm_kernel(v), EPSILON) for v in (x, y)])

        def one_site(others=others):
            R = resolvent(tracingllm_kernel(t), EPSILON)
            return [float(torch.dot(R.flatten(), other.flatten())) for other in others]

        own, found = timed(one_site)
        assert found == pytest.approx(expected, rel=1e-6)
        ratios.append(SITES * plain / (shared + SITES * own))
    ratio = statistics.median(ratios)
    print(
        f"\n{rows} rows: straightforward {SITES * plain:.0f} s for {SITES} sites, ours "
        f"{shared + SITES * own:.0f} s, ratio {ratio:.1f}; relative difference "
        f"{max(abs(a / b - 1) for a, b in zip(found, expected, strict=True)):.1e}"
    )
    assert ratio >= 4
    if rows < 5000:
        return
    shared, others = timed(lambda: [tracingllm_factor(v) for v in (x, y)])

    def one_site_low_rank():
        factor = tracingllm_factor(t)
        return [factor.dot(other) for other in others]

    own, found = timed(one_site_low_rank)
    ratio = SITES * plain / (shared + SITES * own)
    print(f"low rank: ours {shared + SITES * own:.0f} s, ratio {ratio:.1f}")
    for value, exact in zip(found, expected, strict=True):
        print(f"  {exact:.6f}, low rank {value.value:.6f}, its bound {value.bound:.1e}")
        assert value.value <= exact * (1 + 1e-6)
        assert exact <= value.value + value.bound + 1e-6 * exact
    assert ratio >= 20


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(("kind", "least"), [("labels", 100), ("continuous", 8)])
def test_a_thousand_permutations_take_hyppo_many_times_as_long(kind, least):
    independence = pytest.importorskip("hyppo.independence")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2000, 10, generator=generator)
    y = torch.randn(2000, 10, generator=generator)
    labels = (torch.arange(2000) % 2).int().numpy()
    other = y.double().numpy() if kind == "continuous" else labels[:, None].astype(float)

    def theirs(reps):
        return independence.Hsic().test(x.double().numpy(), other, reps=reps, auto=False)

    theirs(2)  # It compiles.
    plain = timed(lambda: theirs(100))[0] - timed(lambda: theirs(1))[0]
    if kind == "labels":
        own, found = timed(lambda: permutation_test_labels(x, labels, permutations=1000))
    else:
        own, found = timed(lambda: permutation_test(x, y, permutations=1000))
    assert found.permutations == 1000
    print(f"\n{kind}: hyppo {10 * plain:.0f} s for 1,000, ours {own:.2f} s, {10 * plain / own:.0f}")
    if kind == "continuous":
        drawn, _ = timed(lambda: permutation_test(x, y, scheme="random", permutations=100))
        print(f"drawn among all permutations: {10 * drawn:.1f} s, ratio {plain / drawn:.1f}")
    assert 10 * plain >= least * own


def test_what_the_measures_cost_for_a_concept():
    """A figure, to be held against collecting (`test_statistics_cost.py`)."""
    n = 1952
    generator = np.random.default_rng(0)
    statements = tuple(
        " ".join(f"w{w}" for w in generator.zipf(1.2, size=20) % 49_000) + f" {row}"
        for row in range(n)
    )
    groups = tuple(str(row // 2) for row in range(n))
    concept = Concept("made up", "made up", statements, np.arange(n) % 2, groups)
    sites = tuple(f"blocks.{i}.hook_resid_post" for i in range(SITES))
    read = Activations(readings(n, SITES), sites, n_layers=SITES)
    for measure in (kernel_dependence(), tracingllm_dependence()):
        cpu = time.process_time()
        seconds, _ = timed(lambda measure=measure: measure(read, concept, seed=0))
        cpu = time.process_time() - cpu
        print(f"\n{measure.name}: {seconds:.1f} s, of CPU time {cpu:.1f} s, for {SITES} sites")
        assert seconds < 150
