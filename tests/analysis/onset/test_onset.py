import json
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import beta, binom

from tlens_trust.activations import Activations
from tlens_trust.analysis import compare_checkpoints, find_forgetting, find_onset, find_saturation
from tlens_trust.analysis.onset.crossings import ResampledMeans, first_crossing
from tlens_trust.analysis.onset.onset import locate_onset, locate_saturation
from tlens_trust.analysis.onset.outcomes import SiteOutcomes, choose_sites, least_p_value
from tlens_trust.analysis.onset.reasons import (
    EXPLANATIONS,
    NOT_ABOVE_NULL,
    NOT_DECODABLE_AT_END,
    NOT_MEASURED,
    STILL_RISING,
    TEXT_ALONE,
    TOO_FEW,
)
from tlens_trust.concepts import Concept
from tlens_trust.measures import logistic_probe, tracingllm_probe
from tlens_trust.measures.resampling import GroupBootstrap
from tlens_trust.tracing.selection import checkpoint_numbers

ROWS = 300
GROUPS = tuple(f"{row}" for row in range(ROWS))
FOLD = np.arange(ROWS) % 5


def answers_of(
    *accuracies: float, text: float = 0.5, seed: int = 0, p: float = 0.001
) -> SiteOutcomes:
    """As many statements told rightly as said, which ones by chance, at each checkpoint."""
    generator = np.random.default_rng(seed)

    def told(accuracy: float) -> np.ndarray:
        return generator.permutation(np.arange(ROWS) < accuracy * ROWS)

    return SiteOutcomes(
        correct=np.stack([told(accuracy) for accuracy in accuracies]),
        fewer=None,
        text=told(text),
        text_fewer=None,
        chance=0.5,
        p=np.where(np.array(accuracies) > 0.5, p, 0.5),
        fold=FOLD,
        groups=GROUPS,
    )


def found_in(answers, where=locate_onset, *, margin=0.15, floor=True, level=0.025):
    bootstrap = GroupBootstrap.draw(answers.groups, seed=0, resamples=2000)
    return where(answers, bootstrap, margin=margin, floor=floor, level=level)


def look(answers, where=locate_onset, **options):
    return found_in(answers, where, **options).crossing


def reason_of(answers, where=locate_onset, **options):
    return found_in(answers, where, **options).reason


saturation = partial(look, where=locate_saturation, margin=0.1)


def test_an_onset_is_between_the_last_checkpoint_without_and_the_first_with_a_gain():
    found = look(answers_of(0.5, 0.5, 0.5, 0.8, 0.8))
    assert (found.before, found.established, found.lasting) == (2, 3, 3)
    assert found.members.tolist() == [False, False, True, True, False]


def test_nothing_read_is_never_and_a_concept_read_from_the_first_on_has_no_checkpoint_before():
    never = look(answers_of(0.5, 0.5, 0.5))
    assert (never.established, never.lasting, never.earliest) == (None, None, 3)
    always = look(answers_of(0.8, 0.8, 0.8))
    assert (always.established, always.earliest, always.before) == (0, 0, 0)
    assert look(answers_of(0.8)).established == 0


def test_one_lucky_checkpoint_of_many_makes_no_onset_though_it_would_by_itself():
    lucky = [0.5] * 20
    lucky[7] = 0.575
    assert look(answers_of(*lucky, p=0.004), floor=False).established is None
    assert look(answers_of(lucky[7], p=0.004), floor=False).established == 0


def test_what_is_read_and_lost_again_has_an_onset_and_nothing_that_lasts():
    found = look(answers_of(0.5, 0.8, 0.8, 0.5))
    assert found.established == 1
    assert found.lasting is None


def test_a_weak_reading_that_stays_is_an_onset_where_one_that_comes_and_goes_is_none():
    weak = [0.57] * 12
    stays = look(answers_of(*[0.5] * 8, *weak), floor=False)
    goes = look(answers_of(*[0.5] * 4, *weak, *[0.5] * 4), floor=False)
    assert goes.established is None
    assert stays.established == stays.lasting == 8


def test_what_the_text_tells_as_well_is_no_onset():
    known_to_text = answers_of(0.5, 0.8, 0.8, text=0.8)
    assert look(known_to_text).established is None
    assert look(known_to_text, floor=False).established == 1
    assert look(answers_of(0.5, 0.8, 0.95, text=0.8)).established == 2


def test_what_the_permutation_test_does_not_find_is_not_read():
    answers = answers_of(0.5, 0.8, 0.8)
    assert look(answers).established == 1
    assert look(replace(answers, p=np.full(3, 0.05))).established is None
    assert look(replace(answers, p=np.array([0.5, np.nan, 0.001]))).established == 2


def test_a_text_that_tells_as_much_is_the_reason_and_without_it_there_is_an_onset():
    as_much = answers_of(0.5, 0.8, 0.8, text=0.8)
    assert reason_of(as_much) == TEXT_ALONE
    assert reason_of(as_much, floor=False) == ""
    assert reason_of(answers_of(0.5, 0.8, 0.8, text=0.5)) == ""
    # No accuracy exceeds that of a text that tells everything.
    assert reason_of(answers_of(1.0, 1.0, text=1.0)) == TEXT_ALONE


def test_noise_is_not_above_the_null_and_no_matter_of_the_text():
    noise = answers_of(0.5, 0.52, 0.48)
    assert reason_of(noise) == reason_of(noise, floor=False) == NOT_ABOVE_NULL
    # Below a text that tells the labels, and not above the null either.
    assert reason_of(answers_of(0.5, 0.5, text=0.9)) == NOT_ABOVE_NULL


def test_a_high_accuracy_that_the_permutation_test_does_not_find_is_not_called_chance():
    answers = answers_of(0.5, 0.8, 0.8)
    assert reason_of(replace(answers, p=np.full(3, 0.05))) == TOO_FEW
    assert reason_of(replace(answers_of(0.5, 0.55), p=np.full(2, 0.05))) == NOT_ABOVE_NULL


def few(answers: SiteOutcomes, groups: int) -> SiteOutcomes:
    """The same statements in so many groups."""
    return replace(answers, groups=tuple(f"{row * groups // ROWS}" for row in range(ROWS)))


@pytest.mark.parametrize("accuracy", [0.5, 1.0])
def test_six_groups_are_too_few_for_any_claim_and_seven_are_enough_for_a_perfect_one(accuracy):
    """The lower bound of an accuracy of 1 in `n` groups is `level ** (1 / n)`; it takes 1/2."""
    level = 0.025
    assert (level / 2) ** (1 / 6) < 0.5 < (level / 2) ** (1 / 7)
    answers = answers_of(0.5, accuracy)
    assert reason_of(few(answers, 6), level=level) == TOO_FEW
    assert reason_of(few(answers_of(0.5, 1.0), 7), level=level) == ""
    # What is asked less surely takes fewer.
    assert 0.5 < (0.1 / 2) ** (1 / 6)
    assert reason_of(few(answers_of(0.5, 1.0), 6), level=0.1) == ""


def test_a_gain_that_is_neither_shown_nor_excluded_wants_more_statements():
    rows = np.arange(40)
    open_question = answers_of(0.5, 0.5)
    right = np.stack([rows % 2 == 0, rows % 20 < 11])
    open_question = replace(
        open_question, correct=right, text=rows % 4 < 2, fold=rows % 5,
        groups=tuple(f"{row}" for row in rows), p=np.array([0.5, 0.1]),
    )  # fmt: skip
    assert reason_of(open_question) == TOO_FEW
    # Ten times as many decide.
    more = replace(
        open_question, correct=np.tile(right, 10), text=np.tile(open_question.text, 10),
        fold=np.tile(open_question.fold, 10), groups=tuple(f"{row}" for row in range(400)),
    )  # fmt: skip
    assert reason_of(more) in (NOT_ABOVE_NULL, TEXT_ALONE)
    # And a wish to exclude more asks for more of them.
    assert reason_of(more, margin=0.01) == TOO_FEW


def test_labels_that_hardly_can_be_permuted_are_too_few_statements():
    answers = answers_of(0.5, 0.5)
    assert reason_of(replace(answers, least_p=0.2)) == TOO_FEW
    assert reason_of(replace(answers, least_p=0.01)) == NOT_ABOVE_NULL


def test_the_least_p_value_is_the_share_of_permutations_that_change_nothing():
    def least(groups: int) -> float:
        names = [f"{row // 2}" for row in range(2 * groups)]
        return least_p_value(np.tile([0, 1], groups), names, np.zeros(2 * groups, dtype=int))

    for groups in (2, 3, 4):
        assert least(groups) == pytest.approx(0.5**groups, abs=0.07)
    assert least(30) == 0
    # Of one label each and of a size that no other has: no group can exchange its labels.
    sizes = ["a", "b", "b", "c", "c", "c"]
    assert least_p_value(np.array([0, 1, 1, 0, 0, 0]), sizes, np.zeros(6, dtype=int)) == 1


def test_without_p_values_nothing_was_measured():
    assert reason_of(replace(answers_of(0.5, 0.8), p=np.full(2, np.nan))) == NOT_MEASURED


def test_a_saturation_that_is_never_says_whether_there_is_a_level_to_reach():
    assert reason_of(answers_of(0.5, 0.6, 0.75, 0.9), locate_saturation) == STILL_RISING
    assert reason_of(answers_of(0.9), locate_saturation) == STILL_RISING
    assert reason_of(answers_of(0.5, 0.5), locate_saturation) == NOT_DECODABLE_AT_END
    assert reason_of(answers_of(0.5, 0.9, 0.9), locate_saturation) == ""


def test_every_reason_is_explained():
    assert {
        TEXT_ALONE, TOO_FEW, NOT_ABOVE_NULL, NOT_MEASURED, NOT_DECODABLE_AT_END, STILL_RISING,
    } == set(EXPLANATIONS)  # fmt: skip


def test_without_a_floor_to_hold_it_against_there_is_no_answer_above_it():
    unknown = replace(answers_of(0.5, 0.8), text=None)
    with pytest.raises(ValueError, match="no classifier of the text"):
        look(unknown)
    assert look(unknown, floor=False).established == 1


def test_saturation_is_where_the_last_level_is_reached_and_never_where_it_still_rises():
    found = saturation(answers_of(0.5, 0.7, 0.9, 0.9, 0.9))
    assert (found.before, found.established, found.lasting) == (1, 2, 2)
    assert saturation(answers_of(0.5, 0.6, 0.75, 0.9)).established is None
    assert saturation(answers_of(0.9)).established is None


def test_a_concept_that_is_not_read_in_the_end_is_never_saturated():
    assert saturation(answers_of(0.5, 0.5, 0.5)).established is None
    assert saturation(answers_of(0.8, 0.8, 0.8), floor=False).established == 0
    # All of it is in the text.
    assert saturation(answers_of(0.8, 0.8, 0.8, text=0.8)).established is None


@given(
    steps=st.lists(st.sampled_from([0.45, 0.5, 0.55, 0.6, 0.7, 0.9]), min_size=1, max_size=6),
    seed=st.integers(0, 99),
)
@settings(max_examples=15, deadline=None)
def test_more_confidence_widens_the_set_and_a_larger_margin_leaves_the_claim_as_it_is(steps, seed):
    answers = answers_of(*steps, seed=seed)
    for where in (look, saturation):
        loose, strict = where(answers, level=0.05), where(answers, level=0.005)
        last = len(steps)
        ends = [last if c.established is None else c.established for c in (loose, strict)]
        assert ends[0] <= ends[1]
        assert strict.earliest <= max(loose.earliest, ends[0])
    near, far = look(answers, margin=0.02), look(answers, margin=0.4)
    assert near.established == far.established
    assert near.earliest <= far.earliest


marks = st.lists(st.tuples(*[st.booleans()] * 3), min_size=1, max_size=8)


@given(marks)
def test_a_set_is_of_neighbours_and_holds_the_onset_and_the_one_before(found):
    anywhere, each, excluded = np.array(found).T
    crossing = first_crossing(anywhere, each, excluded)
    inside = np.flatnonzero(crossing.members)
    assert (np.diff(inside) == 1).all()
    assert inside[0] == crossing.before == max(crossing.earliest - 1, 0)
    if crossing.established is None:
        assert not anywhere.any()
        assert not each[-1]
        assert inside[-1] == len(found) - 1
    else:
        assert inside[-1] == crossing.established >= crossing.earliest
        assert crossing.lasting is None or crossing.lasting >= crossing.established
    if crossing.lasting is not None:
        assert each[crossing.lasting :].all()


def series_of_noise(seed: int, checkpoints: int = 12, groups: int = 60) -> ResampledMeans:
    """Means of nothing over groups of two, half of it the same at every checkpoint."""
    generator = np.random.default_rng(seed)
    shared = generator.standard_normal((1, 1, groups)) + np.zeros((1, checkpoints, 1))
    own = generator.standard_normal((1, checkpoints, groups))
    values = np.repeat(shared + own, 2, axis=2)
    bootstrap = GroupBootstrap.draw(
        [f"{row // 2}" for row in range(2 * groups)], seed=seed, resamples=400
    )
    return ResampledMeans.of(values, None, np.arange(2 * groups) % 5, bootstrap)


def test_bounds_that_are_to_hold_together_do_and_those_of_each_do_not():
    together = each = ends = 0
    for seed in range(200):
        means = series_of_noise(seed)
        shown = (means.lower(0.1, over="each") > 0)[0]
        together += bool((means.lower(0.1, over="all") > 0).any())
        each += bool(shown.any())
        # From the last one back there is no need to correct.
        nothing = np.zeros_like(shown)
        ends += first_crossing(nothing, shown, nothing).lasting is not None
    assert together <= binom.ppf(0.999, 200, 0.1)
    assert ends <= binom.ppf(0.999, 200, 0.1)
    assert each > binom.ppf(0.999, 200, 0.1)
    assert together >= binom.ppf(0.001, 200, 0.05)  # and not by giving nothing away


def test_the_other_end_holds_however_many_checkpoints_come_before_it():
    """All gains lie a hair above the margin, so that no checkpoint may be excluded."""
    late = 0
    for seed in range(200):
        excluded = (series_of_noise(seed).upper(0.1, over="references") <= 0)[0]
        late += first_crossing(excluded & False, excluded & False, excluded).earliest > 0
    assert binom.ppf(0.001, 200, 0.05) <= late <= binom.ppf(0.999, 200, 0.1)


def test_bounds_of_what_never_varies_are_clopper_and_pearson_s():
    answers = answers_of(1.0, 1.0)
    bootstrap = GroupBootstrap.draw(GROUPS, seed=0, resamples=200)
    means = answers.resampled_means([answers.accuracy()], bootstrap)
    exact = beta.ppf(0.025, ROWS, 1)
    np.testing.assert_allclose(means.lower(0.025, over="each"), exact)


def test_what_folds_share_makes_bounds_wider():
    own = answers_of(0.5, 0.5)
    generator = np.random.default_rng(0)
    fewer = np.repeat(own.correct[None], 5, axis=0)
    for k in range(5):  # without one more fold, a tenth of all folds' answers go another way
        fewer[k] ^= generator.random((2, 1)) + np.zeros((1, ROWS)) < 0.9
    bootstrap = GroupBootstrap.draw(GROUPS, seed=0, resamples=200)

    def width(answers: SiteOutcomes) -> np.ndarray:
        means = answers.resampled_means([answers.accuracy()], bootstrap)
        return means.mean - means.lower(0.025, over="all")

    assert (width(replace(own, fewer=fewer)) >= width(own)).all()
    same = np.repeat(own.correct[None], 5, axis=0)
    np.testing.assert_allclose(width(replace(own, fewer=same)), width(own))


def noise_scores(seed: int, sites: int = 8):
    """Held-out answers, and those without one more fold, of logistic probes on white noise."""
    generator = np.random.default_rng(seed)
    labels = np.tile([0, 1], 50)
    groups = tuple(f"{seed}/{row // 2}" for row in range(100))
    concept = Concept("noise", "noise", ("Some text.",) * 100, labels, groups)
    values = torch.from_numpy(generator.standard_normal((100, sites, 6))).float()
    names = tuple(f"blocks.{site}.hook_resid_post" for site in range(sites))
    measure = logistic_probe(C=[0.1], resamples=10, permutations=1, floor=False)
    held_out, fold = measure.held_out(Activations(values, names), concept, seed=seed)
    positive = (labels == 1)[:, None]
    right = ((held_out.scores > 0) == positive).T[None]
    fewer = np.moveaxis((held_out.fewer > 0) == positive, 1, 2)[:, None]
    return right, fewer, fold


def test_the_best_site_of_noise_is_read_at_chance_unless_its_own_fold_had_a_say():
    honest, leaning, post_hoc = [], [], []
    for seed in range(25):
        right, fewer, fold = noise_scores(seed)
        rows = np.arange(len(fold))
        honest.append(right[0, choose_sites(right, fewer, fold)[0, fold], rows].mean())
        leaning.append(right[0, choose_sites(right, None, fold)[0, fold], rows].mean())
        post_hoc.append(right[0].mean(axis=1).max())
    error = np.std(honest) / 5
    assert abs(np.mean(honest) - 0.5) < 3 * error
    assert np.mean(leaning) > 0.5 + 2 * error
    assert np.mean(post_hoc) > np.mean(leaning)


def test_a_site_is_chosen_without_a_look_at_the_fold_it_is_for():
    right, fewer, fold = noise_scores(0)
    before = choose_sites(right, fewer, fold)
    for k in range(5):
        changed, changed_fewer = right.copy(), fewer.copy()
        changed[:, :, fold == k] ^= True
        changed_fewer[..., fold == k] ^= True
        after = choose_sites(changed, changed_fewer, fold)
        assert after[0, k] == before[0, k]
    assert (after != before).any()  # other folds' choices do see it


@pytest.fixture(scope="module")
def probe():
    return logistic_probe(C=(0.1, 10.0), folds=3, resamples=20, permutations=400)


@pytest.fixture
def told_by_a_word(another_concept):
    """The last word of every statement tells its label, to a model and to a reader of the text."""
    return another_concept("truth", 0, groups=40)


def test_a_run_folder_is_asked_at_every_site_and_at_the_best_one(
    sweep, probe, told_by_a_word, tmp_path
):
    trace = sweep(wanted=[told_by_a_word], measures=probe, out=tmp_path)
    onset = find_onset(tmp_path, floor=False)
    assert onset["site"].values.tolist() == [*trace.sites, "best"]
    assert onset["step"].values.tolist() == [0, 8, 64]
    at_sites = onset.accuracy.sel(site=list(trace.sites)).transpose(*trace.data.accuracy.dims)
    np.testing.assert_allclose(at_sites, trace.data.accuracy)
    np.testing.assert_allclose(onset.best_share.sum("site"), 1)
    for name, variable in onset.data_vars.items():
        assert variable.attrs["units"], name
        assert variable.attrs["long_name"], name
    # Random weights carry a word to its own position.
    best = onset.sel(concept="truth", site="best")
    assert best.onset_step == 0
    assert best.onset_at_start
    assert best.onset_step_ci.values.tolist() == [0, 0]
    assert best.onset_checkpoint == "tiny@step0"
    assert best.onset_n == 3
    assert onset.identical(find_onset(tmp_path, floor=False))
    # The text has it too.
    held_against = find_onset(tmp_path).sel(concept="truth", site="best")
    assert held_against.onset_checkpoint == ""
    assert np.isnan(held_against.onset_step)
    assert np.isnan(held_against.onset_step_ci.sel(bound="high"))
    assert held_against.onset_reason == TEXT_ALONE
    assert best.onset_reason == ""
    saturated = find_saturation(tmp_path, floor=False, margin=0.2).sel(concept="truth", site="best")
    assert saturated.saturation_step == 0


def test_what_is_not_finished_is_not_looked_at_and_what_is_asked_for_is(
    sweep, checkpoints, probe, told_by_a_word, another_concept, tmp_path
):
    other = another_concept("kindness", 1, groups=40)
    sweep(wanted=[told_by_a_word], measures=probe, out=tmp_path)
    sweep(checkpoints[1:2], wanted=[other], measures=probe, out=tmp_path)
    onset = find_onset(tmp_path, floor=False).sel(site="best")
    assert onset.onset_n.values.tolist() == [3, 1]
    assert onset.onset_reason.values.tolist() == ["", ""]
    assert onset.accuracy.sel(concept="kindness").isnull().values.tolist() == [True, False, True]
    assert onset.onset_step.values.tolist() == [0, 8]
    part = find_onset(tmp_path, concepts="truth", checkpoints=["tiny@step64"], floor=False)
    assert part["checkpoint"].values.tolist() == ["tiny@step64"]
    assert part.sel(site="best").onset_step.values.tolist() == [64]


def test_checkpoints_without_steps_are_answered_by_name(
    sweep, checkpoints, probe, told_by_a_word, tmp_path
):
    unnumbered = [
        replace(each, step=None, revision=f"part{number}")
        for number, each in enumerate(checkpoints)
    ]
    sweep(unnumbered, wanted=[told_by_a_word], measures=probe, out=tmp_path)
    best = find_onset(tmp_path, floor=False).sel(concept="truth", site="best")
    assert best.onset_checkpoint == "tiny@part0"
    assert np.isnan(best.onset_step)
    assert best.onset_set.values.tolist() == [True, False, False]


def test_probes_have_answers_of_their_own(sweep, probe, told_by_a_word, tmp_path):
    other = replace(probe, name="coarse", folds=4)
    trace = sweep(wanted=[told_by_a_word], measures=[probe, other], out=tmp_path)
    onset = find_onset(tmp_path, floor=False)
    assert onset["probe"].values.tolist() == ["logistic", "coarse"]
    np.testing.assert_allclose(
        onset.accuracy.sel(site=list(trace.sites)).transpose(*trace.data.accuracy.dims),
        trace.data.accuracy,
    )
    assert "left_out" not in trace.data.dims


def test_what_it_takes_and_was_not_kept_is_named(sweep, probe, told_by_a_word, tmp_path):
    sweep(wanted=[told_by_a_word], out=tmp_path / "norms")
    with pytest.raises(ValueError, match=r"lacks held-out scores.*p-values.*for 'truth'"):
        find_onset(tmp_path / "norms")
    without = replace(probe, floor=False)
    sweep(wanted=[told_by_a_word], measures=without, out=tmp_path / "bare")
    with pytest.raises(ValueError, match=r"lacks scores by the text alone \(`floor=False`"):
        find_onset(tmp_path / "bare")
    with pytest.raises(ValueError, match=r"400 permutations.*at least 2000.*less `confidence`"):
        find_onset(tmp_path / "bare", floor=False, confidence=0.998, resamples=10_000)
    with pytest.raises(ValueError, match=r"'toxicity'"):
        find_onset(tmp_path / "bare", concepts="toxicity")
    with pytest.raises(ValueError, match="no run folder"):
        find_onset(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ({"margin": 10.0}, "fraction of statements"),
        ({"confidence": 95.0}, "between 0 and 1"),
        ({"resamples": 100}, "at least 400"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments, told, tmp_path):
    for find in (find_onset, find_saturation):
        with pytest.raises(ValueError, match=told):
            find(tmp_path, **arguments)


def test_a_cell_read_in_part_is_the_same_as_read_in_whole(sweep, probe, told_by_a_word, tmp_path):
    from tlens_trust.tracing.netcdf import dataset_from_bytes

    sweep(wanted=[told_by_a_word], measures=probe, out=tmp_path)
    record = next(p for p in tmp_path.glob("cells/*/*.json") if p.name != "checkpoint.json")
    assert json.loads(record.read_text())["concept"] == "truth"
    content = record.with_suffix(".nc").read_bytes()
    whole = dataset_from_bytes(content)
    names = [str(name) for name in whole.variables]
    part = dataset_from_bytes(content, variables=[*names, "no such variable"])
    assert part.identical(whole)
    few = dataset_from_bytes(content, variables=["score"])
    assert set(few.variables) == {"score", *whole["score"].coords}
    with pytest.raises(ValueError, match="torn or altered"):
        dataset_from_bytes(content[: len(content) // 2], variables=["score"])


def test_checkpoints_are_named_or_given_by_step(sweep, probe, told_by_a_word, tmp_path):
    sweep(wanted=[told_by_a_word], measures=probe, out=tmp_path)
    named = find_onset(tmp_path, checkpoints=["tiny@step8", "tiny@step64"], floor=False)
    for asked in ([8, 64], [64, 8], ["tiny@step8", 64, 8]):
        assert find_onset(tmp_path, checkpoints=asked, floor=False).identical(named), asked
    assert find_onset(tmp_path, checkpoints=8, floor=False)["step"].values.tolist() == [8]
    for asked, told in (
        ([7], r"no step 7\. Choose one of 0, 8, 64"),
        (["step8"], r"no checkpoint 'step8'\. Choose one of.*tiny@step8"),
        ([], "selects nothing"),
    ):
        with pytest.raises(ValueError, match=told):
            find_onset(tmp_path, checkpoints=asked, floor=False)
        with pytest.raises(ValueError, match=told):
            find_saturation(tmp_path, checkpoints=asked, floor=False)


def test_a_step_that_two_stages_share_is_asked_for_by_name():
    names, steps = ["m@stage1-step8", "m@stage2-step8", "m@step9"], [8.0, 8.0, np.nan]
    with pytest.raises(ValueError, match=r"2 checkpoints of step 8\. Choose by name one of"):
        checkpoint_numbers(names, steps, 8)
    assert checkpoint_numbers(names, steps, names[1]) == [1]


def test_a_run_of_one_split_has_no_onset_and_says_what_to_run(sweep, probe, tmp_path):
    split = one_split_concept()
    paper = tracingllm_probe(resamples=20, permutations=400)
    sweep(wanted=[split], measures=paper, out=tmp_path / "paper")
    told = r"one split.*tracingllm.*protocol='grouped', out=…\)` into another folder"
    for ask in (
        lambda run: find_onset(run, floor=False),
        lambda run: find_saturation(run, floor=False),
        lambda run: compare_checkpoints(run, "truth", 0, 64),
        lambda run: find_forgetting(run, "truth", layer=0),
    ):
        with pytest.raises(ValueError, match=told) as caught:
            ask(tmp_path / "paper")
        assert "continues" not in str(caught.value)
    # Beside a probe of its own folds it is left out, and the other one is answered as alone.
    sweep(wanted=[split], measures=[probe, paper], out=tmp_path / "both")
    sweep(wanted=[split], measures=probe, out=tmp_path / "alone")
    both = find_onset(tmp_path / "both", floor=False)
    assert both["probe"].values.tolist() == ["logistic"]
    alone = find_onset(tmp_path / "alone", floor=False)
    np.testing.assert_array_equal(both.gain_ci.isel(probe=0), alone.gain_ci)
    with pytest.raises(ValueError, match=told):
        compare_checkpoints(tmp_path / "both", "truth", 0, 64, probe="tracingllm")
    assert compare_checkpoints(tmp_path / "both", "truth", 0, 64, probe="logistic").before


def one_split_concept():
    """Both labels in the first 80% and in the last 20% of the rows."""
    texts = tuple(f"w{4 + row % 30} w{7 + row // 30} w{row % 2}" for row in range(80))
    groups = tuple(f"g{row // 2}" for row in range(80))
    return Concept("truth", "truth", texts, np.arange(80) % 2, groups)
