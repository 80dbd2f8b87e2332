"""Series whose information about X and Y is known, whatever their spectrum does."""

from dataclasses import dataclass, field

import numpy as np
import pytest
import torch
import xarray as xr

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures import kernel_dependence
from tlens_trust.measures.spectrum import spectrum
from tlens_trust.tracing import Trace

STEPS = np.array([0, *2 ** np.arange(12)])
WORDS = ("amber", "basil", "cedar", "delta", "ember", "fjord", "grove", "haven", "inlet", "jetty")
# Invertible throughout: the flattest spectrum in the middle of training.
STEEPNESS = 1.3 - 1.1 * np.sin(np.linspace(0, np.pi, len(STEPS)))


@dataclass(frozen=True, eq=False)
class Planted:
    """Readings at every checkpoint of a series, and what they are held against."""

    concept: Concept
    first_block: torch.Tensor
    readings: list[torch.Tensor]
    steps: np.ndarray = field(default_factory=lambda: STEPS)

    def trace(self, measure=None, **parameters):
        """The trace of one site, by one call: the checkpoints stand along the axis of sites.

        By `kernel_dependence(**parameters)`, unless another measure is given.
        """
        values = torch.stack([self.first_block, *self.readings], dim=1).float()
        sites = tuple(f"blocks.{i}.hook_resid_post" for i in range(values.shape[1]))
        read = Activations(values, sites, n_layers=len(sites))
        parameters = {"permutations": 60, "resamples": 32, **parameters}
        cell = (measure or kernel_dependence(**parameters))(read, self.concept, seed=0)
        cell = xr.merge([cell, spectrum()(read, self.concept, seed=0)], combine_attrs="override")
        return as_trace(cell.isel(site=slice(1, None)), self.concept, self.steps)


def as_trace(cell, concept, steps):
    """Checkpoints out of what stood along the axis of sites."""
    names = [f"planted@step{step}" for step in steps]
    # What is the same at every site is no part of a curve.
    cell = cell[[name for name in cell if "site" in cell[name].dims]]
    data = cell.rename(site="checkpoint").assign_coords(checkpoint=names)
    data = data.expand_dims(concept=[concept.name], site=["blocks.5.hook_resid_post"], axis=(0, 2))
    data = data.assign_coords(
        step=("checkpoint", np.asarray(steps, dtype=float)),
        layer=("site", [5]),
        n_statements=("concept", [len(concept)]),
        n_groups=("concept", [len(set(concept.groups))]),
    )
    return Trace(data.assign_attrs(model="planted"))


def concept_of(labels):
    """Labels with texts that say nothing of them."""
    generator = np.random.default_rng(5)
    texts = tuple(" ".join(generator.choice(WORDS, size=6)) + f" {i}" for i in range(len(labels)))
    return Concept(
        "planted", "reliability", texts, labels, tuple(str(i) for i in range(len(labels)))
    )


class Maker:
    """Draws statements' latent content once, and series of readings of it."""

    def __init__(self, seed, n=400, d=48):
        self.generator = torch.Generator().manual_seed(seed)
        self.n, self.d = n, d
        self.content = self.normal()
        self.rotation = torch.linalg.qr(torch.randn(d, d, generator=self.generator).double())[0]
        known = self.content[:, 0] + 0.5 * self.normal()[:, 0]
        order = known.argsort().argsort()
        self.concept = concept_of((order >= n // 2).numpy().astype(np.int64))
        scale = torch.arange(1, d + 1, dtype=torch.float64) ** -0.3
        self.first_block = self.content * scale @ self.rotation

    def normal(self):
        return torch.randn(self.n, self.d, generator=self.generator).double()

    def scaled(self, content, steepness):
        k = torch.arange(1, self.d + 1, dtype=torch.float64)
        # The directions that are stretched are not those that tell the label.
        turned = content @ self.rotation
        return turned * k**-steepness @ self.rotation

    def rescaled(self):
        """Only the spectrum of an invertible map changes: rank up, then down."""
        readings = [self.scaled(self.content, a) for a in STEEPNESS]
        return Planted(self.concept, self.first_block, readings)

    def reordered(self):
        """Likewise, and those directions that lead in the end are the last at first."""
        places = np.linspace(-1, 1, len(STEPS))
        readings = [self.scaled(self.content, 1.2 * place) for place in places]
        return Planted(self.concept, self.first_block, readings)

    def destroyed(self, most=0.6):
        """Noise takes the place of content in the second half; spectra are those of `rescaled`."""
        plain = self.rescaled()
        half = len(STEPS) // 2
        readings = []
        for number, reading in enumerate(plain.readings):
            share = most * max(0, number - half) / (len(STEPS) - 1 - half)
            mixed = (1 - share) ** 0.5 * self.content + share**0.5 * self.normal()
            noisy = self.scaled(mixed, STEEPNESS[number])
            readings.append(with_spectrum_of(noisy, reading))
        return Planted(self.concept, self.first_block, readings)

    def still(self, noise=0.5):
        """Content under fresh noise of the same strength, turned anew: nothing changes."""
        readings = [
            self.scaled(self.content + noise * self.normal(), 0.5) for _ in range(len(STEPS))
        ]
        return Planted(self.concept, self.first_block, readings)

    def learnt(self):
        """The label's direction is drowned in noise at first, and then is not."""
        readings = []
        for strength in np.linspace(0.0, 1.0, len(STEPS)):
            read = self.normal()
            read[:, :8] += 3 * strength * self.content[:, :8]
            readings.append(read @ self.rotation)
        return Planted(self.concept, self.first_block, readings)


def with_spectrum_of(x, like):
    """The same directions over examples, with the singular values of another reading."""
    mean = x.mean(dim=0)
    left, _, right = torch.linalg.svd(x - mean, full_matrices=False)
    lengths = torch.linalg.svdvals(like - like.mean(dim=0))
    return left * lengths @ right + mean


def kernel_trace(
    x,
    y,
    *,
    matched_x=None,
    matched_y=None,
    wide_x=None,
    null=0.0,
    matched_null=0.0,
    noise=0.02,
    steps=STEPS,
    share=1.0,
    concepts=("planted",),
    sites=("blocks.5.hook_resid_post",),
    seed=0,
):
    """A trace as `kernel_dependence` makes it, of curves that are given, with sampling noise.

    `matched_…` are the rank-matched variant, `wide_x` is at the last width; else like the raw one.
    """
    generator = np.random.default_rng(seed)
    x, y = np.asarray(x, float), np.asarray(y, float)
    checkpoints, resamples = len(steps), 32
    shape = (len(concepts), checkpoints, len(sites), 3, 2, 3)
    truth = np.empty(shape)
    truth[..., :2, :, :] = x[None, :, None, None, None, None]
    truth[..., 2, :, :] = y[None, :, None, None, None]
    if matched_x is not None:
        truth[..., :2, 1, :] = np.asarray(matched_x)[None, :, None, None, None]
    if matched_y is not None:
        truth[..., 2, 1, :] = np.asarray(matched_y)[None, :, None, None]
    if wide_x is not None:
        truth[..., :2, 0, 2] = np.asarray(wide_x)[None, :, None, None]
    value = truth + noise * generator.standard_normal(shape)
    draws = value[..., None] + noise * generator.standard_normal((*shape, resamples))
    level = np.zeros(shape)
    level[..., 0, :] = np.broadcast_to(null, checkpoints)[None, :, None, None, None]
    level[..., 1, :] = np.broadcast_to(matched_null, checkpoints)[None, :, None, None, None]
    dims = ("concept", "checkpoint", "site", "against", "variant", "width")
    told = {"units": "1", "long_name": "normalised HSIC"}
    band = np.stack([level - noise, level + noise], axis=-1)
    interval = np.stack([value - 2 * noise, value + 2 * noise], axis=-1)
    return Trace(
        xr.Dataset(
            {
                "nhsic": (dims, value, told),
                "nhsic_ci": ((*dims, "bound"), interval, told),
                "nhsic_null": ((*dims, "bound"), band, told),
                "nhsic_draws": ((*dims, "resample"), draws, told),
                "nhsic_n": (dims[:3], np.full(shape[:3], 500), told),
                "rank_matched_share": (dims[:3], np.full(shape[:3], share), told),
                "rankme": (dims[:3], np.full(shape[:3], 9.0), told | {"units": "directions"}),
            },
            coords={
                "concept": list(concepts),
                "checkpoint": [f"planted@step{step}" for step in steps],
                "site": list(sites),
                "against": ["first_block", "text", "label"],
                "variant": ["raw", "rank_matched"],
                "width": [0.5, 1.0, 2.0],
                "bound": ["low", "high"],
                "resample": np.arange(resamples),
                "step": ("checkpoint", np.asarray(steps, dtype=float)),
                "layer": ("site", [int(site.split(".")[1]) for site in sites]),
                "n_statements": ("concept", [500] * len(concepts)),
                "n_groups": ("concept", [500] * len(concepts)),
            },
            attrs={"model": "planted"},
        )
    )


@pytest.fixture(scope="session")
def make_trace():
    """Curves as `kernel_dependence` would give them."""
    return kernel_trace


@pytest.fixture(scope="session")
def make_series():
    """`make_series(seed).destroyed()` and the like."""
    return Maker
