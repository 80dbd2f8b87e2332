"""What interval, null and floor of a concept, and its information, cost beside collecting it.

Run with `python -m pytest tests/benchmarks/test_statistics_cost.py -s`. Every round collects and
measures, one after the other, so that another load on the machine falls on both.
"""

import statistics
import time

import numpy as np
import pytest
import torch

from tlens_trust.activations import collect_activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import (
    kernel_dependence,
    logistic_probe,
    probe_information,
    reference_levels,
    spectrum,
)

N_GROUPS, N_LAYERS, WIDTH, VOCABULARY = 976, 30, 576, 49_152
ROUNDS = 2


@pytest.fixture(scope="module")
def concept():
    """Pairs of made-up statements of 10 to 30 words; one word in some of them goes with a label."""
    generator = np.random.default_rng(0)
    statements = []
    for _ in range(N_GROUPS):
        shared = generator.zipf(1.2, size=generator.integers(8, 29)) % (VOCABULARY - 200)
        for label in (0, 1):
            words = [f"w{word}" for word in shared]
            cue = VOCABULARY - 100 + int(generator.integers(40)) + 20 * label
            words.insert(int(generator.integers(len(words))), f"w{cue}")
            statements.append(" ".join([*words, "w0"]))
    return Concept(
        "made up",
        "reliability",
        tuple(statements),
        np.tile([0, 1], N_GROUPS),
        tuple(str(row // 2) for row in range(2 * N_GROUPS)),
    )


@pytest.fixture(scope="module")
def model():
    """The shape of SmolLM2-135M, with random weights."""
    from transformers import LlamaConfig, LlamaModel

    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=WIDTH,
        intermediate_size=1536,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=9,
        num_key_value_heads=3,
        max_position_embeddings=2048,
    )
    return LlamaModel(config).eval()


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(VOCABULARY - 1)} | {"<unk>": VOCABULARY - 1}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


def test_statistics_cost_less_than_collecting(benchmark, capsys, model, tokenizer, concept):
    measure = logistic_probe()
    bare = logistic_probe(resamples=2, permutations=1, floor=False)
    seconds: dict[str, list[float]] = {"collecting": [], "all": [], "probes alone": []}

    def timed(name, run):
        start = time.perf_counter()
        result = run()
        seconds[name].append(time.perf_counter() - start)
        return result

    def one_round():
        activations = timed(
            "collecting", lambda: collect_activations(model, concept, tokenizer=tokenizer)
        )
        # The floor is the same at every checkpoint, and cached.
        reference_levels._floor_cache.clear()
        timed("all", lambda: measure(activations, concept, seed=0))
        timed("probes alone", lambda: bare(activations, concept, seed=0))

    benchmark.pedantic(one_round, rounds=ROUNDS)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    cost = medians["all"] - medians["probes alone"]
    with capsys.disabled():
        print(f"\n{2 * N_GROUPS} statements, {N_LAYERS} sites; {medians}")
        print(f"statistics {cost:.1f} s: {cost / medians['collecting']:.2f} times collecting")
    assert cost < medians["collecting"]


def test_information_costs_no_more_than_collecting(benchmark, capsys, model, tokenizer, concept):
    measures = {
        "kernels": kernel_dependence(),
        "nats": probe_information(),
        "spectrum": spectrum(),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ("collecting", *measures)}

    def one_round():
        start = time.perf_counter()
        activations = collect_activations(model, concept, tokenizer=tokenizer)
        seconds["collecting"].append(time.perf_counter() - start)
        reference_levels._floor_cache.clear()
        for name, measure in measures.items():
            start = time.perf_counter()
            measure(activations, concept, seed=0)
            seconds[name].append(time.perf_counter() - start)

    benchmark.pedantic(one_round, rounds=ROUNDS)
    medians = {name: statistics.median(taken) for name, taken in seconds.items()}
    cost = sum(medians[name] for name in measures)
    with capsys.disabled():
        print(f"\n{2 * N_GROUPS} statements, {N_LAYERS} sites; {medians}")
        print(f"information {cost:.1f} s: {cost / medians['collecting']:.2f} times collecting")
    assert cost < medians["collecting"]
