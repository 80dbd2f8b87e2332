"""The activations of a model: one vector per statement and site."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import nan

from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from tlens_trust.activations.positions import Position, checked_position
from tlens_trust.activations.sites import (
    ModelShape,
    resolve_sites,
    site_depth,
    site_head,
    site_layer,
)
from tlens_trust.checkpoints import Checkpoint
from tlens_trust.concepts import Concept
from tlens_trust.html import render


@dataclass(frozen=True, eq=False, repr=False)
class Activations:
    """Activations of one checkpoint for a list of statements.

    Attributes:
        values: One vector per statement and site, in the model's own units, on the CPU. The
            vectors of one site lie together in memory.
        sites: TransformerLens hook names, in the order of the `site` axis; one head of a
            `hook_z` is written `blocks.3.attn.hook_z[7]`.
        checkpoint: The checkpoint of the weights; None for a model without one.
        concept: The concept of the statements; None for a list of texts.
        position: The token position of the activations, as `collect_activations` takes it.
        n_layers: Number of blocks of the model; None where unknown.

    Raises:
        ValueError: The axes of `values` do not match `sites` and `concept`, a site is repeated
            or not in the model, or `values` are not floating-point numbers on the CPU.

    Examples:
        >>> import torch
        >>> sites = ("blocks.0.hook_resid_post", "blocks.1.hook_resid_post")
        >>> activations = Activations(torch.zeros(3, 2, 8), sites, n_layers=2)
        >>> activations
        Activations(3 statements × 2 sites × 8 wide, blocks.0.hook_resid_post …
        blocks.1.hook_resid_post, position 'last')
        >>> activations.at(1).shape, activations.layers, activations.depths
        (torch.Size([3, 8]), (0, 1), (0.5, 1.0))
    """

    values: Float[Tensor, "example site d_model"]
    sites: tuple[str, ...]
    checkpoint: Checkpoint | None = None
    concept: Concept | None = None
    position: Position = "last"
    n_layers: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sites", tuple(self.sites))
        object.__setattr__(self, "position", checked_position(self.position))
        values = self.values
        if values.ndim != 3 or values.shape[1] != len(self.sites):
            raise ValueError(
                f"`values` holds one vector per statement and site, got shape "
                f"{tuple(values.shape)} for {len(self.sites)} sites. "
                "Allowed is (statements, sites, width)."
            )
        if not values.is_floating_point() or values.device.type != "cpu":
            raise ValueError(
                f"`values` are floating-point numbers on the CPU, got {values.dtype} on "
                f"{values.device}. Convert them with `values.float().cpu()`."
            )
        if self.concept is not None and len(self.concept) != len(values):
            raise ValueError(
                f"`values` holds {len(values)} statements, but the concept "
                f"{self.concept.name!r} has {len(self.concept)}. Give one row per statement."
            )
        # `at` and `select` find a site by its name, so a second one of that name would be lost.
        if len(set(self.sites)) < len(self.sites):
            repeated = next(site for site in self.sites if self.sites.count(site) > 1)
            raise ValueError(f"`sites` has {repeated!r} twice. Give each site once.")
        unknown_sites = [
            site
            for site, layer in zip(self.sites, self.layers, strict=True)
            if self.n_layers is not None and layer >= self.n_layers
        ]
        if unknown_sites:
            raise ValueError(
                f"`sites` has {unknown_sites[0]!r}, but the model has {self.n_layers} blocks, from "
                f"0 to {(self.n_layers or 0) - 1}."
            )

    def __len__(self) -> int:
        return len(self.values)

    def _repr_html_(self) -> str:
        columns = self.values.unbind(dim=1)  # one at a time, since they may be large
        rms = [float(column.float().square().mean().sqrt()) for column in columns]
        sizes = dict(zip(self.sites, rms, strict=True))
        return render("notebook/activations", {"title": repr(self), "sizes": sizes})

    def __repr__(self) -> str:
        examples, sites, width = self.values.shape
        noun = "site" if sites == 1 else "sites"
        parts = [f"{examples} statements × {sites} {noun} × {width} wide"]
        if sites:
            parts.append(self.sites[0] if sites == 1 else f"{self.sites[0]} … {self.sites[-1]}")
        parts.append(f"position {self.position!r}")
        if self.concept is not None:
            parts.append(f"concept {self.concept.name!r}")
        if self.checkpoint is not None:
            parts.append(checkpoint_name(self.checkpoint))
        return f"Activations({', '.join(parts)})"

    @property
    def layers(self) -> tuple[int, ...]:
        """The block of each site, counted from 0."""
        return tuple(site_layer(site) for site in self.sites)

    @property
    def heads(self) -> tuple[int | None, ...]:
        """The head of each site, counted from 0; None where the site is not a head."""
        return tuple(site_head(site) for site in self.sites)

    @property
    def depths(self) -> tuple[float, ...]:
        """The depth of each site, as a fraction of the model's blocks; NaN where unknown."""
        if self.n_layers is None:
            return (nan,) * len(self.sites)
        return tuple(site_depth(site, self.n_layers) for site in self.sites)

    def at(self, site: str | int) -> Float[Tensor, "example d_model"]:
        """Return the activations at one site.

        Args:
            site: The site's name, or a layer number for the residual stream after that block.

        Raises:
            ValueError: The site is not among these activations.
        """
        return self.select([site]).values[:, 0]

    def select(self, sites: str | int | Sequence[str | int]) -> "Activations":
        """Return the activations at some of the sites, without a copy where these are adjacent.

        Args:
            sites: Sites as `collect_activations` takes them.

        Raises:
            ValueError: A site is not among these activations.
        """
        names = resolve_sites(self._shape(), sites)
        missing_names = [site for site in names if site not in self.sites]
        if missing_names:
            raise ValueError(
                f"There are no activations at {missing_names[0]!r}, only at "
                f"{', '.join(self.sites)}. Collect them with `collect_activations(…, sites=…)`."
            )
        columns = [self.sites.index(site) for site in names]
        start, stop = columns[0], columns[-1] + 1
        by_site = rearrange(self.values, "example site d_model -> site example d_model")
        are_adjacent = columns == list(range(start, stop))
        # A slice shares memory, and an index by a list copies. Activations may fill much of it.
        by_site = by_site[start:stop] if are_adjacent else by_site[columns]
        values = rearrange(by_site, "site example d_model -> example site d_model")
        return replace(self, values=values, sites=names)

    def _shape(self) -> ModelShape:
        name = "these activations" if self.checkpoint is None else checkpoint_name(self.checkpoint)
        heads = [head for head in self.heads if head is not None]
        return ModelShape(
            name=name,
            # Where the depth is unknown, the deepest site here is the deepest that can be selected.
            n_layers=self.n_layers or 1 + max(self.layers, default=0),
            n_heads=1 + max(heads, default=0),
        )


def checkpoint_name(checkpoint: Checkpoint) -> str:
    """Return a checkpoint's short label."""
    return str(getattr(checkpoint, "name", None) or f"{checkpoint.model}@{checkpoint.revision}")
