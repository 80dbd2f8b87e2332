"""What steering costs on text that has nothing to do with the concept."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float

from tlens_trust.steering.neutral_reading import NeutralEffect
from tlens_trust.steering.quantities import Quantity


def neutral_quantities(effect: NeutralEffect) -> list[Quantity]:
    """`neutral_loss` and `kl`, text by text.

    `neutral_loss`: mean surprise at the texts' own tokens, in nats per token, of which the
    exponential is the perplexity. `kl`: mean over next-token predictions of
    `Σ_w p(w) log (p(w) / q(w))`, by how much the steered ones `q` differ from the model's own `p`.
    """
    groups = tuple(str(number) for number in range(len(effect.kl)))

    def quantity(name: str, sums: object, counts: object, long_name: str) -> Quantity:
        weights = np.asarray(counts, dtype=float)
        # A text of two tokens has one prediction, and none whose surprise could be told.
        values = np.asarray(sums, dtype=float) / np.maximum(weights, 1)
        return Quantity(
            name, values, groups, "nats per token", long_name, effect=False, weights=weights
        )

    return [
        quantity("neutral_loss", effect.loss, effect.tokens, "loss on neutral text"),
        quantity(
            "kl",
            effect.kl,
            effect.predictions,
            "KL divergence from the unsteered model on neutral text",
        ),
    ]


def distinct_share(tokens: Sequence[Sequence[int]], n: int) -> Float[np.ndarray, " text"]:
    """The share of different ones among the runs of `n` tokens of each text.

    1 where nothing is repeated; a text with no run of that length counts as 1.

    Source:
        Li et al. (2016), arXiv:1510.03055 (distinct-n), here text by text.

    Examples:
        >>> distinct_share([[1, 2, 1, 2, 1]], 2).tolist()
        [0.5]
    """
    shares = []
    for row in tokens:
        runs = [tuple(row[i : i + n]) for i in range(len(row) - n + 1)]
        shares.append(len(set(runs)) / len(runs) if runs else 1.0)
    return np.array(shares)
