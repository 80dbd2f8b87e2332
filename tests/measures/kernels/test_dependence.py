"""The measures of a sweep: shapes, pairing, nulls, and the trap."""

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import binom

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    CKA,
    HSIC,
    Measure,
    kernel_dependence,
    linear_normalised_hsic,
    median_widths,
    tracingllm_dependence,
    tracingllm_information,
)
from tlens_trust.measures.kernels.kernel import DeltaKernel, GaussianKernel, label_column
from tlens_trust.measures.kernels.rotations import exchange_rows
from tlens_trust.measures.kernels.tracingllm_dependence import tracingllm_features
from tlens_trust.measures.resampling import draw_rows
from tlens_trust.measures.text_features import represent_text

N, D, SITES = 120, 10, ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
QUICK = {"permutations": 99, "resamples": 8}


def concept(n=N, seed=0):
    generator = np.random.default_rng(seed)
    words = [f"w{i}" for i in range(30)]
    statements = tuple(
        " ".join([*generator.choice(words, 6), "yes" if row % 2 else "no", str(row)])
        for row in range(n)
    )
    groups = tuple(str(row // 2) for row in range(n))
    return Concept("made up", "made up", statements, np.arange(n) % 2, groups)


def activations(n=N, seed=0, dtype=torch.float64):
    """The first site holds the statement's words; the second the first's and the label."""
    generator = torch.Generator().manual_seed(seed)
    text = represent_text(concept(n).statements, components=D)
    text = text / text.std(0)
    first_site = text @ torch.randn(D, D, generator=generator).double()
    label = (torch.arange(n) % 2).double().unsqueeze(1)
    second_site = (
        torch.tanh(first_site) + 2 * label * torch.randn(1, D, generator=generator).double()
    )
    second_site = second_site + 0.2 * torch.randn(n, D, generator=generator).double()
    return Activations(torch.stack([first_site, second_site], 1).to(dtype), SITES, n_layers=2)


@pytest.fixture(scope="module")
def measured():
    return kernel_dependence(**QUICK)(activations(), concept(), seed=0)


def test_it_is_a_measure_with_a_unit_and_a_name_on_everything(measured):
    assert isinstance(kernel_dependence(), Measure)
    assert isinstance(tracingllm_dependence(), Measure)
    for name in ("cka", "hsic", "nhsic"):
        for suffix in ("", "_ci", "_draws", "_null", "_p", "_p_best", "_n"):
            attributes = measured[f"{name}{suffix}"].attrs
            assert attributes["units"] == ("statements" if suffix == "_n" else "1")
            assert "not in nats" in attributes["long_name"]
        assert measured[name].dims == ("site", "against", "variant", "width")
        assert not measured[name].isnull().any()


def test_values_are_those_of_the_array_functions(measured):
    collected, labels = activations(), label_column(concept().labels)
    first_site, second_site = collected.values[:, 0], collected.values[:, 1]
    selection = {"site": SITES[1], "variant": "raw"}
    for width in (0.5, 2.0):
        kernel = GaussianKernel(multiple=width)
        results = measured.sel(**selection, width=width)
        text = represent_text(concept().statements)
        for against, other_data, other_kernel in (
            ("first_block", first_site, None),
            ("text", text, None),
            ("label", labels, DeltaKernel()),
        ):
            values = results.sel(against=against)
            assert float(values.cka) == pytest.approx(
                CKA(kernel, other_kernel)(second_site, other_data), rel=1e-6
            )
            assert float(values.hsic) == pytest.approx(
                HSIC(kernel, other_kernel)(second_site, other_data), rel=1e-6
            )
        directions = linear_normalised_hsic(second_site, first_site, ridge=0.025 * width**2)
        assert float(results.sel(against="first_block").nhsic) == pytest.approx(
            directions, rel=1e-9
        )


def test_what_depends_lies_above_its_null_and_what_does_not_within():
    collected = activations()
    noise = torch.randn(N, 1, D, generator=torch.Generator().manual_seed(5)).double()
    sites = (*SITES, "blocks.2.hook_resid_post")
    with_noise = Activations(torch.cat([collected.values, noise], 1), sites, n_layers=3)
    data = kernel_dependence(**QUICK)(with_noise, concept(), seed=0)
    dependent = data.sel(site=SITES[1], width=1.0)
    for name in ("cka", "nhsic"):
        assert (dependent[name] > dependent[f"{name}_null"].sel(bound="high")).all()
        assert (dependent[f"{name}_p"] <= 0.02).all()
        assert (dependent[f"{name}_p_best"] >= dependent[f"{name}_p"]).all()
        unknown = data.sel(site=sites[2])
        is_inside = (unknown[name] > unknown[f"{name}_null"].sel(bound="low")) & (
            unknown[name] < unknown[f"{name}_null"].sel(bound="high")
        )
        assert is_inside.mean() > 0.6


def test_the_null_lies_about_what_shuffled_statements_give(measured):
    rows = torch.from_numpy(next(exchange_rows(concept().groups, permutations=1, seed=3)))
    collected = activations()
    shuffled_values = collected.values.clone()
    shuffled_values[:, 1] = shuffled_values[rows, 1]
    other_data = Activations(shuffled_values, SITES, n_layers=2)
    shuffled = kernel_dependence(**QUICK)(other_data, concept(), seed=0)
    selection = {"site": SITES[1], "against": "first_block", "width": 1.0, "variant": "raw"}
    for name in ("cka", "nhsic"):
        low, high = measured.sel(**selection)[f"{name}_null"].values
        margin = high - low
        assert low - margin < float(shuffled[name].sel(**selection)) < high + margin
        assert float(measured[name].sel(**selection)) > high + margin


@pytest.mark.slow
def test_where_nothing_depends_p_values_are_as_rare_as_they_say():
    n, runs, level = 40, 200, 0.05
    measure = kernel_dependence(permutations=19, resamples=2, multiples=(1.0,))
    rejected = {}
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        noise = Activations(torch.randn(n, 2, 3, generator=generator), SITES, n_layers=2)
        results = measure(noise, concept(n, seed=seed), seed=seed).sel(site=SITES[1])
        for name in ("cka", "hsic", "nhsic"):
            for place in np.ndindex(results[f"{name}_p"].shape):
                claimed = bool(results[f"{name}_p"].values[place] <= level)
                rejected[name, place] = rejected.get((name, place), 0) + claimed
    # 3 estimators against 3 with 2 variants: all of them at once.
    assert len(rejected) == 18
    assert max(rejected.values()) <= binom.ppf(0.999, runs, level)
    assert sum(rejected.values()) > 0
    label_data = measure(activations(n), concept(n), seed=0).sel(site=SITES[1], against="label")
    assert (label_data.cka_p <= level).all()


@pytest.mark.slow
def test_where_nothing_depends_the_published_estimator_is_seldom_beyond_its_null():
    # 48 of 60 rows are used, in 24 groups, which can be turned by 23 places.
    n, runs, level = 60, 300, 0.05
    measure = tracingllm_dependence(permutations=19)
    rejected = np.zeros(2)
    for seed in range(runs):
        generator = torch.Generator().manual_seed(seed)
        noise = Activations(torch.randn(n, 2, 3, generator=generator), SITES, n_layers=2)
        results = measure(noise, concept(n, seed=seed), seed=seed).sel(site=SITES[1])
        rejected += results.nhsic_tracingllm_p.values <= level
    assert (rejected <= binom.ppf(0.999, runs, level)).all()
    assert (rejected > 0).all()


def test_replicates_have_the_value_as_their_mean_and_the_interval_as_their_spread(measured):
    for name in ("cka", "hsic", "nhsic"):
        draws = measured[f"{name}_draws"]
        assert np.allclose(draws.mean("resample"), measured[name], atol=1e-9)
        low, high = (measured[f"{name}_ci"].sel(bound=b) for b in ("low", "high"))
        assert ((low <= measured[name]) & (measured[name] <= high)).all()
        varies = measured[name].sel(site=SITES[1])
        assert (varies < high.sel(site=SITES[1])).all()


def test_halves_are_the_same_at_every_checkpoint_so_that_differences_are_paired(measured):
    collected = activations()
    nearly = Activations(
        collected.values
        + 0.01 * torch.randn(collected.values.shape, generator=torch.Generator().manual_seed(1)),
        SITES,
        n_layers=2,
    )
    other_data = kernel_dependence(**QUICK)(nearly, concept(), seed=0)
    selection = {"site": SITES[1], "against": "first_block", "variant": "raw", "width": 1.0}
    difference = (other_data.cka_draws - measured.cka_draws).sel(**selection)
    assert float(difference.std()) < 0.3 * float(measured.cka_draws.sel(**selection).std())
    unpaired = kernel_dependence(**QUICK)(nearly, concept(), seed=1)
    difference = (unpaired.cka_draws - measured.cka_draws).sel(**selection)
    assert float(difference.std()) > 0.5 * float(measured.cka_draws.sel(**selection).std())


def test_the_same_seed_gives_the_same_numbers(measured):
    again = kernel_dependence(**QUICK)(activations(), concept(), seed=0)
    assert again.identical(measured)


def test_without_the_first_block_its_column_is_unknown_and_says_what_to_read():
    collected = activations()
    alone = Activations(collected.values[:, 1:], SITES[1:], n_layers=2)
    for measure, name in (
        (kernel_dependence(**QUICK), "cka"),
        (tracingllm_dependence(permutations=9), "nhsic_tracingllm"),
    ):
        data = measure(alone, concept(), seed=0)
        assert data[name].sel(against="first_block").isnull().all()
        assert not data[name].sel(against="label").isnull().any()
        assert SITES[0] in data[name].attrs["first_block"]


def test_a_site_where_all_statements_are_alike_is_unknown_and_no_other():
    collected = activations()
    values = collected.values.clone()
    values[:, 1] = 3.0
    data = kernel_dependence(**QUICK)(Activations(values, SITES, n_layers=2), concept(), seed=0)
    assert data.cka.sel(site=SITES[1]).isnull().all()
    assert data.nhsic_p.sel(site=SITES[1]).isnull().all()
    assert not data.cka.sel(site=SITES[0]).isnull().any()


def test_the_trap_rescaling_a_spectrum_moves_the_raw_variant_alone():
    collected = activations()
    rotation, _ = torch.linalg.qr(
        torch.randn(D, D, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )
    measure = kernel_dependence(**QUICK)
    results = []
    for decay in (2.0, 0.0, 2.0):
        values = collected.values.clone()
        scores = (values[:, 1] - values[:, 1].mean(0)) @ rotation
        values[:, 1] = (scores * torch.arange(1, D + 1) ** -decay) @ rotation.T
        data = measure(Activations(values, SITES, n_layers=2), concept(), seed=0)
        results.append(data.sel(site=SITES[1]))
    for against in ("first_block", "text", "label"):
        flat = [f.sel(against=against, variant="rank_matched") for f in results]
        for name in ("cka", "nhsic", "nhsic_draws", "cka_null"):
            assert np.allclose(flat[0][name], flat[1][name], rtol=1e-4, atol=1e-5)
    raw = [float(f.nhsic.sel(against="first_block", variant="raw", width=1.0)) for f in results]
    assert raw[1] > 1.3 * raw[0]
    assert raw[0] == pytest.approx(raw[2])


def test_of_many_statements_whole_groups_are_taken_the_same_ones_at_every_checkpoint():
    groups = [str(row // 3) for row in range(60)]
    rows = draw_rows(groups, most=25, seed=0)
    assert len(rows) == 24
    assert sorted({row // 3 for row in rows.tolist()}) == sorted(set((rows[::3] // 3).tolist()))
    assert np.array_equal(rows, draw_rows(groups, most=25, seed=0))
    assert not np.array_equal(rows, draw_rows(groups, most=25, seed=1))
    data = kernel_dependence(**QUICK, examples=50)(activations(), concept(), seed=0)
    assert data.cka_n.values.tolist() == [50, 50]


def test_float32_activations_give_what_float64_ones_do():
    wide = kernel_dependence(**QUICK)(activations(), concept(), seed=0)
    narrow = kernel_dependence(**QUICK)(activations(dtype=torch.float32), concept(), seed=0)
    for name in ("cka", "nhsic"):
        assert np.allclose(wide[name], narrow[name], rtol=1e-4)


def test_every_parameter_is_part_of_the_identity():
    base = kernel_dependence()
    changed = {
        "multiples": (1.0,),
        "components": 5,
        "ridge": 0.1,
        "permutations": 10,
        "resamples": 4,
        "examples": 100,
        "widths": (("blocks.0.hook_resid_post", 1.0),),
    }
    assert set(changed) == {field.name for field in dataclasses.fields(base)}
    identities = {dataclasses.replace(base, **{k: v}).identity for k, v in changed.items()}
    assert len(identities | {base.identity}) == 1 + len(changed)


@pytest.mark.parametrize(
    "wrong",
    [{"multiples": ()}, {"multiples": (0.0,)}, {"components": 0}, {"ridge": 0.0}, {"resamples": 1}],
    ids=str,
)
def test_parameters_out_of_their_range_are_refused(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        kernel_dependence(**wrong)


def test_activations_of_other_statements_and_too_few_groups_are_refused():
    with pytest.raises(ValueError, match="has 100"):
        kernel_dependence()(activations(), concept(100), seed=0)
    with pytest.raises(ValueError, match="has 100"):
        tracingllm_dependence()(activations(), concept(100), seed=0)
    with pytest.raises(ValueError, match="at least 8"):
        kernel_dependence()(activations(12), concept(12), seed=0)


def test_a_fixed_width_is_the_same_at_every_checkpoint_and_then_size_counts():
    collected = activations()
    larger = dataclasses.replace(collected, values=4 * collected.values)
    own_widths = kernel_dependence(**QUICK)
    fixed_widths = kernel_dependence(**QUICK, widths=median_widths(collected))
    results = {
        name: [measure(data_set, concept(), seed=0) for data_set in (collected, larger)]
        for name, measure in (("own", own_widths), ("fixed", fixed_widths))
    }
    for name in ("cka", "hsic", "nhsic"):
        np.testing.assert_allclose(results["own"][0][name], results["fixed"][0][name], rtol=1e-6)
        np.testing.assert_allclose(results["own"][0][name], results["own"][1][name], rtol=1e-4)
    one, other_data = (
        data_set.cka.sel(against="first_block", width=1.0) for data_set in results["fixed"]
    )
    assert (abs(one - other_data).sel(variant="raw") > 0.05).any()
    # The rank-matched variant has no unit of its own, so a fixed width does not change it.
    flat, other_flat = (data_set.sel(variant="rank_matched") for data_set in (one, other_data))
    np.testing.assert_allclose(flat, other_flat, rtol=1e-4)
    with pytest.raises(ValueError, match=r"no width for the site 'blocks.1"):
        kernel_dependence(widths={SITES[0]: 1.0})(collected, concept(), seed=0)
    with pytest.raises(ValueError, match=r"`widths\['blocks.0.*must be a positive number, got nan"):
        kernel_dependence(widths={SITES[0]: float("nan")})


def test_the_papers_protocol_has_a_name():
    assert kernel_dependence(protocol="tracingllm", permutations=7) == tracingllm_dependence(
        permutations=7
    )
    with pytest.raises(ValueError, match="takes no other argument"):
        kernel_dependence(protocol="tracingllm", ridge=0.1)
    with pytest.raises(ValueError, match="must be 'calibrated' or 'tracingllm', got 'paper'"):
        kernel_dependence(protocol="paper")


def test_the_papers_measure_is_the_papers_estimator():
    collected = activations(dtype=torch.float32)
    data = tracingllm_dependence(permutations=99)(collected, concept(), seed=0)
    first_site, second_site = (tracingllm_features(collected.values[:, s]) for s in (0, 1))
    labels = label_column(concept().labels[: len(first_site)])
    for site, t in zip(SITES, (first_site, second_site), strict=True):
        results = data.nhsic_tracingllm.sel(site=site)
        assert float(results.sel(against="first_block")) == pytest.approx(
            tracingllm_information(first_site, t), rel=1e-6
        )
        assert float(results.sel(against="label")) == pytest.approx(
            tracingllm_information(t, labels), rel=1e-6
        )
    assert data.nhsic_tracingllm_n.values.tolist() == [96, 96]
    # What the first permutation would give were it none.
    assert float(data.nhsic_tracingllm_p.sel(site=SITES[1], against="label")) <= 0.02
    low, high = data.nhsic_tracingllm_null.sel(site=SITES[1], against="label").values
    assert 0 < low < high < float(data.nhsic_tracingllm.sel(site=SITES[1], against="label"))


def test_the_papers_measure_refuses_a_first_part_with_one_label():
    sorted_labels = dataclasses.replace(concept(), labels=np.repeat([0, 1], [100, 20]))
    with pytest.raises(ValueError, match="in their order"):
        tracingllm_dependence()(activations(), sorted_labels, seed=0)


def test_text_is_represented_by_what_statements_share():
    texts = [f"The {a} {b}." for a in ("cat", "dog") for b in ("sat", "ran", "slept", "ate")]
    x = represent_text(texts)
    cats, dogs = x[:4], x[4:]
    cat_distances = torch.cdist(cats, cats)[~torch.eye(4, dtype=torch.bool)].mean()
    assert float(cat_distances) < float(torch.cdist(cats, dogs).mean())
    assert torch.equal(x, represent_text(list(texts)))
    # Case is part of the characters and not of the words.
    shouted = represent_text([*texts, *(t.upper() for t in texts)])
    assert float((shouted[:8] - shouted[8:]).norm()) > 0.1
    assert represent_text(["?", "!", ";"]).shape == (3, 1)
    with pytest.raises(ValueError, match="`components`"):
        represent_text(texts, components=0)
