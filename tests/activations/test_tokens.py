import json

import pytest
from tokenizers import processors

from tlens_trust.activations.tokens import tokenise_statements, tokenizer_identity


@pytest.fixture
def with_bos(tokenizer):
    """The same tokenizer, which puts a <s> before and a </s> behind every text by itself."""
    import copy

    changed = copy.deepcopy(tokenizer)
    changed.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 98), ("</s>", 99)]
    )
    return changed


def ids_of(tokenised):
    return [statement.ids for statement in tokenised]


def test_none_follows_the_tokenizers_own_setting(tokenizer, with_bos):
    assert ids_of(tokenise_statements(tokenizer, ["w1 w2"])) == [(1, 2)]
    assert ids_of(tokenise_statements(with_bos, ["w1 w2"])) == [(98, 1, 2, 99)]


def test_true_puts_one_bos_there_and_never_two(tokenizer, with_bos):
    assert ids_of(tokenise_statements(tokenizer, ["w1 w2"], bos=True)) == [(98, 1, 2)]
    assert ids_of(tokenise_statements(with_bos, ["w1 w2"], bos=True)) == [(98, 1, 2, 99)]


def test_false_takes_the_tokenizers_bos_away_and_not_one_written_in_the_text(tokenizer, with_bos):
    assert ids_of(tokenise_statements(with_bos, ["w1 w2"], bos=False)) == [(1, 2, 99)]
    assert ids_of(tokenise_statements(tokenizer, ["<s> w1"], bos=False)) == [(98, 1)]


@pytest.mark.parametrize("bos", [None, True, False])
def test_the_own_tokens_are_the_statements_whatever_stands_around_them(tokenizer, with_bos, bos):
    for each in (tokenizer, with_bos):
        (statement,) = tokenise_statements(each, ["w5 w6 w7"], bos=bos)
        assert statement.ids[statement.start : statement.stop] == (5, 6, 7)


def test_a_bos_that_the_tokenizer_lacks_cannot_be_asked_for(tokenizer):
    import copy

    bare = copy.deepcopy(tokenizer)
    bare.bos_token = None
    assert ids_of(tokenise_statements(bare, ["w1"], bos=False)) == [(1,)]
    with pytest.raises(ValueError, match="has none"):
        tokenise_statements(bare, ["w1"], bos=True)


def test_a_statement_longer_than_the_context_is_named_and_never_cut(tokenizer, words):
    statements = [words(8), words(9), words(3)]
    assert [len(s) for s in tokenise_statements(tokenizer, statements, n_ctx=9)] == [8, 9, 3]
    with pytest.raises(ValueError, match=r"statement 1, 'w0 w7.*has 9 tokens.*holds 8"):
        tokenise_statements(tokenizer, statements, n_ctx=8)


def test_a_bos_counts_towards_the_context(tokenizer, words):
    assert tokenise_statements(tokenizer, [words(8)], n_ctx=8)
    with pytest.raises(ValueError, match="has 9 tokens"):
        tokenise_statements(tokenizer, [words(8)], n_ctx=8, bos=True)


@pytest.mark.parametrize("bos", [None, True, False])
@pytest.mark.parametrize("nothing", ["", "   "])
def test_a_statement_without_tokens_of_its_own_is_named(tokenizer, with_bos, bos, nothing):
    for each in (tokenizer, with_bos):
        with pytest.raises(ValueError, match="no tokens to read in statement 1"):
            tokenise_statements(each, ["w1", nothing], bos=bos)


def test_a_tokenizer_of_another_model_is_caught_by_its_ids(tokenizer):
    assert tokenise_statements(tokenizer, ["w49"], d_vocab=50)
    with pytest.raises(ValueError, match="token id 50, but the model's vocabulary ends at 49"):
        tokenise_statements(tokenizer, ["w50"], d_vocab=50)


def test_identity_survives_saving_and_what_calls_set(tokenizer, tmp_path):
    from transformers import AutoTokenizer

    identity = tokenizer_identity(tokenizer)
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    again.pad_token = "</s>"
    again(["w1", "w2 w3"], padding=True, truncation=True, max_length=1)
    assert tokenizer_identity(again) == identity


def test_identity_changes_with_vocabulary_and_with_bos(tokenizer, with_bos, tmp_path):
    identities = {tokenizer_identity(tokenizer), tokenizer_identity(with_bos)}
    tokenizer.save_pretrained(tmp_path)
    path = tmp_path / "tokenizer.json"
    rules = json.loads(path.read_text())
    vocabulary = rules["model"]["vocab"]
    vocabulary["w1"], vocabulary["w2"] = vocabulary["w2"], vocabulary["w1"]
    path.write_text(json.dumps(rules))
    from transformers import AutoTokenizer

    swapped = AutoTokenizer.from_pretrained(tmp_path)
    assert ids_of(tokenise_statements(swapped, ["w1"])) == [(2,)]
    identities.add(tokenizer_identity(swapped))
    assert len(identities) == 3


def test_identity_follows_a_tokenizer_that_is_changed_in_memory(tokenizer):
    import copy

    changing = copy.deepcopy(tokenizer)
    before = tokenizer_identity(changing)
    changing.add_tokens(["w-new"])
    assert tokenizer_identity(changing) != before
