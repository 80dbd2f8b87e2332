"""Steering on TransformerLens 3.9, which has HookedTransformer, in a process of its own.

`TLENS_TRUST_TL39` names the folder that release was installed to; its import takes long, so that
one process answers for all tests.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

OLD_RELEASE = os.environ.get("TLENS_TRUST_TL39", "")
pytestmark = pytest.mark.skipif(
    not OLD_RELEASE, reason="TLENS_TRUST_TL39 names no TransformerLens 3.9 folder"
)

TOLERANCE = 1e-4
STRENGTH = 4.0
PROMPTS = [[1, 2, 3, 4, 5, 6, 7], [8, 9, 10], [11, 3, 12, 13]]
POLICIES = {
    "all": ({"is": "all"}, lambda ids, n: range(len(ids))),
    "prompt": ({"is": "prompt"}, lambda ids, n: range(n)),
    "generated": ({"is": "generated"}, lambda ids, n: range(n, len(ids))),
    "last": ({"is": "last"}, lambda ids, n: [n - 1]),
    "one": ({"is": 2}, lambda ids, n: [2]),
    "one from the end": ({"is": -2}, lambda ids, n: [n - 2]),
    "span": ({"is": [1, 4]}, lambda ids, n: range(1, 4)),
    "from an index on": ({"is": [4, None]}, lambda ids, n: range(min(4, len(ids)), len(ids))),
    "from the end on": ({"is": [-1, None]}, lambda ids, n: range(n - 1, len(ids))),
    "tokens": (
        {"set": [3, *range(20, 60)]},
        lambda ids, n: [k for k, i in enumerate(ids) if i == 3 or 20 <= i < 60],
    ),
}
MODES = ["ablate", "clamp", "rotate"]
KINDS = ["hooked_transformer", "bridge"]
ARCHITECTURES = ["gpt_neox", "llama"]


@pytest.fixture(scope="module")
def told(tmp_path_factory, folders, direction):
    out = tmp_path_factory.mktemp("release_3_9")
    save_file({"direction": direction}, out / "direction.safetensors")
    asked = {
        "folders": {name: str(folder) for name, folder in folders.items()},
        "prompts": PROMPTS,
        "strength": STRENGTH,
        "policies": {name: given for name, (given, _) in POLICIES.items()},
        "modes": MODES,
    }
    (out / "asked.json").write_text(json.dumps(asked))
    package = Path(__file__).parents[2]
    done = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "steer_with_release_3_9.py"), str(out)],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join((OLD_RELEASE, str(package)))},
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return json.loads((out / "answers.json").read_text()), load_file(out / "tensors.safetensors")


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_left_padded_batch_is_steered_as_each_row_by_hand_with_and_without_cache(
    kind, architecture, policy, told, plains, direction, by_hand, relative_error
):
    tensors, texts = told[1], []
    for cache in (True, False):
        key = f"{architecture}/{kind}/{policy}/{cache}"
        written, logits = tensors[f"{key}/ids"].tolist(), tensors[f"{key}/logits"]
        texts.append(written)
        for prompt, tokens, found in zip(PROMPTS, written, logits, strict=True):
            ids, n = [*prompt, *tokens[:-1]], len(prompt)
            places = POLICIES[policy][1](ids, n)
            expected = by_hand(
                plains[architecture], ids, lambda x: x + STRENGTH * direction, places
            )
            assert relative_error(found, expected[n - 1 :]) < TOLERANCE
    assert texts[0] == texts[1]


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_other_modes_too_are_the_same_with_and_without_cache(
    kind, architecture, mode, told, plains, direction, by_hand, changes, relative_error
):
    tensors, texts = told[1], []
    for cache in (True, False):
        key = f"{architecture}/{kind}/{mode}/{cache}"
        written, logits = tensors[f"{key}/ids"].tolist(), tensors[f"{key}/logits"]
        texts.append(written)
        for prompt, tokens, found in zip(PROMPTS, written, logits, strict=True):
            ids, n = [*prompt, *tokens[:-1]], len(prompt)
            change = changes(direction, STRENGTH)[mode]
            expected = by_hand(plains[architecture], ids, change, range(n - 1, len(ids)))
            assert relative_error(found, expected[n - 1 :]) < TOLERANCE
    assert texts[0] == texts[1]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_forward_pass_is_hugging_faces_own_edited_by_hand(
    architecture, told, plains, direction, by_hand, relative_error
):
    found = told[1][f"{architecture}/forward"][0]
    change = lambda x: x + STRENGTH * direction  # noqa: E731
    expected = by_hand(plains[architecture], PROMPTS[0], change, range(7))
    assert relative_error(found, expected) < TOLERANCE
    unsteered = by_hand(plains[architecture], PROMPTS[0], change, [])
    assert relative_error(found, unsteered) > 100 * TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_last_token_is_the_texts_own_where_padding_follows_it(
    architecture, told, plains, direction, by_hand, relative_error
):
    for found, ids in zip(told[1][f"{architecture}/right"], PROMPTS, strict=True):
        expected = by_hand(
            plains[architecture], ids, lambda x: x + STRENGTH * direction, [len(ids) - 1]
        )
        assert relative_error(found[: len(ids)], expected) < TOLERANCE


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_nesting_conditions_exceptions_and_streams(architecture, told):
    answer = told[0][architecture]
    assert answer["identity"] < 1e-4
    assert answer["at 0"] == {"add": 0.0, "ablate": 0.0, "rotate": 0.0}
    assert answer["nested"]
    assert answer["condition"] < 1e-4
    assert answer["untouched"]
    assert answer["hooks"] == [0, 0, 0]
    assert answer["stream"][0] == answer["stream"][1] == answer["stream"][2]
    assert "has d_model=7, but" in answer["refused"]
