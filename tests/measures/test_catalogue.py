import pytest

from tlens_trust.measures import ProbeMeasure, available_measures, named_measures


def test_every_name_makes_a_measure_of_its_own_and_is_told_in_words():
    described = available_measures()
    made = named_measures(described)
    assert len({measure.name for measure in made}) == len(made) == len(described)
    assert all(described.values())


def test_what_gives_no_accuracy_brings_the_logistic_probe_with_it():
    for name in ("selectivity", "margin", "calibration"):
        first, second = named_measures([name])
        assert isinstance(first, ProbeMeasure)
        assert (first.name, second.name) == ("logistic", f"{name}_logistic")
    assert [measure.name for measure in named_measures(["lda", "margin"])] == [
        "lda",
        "margin_logistic",
    ]


def test_a_name_is_taken_once_and_in_the_order_given():
    assert [m.name for m in named_measures(["ridge", "lda", "ridge"])] == ["ridge", "lda"]


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["mass-meen"],
            r"no probe named 'mass-meen'\. Did you mean 'mass_mean'\? Choose among log",
        ),
        (["lda", "qqq"], r"no probe named 'qqq'\. Choose among logistic"),
        ([], "No probe is named"),
    ],
)
def test_another_name_is_refused_with_those_there_are(names, message):
    with pytest.raises(ValueError, match=message):
        named_measures(names)
