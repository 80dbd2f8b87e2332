import numpy as np
import pytest
import torch

from tlens_trust.activations import Activations, ActivationStore
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import LinearProbe, fit_logistic_probe
from tlens_trust.measures.directions.lda import fit_lda_probe
from tlens_trust.steering import extract_steering_vector, steer
from tlens_trust.steering.methods import METHODS

SITE = "blocks.2.hook_resid_post"
N, WIDTH = 120, 16


@pytest.fixture(scope="module")
def concept():
    said = tuple(f"w{row % 90} w{row // 2}" for row in range(N))
    groups = tuple(str(row // 2) for row in range(N))
    return Concept("planted", "reliability", said, np.arange(N) % 2, groups)


@pytest.fixture(scope="module")
def axis():
    drawn = torch.randn(WIDTH, generator=torch.Generator().manual_seed(5))
    return drawn / drawn.norm()


@pytest.fixture(scope="module")
def read(concept, axis):
    """The sides differ along one axis; what pairs share is larger, and along others."""
    generator = torch.Generator().manual_seed(0)
    shared = 4 * torch.randn(N // 2, WIDTH, generator=generator).repeat_interleave(2, dim=0)
    noise = 0.5 * torch.randn(N, WIDTH, generator=generator)
    side = 2.0 * torch.tensor(concept.labels.tolist()) - 1
    values = shared + noise + 2 * side[:, None] * axis
    return Activations(values[:, None], (SITE,), concept=concept, n_layers=4)


@pytest.mark.parametrize("method", [m for m in METHODS if m not in ("iti", "sparse")])
def test_every_method_points_from_label_0_to_label_1(method, read, axis):
    vector = extract_steering_vector(read, method=method)
    cosine = float((vector.normalised().values[0] * axis).sum())
    assert cosine > 0.75
    # The control: with the labels turned round it points the other way.
    concept = read.concept
    turned = Concept("t", "t", concept.statements, 1 - concept.labels, concept.groups)
    other = extract_steering_vector(
        Activations(read.values, read.sites, concept=turned), method=method
    )
    assert float(other.cosine(vector.select([SITE]))) < -0.9


def test_the_plain_difference_is_the_difference_of_the_means(read):
    values, labels = read.values[:, 0].double(), torch.from_numpy(read.concept.labels.copy())
    expected = values[labels == 1].mean(dim=0) - values[labels == 0].mean(dim=0)
    vector = extract_steering_vector(read)
    assert torch.allclose(vector.values[0].double(), expected, atol=1e-6)
    assert vector.n == N
    assert vector.rms[0] == pytest.approx(float(values.norm(dim=1).square().mean().sqrt()))


def test_the_papers_vector_is_as_long_as_projections_onto_it_spread(read):
    vector = extract_steering_vector(read, method="tracingllm")
    values = read.values[:, 0].double().numpy()
    labels = read.concept.labels
    unit = values[labels == 1].mean(axis=0) - values[labels == 0].mean(axis=0)
    unit /= np.linalg.norm(unit)
    assert np.allclose(vector.values[0].numpy(), unit * np.std(values @ unit), atol=1e-5)


@pytest.mark.parametrize(("method", "fit"), [("logistic", None), ("lda", "groups")])
def test_a_probes_vector_lies_along_its_weights(method, fit, read):
    values, labels = read.values[:, 0], torch.from_numpy(read.concept.labels.copy())
    if fit is None:
        weights = fit_logistic_probe(values, labels).direction
    else:
        weights = fit_lda_probe(values, labels, groups=read.concept.groups).direction
    unit = weights.double() / weights.double().norm()
    vector = extract_steering_vector(read, method=method)
    spread = (values.double() @ unit).std(correction=0)
    assert torch.allclose(vector.values[0].double(), unit * spread, atol=1e-5)


def test_a_function_of_ones_own_is_a_method(read):
    def first_axis(activations, labels, groups):
        return torch.eye(WIDTH)[0]

    def as_probe(activations, labels, groups):
        return LinearProbe(torch.eye(WIDTH)[0], 0.0)

    for method in (first_axis, as_probe):
        vector = extract_steering_vector(read, method=method)
        assert vector.method == method.__name__
        assert vector.values[0].count_nonzero() == 1
        assert vector.norms[0] == pytest.approx(float(read.values[:, 0, 0].std(correction=0)))
    with pytest.raises(ValueError, match="of shape"):
        extract_steering_vector(read, method=lambda a, labels, groups: torch.ones(3))


@pytest.mark.parametrize("method", [m for m in METHODS if m != "iti"])
def test_statements_that_are_left_out_do_not_enter(method, read):
    rows = np.arange(N) < 80
    vector = extract_steering_vector(read, method=method, rows=rows)
    values = read.values.clone()
    values[80:] = 1000.0
    spoilt = Activations(values, read.sites, concept=read.concept)
    same = extract_steering_vector(spoilt, method=method, rows=list(range(80)))
    assert torch.equal(vector.values, same.values)
    assert torch.equal(vector.spread, same.spread)
    assert torch.equal(vector.rms, same.rms)
    assert vector.rows == same.rows == tuple(range(80))
    assert vector.n == 80
    assert vector.held_out(read.concept).tolist() == (~rows).tolist()
    # The control: with them, the vector is another.
    whole = extract_steering_vector(read, method=method)
    assert not torch.equal(whole.values, vector.values)


def test_heads_are_chosen_by_accuracy_on_left_out_groups(concept):
    generator = torch.Generator().manual_seed(1)
    sites = tuple(f"blocks.{layer}.attn.hook_z[{head}]" for layer in (0, 1) for head in range(3))
    values = torch.randn(N, 6, 8, generator=generator)
    side = 2.0 * torch.tensor(concept.labels.tolist()) - 1
    # Far apart but for every second group, and near but everywhere: only the latter is told.
    values[:, 1, 0] += 2 * side
    values[:, 5, 3] += 1.5 * side
    values[:, 2, 4] += 30 * side * (torch.arange(N) // 2 % 4 == 0)
    read = Activations(values, sites, concept=concept)
    vector = extract_steering_vector(read, method="iti", heads=2)
    assert vector.sites == (sites[1], sites[5])
    assert torch.allclose(
        vector.norms[0], (values[:, 1] @ vector.normalised().values[0]).std(correction=0)
    )
    assert "2 of 6" in vector.notes["heads"]
    with pytest.raises(ValueError, match="at attention heads"):
        extract_steering_vector(Activations(values[:, :1], (SITE,), concept=concept), method="iti")


@pytest.fixture(scope="module")
def checkpoint(folders):
    return Checkpoint.from_directory(folders["llama"])


def test_from_readings_in_the_store_no_model_is_loaded(checkpoint, concept, tmp_path, monkeypatch):
    store = ActivationStore(tmp_path)
    first = extract_steering_vector(checkpoint, concept, site=1, store=store)

    def fail(*args, **kwargs):
        raise AssertionError("a model was loaded")

    monkeypatch.setattr(Checkpoint, "load", fail)
    second = extract_steering_vector(checkpoint, concept, site=1, store=store)
    assert torch.equal(first.values, second.values)
    with pytest.raises(AssertionError, match="was loaded"):
        extract_steering_vector(checkpoint, concept, site=2, store=store)


def test_a_vector_says_where_it_comes_from(checkpoint, concept, tmp_path):
    vector = extract_steering_vector(
        checkpoint, concept, site=1, position="mean", store=ActivationStore(tmp_path)
    )
    assert vector.identity == checkpoint.identity
    assert (vector.model, vector.checkpoint) == ("llama", checkpoint.name)
    assert (vector.concept, vector.fingerprint) == ("planted", concept.fingerprint)
    assert (vector.position, vector.method, vector.n_layers) == ("mean", "mean_difference", 3)
    # And steers the checkpoint's own model without a warning, which would be an error here.
    with steer(checkpoint.loaded_with(device="cpu").load(), vector, strength=1.0, units="rms"):
        pass


def test_a_model_that_is_passed_and_its_checkpoint_give_one_vector(checkpoint, concept, tmp_path):
    model = checkpoint.loaded_with(device="cpu").load()
    from_model = extract_steering_vector(model, concept, site=1)
    from_checkpoint = extract_steering_vector(
        checkpoint, concept, site=1, store=ActivationStore(tmp_path)
    )
    assert torch.equal(from_model.values, from_checkpoint.values)
    assert (from_model.model, from_model.checkpoint) == ("llama", None)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"method": "magic"}, "`method` is one of 'mean_difference'"),
        ({"rows": [0, 0, 1]}, "names a statement twice"),
        ({"rows": [0, 2, 4]}, "label"),
        ({"rows": [0, 500]}, "there is no 500"),
        ({"site": 0}, "There are no activations at"),
    ],
)
def test_what_cannot_be_extracted_is_said(settings, message, read):
    with pytest.raises(ValueError, match=message):
        extract_steering_vector(read, **settings)


def test_sides_that_do_not_differ_give_no_direction(concept):
    read = Activations(torch.ones(N, 1, WIDTH), (SITE,), concept=concept)
    with pytest.raises(ValueError, match="the two sides of the concept do not differ there"):
        extract_steering_vector(read)


def test_activations_of_another_concept_are_refused(read):
    other = read.concept.take(list(range(N - 1, -1, -1)))
    with pytest.raises(ValueError, match="not from the concept"):
        extract_steering_vector(read, other)
    bare = Activations(read.values, read.sites)
    with pytest.raises(ValueError, match="do not say which labels"):
        extract_steering_vector(bare)
    assert extract_steering_vector(bare, read.concept).n == N


def test_a_model_needs_a_site_and_a_concept(own_plains, concept, tokenizer):
    with pytest.raises(ValueError, match="`site` says where"):
        extract_steering_vector(own_plains["llama"], concept, tokenizer=tokenizer)
    with pytest.raises(ValueError, match="`concept` holds the statements"):
        extract_steering_vector(own_plains["llama"], site=1, tokenizer=tokenizer)
