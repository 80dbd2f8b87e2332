"""What tests of several packages share: the toy series, the demo, and a planted direction."""

import gc
import os
import subprocess
import sys

import pytest

# Several processes share the cores: more threads and processes would only be in the way. It has to
# be said before torch is imported.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ.setdefault("LOKY_MAX_CPU_COUNT", "1")

# Of these files every test may run in a process of its own: they share nothing, and take long.
ONE_BY_ONE = ("test_snippets.py", "test_notebooks.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    """Keep the tests of a file in one process, with the fixtures that they share."""
    from xdist.scheduler import LoadFileScheduling

    class ByFileOrTest(LoadFileScheduling):
        def _split_scope(self, nodeid):
            file = super()._split_scope(nodeid)
            return nodeid if file.endswith(ONE_BY_ONE) else file

    # In the order in which they stand here, and not the largest files first.
    config.option.loadscopereorder = False
    return ByFileOrTest(config, log)


def pytest_itemcollected(item):
    """Mark what needs the demo."""
    if "demo_folder" in getattr(item, "fixturenames", ()):
        item.add_marker("documents")


def pytest_collection_modifyitems(items):
    """What needs the demo comes last: meanwhile one process runs it."""
    items.sort(key=_place)


def pytest_collection_finish():
    """Keep Python from looking through all that was imported whenever a model is let go of."""
    gc.collect()
    gc.freeze()


def _place(item):
    if item.get_closest_marker("documents") is None or item.path.name == "test_demo.py":
        return 0
    return 2 if item.path.parent.name == "docs" else 1


@pytest.fixture(scope="session")
def toy_series():
    """The toy series that comes with the package."""
    from tlens_trust.checkpoints import load_toy_series

    return load_toy_series()


@pytest.fixture(scope="session")
def demo_folder(tmp_path_factory):
    """A folder in which `tlens-trust demo` has run, once for all processes of a session.

    Beside its run folder lie `printed.txt` and `errors.txt`.
    """
    from filelock import FileLock

    root = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        root = root.parent
    folder = root / "demo"
    with FileLock(root / "demo.lock"):
        if not (folder / "printed.txt").exists():
            folder.mkdir(exist_ok=True)
            done = subprocess.run(
                [sys.executable, "-m", "tlens_trust.cli", "demo"],
                cwd=folder,
                env={**os.environ, "TLENS_TRUST_CACHE": str(folder / "cache")},
                capture_output=True,
                text=True,
            )
            assert done.returncode == 0, done.stderr
            (folder / "errors.txt").write_text(done.stderr, encoding="utf-8")
            (folder / "printed.txt").write_text(done.stdout, encoding="utf-8")
    return folder


PLANTED_WIDTH = 64
READ_FROM, WRITTEN_TO = (60, 61), (62, 63)


@pytest.fixture(scope="session")
def plant():
    """Make a tiny model with a planted direction: `plant(readable=True, writable=True, seed=0)`.

    Where it is readable, the embeddings of the tokens `w60` and `w61`, with which the statements of
    `planted_concept` end, lie to either side along the direction. Where it is writable, so do the
    unembeddings of these two and of `w62` and `w63`, which then follow it.
    """
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(64)} | {"<unk>": 64, "<s>": 65}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, unk_token="<unk>", bos_token="<s>", eos_token="<s>"
    )
    # The final norm takes the mean away, and so would it of a direction that has one.
    basis = torch.randn(PLANTED_WIDTH, 3, generator=torch.Generator().manual_seed(0))
    basis[:, 0] = 1.0
    _, direction, everyday = torch.linalg.qr(basis)[0].T

    def make(*, readable=True, writable=True, seed=0):
        torch.manual_seed(seed)
        config = GPTNeoXConfig(
            vocab_size=66,
            hidden_size=PLANTED_WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=32,
            max_position_embeddings=32,
            initializer_range=0.1,
            bos_token_id=65,
            eos_token_id=65,
        )
        model = GPTNeoXForCausalLM(config).eval()
        with torch.no_grad():
            model.gpt_neox.embed_in.weight[:60] += 2 * everyday
            for token, side in zip(READ_FROM, (1.0, -1.0), strict=True):
                if readable:
                    model.gpt_neox.embed_in.weight[token] += 3 * side * direction
            if not readable:
                # Two embeddings can be told apart; these lie within what words before them mix in.
                first, second = (model.gpt_neox.embed_in.weight[token] for token in READ_FROM)
                second.copy_(first + 0.01 * (second - first))
            for pair in (READ_FROM, WRITTEN_TO):
                for token, side in zip(pair, (1.0, -1.0), strict=True):
                    # These are never said in neutral text, so that saying the one or the other is
                    # no damage.
                    model.get_output_embeddings().weight[token] -= 3 * everyday
                    # Without it, unembeddings do not see the direction at all.
                    row = model.get_output_embeddings().weight[token]
                    row -= (row @ direction) * direction
                    if writable:
                        row += side * direction
        return model, tokenizer, direction

    return make


@pytest.fixture(scope="session")
def planted_concept():
    """Twins that end with `w60` (trustworthy) or `w61`: `planted_concept(groups=30)`."""
    import numpy as np

    from tlens_trust.concepts import Concept

    def make(*, groups=30, seed=0, name="planted"):
        generator = np.random.default_rng(seed)
        statements, names = [], []
        for group in range(groups):
            words = " ".join(f"w{i}" for i in generator.integers(0, 60, size=4))
            statements += [f"{words} w{token}" for token in READ_FROM]
            names += [f"group {group}"] * 2
        labels = np.tile([1, 0], groups)
        return Concept(name, name, tuple(statements), labels, tuple(names))

    return make
