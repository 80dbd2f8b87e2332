"""Steered text and logits are those of one forward pass that is edited by hand, cache or not.

The reference is a plain model, one row at a time without padding, with a torch hook of the test's
own: none of the package's code is on that side.
"""

import pytest
import torch

from tlens_trust.steering import SteeringVector, steer

TOLERANCE = 1e-4
NEW = 6
PROMPTS = ([1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [11, 3, 12, 13])
STRENGTH = 4.0

# What each policy means: where it acts, given a row's ids and its prompt's length.
POLICIES = {
    "all": ("all", lambda ids, n: range(len(ids))),
    "prompt": ("prompt", lambda ids, n: range(n)),
    "generated": ("generated", lambda ids, n: range(n, len(ids))),
    "last": ("last", lambda ids, n: [n - 1]),
    "one": (2, lambda ids, n: [2]),
    "one from the end": (-2, lambda ids, n: [n - 2]),
    "span": ((1, 4), lambda ids, n: range(1, 4)),
    "from an index on": ((4, None), lambda ids, n: range(min(4, len(ids)), len(ids))),
    "from the end on": ((-1, None), lambda ids, n: range(n - 1, len(ids))),
    "tokens": (
        {3, *range(20, 60)},
        lambda ids, n: [k for k, i in enumerate(ids) if i == 3 or 20 <= i < 60],
    ),
}


def padded(prompts):
    longest = max(map(len, prompts))
    ids = torch.tensor([[99] * (longest - len(p)) + p for p in prompts])
    kept = torch.tensor([[0] * (longest - len(p)) + [1] * len(p) for p in prompts])
    return ids, kept


def generate(model, kind, prompts, cache):
    """Ids of what is generated and the logits it was chosen by, row by row."""
    ids, kept = padded(prompts)
    settings = {"max_new_tokens": NEW, "do_sample": False, "output_logits": True}
    settings["return_dict_in_generate"] = True
    if kind == "bridge":
        out = model.generate(
            ids,
            attention_mask=kept,
            use_past_kv_cache=cache,
            stop_at_eos=False,
            verbose=False,
            **settings,
        )
    else:
        out = model.generate(
            ids,
            attention_mask=kept,
            use_cache=cache,
            pad_token_id=99,
            eos_token_id=None,
            **settings,
        )
    return out.sequences[:, ids.shape[1] :], torch.stack(out.logits, dim=1)


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
@pytest.mark.parametrize("kind", ["bridge", "plain"])
def test_a_left_padded_batch_is_steered_as_each_row_by_hand_with_and_without_cache(
    kind, architecture, policy, bridges, own_plains, plains, direction, by_hand, relative_error
):
    model = (bridges if kind == "bridge" else own_plains)[architecture]
    vector = SteeringVector.from_direction(direction, site=1)
    positions, meant = POLICIES[policy]
    texts = []
    for cache in (True, False):
        with steer(model, vector, strength=STRENGTH, positions=positions):
            written, logits = generate(model, kind, PROMPTS, cache)
        texts.append(written.tolist())
        for prompt, tokens, found in zip(PROMPTS, written.tolist(), logits, strict=True):
            ids, n = [*prompt, *tokens[:-1]], len(prompt)
            expected = by_hand(
                plains[architecture],
                ids,
                lambda x: x + STRENGTH * direction,
                meant(ids, n),
            )[n - 1 :]
            assert relative_error(found, expected) < TOLERANCE
    assert texts[0] == texts[1]


@pytest.mark.parametrize("policy", ["all", "generated", "from the end on"])
@pytest.mark.parametrize("mode", ["ablate", "clamp", "rotate"])
@pytest.mark.parametrize("architecture", ["gpt_neox", "llama"])
@pytest.mark.parametrize("kind", ["bridge", "plain"])
def test_other_modes_too_are_the_same_with_and_without_cache(
    kind,
    architecture,
    mode,
    policy,
    bridges,
    own_plains,
    plains,
    direction,
    by_hand,
    changes,
    relative_error,
):
    model = (bridges if kind == "bridge" else own_plains)[architecture]
    vector = SteeringVector.from_direction(direction, site=1)
    positions, meant = POLICIES[policy]
    texts = []
    for cache in (True, False):
        with steer(model, vector, strength=STRENGTH, mode=mode, positions=positions):
            written, logits = generate(model, kind, PROMPTS, cache)
        texts.append(written.tolist())
        for prompt, tokens, found in zip(PROMPTS, written.tolist(), logits, strict=True):
            ids, n = [*prompt, *tokens[:-1]], len(prompt)
            change = changes(direction, STRENGTH)[mode]
            expected = by_hand(plains[architecture], ids, change, meant(ids, n))[n - 1 :]
            assert relative_error(found, expected) < TOLERANCE
    assert texts[0] == texts[1]


@pytest.mark.parametrize("policy", ["prompt", "generated", "last", "from an index on"])
def test_acting_one_position_beside_is_seen(policy, plains, direction, by_hand, relative_error):
    """The control of the test above: its reference tells neighbouring positions apart."""
    ids, n = [*PROMPTS[0], 21, 22, 23], len(PROMPTS[0])
    places = list(POLICIES[policy][1](ids, n))
    beside = [place - 1 for place in places]
    right, wrong = (
        by_hand(plains["llama"], ids, lambda x: x + STRENGTH * direction, p)[n - 1 :]
        for p in (places, beside)
    )
    assert relative_error(wrong, right) > 100 * TOLERANCE


@pytest.mark.parametrize("cache", [True, False])
def test_texts_are_steered_as_their_tokens(bridges, direction, cache):
    """Lists of texts are padded by the bridge itself, and masked only then."""
    model, vector = bridges["llama"], SteeringVector.from_direction(direction, site=1)
    texts = [" ".join(f"w{i}" for i in prompt) for prompt in PROMPTS]
    settings = {"max_new_tokens": NEW, "do_sample": False, "stop_at_eos": False, "verbose": False}
    with steer(model, vector, strength=STRENGTH, positions="generated"):
        together = model.generate(texts, use_past_kv_cache=cache, **settings)
        alone = [model.generate(text, use_past_kv_cache=cache, **settings) for text in texts]
    assert together == alone
    assert together != model.generate(texts, use_past_kv_cache=cache, **settings)


@pytest.mark.parametrize("cache", [True, False])
def test_a_stream_is_steered_as_what_is_generated_at_once(bridges, direction, cache):
    model, vector = bridges["gpt_neox"], SteeringVector.from_direction(direction, site=1)
    ids = torch.tensor([PROMPTS[0]])
    settings = {"max_new_tokens": NEW, "do_sample": False, "stop_at_eos": False, "verbose": False}
    with steer(model, vector, strength=STRENGTH, positions="generated"):
        whole = model.generate(ids, use_past_kv_cache=cache, **settings)
        parts = list(model.generate_stream(ids, use_past_kv_cache=cache, **settings))
    assert torch.cat(parts, dim=1)[0, -NEW:].tolist() == whole[0, -NEW:].tolist()


def test_hugging_faces_own_loop_is_steered_through_a_bridge(bridges, direction):
    model, vector = bridges["llama"], SteeringVector.from_direction(direction, site=1)
    ids = torch.tensor([PROMPTS[0]])
    with steer(model, vector, strength=STRENGTH, positions="generated"):
        ours = model.generate(
            ids, max_new_tokens=NEW, do_sample=False, stop_at_eos=False, verbose=False
        )
        theirs = model.hf_generate(ids, max_new_tokens=NEW, do_sample=False, stop_at_eos=False)
    assert ours.tolist() == theirs.tolist()


def test_a_second_call_of_generate_has_a_prompt_of_its_own(own_plains, direction):
    """What the first call wrote is the second one's prompt, though it goes on where that ended."""
    model, vector = own_plains["llama"], SteeringVector.from_direction(direction, site=1)

    def extend(ids, tokens):
        return model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=tokens,
            do_sample=False,
            use_cache=False,
            eos_token_id=None,
            pad_token_id=99,
        )

    prompt = torch.tensor([PROMPTS[0]])
    with steer(model, vector, strength=STRENGTH, positions="generated"):
        first = extend(prompt, 1)
        second = extend(first, 1)
    with steer(model, vector, strength=STRENGTH, positions="generated"):
        alone = extend(first, 1)
    assert second.tolist() == alone.tolist()
    # With no token generated before, nothing is steered in a first step.
    assert second.tolist() == extend(first, 1).tolist()


def test_scoring_ever_longer_texts_is_no_generating(own_plains, direction):
    model, vector = own_plains["llama"], SteeringVector.from_direction(direction, site=1)
    ids = torch.tensor([PROMPTS[0]])
    with torch.no_grad(), steer(model, vector, strength=STRENGTH, positions="generated"):
        found = [model(ids[:, :length], use_cache=False).logits for length in (4, 5, 6)]
    with torch.no_grad():
        plain = [model(ids[:, :length], use_cache=False).logits for length in (4, 5, 6)]
    assert all(torch.equal(one, other) for one, other in zip(found, plain, strict=True))


def test_what_is_read_on_top_of_a_cache_counts_as_generated(
    own_plains, plains, direction, by_hand, relative_error
):
    model, vector = own_plains["llama"], SteeringVector.from_direction(direction, site=1)
    ids = [*PROMPTS[0], 21, 22, 23]
    with torch.no_grad(), steer(model, vector, strength=STRENGTH, positions="generated"):
        model(torch.tensor([[5, 6]]))  # something else in between
        begun = model(torch.tensor([ids[:7]]), use_cache=True)
        model(torch.tensor([list(range(30))]))
        cache = begun.past_key_values
        more = [model(torch.tensor([ids[7:9]]), past_key_values=cache).logits]
        more.append(model(torch.tensor([ids[9:]]), past_key_values=cache).logits)
    expected = by_hand(plains["llama"], ids, lambda x: x + STRENGTH * direction, [7, 8, 9])
    assert relative_error(torch.cat([begun.logits, *more], dim=1)[0], expected) < TOLERANCE


def test_beams_are_steered_alike_with_and_without_cache(own_plains, direction):
    model, vector = own_plains["gpt_neox"], SteeringVector.from_direction(direction, site=1)
    ids, kept = padded(PROMPTS)
    with steer(model, vector, strength=STRENGTH, positions=(-2, None)):
        texts = [
            model.generate(
                ids,
                attention_mask=kept,
                max_new_tokens=NEW,
                num_beams=3,
                do_sample=False,
                use_cache=cache,
                eos_token_id=None,
                pad_token_id=99,
            ).tolist()
            for cache in (True, False)
        ]
    assert texts[0] == texts[1]
