"""What collecting activations costs beside the model alone and beside the ways it replaces.

Run with `python -m pytest tests/benchmarks/test_collect_speed.py -s`. Every round runs all
contenders one after the other, and ratios are medians over rounds, so that another load on the
machine falls on all of them.
"""

import statistics
import time

import pytest
import torch

from tlens_trust.activations import ActivationStore, collect_activations
from tlens_trust.activations.batches import pad_batch, plan_batches
from tlens_trust.activations.collect import DEFAULT_BATCH_TOKENS

N_STATEMENTS = 512
N_LAYERS = 12
VOCABULARY = 32_000
WARM_UP = 1  # batches or statements


@pytest.fixture(scope="module", autouse=True)
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(VOCABULARY - 1)} | {"<unk>": VOCABULARY - 1}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>")


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tokenizer):
    from transformers import LlamaConfig, LlamaForCausalLM

    path = tmp_path_factory.mktemp("llama")
    torch.manual_seed(0)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCABULARY,
            hidden_size=512,
            intermediate_size=1376,
            num_hidden_layers=N_LAYERS,
            num_attention_heads=8,
            max_position_embeddings=256,
        )
    )
    model.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


@pytest.fixture(scope="module")
def statements():
    generator = torch.Generator().manual_seed(0)
    lengths = torch.randint(8, 57, (N_STATEMENTS,), generator=generator).tolist()
    return [
        " ".join(f"w{i}" for i in torch.randint(VOCABULARY - 1, (n,), generator=generator).tolist())
        for n in lengths
    ]


def interleaved(benchmark, capsys, contenders, rounds):
    """Seconds of each contender in each round."""
    seconds = {name: [] for name in contenders}

    def one_round():
        for name, run in contenders.items():
            start = time.perf_counter()
            run(None)
            seconds[name].append(time.perf_counter() - start)
        with capsys.disabled():
            print(", ".join(f"{name} {taken[-1]:.1f} s" for name, taken in seconds.items()))

    for run in contenders.values():
        run(WARM_UP)
    benchmark.pedantic(one_round, rounds=rounds)
    return seconds


def ratio(seconds, of, to):
    return statistics.median(a / b for a, b in zip(seconds[of], seconds[to], strict=True))


def report(capsys, seconds, to):
    with capsys.disabled():
        print(f"{N_STATEMENTS} statements, {N_LAYERS} sites, medians of {len(seconds[to])} rounds")
        for name, taken in seconds.items():
            print(
                f"{name:32} {statistics.median(taken):7.2f} s; takes "
                f"{ratio(seconds, name, to):5.3f} times as long as {to}"
            )


@pytest.fixture(scope="module")
def load(folder):
    from transformers import AutoModelForCausalLM

    def load(attention):
        return AutoModelForCausalLM.from_pretrained(
            folder, attn_implementation=attention, dtype=torch.float32
        ).eval()

    return load


@pytest.fixture(scope="module")
def bridge(folder):
    from transformer_lens.model_bridge import TransformerBridge

    return TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)


def test_collecting_costs_what_the_bare_model_costs(
    benchmark, capsys, load, bridge, tokenizer, statements
):
    eager, sdpa = load("eager"), load("sdpa")
    rows = tokenizer(statements)["input_ids"]
    batches = [
        pad_batch([rows[i] for i in batch], padding_side="right")
        for batch in plan_batches([len(row) for row in rows], DEFAULT_BATCH_TOKENS)
    ]

    def bare(model, some):
        with torch.inference_mode():
            for tokens, kept in batches[:some]:
                model.base_model(input_ids=tokens, attention_mask=kept.long(), use_cache=False)

    def collect(model, some):
        collect_activations(model, statements[:some], tokenizer=tokenizer)

    seconds = interleaved(
        benchmark,
        capsys,
        {
            "bare, eager": lambda some: bare(eager, some),
            "collect, bridge": lambda some: collect(bridge, some),
            "bare, sdpa": lambda some: bare(sdpa, some),
            "collect, plain sdpa": lambda some: collect(sdpa, some),
        },
        rounds=7,
    )
    report(capsys, seconds, "collect, bridge")
    report(capsys, seconds, "collect, plain sdpa")
    assert ratio(seconds, "bare, eager", "collect, bridge") >= 0.95


def test_collecting_beats_the_ways_it_replaces(
    benchmark, capsys, load, bridge, tokenizer, statements
):
    eager = load("eager")
    rows = tokenizer(statements)["input_ids"]
    names = {f"blocks.{i}.hook_out" for i in range(N_LAYERS)}

    def one_at_a_time(some):
        with torch.inference_mode():
            for row in rows[:some]:
                hidden = eager(torch.tensor([row]), output_hidden_states=True).hidden_states
                _ = torch.stack([stream[0, -1] for stream in hidden])

    def run_with_cache(some):
        with torch.inference_mode():
            for start in range(0, len(rows[:some]), 32):
                batch = rows[start : start + 32]
                tokens, _ = pad_batch(batch, padding_side="right")
                _, cache = bridge.run_with_cache(tokens, names_filter=lambda name: name in names)
                ends = torch.tensor([len(row) - 1 for row in batch])
                _ = torch.stack([cache[name][torch.arange(len(ends)), ends] for name in names])

    seconds = interleaved(
        benchmark,
        capsys,
        {
            "collect, bridge": lambda some: collect_activations(
                bridge, statements[:some], tokenizer=tokenizer
            ),
            "one at a time with logits": one_at_a_time,
            "run_with_cache, unsorted by 32": run_with_cache,
        },
        rounds=3,
    )
    report(capsys, seconds, "collect, bridge")
    assert ratio(seconds, "one at a time with logits", "collect, bridge") >= 1.7
    assert ratio(seconds, "run_with_cache, unsorted by 32", "collect, bridge") >= 2.0


def test_a_second_collection_is_read_from_the_store(
    benchmark, capsys, folder, statements, tmp_path
):
    from tlens_trust.checkpoints import Checkpoint

    def collect(store):
        start = time.perf_counter()
        checkpoint = Checkpoint.from_directory(folder)  # nothing of it is remembered
        collect_activations(checkpoint, statements, store=store, device="cpu", backend="bridge")
        return time.perf_counter() - start

    ratios = []

    def one_round():
        store = ActivationStore(tmp_path / str(len(ratios)))
        first = collect(store)
        ratios.append(first / collect(store))

    benchmark.pedantic(one_round, rounds=3)
    with capsys.disabled():
        print(
            f"\na second collection is {statistics.median(ratios):.0f} times faster than the first"
        )
    assert statistics.median(ratios) >= 50
