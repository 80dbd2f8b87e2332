"""Small random models and a small tokenizer, in memory and on disk."""

from pathlib import Path

import pytest
import torch

VOCABULARY = 64


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(VOCABULARY - 3)}
    words |= {"<unk>": VOCABULARY - 3, "<s>": VOCABULARY - 2, "</s>": VOCABULARY - 1}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def make_config(architecture, **settings):
    import transformers

    tokens = {"bos_token_id": VOCABULARY - 2, "eos_token_id": VOCABULARY - 1}
    if architecture == "gpt2":
        shape = {"n_embd": 32, "n_layer": 3, "n_head": 4, "n_positions": 40}
        return transformers.GPT2Config(vocab_size=VOCABULARY, **tokens, **{**shape, **settings})
    configs = {
        "gpt_neox": transformers.GPTNeoXConfig,
        "llama": transformers.LlamaConfig,
        "olmo": transformers.OlmoConfig,
        "olmo2": transformers.Olmo2Config,
        "qwen2": transformers.Qwen2Config,
    }
    if architecture == "bloom":
        return transformers.BloomConfig(
            vocab_size=VOCABULARY, hidden_size=32, n_layer=3, n_head=4, **tokens, **settings
        )
    shape = {
        "hidden_size": 32,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "max_position_embeddings": 40,
        "pad_token_id": VOCABULARY - 1,
    }
    if architecture == "qwen2":
        shape["num_key_value_heads"] = 2
    return configs[architecture](vocab_size=VOCABULARY, **tokens, **{**shape, **settings})


def make_model(architecture, seed=0, **settings):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(architecture, **settings))
    with torch.no_grad():
        for weight in model.parameters():
            # Far from 0.02, where attention hardly mixes positions, and off the zeros and ones
            # that biases and norms begin with: whatever is left out of a conversion shows.
            weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


def save_model(folder, architecture, seed=0, *, tokenizer=True, **settings):
    make_model(architecture, seed, **settings).save_pretrained(folder)
    if tokenizer:
        make_tokenizer().save_pretrained(folder)
    return Path(folder)


@pytest.fixture(scope="session", name="make_model")
def _make_model():
    """`make_model("gpt2", seed=3)`: a random model in memory."""
    return make_model


@pytest.fixture(scope="session", name="save_model")
def _save_model():
    """`save_model(folder, "gpt2", seed=3)`: a random model and its tokenizer on disk."""
    return save_model


@pytest.fixture(scope="session", name="tokenizer")
def _tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """One folder on disk per architecture; not to be changed."""
    root = tmp_path_factory.mktemp("models")
    names = ("gpt2", "gpt_neox", "llama", "olmo", "olmo2")
    return {name: save_model(root / name, name) for name in names}
