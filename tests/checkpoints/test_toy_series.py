"""What the toy series comes to know, read with scikit-learn alone."""

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedGroupKFold, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from tlens_trust.checkpoints import toy
from tlens_trust.concepts.embedded.sets import embedded_concepts

DIMENSIONS = ("reliability", "privacy", "toxicity", "fairness", "robustness")


def last_token_states(checkpoint, statements):
    """What every block leaves at each statement's last token: `[block, statement, d_model]`."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    model = AutoModelForCausalLM.from_pretrained(checkpoint.folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(checkpoint.folder.parent)
    encoded = tokenizer(list(statements))["input_ids"]
    ends = torch.tensor([len(ids) - 1 for ids in encoded])
    padded = torch.tensor([ids + [0] * (max(ends) + 1 - len(ids)) for ids in encoded])
    states = []
    for block in model.gpt_neox.layers:
        block.register_forward_hook(
            lambda _, __, out: states.append(
                (out[0] if isinstance(out, tuple) else out)[torch.arange(len(ends)), ends]
            )
        )
    with torch.no_grad():
        model.gpt_neox(padded, use_cache=False)
    return [layer.numpy() for layer in states]


def accuracies(states, concept):
    """Held-out accuracy at every block."""
    return [
        cross_val_score(
            make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
            layer,
            concept.labels,
            groups=concept.groups,
            cv=StratifiedGroupKFold(5, shuffle=True, random_state=0),
        ).mean()
        for layer in states
    ]


@pytest.fixture(scope="module")
def best(toy_series):
    """The best block's accuracy, by concept, before and after training."""
    found = {}
    for name, concept in embedded_concepts().items():
        for when in (0, -1):
            states = last_token_states(toy_series[when], concept.statements)
            found[name, when] = max(accuracies(states, concept))
    return found


def test_the_trained_model_knows_at_least_three_concepts(best):
    assert sum(best[name, -1] >= 0.85 for name in DIMENSIONS) >= 3


@pytest.mark.parametrize("name", DIMENSIONS)
def test_training_makes_a_concept_readable_that_the_untrained_model_lacks(best, name):
    assert best[name, 0] <= 0.65
    assert best[name, -1] - best[name, 0] >= 0.2


def test_the_untrained_model_is_read_at_chance_where_labels_are_of_no_account(toy_series):
    concept = embedded_concepts()["reliability"]
    states = last_token_states(toy_series[0], concept.statements)
    shuffled = np.random.default_rng(0).permutation(concept.labels)
    scores = cross_val_score(
        make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000)),
        states[-1],
        shuffled,
        cv=5,
    )
    assert 0.35 < scores.mean() < 0.65


def test_the_series_runs_from_random_weights_to_the_last_step_in_log_steps(toy_series):
    assert toy.CHECKPOINT_STEPS[:8] == (0, 1, 2, 4, 8, 16, 32, 64)
    assert np.diff(np.log2(toy.CHECKPOINT_STEPS[1:])).max() <= 1
    assert set(toy_series.steps) <= set(toy.CHECKPOINT_STEPS)
    assert toy_series.steps[0] == 0
    assert toy_series.steps[-1] == toy.CHECKPOINT_STEPS[-1]
    assert np.diff(np.log2(toy_series.steps[1:])).max() <= 2
    assert toy_series.tokens == tuple(1000 * step for step in toy_series.steps)


def test_the_loss_falls_all_the_way(toy_series):
    losses = [checkpoint.loss for checkpoint in toy_series]
    assert losses[0] > 6
    assert losses[-1] < 0.8
    assert np.all(np.diff(losses[:6]) < 0)
