import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tlens_trust.checkpoints.families import (
    FAMILIES,
    RevisionName,
    find_family,
    format_template,
    parse_revision,
    parse_template,
)

KNOWN = [
    ("EleutherAI/pythia-160m", "step512", RevisionName(512)),
    ("EleutherAI/pythia-6.9b-deduped", "step143000", RevisionName(143_000)),
    ("EleutherAI/pythia-410m-seed3", "step0", RevisionName(0)),
    ("stanford-crfm/alias-gpt2-small-x21", "checkpoint-400000", RevisionName(400_000)),
    ("LLM360/Amber", "ckpt_007", RevisionName(7)),
    ("LLM360/Amber", "main", RevisionName(359)),
    (
        "LLM360/CrystalCoder",
        "CrystalCoder_phase2_checkpoint_027728",
        RevisionName(27_728, stage="phase2"),
    ),
    ("LLM360/K2", "ckpt_120", RevisionName(120)),
    ("allenai/OLMo-7B-hf", "step1000-tokens4B", RevisionName(1000, 4 * 10**9)),
    (
        "allenai/OLMo-2-1124-7B",
        "stage1-step1000-tokens5B",
        RevisionName(1000, 5 * 10**9, "stage1"),
    ),
    (
        "allenai/OLMo-2-1124-7B",
        "stage2-ingredient3-step11931-tokens50B",
        RevisionName(11_931, 50 * 10**9, "stage2", "ingredient3"),
    ),
    ("allenai/Olmo-3-1025-7B", "stage3-step11921", RevisionName(11_921, stage="stage3")),
    ("allenai/DataDecide-c4-6M", "step2500-seed-default", RevisionName(2500, run="default")),
    (
        "allenai/DataDecide-c4-6M",
        "step2500-seed-small-aux-2",
        RevisionName(2500, run="small-aux-2"),
    ),
    (
        "HuggingFaceTB/SmolLM2-1.7B-intermediate-checkpoints",
        "step-125000",
        RevisionName(125_000),
    ),
    (
        "HuggingFaceTB/SmolLM3-3B-checkpoints",
        "stage2-step-4200000",
        RevisionName(4_200_000, stage="stage2"),
    ),
    ("swiss-ai/Apertus-8B-2509", "step50000-tokens210B", RevisionName(50_000, 210 * 10**9)),
    ("swiss-ai/Apertus-8B-2509", "step2627139-tokens15T", RevisionName(2_627_139, 15 * 10**12)),
    (
        "TinyLlama/tinyLLaMA-v1.1-checkpoints",
        "step-720k-token-1510B",
        RevisionName(720_000, 1510 * 10**9),
    ),
    ("bigscience/bloom-560m-intermediate", "global_step1000", RevisionName(1000)),
    ("OpenLLM-France/Lucie-7B", "step0005000", RevisionName(5000)),
]


@pytest.mark.parametrize(("model", "revision", "meaning"), KNOWN)
def test_a_published_name_says_what_the_field_knows_and_is_formatted_back(model, revision, meaning):
    assert parse_revision(revision, model) == meaning
    assert find_family(model).format(meaning) == revision


@pytest.mark.parametrize(
    ("model", "revision"),
    [
        ("EleutherAI/pythia-160m", "main"),
        ("EleutherAI/pythia-160m", "step01000"),
        ("EleutherAI/pythia-160m", "step-1000"),
        ("EleutherAI/pythia-160m", "step1000-old"),
        ("EleutherAI/pythia-160m", "checkpoint-1000"),
        ("LLM360/Amber", "ckpt_07"),
        ("LLM360/Amber", "ckpt_0007"),
        ("allenai/OLMo-2-1124-7B", "stage1-step1000"),
        ("allenai/Olmo-3-1025-7B", "stage1-step1000-tokens5B"),
        ("swiss-ai/Apertus-8B-2509", "step50000-tokens210M"),
        ("TinyLlama/tinyLLaMA-v1.1-checkpoints", "step-720-token-1510B"),
        ("OpenLLM-France/Lucie-7B", "step5000"),
    ],
)
def test_another_name_is_no_checkpoint_of_the_family(model, revision):
    assert parse_revision(revision, model) is None


STEPS = st.integers(0, 10**9)
TEMPLATES = sorted({template for family in FAMILIES for template in family.revisions})
TEMPLATES += [family.repository for family in FAMILIES if family.repository is not None]


def names_for(template):
    step = STEPS.map(lambda n: 1000 * n) if "{step:k}" in template else STEPS
    billions = st.integers(0, 10**5).map(lambda n: 10**9 * n)
    stages = st.builds("{}{}".format, st.sampled_from(["stage", "phase"]), st.integers(1, 9))
    words = st.from_regex("[a-z0-9]{1,6}", fullmatch=True)
    runs = st.lists(words, min_size=1, max_size=3).map("-".join)
    return st.builds(
        RevisionName,
        step,
        billions if "{tokens" in template else st.none(),
        stages if "{stage}" in template else st.none(),
        runs if "{run}" in template else st.none(),
    )


@given(st.sampled_from(TEMPLATES).flatmap(lambda t: st.tuples(st.just(t), names_for(t))))
def test_parsing_undoes_formatting_for_every_template(case):
    template, name = case
    assert parse_template(template, format_template(template, name)) == name


@given(
    st.sampled_from([f for f in FAMILIES if f.revisions]).flatmap(
        lambda f: st.sampled_from(f.revisions).flatmap(
            lambda t: st.tuples(st.just(f), names_for(t))
        )
    )
)
def test_parsing_undoes_formatting_for_every_family(case):
    family, name = case
    assert family.parse(family.format(name)) == name


@given(st.text(max_size=30))
def test_what_is_parsed_at_all_is_formatted_back_to_the_same_meaning(text):
    for family in FAMILIES:
        name = family.parse(text)
        assert name is None or family.parse(family.format(name)) == name


@pytest.mark.parametrize("family", [f for f in FAMILIES if f.schedule], ids=lambda f: f.name)
def test_a_known_schedule_is_in_order_and_every_step_of_it_has_one_name(family):
    assert list(family.schedule) == sorted(set(family.schedule))
    if family.revisions:
        names = [family.format(RevisionName(step)) for step in family.schedule]
        assert len(set(names)) == len(names)
        assert [family.parse(name).step for name in names] == list(family.schedule)


def test_the_schedules_are_those_that_transformer_lens_froze():
    from transformer_lens.tools.model_registry.checkpoints import (
        PYTHIA_CHECKPOINTS,
        PYTHIA_V0_CHECKPOINTS,
        STANFORD_CRFM_CHECKPOINTS,
    )

    def schedule(model):
        return list(find_family(model).schedule)

    assert schedule("EleutherAI/pythia-70m") == PYTHIA_CHECKPOINTS
    assert schedule("EleutherAI/pythia-70m-seed1") == PYTHIA_CHECKPOINTS
    assert schedule("EleutherAI/pythia-70m-v0") == PYTHIA_V0_CHECKPOINTS
    assert schedule("stanford-crfm/eowyn-gpt2-medium-x777") == STANFORD_CRFM_CHECKPOINTS
    assert len(PYTHIA_CHECKPOINTS) == 154


def test_ambers_tokens_end_with_the_whole_of_its_data():
    amber = find_family("LLM360/Amber")
    assert amber.tokens_at(359) == 360 * 3_500_000_000
    assert amber.tokens_at(0) == 3_500_000_000


@pytest.mark.parametrize("model", ["LLM360/AmberChat", "gpt2", "EleutherAI/gpt-neo-125m"])
def test_a_model_outside_the_table_has_no_family(model):
    assert find_family(model) is None


def test_a_run_of_a_family_belongs_to_the_same_family():
    for family in FAMILIES:
        for model in family.runs.values():
            assert find_family(model) is family
        for variant in family.variants:
            sibling = find_family(f"EleutherAI/pythia-70m-{variant}")
            assert sibling is not None
            assert ("v0" in variant) == (sibling.name == "Pythia v0")


def test_a_name_that_a_family_cannot_write_is_refused_with_its_templates():
    family = find_family("EleutherAI/pythia-70m")
    with pytest.raises(ValueError, match=re.escape("step{step}")):
        family.format(RevisionName(1000, stage="stage1"))
    with pytest.raises(ValueError, match="thousands"):
        format_template("step-{step:k}", RevisionName(1500))
    with pytest.raises(ValueError, match="needs tokens"):
        format_template("step{step}-tokens{tokens:B}", replace(RevisionName(1), tokens=None))
