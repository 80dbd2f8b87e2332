"""Directions fitted to disjoint halves of the statements, so that their noise is independent.

Two probes that were fitted to the same statements resemble each other through the statements: an
accident of the sample turns both the same way. So directions are compared only between fits that
have no group in common. Groups are halved at random, several times. A direction of one half is
compared with one of the other half. At one checkpoint this gives the reliability, which is how well
two fits of one direction agree.

A cosine between noisy directions is smaller than that between what they estimate. With the
reliabilities `r_i` and `r_j`, two fits of the very same direction reach `√(r_i r_j)`, and
`c_ij / √(r_i r_j)` is the cosine with the noise taken out (Spearman 1904).

Intervals are those of a grouped jackknife. Groups are dealt into blocks, and everything is computed
again without each block, with the same halves. Fits to permuted labels give the null.
"""

import hashlib
from dataclasses import dataclass

import numpy as np
import torch
from einops import einsum, rearrange, repeat
from jaxtyping import Bool, Float, Int, Int8
from torch import Tensor

from tlens_trust.activations import Activations
from tlens_trust.concepts import Concept
from tlens_trust.measures.permutations import permute_labels
from tlens_trust.measures.solver import solve_logistic

DIRECTIONS = ("logistic", "mass_mean")
SPACES = ("raw", "standardised")

# Fits that are solved together, so that what a solver holds for each stays small.
_AT_ONCE = 256


@dataclass(frozen=True, eq=False)
class SplitHalves:
    """Random halvings of the groups of a concept, and its blocks for the jackknife.

    The half and block of a group depend on its name and the seed alone. So a group that is in two
    concepts falls in the same half of both.

    Attributes:
        half: 0 or 1, for each split and statement.
        block: The block of each statement.
        blocks: The number of blocks.
        permuted: Permuted labels, as `permute_labels` draws them, without the labels themselves.
    """

    half: Int8[np.ndarray, "split example"]
    block: Int[np.ndarray, " example"]
    blocks: int
    permuted: Int8[np.ndarray, "draw example"]

    @classmethod
    def draw(
        cls, concept: Concept, *, splits: int, blocks: int, permutations: int, seed: int
    ) -> "SplitHalves":
        """Halve the groups.

        Raises:
            ValueError: A half, less a block, lacks one of the labels.
        """
        for name, number, minimum in (
            ("splits", splits, 1),
            ("blocks", blocks, 2),
            ("permutations", permutations, 2),
        ):
            if number < minimum:
                raise ValueError(f"`{name}` must be at least {minimum}, got {number}.")
        names, group = np.unique(np.asarray(concept.groups, dtype=str), return_inverse=True)
        digests = [hashlib.sha256(f"{seed}\0{name}".encode()).digest() for name in names.tolist()]
        bits = np.unpackbits(
            np.frombuffer(
                b"".join(_stream(digest, 8 + splits // 8) for digest in digests), dtype=np.uint8
            ).reshape(len(names), -1),
            axis=1,
        )
        block = np.array([int.from_bytes(d[-4:], "big") % blocks for d in digests])[group]
        half = bits[:, :splits].T.astype(np.int8)[:, group]
        permuted = permute_labels(
            concept.labels,
            concept.groups,
            np.zeros(len(concept), dtype=np.int64),
            permutations=permutations,
            seed=seed,
        )
        halves = cls(half, block, blocks, permuted.draws[1:])
        _check_labels(halves, concept)
        return halves

    @property
    def train(self) -> Bool[np.ndarray, "split half deletion example"]:
        """The rows of every fit; the first deletion leaves nothing out, the others one block."""
        member = self.half[:, None, :] == np.arange(2)[:, None]
        is_kept = np.concatenate(
            [
                np.ones((1, len(self.block)), dtype=bool),
                self.block != np.arange(self.blocks)[:, None],
            ]
        )
        train: np.ndarray = member[:, :, None, :] & is_kept
        return train


@dataclass(frozen=True, eq=False)
class HalfDirections:
    """Unit directions of all halves at one checkpoint, in each space.

    Attributes:
        fitted: Directions fitted to the labels.
        permuted: Directions fitted to permuted labels, with no block left out.
    """

    fitted: Float[np.ndarray, "space site split half deletion d_model"]
    permuted: Float[np.ndarray, "space site split half draw d_model"]


def fit_half_directions(
    activations: Activations, concept: Concept, halves: SplitHalves, *, direction: str, C: float
) -> HalfDirections:
    """Fit a direction to every half without every block, and to permuted labels.

    Args:
        activations: Activations of the statements.
        concept: Labels and groups.
        halves: Halves of its groups.
        direction: `"logistic"` or `"mass_mean"`.
        C: Inverse strength of the logistic fits' penalty.
    """
    values = activations.values
    train = halves.train
    splits, _, deletions, rows = train.shape
    masks = torch.from_numpy(
        rearrange(train, "split half deletion example -> (split half deletion) example")
    )
    labels = torch.from_numpy(concept.labels.astype(np.int64)).expand(len(masks), rows)
    directions = _fit(values, labels, masks, direction, C)

    draws = len(halves.permuted)
    train_without_deletion = train[:, :, 0]
    masks = torch.from_numpy(
        repeat(
            train_without_deletion, "split half example -> (split half draw) example", draw=draws
        )
    )
    labels = repeat(
        torch.from_numpy(halves.permuted.astype(np.int64)),
        "draw example -> (split half draw) example",
        split=splits,
        half=2,
    )
    # A half of a permutation may lack a label where groups hold one each: its direction is none.
    whole_labels = ((masks & (labels == 1)).any(1) & (masks & (labels == 0)).any(1)).numpy()
    permuted_directions = np.zeros((values.shape[1], len(masks), values.shape[2]))
    if whole_labels.any():
        permuted_directions[:, whole_labels] = _fit(
            values, labels[whole_labels], masks[whole_labels], direction, C
        )
    deviation = values.double().std(dim=0, correction=0).numpy()
    return HalfDirections(
        _in_spaces(directions, deviation, direction, (splits, 2, deletions)),
        _in_spaces(permuted_directions, deviation, direction, (splits, 2, draws)),
    )


def check_direction(direction: str, C: float) -> None:
    """Refuse an unknown kind of direction, or a penalty that is not positive.

    Raises:
        ValueError: Either is the case.
    """
    if direction not in DIRECTIONS:
        raise ValueError(
            f"No direction named {direction!r}. Choose {' or '.join(map(repr, DIRECTIONS))}."
        )
    if not C > 0:
        raise ValueError(
            f"`C` must be positive, got {C}. It is the inverse strength of the logistic penalty."
        )


def _fit(
    values: Float[Tensor, "example site d_model"],
    labels: Int[Tensor, "fit example"],
    train: Bool[Tensor, "fit example"],
    direction: str,
    C: float,
) -> Float[np.ndarray, "site fit d_model"]:
    if direction == "mass_mean":
        one, zero = (train & (labels == 1)).double(), (train & (labels == 0)).double()
        contrast = one / one.sum(1, keepdim=True) - zero / zero.sum(1, keepdim=True)
        contrasts: np.ndarray = einsum(
            contrast, values.double(), "fit example, example site d_model -> site fit d_model"
        ).numpy()
        return contrasts
    parts = [
        solve_logistic(
            values, labels[start : start + _AT_ONCE], train=train[start : start + _AT_ONCE], C=[C]
        ).coef[:, :, 0]
        for start in range(0, len(train), _AT_ONCE)
    ]
    weights: np.ndarray = torch.cat(parts, dim=1).numpy()
    return weights


def _in_spaces(
    directions: Float[np.ndarray, "site fit d_model"],
    deviation: Float[np.ndarray, "site d_model"],
    direction: str,
    shape: tuple[int, int, int],
) -> Float[np.ndarray, "space site split half deletion d_model"]:
    """Scale directions to unit length, in raw coordinates and in those of standardised features.

    A readout `w·x` is `(wσ)·(x/σ)`, while a difference of means `δ` becomes `δ/σ`.
    """
    scale = deviation[:, None, :]
    if direction == "mass_mean":
        scale = np.divide(1.0, scale, out=np.zeros_like(scale), where=scale > 0)
    spaces = np.stack([directions, directions * scale])
    norm = np.linalg.norm(spaces, axis=-1, keepdims=True)
    unit = np.divide(spaces, norm, out=np.zeros_like(spaces), where=norm > 0)
    return np.asarray(unit.reshape(*unit.shape[:2], *shape, unit.shape[-1]), dtype=np.float32)


def _stream(digest: bytes, length: int) -> bytes:
    return hashlib.shake_128(digest).digest(length)


def _check_labels(halves: SplitHalves, concept: Concept) -> None:
    train = halves.train
    for label in (0, 1):
        counts = (train & (concept.labels == label)).sum(axis=-1)
        if not counts.all():
            raise ValueError(
                f"{concept.name!r} has {len(set(concept.groups))} groups, too few: a half of them "
                f"less one of {halves.blocks} blocks holds no statement with label {label}. Give "
                "more groups, or ask for fewer splits."
            )
