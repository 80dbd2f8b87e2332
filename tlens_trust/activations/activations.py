"""What a model represents: one reading per statement and site."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Activations of one checkpoint for a list of statements.

    Attributes:
        values: One vector per statement and site, in the model's own units, on the CPU.
        sites: TransformerLens hook names, in the order of the `site` axis; one head of a
            `hook_z` is written `blocks.3.attn.hook_z[7]`.
        checkpoint: Where the weights came from; None for a model that was passed in by hand.
        concept: What was read; None for a bare list of statements.
        position: The token position that was read, as `collect_activations` takes it.
    """

    values: Float[Tensor, "example site d_model"]
    sites: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    concept: Concept | None = None
    position: str | int | tuple[int, int] = "last"
