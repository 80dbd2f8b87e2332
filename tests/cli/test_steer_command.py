import shutil

import numpy as np
import pytest
import xarray as xr

from tlens_trust.cli.concept_options import draw_groups
from tlens_trust.cli.steer_command import EstimationMethod, TokenChoice, _forced_choices
from tlens_trust.concepts import load_concepts
from tlens_trust.steering import FOLLOW_UPS, PAPER_CHOICES
from tlens_trust.steering.methods import METHODS
from tlens_trust.steering.steered_positions import checked_positions


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--concept", "toxicity", "--from", "3", "--to", "768"], "Steps: 0, 8, 32"),
        (["--concept", "toxicity", "--from", "384", "--to", "nowhere"], "--to got 'nowhere'"),
        (["--concept", "toxicity,privacy", "--from", "384", "--to", "768"], "names 2 sets"),
        (
            ["--concept", "toxicity", "--from", "384", "--to", "768", "--choice", "sst3"],
            "--choice got 'sst3'",
        ),
        (
            ["--concept", "toxicity", "--from", "384", "--to", "768", "--groups", "2"],
            "--groups got 2",
        ),
        (["--concept", "toxicity", "--from", "384"], "Missing option"),
        (["--from", "384", "--to", "768"], "--concept, or give your own by --csv"),
        (["--csv", "mine.csv", "--from", "384", "--to", "768"], "--csv needs --trustworthy"),
        (["--concept", "toxicity", "--group", "g", "--from", "1", "--to", "2"], "--csv, which is"),
        (["--concept", "toxicity", "--from", "1", "--to", "2", "--method", "mean"], "'tracingllm'"),
        (["--concept", "toxicity", "--from", "1", "--to", "2", "--positions", "first"], "'prompt'"),
    ],
)
def test_a_bad_argument_is_one_line_and_status_2(run, toy_series, arguments, word):
    status, out, err = run("steer", toy_series.model, *arguments)
    assert (status, out) == (2, "")
    assert err.count("\n") == 1
    assert word in err


def test_the_command_tells_effect_damage_controls_and_what_is_written(run, toy_series, tmp_path):
    file = tmp_path / "new" / "found.nc"
    status, out, err = run(
        "steer", toy_series.model, "--concept", "toxicity", "--from", "384", "--to", "768",
        "--groups", "24", "--draws", "2", "--out", file, "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")
    lines = out.splitlines()
    first = next(line for line in lines if line.startswith("toxicity"))
    assert "toy@step768 steered by mean_difference of toy@step384 at blocks.2." in first
    assert not any(line.startswith("everyday") for line in lines)  # the toy knows no snow
    for told in ("follow_up_log_odds ", "neutral_loss ", "kl ", "  unsteered  ", "  opposite "):
        assert any(line.startswith(told) for line in lines), told
    assert "a look: 2 random directions" in out

    kept = xr.load_dataset(file, engine="netcdf4")
    assert kept.attrs["model"] == "toy@step768"
    assert kept.kl.sel(condition="steered") == pytest.approx(0.1, rel=0.01)
    assert kept.sizes["draw"] == 2
    # Moved, and by more than any prompt that is gone on from could be by chance.
    assert float(kept.follow_up_log_odds_change.sel(condition="steered")) > 1
    # By turns kind and unkind, none of which the vector was made of.
    labels = dict(
        zip(load_concepts()["toxicity"].statements, load_concepts()["toxicity"].labels, strict=True)
    )
    assert [labels[prompt] for prompt in kept.prompt.values.tolist()] == [1, 0, 1, 0]


def test_what_is_refused_at_once_is_what_the_library_knows():
    assert [each.value for each in EstimationMethod] == list(METHODS)
    for each in TokenChoice:
        checked_positions(each.value)


def test_a_set_of_ones_own_steers(run, toy_series, tmp_path):
    concept = load_concepts()["toxicity"]
    rows = [f'"{said}",{label},{group}' for said, label, group in zip(
        concept.statements, concept.labels, concept.groups, strict=True
    )]  # fmt: skip
    mine = tmp_path / "manners.csv"
    mine.write_text("\n".join(["said,kind,pair", *rows]), encoding="utf-8")
    status, out, err = run(
        "steer", toy_series.model, "--csv", mine, "--statement", "said", "--label", "kind",
        "--group", "pair", "--trustworthy", "1", "--from", "384", "--to", "768",
        "--groups", "24", "--draws", "2", "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "manners" in out


def test_a_folder_that_is_named_as_the_target_is_steered_without_a_warning(
    run, toy_series, tmp_path
):
    tuned = shutil.copytree(toy_series[-1].folder, tmp_path / "tuned")
    toy_series[-1].load_tokenizer().save_pretrained(tuned)
    status, out, err = run(
        "steer", toy_series.model, "--concept", "toxicity", "--from", "384", "--to", tuned,
        "--groups", "8", "--draws", "1", "--choice", "none", "--prompt", "the", "--quiet",
    )  # fmt: skip
    assert (status, err) == (0, "")
    assert "tuned steered by mean_difference of toy@step384" in out


def test_so_many_groups_are_whole_ones_drawn_by_the_seed():
    concept = load_concepts()["toxicity"]
    some = draw_groups(concept, 10, 0)
    assert len(set(some.groups)) == 10
    assert len(some) == sum(group in set(some.groups) for group in concept.groups)
    assert some.groups == draw_groups(concept, 10, 0).groups
    assert some.groups != draw_groups(concept, 10, 1).groups
    everything = draw_groups(concept, len(set(concept.groups)), 0)
    assert np.array_equal(everything.labels, concept.labels)


def test_what_the_toy_corpus_goes_on_with_is_asked_of_a_toy_alone_unless_named():
    assert _forced_choices([], "toxicity", toy=True) == [FOLLOW_UPS["toxicity"]]
    assert _forced_choices([], "toxicity", toy=False) == []
    assert _forced_choices(["follow_up"], "toxicity", toy=False) == [FOLLOW_UPS["toxicity"]]
    assert _forced_choices([], "confaide", toy=False) == [PAPER_CHOICES["confaide"]]
    assert _forced_choices(["none"], "confaide", toy=False) == []
