"""Small random models, and Hugging Face's own forward pass edited by hand."""

from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

N_LAYERS = 3
D_MODEL = 32
END = 99


def make_tokenizer():
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    vocabulary = {f"w{i}": i for i in range(97)} | {"<unk>": 97, "<s>": 98, "</s>": END}
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=backend,
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
    )


def make_model(architecture, seed=0, d_model=D_MODEL):
    import transformers

    configs = {
        "gpt_neox": transformers.GPTNeoXConfig,
        "llama": transformers.LlamaConfig,
        "olmo2": transformers.Olmo2Config,
    }
    config = configs[architecture](
        vocab_size=100,
        hidden_size=d_model,
        num_hidden_layers=N_LAYERS,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=48,
        # Far from 0.02, at which attention hardly mixes positions and a wrong one goes unseen.
        initializer_range=0.2,
        bos_token_id=98,
        eos_token_id=END,
        pad_token_id=END,
    )
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim == 1:
                weight.add_(0.1 * torch.randn_like(weight))
    return model.eval()


@pytest.fixture(scope="session")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="session", name="make_model")
def _make_model():
    return make_model


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    root = tmp_path_factory.mktemp("steered")
    for name in ("gpt_neox", "llama"):
        make_model(name).save_pretrained(root / name)
        make_tokenizer().save_pretrained(root / name)
    return {name: Path(root / name) for name in ("gpt_neox", "llama")}


@pytest.fixture(scope="session")
def plains():
    """Models as transformers has them; what is steered is never one of these."""
    return {name: make_model(name) for name in ("gpt_neox", "llama")}


@pytest.fixture(scope="session")
def bridges(folders):
    from transformer_lens.model_bridge import TransformerBridge

    return {
        name: TransformerBridge.boot_transformers(str(folder), device="cpu", dtype=torch.float32)
        for name, folder in folders.items()
    }


@pytest.fixture(scope="session")
def own_plains():
    """A second set, to be steered through its own forward hooks."""
    return {name: make_model(name) for name in ("gpt_neox", "llama")}


@contextmanager
def edited(module, change, side="output"):
    """A torch hook of this test's own, none of the package's code."""

    def on_output(_, args, output):
        if isinstance(output, tuple):
            return (change(output[0]), *output[1:])
        return change(output)

    def on_input(_, args):
        return (change(args[0]), *args[1:])

    if side == "output":
        handle = module.register_forward_hook(on_output)
    else:
        handle = module.register_forward_pre_hook(on_input)
    try:
        yield
    finally:
        handle.remove()


@pytest.fixture(scope="session", name="edited")
def _edited():
    return edited


@pytest.fixture(scope="session")
def by_hand():
    """Logits of one unpadded row, with a change made by hand to a block's output at places."""

    def logits(model, ids, change, places, layer=1):
        where = torch.zeros(1, len(ids), 1, dtype=torch.bool)
        where[0, list(places)] = True

        def act(x):
            return torch.where(where, change(x), x)

        with torch.no_grad(), edited(model.base_model.layers[layer], act):
            return model(torch.tensor([ids])).logits[0]

    return logits


@pytest.fixture(scope="session")
def direction():
    return torch.randn(D_MODEL, generator=torch.Generator().manual_seed(3))


@pytest.fixture(scope="session")
def changes():
    """The modes, written out once more: `changes(direction, strength)["ablate"](x)`."""

    def written_out(direction, strength):
        unit = direction / direction.norm()

        def rotate(x):
            moved = x + strength * direction
            return moved * x.norm(dim=-1, keepdim=True) / moved.norm(dim=-1, keepdim=True)

        return {
            "add": lambda x: x + strength * direction,
            "ablate": lambda x: x - strength * (x @ unit)[..., None] * unit,
            "clamp": lambda x: x - (x @ unit)[..., None] * unit + strength * direction,
            "rotate": rotate,
        }

    return written_out


@pytest.fixture(scope="session")
def relative_error():
    def largest(found, expected):
        assert found.shape == expected.shape
        return ((found - expected).norm() / expected.norm()).item()

    return largest
