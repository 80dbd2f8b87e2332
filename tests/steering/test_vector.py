import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.concepts import Concept
from tlens_trust.steering import SteeringVector

SITES = ("blocks.1.hook_resid_post", "blocks.3.hook_resid_post")


def make_vector(seed=0, **known):
    values = torch.randn(2, 5, generator=torch.Generator().manual_seed(seed))
    return SteeringVector(values, SITES, method="mean_difference", **known)


@given(st.floats(-100, 100), st.floats(-100, 100))
def test_vectors_add_and_scale_as_a_vector_space(a, b):
    v, w = make_vector(0), make_vector(1)
    combined = (a * v + b * w).values
    assert torch.allclose(combined, a * v.values + b * w.values, atol=1e-3)
    assert torch.allclose((v - v).values, torch.zeros(2, 5))
    assert torch.allclose((a * v - a * v * 0.5).values, (v * (a / 2)).values, atol=1e-3)


def test_negation_and_division_undo_themselves():
    v = make_vector()
    assert torch.equal((-1 * -v).values, v.values)
    assert torch.allclose((v / 4 * 4).values, v.values)
    assert torch.allclose(v.cosine(-v), torch.tensor([-1.0, -1.0]))


def test_projecting_out_leaves_nothing_along_the_other_and_the_rest_alone():
    v, w = make_vector(0), make_vector(1)
    left = v.without(w)
    assert torch.allclose((left.values * w.values).sum(dim=1), torch.zeros(2), atol=1e-5)
    units = w.normalised().values
    along = (v.values * units).sum(dim=1, keepdim=True) * units
    assert torch.allclose(left.values + along, v.values, atol=1e-5)
    # The control: something was taken away.
    assert float((left.values - v.values).norm()) > 0.1


def test_the_cosine_does_not_look_at_length():
    v, w = make_vector(0), make_vector(1)
    assert torch.allclose(v.cosine(w), (3 * v).cosine(0.1 * w), atol=1e-6)
    expected = torch.nn.functional.cosine_similarity(v.values, w.values)
    assert torch.allclose(v.cosine(w), expected, atol=1e-6)


def test_what_is_made_of_two_says_so_and_keeps_what_they_share():
    v = make_vector(
        concept="toxicity", model="toy", checkpoint="toy@step1", identity="a", n=4,
        rms=torch.tensor([3.0, 1.0]), spread=torch.ones(2),
    )  # fmt: skip
    w = make_vector(
        concept="fairness", model="toy", checkpoint="toy@step1", identity="a", n=6,
        rms=torch.tensor([4.0, 1.0]),
    )  # fmt: skip
    both = v - w
    assert both.concept == "toxicity - fairness"
    assert (both.model, both.checkpoint, both.identity) == ("toy", "toy@step1", "a")
    assert both.method == "mean_difference"
    assert both.n == 10
    assert both.rms.tolist() == pytest.approx([(12.5) ** 0.5, 1.0])
    assert bool(both.spread.isnan().all())
    later = make_vector(concept="toxicity", checkpoint="toy@step2", identity="b")
    assert (v + later).checkpoint == "toy@step1 + toy@step2"
    assert (v + later).identity is None


def test_scaling_keeps_the_spread_and_the_size_of_the_stream():
    v = make_vector(rms=torch.tensor([3.0, 1.0]), spread=torch.tensor([2.0, 5.0]))
    assert (-2 * v).rms.tolist() == [3.0, 1.0]
    assert (-2 * v).spread.tolist() == [2.0, 5.0]
    assert torch.allclose((-2 * v).scaled_to_spread().norms, torch.tensor([2.0, 5.0]))
    with pytest.raises(ValueError, match="spread of projections"):
        make_vector().scaled_to_spread()


def test_a_random_one_is_as_long_and_points_elsewhere():
    wide = SteeringVector.from_direction(torch.ones(4096) * 3, site=1)
    drawn = [wide.random_like(seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0].values, drawn[1].values)
    assert torch.allclose(drawn[0].norms, wide.norms)
    assert abs(float(drawn[0].cosine(wide))) < 0.1
    assert abs(float(drawn[0].cosine(drawn[2]))) < 0.1


def test_sites_are_chosen_by_name_or_layer():
    v = make_vector(rms=torch.tensor([3.0, 1.0]))
    assert torch.equal(v.at(3), v.values[1])
    assert v.select([3, 1]).sites == SITES[::-1]
    assert v.select(3).rms.tolist() == [1.0]
    with pytest.raises(ValueError, match=r"no direction at 'blocks\.2\.hook_resid_post'"):
        v.at(2)


def test_a_vector_does_not_change_when_what_it_was_made_of_does():
    direction = torch.ones(4)
    v = SteeringVector.from_direction(direction, site=0)
    direction *= 5
    assert v.values.tolist() == [[1.0] * 4]


def test_a_vector_travels_to_another_process():
    v = make_vector(notes={"heads": "two"}, rows=(1, 2), n=2)
    found = pickle.loads(pickle.dumps(v))
    assert torch.equal(found.values, v.values)
    assert (found.notes, found.rows, found.sites) == (v.notes, v.rows, v.sites)


def test_held_out_statements_share_no_group_with_those_it_was_made_of():
    groups = tuple("aabbccdd")
    concept = Concept("x", "x", tuple("abcdefgh"), np.array([0, 1] * 4), groups)
    v = make_vector(rows=(0, 1, 4), fingerprint=concept.fingerprint)
    assert v.held_out(concept).tolist() == [False, False, True, True, False, False, True, True]
    whole = make_vector(fingerprint=concept.fingerprint)
    assert not whole.held_out(concept).any()
    with pytest.raises(ValueError, match="is not known to be estimated from the concept"):
        v.held_out(concept.take([0, 1]))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SteeringVector(torch.ones(1, 3), SITES, "x"), "one direction per site"),
        (lambda: SteeringVector(torch.ones(2, 3), (SITES[0],) * 2, "x"), "twice"),
        (lambda: SteeringVector(torch.ones(1, 3), ("resid",), "x"), "is not a site"),
        (
            lambda: SteeringVector(torch.full((1, 3), float("nan")), SITES[:1], "x"),
            "is not finite",
        ),
        (lambda: (make_vector() * 0).normalised(), "has length 0"),
        (lambda: make_vector() + make_vector().select(1), "must have the same sites"),
        (lambda: make_vector() * float("inf"), "finite number"),
        (
            lambda: SteeringVector(torch.ones(1, 3), SITES[:1], "x", rms=-torch.ones(1)),
            "one size per site",
        ),
    ],
)
def test_what_is_no_vector_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_a_notebook_shows_where_a_vector_comes_from_and_runs_no_name_of_it():
    vector = SteeringVector.from_direction(torch.arange(8.0), site=1)
    shown = replace(vector, concept="<img src=x>", checkpoint="m@step8", n=12)._repr_html_()
    assert "&lt;img src=x&gt;" in shown
    assert "<img" not in shown
    for told in ("blocks.1.hook_resid_post", "m@step8", "11.8", ">12<"):
        assert told in shown


def test_what_is_projected_out_was_made_of_statements_too():
    concept = Concept(
        "truth", "reliability", tuple(map(str, range(8))), np.arange(8) % 2, tuple("aabbccdd")
    )
    v, w = (
        make_vector(seed, rows=rows, n=2, fingerprint=concept.fingerprint)
        for seed, rows in enumerate([(0, 1), (4, 5)])
    )
    assert v.held_out(concept).tolist() == [False] * 2 + [True] * 6
    expected = [False] * 2 + [True] * 2 + [False] * 2 + [True] * 2
    for made in (v.without(w), v + w):
        assert made.held_out(concept).tolist() == expected
        assert made.n == 4
    whole = make_vector(2, rows=None, n=8, fingerprint=concept.fingerprint)
    assert not v.without(whole).held_out(concept).any()
    # A vector of other statements takes none of these.
    other = make_vector(3, rows=(4, 5), n=2, fingerprint="another")
    assert v.without(other).held_out(concept).tolist() == v.held_out(concept).tolist()
