"""The scikit-learn interface of a probe, and checks of training rows."""

from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, Shaped
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils import Tags
from sklearn.utils.multiclass import check_classification_targets, type_of_target
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor


def check_training_rows(activations: Any, labels: Any, groups: Any = None) -> None:
    """Check that a probe can be fitted on these rows.

    Args:
        activations: A tensor of one row per statement.
        labels: A tensor with 0 or 1 for each row.
        groups: The group of each row; None if each row is its own group.

    Raises:
        ValueError: An argument has another type, the lengths differ, `activations` holds a NaN or
            an infinity, or `labels` lacks 0 or 1.
    """
    for name, value in (("activations", activations), ("labels", labels)):
        if not isinstance(value, Tensor):
            raise ValueError(
                f"`{name}` must be a torch tensor, got a {type(value).__name__}. Convert an array "
                f"with `torch.from_numpy({name})`; `LogisticProbe().fit` and the like take arrays."
            )
    if activations.ndim != 2 or not activations.is_floating_point():
        raise ValueError(
            "`activations` must hold floating-point numbers, one row per statement, got "
            f"{activations.dtype} of shape {tuple(activations.shape)}. Choose one site with "
            "`activations.at(site)`."
        )
    if labels.ndim != 1 or labels.is_floating_point() or labels.dtype == torch.bool:
        raise ValueError(
            f"`labels` must be whole numbers, one for each row, got {labels.dtype} of shape "
            f"{tuple(labels.shape)}. Convert them with `labels.long()`."
        )
    lengths = {"activations": len(activations), "labels": len(labels)}
    if groups is not None:
        lengths["groups"] = len(groups)
    if len(set(lengths.values())) > 1:
        lengths_text = ", ".join(f"{count} {name}" for name, count in lengths.items())
        raise ValueError(
            "Each row of activations must have one label and one group, got "
            f"{lengths_text}. Choose the same rows of all of them."
        )
    if not bool(torch.isfinite(activations).all()):
        raise ValueError(
            "`activations` must be finite to fit a probe, got a NaN or an infinity. "
            "Find the rows with `torch.isfinite(activations).all(1)`."
        )
    counts = dict.fromkeys((0, 1), 0)
    for label, count in zip(*(x.tolist() for x in labels.unique(return_counts=True)), strict=True):
        counts[label] = count
    if len(counts) > 2 or 0 in counts.values():
        raise ValueError(
            "`labels` must hold both 0 and 1, and nothing else, to fit a probe, got "
            f"{counts}. Shuffle before splitting, or choose a larger split."
        )


class BinaryClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """A classifier of two labels by log-odds, for tensors and arrays alike."""

    classes_: Shaped[np.ndarray, " 2"]

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_class = False
        return tags

    def decision_function(self, X: Any) -> Any:
        """Compute the log-odds of the second class (label 1), in nats.

        Args:
            X: `Float[Tensor, "example d_model"]` or an array.

        Returns:
            One number per row, in float64. It is a tensor if `X` is one, and otherwise an array.
        """
        check_is_fitted(self)
        array, device = as_array(X)
        array = validate_data(self, array, reset=False, dtype=[np.float64, np.float32])
        log_odds = self._log_odds(array.astype(np.float64))
        return log_odds if device is None else torch.from_numpy(log_odds).to(device)

    def predict(self, X: Any) -> Any:
        """Return the more probable class of each row."""
        log_odds = self.decision_function(X)
        if isinstance(log_odds, Tensor):
            classes = self.classes_[(log_odds > 0).long().cpu().numpy()]
            return torch.as_tensor(classes, device=log_odds.device)
        return self.classes_[(log_odds > 0).astype(np.int64)]

    def predict_proba(self, X: Any) -> Any:
        """Compute the probability of each class, one column per class."""
        log_odds = self.decision_function(X)
        tensor = torch.as_tensor(log_odds)
        probabilities = torch.stack([torch.sigmoid(-tensor), torch.sigmoid(tensor)], dim=1)
        return probabilities if isinstance(log_odds, Tensor) else probabilities.numpy()

    def _log_odds(
        self, rows: Float[np.ndarray, "example d_model"]
    ) -> Float[np.ndarray, " example"]:
        """Compute the log-odds of the second class with the fitted probe."""
        raise NotImplementedError

    def _validate(self, X: Any, y: Any) -> tuple[Tensor, Tensor]:
        """Check activations and labels, set `classes_`, and return labels as 0 and 1."""
        array, device = as_array(X)
        labels = y.detach().cpu().numpy() if isinstance(y, Tensor) else y
        array, labels = validate_data(self, array, labels, dtype=[np.float64, np.float32])
        check_classification_targets(labels)
        kind = type_of_target(labels, input_name="y", raise_unknown=True)
        if kind != "binary":
            raise ValueError(
                "Only binary classification is supported. The type of the target is "
                f"{kind}. Fit one probe for each label against all others."
            )
        self.classes_, class_numbers = np.unique(labels, return_inverse=True)
        if len(self.classes_) != 2:
            raise ValueError(
                f"A probe needs rows of two classes, got the one class {self.classes_[0]!r}. "
                "Shuffle before splitting, or choose a larger split."
            )
        # A copy, since torch does not accept read-only arrays.
        values = torch.from_numpy(np.array(array)).to(device or "cpu")
        return values, torch.from_numpy(class_numbers.astype(np.int64)).to(values.device)


_Probe = TypeVar("_Probe", bound="ProbeClassifier")


class ProbeClassifier(BinaryClassifier):
    """What the linear probes share: `fit`, and the use of direction and bias."""

    coef_: Float[np.ndarray, "1 d_model"]
    intercept_: Float[np.ndarray, " 1"]

    def fit(self: _Probe, X: Any, y: Any, *, groups: Any = None) -> _Probe:
        """Fit direction and bias.

        Args:
            X: `Float[Tensor, "example d_model"]` or an array.
            y: Two distinct labels; the larger one counts as label 1.
            groups: The group of each row; None if each row is its own group.

        Returns:
            The probe.

        Raises:
            ValueError: `X` holds a NaN or an infinity, `y` does not hold two labels, or a parameter
                of the probe is out of its range.
        """
        activations, labels = self._validate(X, y)
        direction, bias = self._fit_direction(activations, labels, groups)
        self.coef_ = direction.detach().cpu().double().numpy().reshape(1, -1)
        self.intercept_ = np.array([bias])
        return self

    def _fit_direction(
        self,
        activations: Float[Tensor, "example d_model"],
        labels: Int[Tensor, " example"],
        groups: Any,
    ) -> tuple[Tensor, float]:
        """Fit a direction and a bias on labels 0 and 1."""
        raise NotImplementedError

    @property
    def direction(self) -> Float[Tensor, " d_model"]:
        """Nats of log-odds per unit of activation. Steering uses this vector."""
        check_is_fitted(self)
        return torch.from_numpy(self.coef_[0])

    @property
    def bias(self) -> float:
        """Log-odds at the origin of activation space, in nats."""
        check_is_fitted(self)
        return float(self.intercept_[0])

    def _log_odds(
        self, rows: Float[np.ndarray, "example d_model"]
    ) -> Float[np.ndarray, " example"]:
        scores: Float[np.ndarray, " example"] = rows @ self.coef_[0] + self.intercept_[0]
        return scores


def as_array(X: Any) -> tuple[Any, torch.device | None]:
    """Convert a tensor to an array and its device; return anything else unchanged, with None."""
    if not isinstance(X, Tensor):
        return X, None
    values = X.detach().cpu()
    return (values if values.dtype == torch.float64 else values.float()).numpy(), X.device
