"""A small neural network as a probe: an upper reference for linear probes."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any, ClassVar, no_type_check

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import binary_cross_entropy_with_logits, relu

from tlens_trust.arguments import check_counts, checked_fraction
from tlens_trust.measures.classifier import BinaryClassifier, check_training_rows
from tlens_trust.measures.cross_fitters import HeldOut
from tlens_trust.measures.cross_validation import ProbeMeasure
from tlens_trust.measures.folds import deal_folds

# Rows of a mini-batch, learning rate, and decoupled weight decay (which AdamW multiplies by the
# rate, so that one step shrinks the weights by 0.3%).
_BATCH = 128
_RATE = 3e-3
_DECAY = 1.0


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks with one hidden layer, each with its own standardisation.

    A network maps an activation `x` to the log-odds `w₂·relu(W₁z + b₁) + b₂`, with
    `z = (x - mean)/scale`.

    Attributes:
        mean: The mean of each feature over a network's training rows.
        scale: The standard deviation of each feature, or 1 for a constant feature.
        inner: `W₁`.
        inner_bias: `b₁`.
        outer: `w₂`.
        outer_bias: `b₂`.
        epochs: The number of epochs after which each network's weights were kept.
    """

    mean: Float[Tensor, "network d_model"]
    scale: Float[Tensor, "network d_model"]
    inner: Float[Tensor, "network d_model width"]
    inner_bias: Float[Tensor, "network width"]
    outer: Float[Tensor, "network width"]
    outer_bias: Float[Tensor, " network"]
    epochs: Int[Tensor, " network"]

    def log_odds(
        self, activations: Float[Tensor, "example d_model"]
    ) -> Float[Tensor, "network example"]:
        """Compute the log-odds of label 1 by each network, in nats, in float64."""
        log_odds_of_networks = []
        for number in range(len(self.mean)):
            mean, scale, inner, inner_bias, outer, outer_bias = (
                part[number].double()
                for part in (
                    self.mean,
                    self.scale,
                    self.inner,
                    self.inner_bias,
                    self.outer,
                    self.outer_bias,
                )
            )
            features = (activations.double() - mean) / scale
            log_odds_of_networks.append(relu(features @ inner + inner_bias) @ outer + outer_bias)
        return torch.stack(log_odds_of_networks)


@dataclass(frozen=True)
class MLPTrainer:
    """Trains many networks on the same activations at the same time.

    The optimiser is Adam with decoupled weight decay, on mini-batches of 128. A random share of the
    features is left out of each row. The outer weights start at zero, so that an untrained network
    gives log-odds of 0. After every epoch, the cross-entropy of each network is measured on rows
    that it is not trained on. The weights from the epoch with the smallest cross-entropy are kept.

    Attributes:
        width: Hidden units.
        max_epochs: The largest number of passes over the training rows.
        patience: Epochs without an improvement after which training a network ends.
        dropout: The share of features that is left out. With few statements or many features, a
            network without dropout would be worse than a linear probe.
        seed: Seed of the weights, the mini-batches and the features left out.
    """

    width: int
    max_epochs: int
    patience: int
    dropout: float
    seed: int

    def __post_init__(self) -> None:
        check_counts(self, {"width": 1, "max_epochs": 1, "patience": 1, "seed": 0})
        hint = "It is the share of features left out of each row."
        dropout = checked_fraction("dropout", self.dropout, below_one=True, hint=hint)
        object.__setattr__(self, "dropout", dropout)

    def __call__(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        train: Bool[Tensor, "problem example"],
        stopping_rows: Bool[Tensor, "problem side example"],
    ) -> Networks:
        """Train a network for each problem, and keep its weights once for each of its sides.

        Args:
            activations: One row per statement.
            labels: 0 or 1.
            train: The rows that each network is trained on and standardised by.
            stopping_rows: For each side, the rows whose cross-entropy decides which weights are
                kept.

        Returns:
            A network for each problem and side. The sides of one problem are adjacent.
        """
        values, device = activations.float(), activations.device
        problems, sides = len(train), stopping_rows.shape[1]
        share = train.float() / train.sum(dim=1, keepdim=True)
        # The variance is taken about the mean of all rows, which loses fewer digits than about 0.
        mean = share @ values
        squares = share @ (values - values.mean(dim=0)).square()
        variance = squares - (mean - values.mean(dim=0)).square()
        deviation = variance.clamp_min(0).sqrt()
        rounding = 8 * torch.finfo(torch.float32).eps * mean.abs().amax(dim=0)
        scale = torch.where(deviation > rounding, deviation, 1.0)

        generator = torch.Generator().manual_seed(self.seed)
        width = values.shape[1]
        inner = torch.randn(problems, width, self.width, generator=generator) * (2 / width) ** 0.5
        parameters = [
            inner.to(device),
            torch.zeros(problems, 1, self.width, device=device),
            torch.zeros(problems, self.width, 1, device=device),
            torch.zeros(problems, 1, 1, device=device),
        ]
        for part in parameters:
            part.requires_grad_()
        optimiser = torch.optim.AdamW(parameters, lr=_RATE, weight_decay=_DECAY)
        best_parameters = [torch.zeros(sides, *part.shape, device=device) for part in parameters]
        smallest_loss = torch.full((sides, problems), torch.inf, device=device)
        best_epoch = torch.zeros(sides, problems, dtype=torch.int64, device=device)
        rows = [mask.nonzero().squeeze(1).cpu() for mask in train]
        target = labels.float().to(device)
        # Losses are computed only on these rows, which are a part of all rows for most problems.
        used_for_stopping = stopping_rows.any(dim=1)
        for epoch in range(1, self.max_epochs + 1):
            for batch in self._batches(rows, generator):
                batch_rows = batch.to(device)
                features = (values[batch_rows] - mean.unsqueeze(1)) / scale.unsqueeze(1)
                # One draw serves all networks, since drawing takes as much time as training. Their
                # rows differ, so that the same features are left out of different rows.
                is_kept = torch.rand(features.shape[1:], generator=generator) >= self.dropout
                features = features * (is_kept.to(device) / (1 - self.dropout))
                logits = _forward(features, parameters)
                losses = binary_cross_entropy_with_logits(
                    logits, target[batch_rows], reduction="none"
                )
                optimiser.zero_grad()
                torch.autograd.backward(losses.mean(dim=1).sum())
                optimiser.step()
            with torch.no_grad():
                losses = torch.zeros(problems, len(values), device=device)
                for problem, mask in enumerate(used_for_stopping):
                    features = (values[mask] - mean[problem]) / scale[problem]
                    network = [part[problem : problem + 1] for part in parameters]
                    logits = _forward(features.unsqueeze(0), network).squeeze(0)
                    losses[problem, mask] = binary_cross_entropy_with_logits(
                        logits, target[mask], reduction="none"
                    )
                for side in range(sides):
                    weight = stopping_rows[:, side].float()
                    loss = (weight * losses).sum(dim=1) / weight.sum(dim=1)
                    # A network that has stopped stays as it is while other networks go on.
                    in_time = epoch - best_epoch[side] <= self.patience
                    is_better = (loss < smallest_loss[side]) & in_time
                    smallest_loss[side] = torch.where(is_better, loss, smallest_loss[side])
                    best_epoch[side] = torch.where(is_better, epoch, best_epoch[side])
                    for best_part, part in zip(best_parameters, parameters, strict=True):
                        best_part[side, is_better] = part.detach()[is_better]
            if epoch - int(best_epoch.max()) >= self.patience:
                break
        best = [part.transpose(0, 1).flatten(0, 1) for part in best_parameters]
        return Networks(
            mean=mean.repeat_interleave(sides, dim=0),
            scale=scale.repeat_interleave(sides, dim=0),
            inner=best[0],
            inner_bias=best[1].squeeze(1),
            outer=best[2].squeeze(2),
            outer_bias=best[3].reshape(-1),
            epochs=best_epoch.T.reshape(-1),
        )

    def _batches(self, rows: Sequence[Tensor], generator: torch.Generator) -> list[Tensor]:
        """Draw mini-batches, the same number and size for all problems.

        A problem with fewer rows than the largest one uses some of its rows twice.
        """
        largest = max(len(training_rows) for training_rows in rows)
        count = -(-largest // _BATCH)
        size = -(-largest // count)
        orders = []
        for training_rows in rows:
            order = training_rows[torch.randperm(len(training_rows), generator=generator)]
            orders.append(order[torch.arange(count * size) % len(order)])
        return list(torch.stack(orders).reshape(len(rows), count, size).unbind(1))


def _forward(
    features: Float[Tensor, "problem example d_model"], parameters: Sequence[Tensor]
) -> Float[Tensor, "problem example"]:
    inner, inner_bias, outer, outer_bias = parameters
    hidden = relu(torch.baddbmm(inner_bias, features, inner))
    logits: Tensor = torch.baddbmm(outer_bias, hidden, outer).squeeze(-1)
    return logits


@dataclass(frozen=True)
class MLPCrossFitter:
    """Fits networks on all folds but one, and scores the fold left out: a `CrossFitter`.

    For the fold `k` and every other fold `j`, a network is trained without `k` and `j`, and stopped
    by its cross-entropy on `j`. The mean of the log-odds of these networks scores `k`. Thus all
    training folds are used, whole groups decide when to stop, and the mean varies less than one
    network.

    A network without `j` and `k` is trained once, and its weights are kept at two epochs, one for
    each of the two folds. It also gives the scores of `k` without `j` that the interval needs. As
    one network varies more than the mean of several, the interval is too wide rather than too
    narrow.

    Attributes:
        trainer: Trains the networks.
    """

    trainer: MLPTrainer

    # One fold to score, one to decide when to stop, and one to train on.
    least_folds: ClassVar[int] = 3

    @property
    def identity(self) -> str:
        """Name every parameter."""
        trainer = self.trainer
        return (
            f"width={trainer.width}, max_epochs={trainer.max_epochs}, "
            f"patience={trainer.patience}, dropout={trainer.dropout}, seed={trainer.seed}"
        )

    def __call__(
        self,
        activations: Float[Tensor, "example site d_model"],
        labels: Int[Tensor, " example"],
        groups: Sequence[str],
        fold: Int[np.ndarray, " example"],
    ) -> HeldOut:
        """Score every statement at every site."""
        fold_of = torch.from_numpy(np.asarray(fold, dtype=np.int64)).to(activations.device)
        folds = int(fold_of.max()) + 1
        if folds < 3:
            raise ValueError(
                f"Stopping a network inside the training folds needs at least 3 folds, got "
                f"{folds}. Deal the statements into more folds."
            )
        pairs = list(combinations(range(folds), 2))
        train = torch.stack([(fold_of != j) & (fold_of != k) for j, k in pairs])
        # The weights that are best on `j` score `k`, and those that are best on `k` score `j`.
        stopping_rows = torch.stack([torch.stack([fold_of == j, fold_of == k]) for j, k in pairs])
        # For each network, the fold that it scores and the fold that stopped it.
        network_folds = [order for j, k in pairs for order in ((k, j), (j, k))]
        rows, sites = activations.shape[:2]
        scores, epochs = np.zeros((rows, sites)), np.empty(sites)
        fewer = np.full((folds, rows, sites), np.nan)
        for site in range(sites):
            values = activations[:, site]
            check_training_rows(values, labels)
            networks = self.trainer(values, labels, train, stopping_rows)
            log_odds = networks.log_odds(values).cpu().numpy()
            for number, (k, other) in enumerate(network_folds):
                fold_log_odds = log_odds[number, fold == k]
                scores[fold == k, site] += fold_log_odds / (folds - 1)
                fewer[other, fold == k, site] = fold_log_odds
            epochs[site] = float(networks.epochs.double().mean())
        return HeldOut(
            scores,
            {
                "epochs": (
                    epochs,
                    {
                        "units": "epochs",
                        "long_name": "epochs after which networks were kept, mean over networks",
                    },
                )
            },
            fewer=fewer,
        )


class MLPProbe(BinaryClassifier):
    """A multi-layer perceptron with one hidden layer, as a scikit-learn classifier.

    Whole groups are dealt into folds. Each network is trained without one fold, and that fold
    decides when to stop. The result is the mean of the networks' log-odds. It has no direction.
    Deterministic.

    Args:
        width: Hidden units.
        max_epochs: The largest number of passes over the training rows.
        patience: Epochs without an improvement after which training a network ends.
        dropout: The share of features that is left out of each row at random in training.
        seed: Seed of the weights, the mini-batches and the features left out.

    Attributes:
        networks_: The networks.
        classes_: The two labels; log-odds are those of the second.

    Examples:
        >>> activations = torch.randn(400, 2, generator=torch.Generator().manual_seed(0))
        >>> labels = (activations[:, 0] * activations[:, 1] > 0).long()  # Nothing linear.
        >>> probe = MLPProbe().fit(activations, labels)
        >>> bool((probe.predict(activations) == labels).float().mean() > 0.85)
        True
    """

    width: int
    max_epochs: int
    patience: int
    dropout: float
    seed: int

    # Scikit-learn requires that a constructor accepts any value and that `fit` refuses it.
    @no_type_check
    def __init__(
        self,
        width: int = 64,
        *,
        max_epochs: int = 200,
        patience: int = 10,
        dropout: float = 0.3,
        seed: int = 0,
    ) -> None:
        self.width = width
        self.max_epochs = max_epochs
        self.patience = patience
        self.dropout = dropout
        self.seed = seed

    def fit(self, X: Any, y: Any, *, groups: Any = None) -> "MLPProbe":
        """Train the networks.

        Args:
            X: `Float[Tensor, "example d_model"]` or an array.
            y: Two distinct labels; the larger one counts as label 1.
            groups: The group of each row, left out as a whole; None if each row is its own group.

        Returns:
            The probe.

        Raises:
            ValueError: `X` holds a NaN or an infinity, `y` does not hold two labels, a number
                is less than 1, or `dropout` is not from 0 to below 1.
        """
        values, labels = self._validate(X, y)
        names = [str(row) for row in range(len(labels))] if groups is None else list(groups)
        fold = deal_folds(labels, names, folds=5)
        if fold is None:
            # There are too few groups to leave any out, so the training rows decide when to stop.
            train = torch.ones(1, len(labels), dtype=torch.bool, device=values.device)
            stopping_rows = train
        else:
            number = torch.from_numpy(fold).to(values.device)
            stopping_rows = torch.stack([number == k for k in range(int(fold.max()) + 1)])
            train = ~stopping_rows
        trainer = MLPTrainer(self.width, self.max_epochs, self.patience, self.dropout, self.seed)
        self.networks_ = trainer(values, labels, train, stopping_rows.unsqueeze(1))
        return self

    def _log_odds(
        self, rows: Float[np.ndarray, "example d_model"]
    ) -> Float[np.ndarray, " example"]:
        activations = torch.from_numpy(rows).to(self.networks_.mean.device)
        scores: Float[np.ndarray, " example"] = (
            self.networks_.log_odds(activations).mean(dim=0).cpu().numpy()
        )
        return scores


def mlp_probe(
    *,
    width: int = 64,
    max_epochs: int = 200,
    patience: int = 10,
    dropout: float = 0.3,
    seed: int = 0,
    folds: int = 5,
    resamples: int = 1000,
    permutations: int = 2000,
    floor: bool = True,
) -> ProbeMeasure:
    """A neural network as a measure: an upper reference for the linear probes.

    If it decodes much more than the logistic probe, the concept is present, but not along one
    direction. `MLPCrossFitter` describes which network is trained on which rows. The networks
    cannot be refitted thousands of times, so the p-values are those of `held_out_null`, which are
    conservative. With 2,000 statements, a site takes a few seconds.

    Args:
        width: Hidden units.
        max_epochs: The largest number of passes over the training rows.
        patience: Epochs without an improvement after which training a network ends.
        dropout: The share of features that is left out of each row at random in training.
        seed: Seed of the weights, the mini-batches and the features left out.
        folds: The number of folds that the groups are dealt into. At least 3.
        resamples: The number of bootstrap resamples behind an interval.
        permutations: The number of permutations of the labels behind a p-value.
        floor: Whether to classify the statements by their text alone as well.

    Returns:
        A measure named `mlp`.

    Raises:
        ValueError: `width`, `max_epochs` or `patience` is less than 1, or `dropout` is not from 0
            to below 1.

    Source:
        Hewitt and Liang (2019), arXiv:1909.03368. They show that such a probe can memorise: use
        `probe_selectivity` with it.

    Examples:
        >>> mlp_probe().name
        'mlp'
    """
    trainer = MLPTrainer(width, max_epochs, patience, dropout, seed)
    return ProbeMeasure("mlp", MLPCrossFitter(trainer), folds, resamples, permutations, floor)
