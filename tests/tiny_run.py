"""A run of three tiny random GPT-NeoX checkpoints on disk, two concepts, and a quick measure."""

import hashlib
from dataclasses import dataclass

import numpy as np
import pytest
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.measures import logistic_probe
from tlens_trust.tracing import Trace, trace_checkpoints

STEPS = (0, 8, 64)


def save_checkpoint(folder, seed):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM, PreTrainedTokenizerFast

    words = {f"w{i}": i for i in range(40)} | {"<unk>": 40}
    backend = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    torch.manual_seed(seed)
    config = GPTNeoXConfig(
        vocab_size=41,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=16,
        initializer_range=0.3,
    )
    GPTNeoXForCausalLM(config).save_pretrained(folder)
    PreTrainedTokenizerFast(tokenizer_object=backend, unk_token="<unk>").save_pretrained(folder)


@pytest.fixture(scope="session")
def run_of_checkpoints(tmp_path_factory):
    root = tmp_path_factory.mktemp("tiny")
    for seed, step in enumerate(STEPS):
        save_checkpoint(root / f"step{step}", seed)
    return root


@pytest.fixture(scope="session")
def saved(run_of_checkpoints):
    """The three checkpoints on disk."""
    return [Checkpoint.from_directory(run_of_checkpoints / f"step{step}") for step in STEPS]


@pytest.fixture(scope="session")
def checkpoints(saved):
    """The same in memory, which are read without waiting for TransformerLens."""
    from transformers import AutoModelForCausalLM

    return [
        Checkpoint(
            "tiny",
            each.revision,
            step=each.step,
            in_memory=AutoModelForCausalLM.from_pretrained(each.folder),
            tokenizer=each.load_tokenizer(),
        )
        for each in saved
    ]


@pytest.fixture(scope="session")
def save_weights():
    """Write a tiny checkpoint: `save_weights(folder, seed=7)`."""
    return save_checkpoint


def make_concept(name, seed, groups=12):
    """Pairs of statements that differ in one word, which tells the label."""
    generator = np.random.default_rng(seed)
    statements, labels, names = [], [], []
    for group in range(groups):
        words = generator.integers(4, 40, size=4)
        for label in (0, 1):
            statements.append(" ".join(f"w{i}" for i in (*words, 2 * seed + label)))
            labels.append(label)
            names.append(f"g{group}")
    return Concept(name, name, tuple(statements), np.array(labels), tuple(names))


@pytest.fixture(scope="session")
def concepts():
    return [make_concept("truth", 0), make_concept("kindness", 1)]


@pytest.fixture(scope="session")
def another_concept():
    return make_concept


@dataclass(frozen=True)
class NormMeasure:
    """Mean norm at each site, and each statement's own; a number drawn from the seed beside it."""

    name: str = "norm"
    variable: str = "norm"
    units: str = "activation"
    calls: tuple = ()

    @property
    def identity(self):
        return f"{self.name}({self.variable}, {self.units})"

    def __call__(self, activations, concept, *, seed):
        norms = activations.values.norm(dim=-1).double().numpy()
        drawn = np.random.default_rng(seed).random(len(activations.sites))
        described = {"units": self.units, "long_name": self.variable}
        return xr.Dataset(
            {
                self.variable: ("site", norms.mean(axis=0), described),
                "drawn": ("site", drawn, {"units": "1", "long_name": "drawn"}),
                "score": (("example", "site"), norms, {"units": "activation", "long_name": "s"}),
                "fold": ("example", np.arange(len(norms)) % 3, {"units": "1", "long_name": "f"}),
            },
            coords={"site": list(activations.sites)},
        )


@pytest.fixture(scope="session")
def norm_measure():
    return NormMeasure


@pytest.fixture(scope="session")
def quick_probe():
    return logistic_probe(C=(0.1, 10.0), folds=3, resamples=20, permutations=50)


@pytest.fixture
def sweep(checkpoints, concepts, norm_measure):
    """Trace the tiny run, quietly and without a store, by the quick measure."""

    def run(series=None, wanted=None, **arguments):
        options = {"measures": norm_measure(), "store": None, "progress": False}
        return trace_checkpoints(
            checkpoints if series is None else series,
            concepts if wanted is None else wanted,
            **(options | arguments),
        )

    return run


@pytest.fixture
def loads(monkeypatch):
    """Names of the checkpoints whose weights were loaded, in order."""
    names = []
    load = Checkpoint.load

    def counted(self, **arguments):
        names.append(self.name)
        return load(self, **arguments)

    monkeypatch.setattr(Checkpoint, "load", counted)
    return names


@pytest.fixture
def trace():
    """A trace made by hand: two concepts, three checkpoints, four sites, one cell unknown."""
    shape = (2, 3, 4)
    accuracy = np.random.default_rng(0).random(shape)
    accuracy[1, 2] = np.nan
    dims = ("concept", "checkpoint", "site")
    described = {"units": "fraction of statements", "long_name": "held-out accuracy"}
    variables = {
        "accuracy": (dims, accuracy, {**described, "resamples": 100}),
        "accuracy_ci": (
            (*dims, "bound"),
            np.stack([accuracy - 0.1, accuracy + 0.1], -1),
            described,
        ),
        "accuracy_n": (dims, np.full(shape, 200), {"units": "statements", "long_name": "n"}),
        "rank": (dims, accuracy * 7, {"units": "1", "long_name": "effective rank"}),
    }
    coordinates = {
        "concept": ["truth", "kindness <b>"],
        "dimension": ("concept", ["reliability", "toxicity"]),
        "polarity": ("concept", [True, False]),
        "n_statements": ("concept", [200, 200]),
        "checkpoint": ["m@step0", "m@step8", "m@step64"],
        "step": ("checkpoint", [0, 8, 64]),
        "tokens": ("checkpoint", [0.0, np.nan, 640.0]),
        "stage": ("checkpoint", ["", "stage1", "stage1"]),
        "site": [f"blocks.{i}.hook_{kind}" for i in range(2) for kind in ("mlp_out", "resid_post")],
        "layer": ("site", [0, 0, 1, 1]),
        "depth": ("site", [0.5, 0.5, 1.0, 1.0]),
        "bound": ["low", "high"],
    }
    attributes = {"model": "m <i>", "created": "2030-01-01T00:00:00+00:00", "seed": "0"}
    return Trace(xr.Dataset(variables, coordinates, attributes))


@pytest.fixture
def digest():
    """SHA-256 of every file below a folder, by relative name."""

    def of(folder):
        return {
            path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in sorted(folder.rglob("*"))
            if path.is_file()
        }

    return of


@pytest.fixture(scope="session")
def planted():
    """Activations in which a concept lies along given directions.

    `planted({step: direction}, groups=60)`: unit noise, and the direction added where the label is
    1; None plants nothing. Every checkpoint draws noise of its own.
    """

    def plant(
        directions,
        *,
        name="truth",
        groups=60,
        seed=0,
        shift=None,
        scale=None,
        kept=0.0,
        prefix=None,
        labels=None,
    ):
        prefix = name if prefix is None else prefix
        rows = 2 * groups
        labels = np.arange(rows) % 2 if labels is None else labels
        concept = Concept(
            name,
            name,
            tuple(f"{prefix} {row}" for row in range(rows)),
            labels,
            tuple(f"{prefix} group {row // 2}" for row in range(rows)),
        )
        generator = torch.Generator().manual_seed(seed)
        width = next((len(d) for d in directions.values() if d is not None), 8)
        common = torch.randn(rows, width, generator=generator)
        found = []
        for step, direction in directions.items():
            own = torch.randn(rows, width, generator=generator)
            # With `kept`, checkpoints share a part of what is peculiar to each statement.
            values = np.sqrt(kept) * common + np.sqrt(1 - kept) * own
            if direction is not None:
                planted = torch.tensor(np.asarray(direction), dtype=torch.float32)
                values = values + torch.from_numpy(labels)[:, None] * planted
            values = values * (1.0 if scale is None else scale[step])
            values = values + (0.0 if shift is None else shift[step])
            found.append(
                Activations(
                    values.float().unsqueeze(1),
                    ("blocks.0.hook_resid_post",),
                    Checkpoint("planted", f"step{step}", step=step),
                    concept,
                )
            )
        return found

    return plant
