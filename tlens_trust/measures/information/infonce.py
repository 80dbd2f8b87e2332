"""InfoNCE: bound information by how well a trained critic finds the matching pair among `N`."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import log

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from tlens_trust.arguments import check_counts
from tlens_trust.measures.information.estimate import InformationEstimate
from tlens_trust.measures.intervals import stretched_interval
from tlens_trust.measures.resampling import GroupBootstrap

# AdamW's learning rate and weight decay; the decay limits overfitting of the critic.
_RATE = 2e-3
_DECAY = 1e-2


@dataclass(frozen=True)
class InfoNCE:
    """Bound the information of two variables by InfoNCE: `I(X; Y) ≥ ln N - CE`.

    `CE` is the cross-entropy of identifying the `y` that belongs to an `x` among `N` candidates.
    The critic is `g(x) · h(y)`. `g` and `h` are networks with one hidden layer on standardised
    features.

    The critic is trained on whole groups. A tenth of these groups is used for early stopping. It is
    then evaluated on the groups of a held-out fold, in batches of `N`. So the value is a valid
    lower bound in nats, apart from sampling error.

    The bound never exceeds `ln N`, however large the true information is. No such bound can claim
    more with high confidence from `N` examples (McAllester and Stratos 2018, arXiv:1811.04251). It
    may be negative. The other examples of a group count among the `N`, which makes identification
    harder and the bound lower.

    Attributes:
        batch: The largest `N`; a fold with fewer examples uses fewer.
        width: The number of hidden units.
        dimensions: The output dimension of `g` and `h`.
        epochs: The largest number of passes over the training rows.
        patience: Training ends after this many epochs without an improvement.
        folds: The number of folds that the groups are dealt into.
        seed: Deals the folds, draws weights and batches.

    Source:
        Van den Oord, Li and Vinyals (2018), arXiv:1807.03748; Poole et al. (2019),
        arXiv:1905.06922.

    Examples:
        >>> x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
        >>> found = InfoNCE(epochs=60, folds=2)(x, x)
        >>> 0.3 < found.value < log(200)
        True
    """

    batch: int = 256
    width: int = 64
    dimensions: int = 16
    epochs: int = 100
    patience: int = 10
    folds: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        minimums = {"batch": 2, "width": 1, "dimensions": 1, "epochs": 1, "patience": 1, "folds": 2}
        check_counts(self, {**minimums, "seed": 0})

    def __call__(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"],
        *,
        groups: Sequence[str] | None = None,
    ) -> InformationEstimate:
        """Bound the information between `x` and `y` from below.

        Args:
            x: One row per example.
            y: One row per example; labels are given as a column of numbers.
            groups: The group of each row; None where each row is a group of its own.

        Raises:
            ValueError: There are too few groups for the folds.
        """
        names = [str(row) for row in range(len(x))] if groups is None else list(groups)
        gain, sizes = self.gains(x, y, names)
        bootstrap = GroupBootstrap.draw(names, seed=self.seed, resamples=1000)
        value = gain.mean(keepdims=True)
        low, high = stretched_interval(value, bootstrap.means(gain[:, None]), bootstrap.groups)[0]
        smallest_batch = int(sizes.min())
        cap = log(smallest_batch)
        warnings = [f"At most ln N = {cap:.3f} nats by construction, with N = {smallest_batch}."]
        if float(value[0]) > 0.8 * cap:
            warnings.append("Near its cap: the true information may be far more.")
        return InformationEstimate(
            float(value[0]), (float(low), float(high)), len(x), "lower bound", tuple(warnings)
        )

    def gains(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"],
        groups: Sequence[str],
    ) -> tuple[Float[np.ndarray, " example"], Int[np.ndarray, " example"]]:
        """Compute `ln N - CE` for each held-out example, and the `N` of its batch."""
        fold = deal_groups(groups, folds=self.folds, seed=self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        gain, sizes = np.zeros(len(x)), np.zeros(len(x), dtype=np.int64)
        for number in range(self.folds):
            is_held_out = fold == number
            names = np.asarray(groups, dtype=object)[~is_held_out].tolist()
            # Early stopping must not use the held-out fold, or the bound would be too high.
            is_validation = np.zeros(len(x), dtype=bool)
            is_validation[~is_held_out] = deal_groups(names, folds=10, seed=self.seed) == 0
            critic = self._train(x, y, ~is_held_out & ~is_validation, is_validation, generator)
            for rows in self._batches(np.flatnonzero(is_held_out), generator):
                with torch.no_grad():
                    surprise = -critic(x[rows], y[rows]).log_softmax(dim=1).diagonal()
                gain[rows.numpy()] = log(len(rows)) - surprise.double().numpy()
                sizes[rows.numpy()] = len(rows)
        return gain, sizes

    def _train(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"],
        train: Bool[np.ndarray, " example"],
        is_validation: Bool[np.ndarray, " example"],
        generator: torch.Generator,
    ) -> "_Critic":
        rows = np.flatnonzero(train)
        critic = _Critic(x[rows], y[rows], self.width, self.dimensions, generator)
        optimiser = torch.optim.AdamW(critic.parameters(), lr=_RATE, weight_decay=_DECAY)
        validation_rows = torch.from_numpy(np.flatnonzero(is_validation))
        best_weights, lowest_loss, epochs_since_best = critic.copy(), float("inf"), 0
        for _ in range(self.epochs):
            for batch in self._batches(rows, generator):
                optimiser.zero_grad()
                loss = -critic(x[batch], y[batch]).log_softmax(dim=1).diagonal().mean()
                torch.autograd.backward(loss)
                optimiser.step()
            with torch.no_grad():
                surprise = (
                    -critic(x[validation_rows], y[validation_rows]).log_softmax(dim=1).diagonal()
                )
            # A batch of one has a loss of 0 by construction, and says nothing.
            validation_loss = float(surprise.mean()) if len(validation_rows) > 1 else 0.0
            epochs_since_best += 1
            if validation_loss < lowest_loss:
                best_weights, lowest_loss, epochs_since_best = critic.copy(), validation_loss, 0
            if epochs_since_best >= self.patience:
                break
        critic.load(best_weights)
        return critic

    def _batches(
        self, rows: Int[np.ndarray, " row"], generator: torch.Generator
    ) -> list[Int[Tensor, " _"]]:
        """Split the rows at random into nearly equal batches of at most `batch`."""
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        return list(order.tensor_split(-(-len(rows) // self.batch)))


class _Critic:
    """Two networks on standardised features; a pair's score is the product of their outputs."""

    def __init__(
        self,
        x: Float[Tensor, "example d"],
        y: Float[Tensor, "example e"],
        width: int,
        dimensions: int,
        generator: torch.Generator,
    ) -> None:
        self._scaling = [_scaling(side) for side in (x, y)]
        self._parts: list[Tensor] = []
        for side in (x, y):
            for shape in ((side.shape[1], width), (width, dimensions)):
                # He initialisation: variance 2 / fan-in keeps the scale through a ReLU.
                weights = torch.randn(shape, generator=generator) * (2 / shape[0]) ** 0.5
                self._parts += [weights.requires_grad_(), torch.zeros(shape[1], requires_grad=True)]

    def parameters(self) -> list[Tensor]:
        return self._parts

    def copy(self) -> list[Tensor]:
        return [part.detach().clone() for part in self._parts]

    def load(self, parts: Sequence[Tensor]) -> None:
        self._parts = list(parts)

    def __call__(
        self, x: Float[Tensor, "example d"], y: Float[Tensor, "example e"]
    ) -> Float[Tensor, "example example"]:
        embeddings = []
        for number, side in enumerate((x, y)):
            mean, scale = self._scaling[number]
            inner, inner_bias, outer, outer_bias = self._parts[4 * number : 4 * number + 4]
            hidden = nn.functional.relu((side.float() - mean) / scale @ inner + inner_bias)
            embeddings.append(hidden @ outer + outer_bias)
        # As in attention, the root of the dimension keeps scores of random vectors near 1.
        scores: Tensor = embeddings[0] @ embeddings[1].T / embeddings[0].shape[1] ** 0.5
        return scores


def _scaling(side: Float[Tensor, "example d"]) -> tuple[Tensor, Tensor]:
    values = side.float()
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
    # A feature that varies only by rounding is constant; scaling it up would add noise.
    rounding = 8 * torch.finfo(torch.float32).eps * values.abs().amax(dim=0)
    return mean, torch.where(deviation > rounding, deviation, 1.0)


def deal_groups(groups: Sequence[str], *, folds: int, seed: int) -> Int[np.ndarray, " example"]:
    """Deal whole groups into folds at random, without use of the labels.

    The result depends only on the group names and the seed.

    Raises:
        ValueError: There are fewer groups than folds.
    """
    names, group = np.unique(np.asarray(groups, dtype=str), return_inverse=True)
    if len(names) < folds:
        raise ValueError(
            f"{len(names)} groups cannot be dealt into {folds} folds, since a group is never "
            "divided. Give more groups."
        )
    order = np.random.default_rng([seed, 5]).permutation(len(names))
    fold_of_group = np.empty(len(names), dtype=np.int64)
    fold_of_group[order] = np.arange(len(names)) % folds
    fold: np.ndarray = fold_of_group[group]
    return fold
