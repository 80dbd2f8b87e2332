"""How a steering vector is estimated: where, by which method, and from which statements."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import numpy as np
from jaxtyping import Bool, Int

from tlens_trust.activations.reading_options import ReadingOptions, Sites
from tlens_trust.steering.methods import Method, method_name

Rows: TypeAlias = Sequence[int] | Int[np.ndarray, " row"] | Bool[np.ndarray, " example"]

DEFAULT_HEADS = 48


@dataclass(frozen=True)
class EstimationOptions(ReadingOptions):
    """How a steering vector is estimated at a checkpoint.

    These are `ReadingOptions` (position, bos, batch_tokens, store) for the sites where the vector
    is estimated and acts, with the method and the statements besides.

    Attributes:
        sites: Where the vector is estimated and acts: a layer number for the residual stream after
            that block, the name of a site, or several.
        method: A method of `extract_steering_vector`, or a function.
        rows: The statements that the vector is estimated from, as positions or as a mask. None
            leaves the choice to the caller: half of the groups where vectors are also evaluated
            (`training_rows`), else all statements.
        heads: How many attention heads the method `"iti"` chooses.

    Raises:
        ValueError: An argument is out of range, or the method is unknown.

    Examples:
        >>> EstimationOptions(sites=2, method="logistic", store=None).method
        'logistic'
        >>> EstimationOptions(sites=2, heads=0, store=None)
        Traceback (most recent call last):
        ValueError: `heads` is how many heads to choose, at least 1, got 0.
    """

    # `field()` makes the sites required. A bare annotation would inherit the default of
    # `ReadingOptions`.
    sites: Sites = field()
    method: str | Method = "mean_difference"
    rows: Rows | None = None
    heads: int = DEFAULT_HEADS

    def __post_init__(self) -> None:
        super().__post_init__()
        method_name(self.method)
        if isinstance(self.heads, bool) or self.heads < 1:
            raise ValueError(f"`heads` is how many heads to choose, at least 1, got {self.heads}.")
        if self.rows is not None:
            # A tuple, so that two of these values can be compared.
            object.__setattr__(self, "rows", tuple(np.asarray(self.rows).tolist()))
