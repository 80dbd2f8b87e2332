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

_BATCH = 128
_RATE = 3e-3
_DECAY = 1.0


@dataclass(frozen=True, eq=False)
class Networks:
    """Networks of one hidden layer, each with a standardisation of its own.

    A network maps an activation `x` to the log-odds `w₂·relu(W₁z + b₁) + b₂`, with
    `z = (x - mean)/scale`.

    Attributes:
        mean: Of each feature over a network's training rows.
        scale: Standard deviation of each feature; 1 where there is none.
        inner: `W₁`.
        inner_bias: `b₁`.
        outer: `w₂`.
        outer_bias: `b₂`.
        epochs: How often each network had read its training rows when it was kept.
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
        """Log-odds of label 1 by each network, in nats, in float64."""
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
    """Trains many networks on the same activations, side by side.

    Adam with decoupled weight decay on mini-batches of 128, a share of the features left out of
    each row at random. The outer weights begin at zero, so that a network that has learnt nothing
    says nothing. Each network's cross-entropy on rows set aside for it is looked at after every
    epoch, and its weights are kept from when that was least.

    Attributes:
        width: Hidden units.
        max_epochs: The largest number of passes over the training rows.
        patience: Epochs without an improvement after which training a network ends.
        dropout: The share of features that is left out. What keeps a network from being worse than
            a linear probe where there are few statements or many features.
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
        aside: Bool[Tensor, "problem side example"],
    ) -> Networks:
        """Train a network for each problem, and keep it once for each of its sides.

        Args:
            activations: One row per statement.
            labels: 0 or 1.
            train: The rows that each network is fitted on and standardised by.
            aside: For each side, the rows that say when to keep it.

        Returns:
            A network for each problem and side, those of one problem together.
        """
        values, device = activations.float(), activations.device
        problems, sides = len(train), aside.shape[1]
        share = train.float() / train.sum(dim=1, keepdim=True)
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
        least = torch.full((sides, problems), torch.inf, device=device)
        best_epoch = torch.zeros(sides, problems, dtype=torch.int64, device=device)
        rows = [mask.nonzero().squeeze(1).cpu() for mask in train]
        target = labels.float().to(device)
        # Only rows that decide when to stop: most problems set aside a part of all rows.
        used_for_stopping = aside.any(dim=1)
        for epoch in range(1, self.max_epochs + 1):
            for batch in self._batches(rows, generator):
                chosen = batch.to(device)
                features = (values[chosen] - mean.unsqueeze(1)) / scale.unsqueeze(1)
                # One draw for all networks, whose rows differ: drawing costs as much as training.
                is_kept = torch.rand(features.shape[1:], generator=generator) >= self.dropout
                features = features * (is_kept.to(device) / (1 - self.dropout))
                logits = _forward(features, parameters)
                losses = binary_cross_entropy_with_logits(logits, target[chosen], reduction="none")
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
                    weight = aside[:, side].float()
                    loss = (weight * losses).sum(dim=1) / weight.sum(dim=1)
                    # Each network has its own patience: other networks may go on learning.
                    in_time = epoch - best_epoch[side] <= self.patience
                    better = (loss < least[side]) & in_time
                    least[side] = torch.where(better, loss, least[side])
                    best_epoch[side] = torch.where(better, epoch, best_epoch[side])
                    for store, part in zip(best_parameters, parameters, strict=True):
                        store[side, better] = part.detach()[better]
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
        """Rows of each problem's mini-batches, the same number for all; small ones go round."""
        most = max(len(training_rows) for training_rows in rows)
        count = -(-most // _BATCH)
        size = -(-most // count)
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
    """Networks scored on the fold that they know nothing of: a `CrossFitter`.

    For the fold `k`, a network is trained without `k` and `j`, for every other fold `j`, and
    stopped by its cross-entropy on `j`; the mean of their log-odds scores `k`. So all training
    folds are used, whole groups decide when to stop, and the mean is steadier than one network. A
    network without `j` and `k`, kept at two times, serves both of them. It also says what the score
    of `k` would be without `j`, for the interval, which comes out too wide rather than too narrow:
    one network varies more than the mean of several.

    Attributes:
        trainer: How to train.
    """

    trainer: MLPTrainer

    # One fold to score, one to decide when to stop, one to train on.
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
                f"Stopping a network inside the training folds takes at least 3 folds, got {folds}."
            )
        pairs = list(combinations(range(folds), 2))
        train = torch.stack([(fold_of != j) & (fold_of != k) for j, k in pairs])
        # Kept by what it does on `j`, it scores `k`, and the other way about.
        aside = torch.stack([torch.stack([fold_of == j, fold_of == k]) for j, k in pairs])
        scored_folds = [both for j, k in pairs for both in ((k, j), (j, k))]
        rows, sites = activations.shape[:2]
        scores, epochs = np.zeros((rows, sites)), np.empty(sites)
        fewer = np.full((folds, rows, sites), np.nan)
        for site in range(sites):
            values = activations[:, site]
            check_training_rows(values, labels)
            networks = self.trainer(values, labels, train, aside)
            log_odds = networks.log_odds(values).cpu().numpy()
            for number, (k, other) in enumerate(scored_folds):
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

    The mean of several networks' log-odds: whole groups are dealt into folds, and each network is
    trained without one fold, which says when to stop. It has no direction. Deterministic.

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
            groups: What belongs together, one name per row; None where each row stands alone.

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
            # Too few groups to set any aside: the rows themselves say when to stop.
            train = torch.ones(1, len(labels), dtype=torch.bool, device=values.device)
            aside = train
        else:
            number = torch.from_numpy(fold).to(values.device)
            aside = torch.stack([number == k for k in range(int(fold.max()) + 1)])
            train = ~aside
        trainer = MLPTrainer(self.width, self.max_epochs, self.patience, self.dropout, self.seed)
        self.networks_ = trainer(values, labels, train, aside.unsqueeze(1))
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

    Where it decodes much more than the logistic probe, the concept is present, but not along one
    direction. See `MLPCrossFitter` for what is trained on what. Its p-values are those of any
    probe that cannot be refitted thousands of times (see `held_out_null`), which ask for much. At
    2,000 statements a site takes a few seconds.

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
        Hewitt and Liang (2019), arXiv:1909.03368, on what such a probe may learn by heart: take
        its `probe_selectivity` too.

    Examples:
        >>> mlp_probe().name
        'mlp'
    """
    trainer = MLPTrainer(width, max_epochs, patience, dropout, seed)
    return ProbeMeasure("mlp", MLPCrossFitter(trainer), folds, resamples, permutations, floor)
