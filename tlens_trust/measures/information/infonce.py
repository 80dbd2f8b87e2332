"""InfoNCE: how well a trained critic picks out what belongs together, among `N`."""

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

_RATE = 2e-3
_DECAY = 1e-2


@dataclass(frozen=True)
class InfoNCE:
    """`I(X; Y) ≥ ln N - CE`, with `CE` of picking out the `y` of an `x` among `N`.

    The critic is `g(x) · h(y)`, with `g` and `h` networks of one hidden layer on standardised
    features, trained on whole groups, kept from when the cross-entropy on a tenth of these was
    least, and judged on the groups of a fold that it has not seen, in batches of `N`. So it is an
    honest lower bound, in nats, never above `ln N`, whatever there is to know: more cannot be
    claimed with high confidence from `N` examples by any such bound (McAllester and Stratos 2018,
    arXiv:1811.04251). It may be negative. The other examples of a group count among the `N`, which
    makes picking harder and the bound lower.

    Attributes:
        batch: `N`, at most; folds with fewer examples have fewer.
        width: Hidden units.
        dimensions: Of `g` and `h`.
        epochs: How often the training rows are read at most.
        patience: After how many epochs without an improvement training ends.
        folds: Into how many folds groups are dealt.
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
        """Bound the information of `x` and `y` from below.

        Args:
            x: One row per example.
            y: Likewise; a column of labels is one of numbers.
            groups: What belongs together; None where each row stands alone.

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
        """`ln N - CE` of each example where it is held out, and its `N`."""
        fold = deal_groups(groups, folds=self.folds, seed=self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        gain, sizes = np.zeros(len(x)), np.zeros(len(x), dtype=np.int64)
        for number in range(self.folds):
            is_held_out = fold == number
            names = np.asarray(groups, dtype=object)[~is_held_out].tolist()
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
        """Of nearly equal size, none larger than `batch`."""
        order = torch.from_numpy(rows)[torch.randperm(len(rows), generator=generator)]
        return list(order.tensor_split(-(-len(rows) // self.batch)))


class _Critic:
    """Two networks on standardised features; the score of a pair is their product."""

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
        scores: Tensor = embeddings[0] @ embeddings[1].T / embeddings[0].shape[1] ** 0.5
        return scores


def _scaling(side: Float[Tensor, "example d"]) -> tuple[Tensor, Tensor]:
    values = side.float()
    mean, deviation = values.mean(dim=0), values.std(dim=0, correction=0)
    rounding = 8 * torch.finfo(torch.float32).eps * values.abs().amax(dim=0)
    return mean, torch.where(deviation > rounding, deviation, 1.0)


def deal_groups(groups: Sequence[str], *, folds: int, seed: int) -> Int[np.ndarray, " example"]:
    """Deal whole groups into folds, at random by their names and the seed, without labels.

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
