"""Small random models of every architecture, on disk, with a tokenizer that knows 97 words."""

from pathlib import Path

import pytest
import torch

ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "olmo", "olmo2")
N_LAYERS = 3
N_HEADS = 4
D_MODEL = 32
N_CTX = 48


@pytest.fixture(scope="session")
def words():
    def make(count, start=0):
        """A statement of that many tokens."""
        return " ".join(f"w{(start + 7 * i) % 97}" for i in range(count))

    return make


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(97)} | {"<unk>": 97, "<s>": 98, "</s>": 99}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    )


def make_config(architecture):
    import transformers

    if architecture == "gpt2":
        return transformers.GPT2Config(
            vocab_size=100,
            n_embd=D_MODEL,
            n_layer=N_LAYERS,
            n_head=N_HEADS,
            n_positions=N_CTX,
            initializer_range=0.2,
            bos_token_id=98,
            eos_token_id=99,
        )
    configs = {
        "gpt_neox": transformers.GPTNeoXConfig,
        "llama": transformers.LlamaConfig,
        "olmo": transformers.OlmoConfig,
        "olmo2": transformers.Olmo2Config,
    }
    return configs[architecture](
        vocab_size=100,
        hidden_size=D_MODEL,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=N_HEADS,
        intermediate_size=64,
        max_position_embeddings=N_CTX,
        # Far from the usual 0.02, at which attention hardly mixes positions and a wrong mask
        # would go unseen.
        initializer_range=0.2,
        bos_token_id=98,
        eos_token_id=99,
        pad_token_id=99,
    )


def save_model(folder, architecture, seed=0):
    from transformers import AutoModelForCausalLM

    torch.manual_seed(seed)
    model = AutoModelForCausalLM.from_config(make_config(architecture))
    # What is initialised to 0 or 1 is moved off it, so that leaving it out would show.
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    return Path(folder)


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("models")
    return {name: save_model(root / name, name) for name in ARCHITECTURES}


@pytest.fixture(scope="session")
def saved_model(tmp_path_factory):
    """Another model on disk: `saved_model("gpt2", seed=3)`."""

    def save(architecture, seed):
        return save_model(tmp_path_factory.mktemp(architecture), architecture, seed)

    return save


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session")
def load_plain(folders):
    """Load a model as transformers does, untouched by any of our code."""

    def load(architecture, attention="eager"):
        from transformers import AutoModelForCausalLM

        model = AutoModelForCausalLM.from_pretrained(
            folders[architecture], attn_implementation=attention, dtype=torch.float32
        )
        return model.eval()

    return load


@pytest.fixture(scope="session")
def load_bridge(folders):
    def load(architecture):
        from transformer_lens.model_bridge import TransformerBridge

        return TransformerBridge.boot_transformers(
            str(folders[architecture]), device="cpu", dtype=torch.float32
        )

    return load


@pytest.fixture(scope="session")
def bridge(load_bridge):
    """One bridge that tests share: none may change it."""
    return load_bridge("llama")


@pytest.fixture(scope="session")
def reference(load_plain):
    """The residual stream after every block, one statement at a time, by hooks placed here."""

    def read(architecture, rows, attention="eager"):
        model = load_plain(architecture, attention)
        base = model.base_model
        blocks = base.h if architecture == "gpt2" else base.layers
        found = []

        def keep(module, args, output):
            found.append(output[0] if isinstance(output, tuple) else output)

        for block in blocks:
            block.register_forward_hook(keep)
        result = []
        for ids in rows:
            found.clear()
            with torch.no_grad():
                base(input_ids=torch.tensor([list(ids)]))
            result.append(torch.stack([stream[0] for stream in found]))  # [site, pos, d_model]
        return result

    return read


@pytest.fixture(scope="session")
def relative_error():
    def largest(found, expected):
        """Largest difference over the size of what was expected, both over the last axis."""
        assert found.shape == expected.shape
        scale = expected.norm(dim=-1).clamp(min=1e-12)
        return ((found - expected).norm(dim=-1) / scale).max().item()

    return largest
