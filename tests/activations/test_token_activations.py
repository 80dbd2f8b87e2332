import pytest
import torch

from tlens_trust.activations.token_activations import collect_tokens, shown_tokens
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.checkpoints.toy_text import make_tokenizer


@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
def test_every_token_is_what_hugging_face_computes(
    load_plain, tokenizer, words, reference, relative_error, architecture
):
    model = load_plain(architecture)
    readings = collect_tokens(model, words(6), tokenizer=tokenizer)
    (expected,) = reference(architecture, [readings.ids])
    assert relative_error(readings.values.transpose(0, 1), expected) < 1e-4
    assert readings.layers == (0, 1, 2)


def test_a_beginning_of_sequence_token_is_read_and_named(bridge, words):
    without = collect_tokens(bridge, words(2), bos=False)
    readings = collect_tokens(bridge, words(2), bos=True)
    assert readings.tokens[0] == "<s>"
    assert len(readings.values) == len(without.values) + 1 == 3


def test_a_checkpoint_is_loaded_and_read_alike(folders, bridge, words):
    checkpoint = Checkpoint.from_directory(folders["llama"])
    loaded, held = (
        collect_tokens(model, words(4), sites=[1], bos=False) for model in (checkpoint, bridge)
    )
    torch.testing.assert_close(loaded.values, held.values)


def test_a_text_too_long_for_the_context_is_refused(bridge, words):
    with pytest.raises(ValueError, match="Too long to read"):
        collect_tokens(bridge, words(60))


def test_tokens_together_say_the_text():
    tokenizer = make_tokenizer()
    text = "The cod, he said: <b> é"
    shown = shown_tokens(tokenizer, tokenizer(text)["input_ids"])
    assert "".join(shown).replace("\ufffd", "") == text


def test_a_character_split_over_tokens_stands_on_the_last_of_them():
    tokenizer = make_tokenizer()
    shown = shown_tokens(tokenizer, tokenizer("🙂")["input_ids"])
    assert shown == ("\ufffd", "\ufffd", "\ufffd", "🙂")


def test_characters_without_a_shape_are_written_by_their_code():
    tokenizer = make_tokenizer()
    shown = "".join(shown_tokens(tokenizer, tokenizer("a\u202eb\u200bc\x00")["input_ids"]))
    assert shown.replace("\ufffd", "") == "a⟨U+202E⟩b⟨U+200B⟩c⟨U+0000⟩"


class Rewriting:
    """A tokenizer that writes the beginning of a text anew once it knows how it goes on."""

    def decode(self, ids, **_):
        return "ab" if len(ids) == 1 else "x" * len(ids)

    def convert_ids_to_tokens(self, number):
        return f"token {number}"


def test_a_decoder_that_changes_its_mind_is_asked_for_single_tokens():
    assert shown_tokens(Rewriting(), [7, 8, 9]) == ("ab", "token 8", "x")
