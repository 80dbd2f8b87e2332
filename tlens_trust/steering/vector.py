"""Steering vectors: one direction per site, with its size and provenance."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from math import isfinite, nan
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tlens_trust.activations.positions import Position
from tlens_trust.activations.sites import ModelShape, resolve_sites, site_layer
from tlens_trust.concepts import Concept
from tlens_trust.html import render
from tlens_trust.steering.formats.safetensors_file import read_vector_fields, write_vector_fields


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """A steering vector: one direction per site, with its size and provenance.

    By convention it points from label 0 to label 1. So a positive strength steers to the
    trustworthy side, if the concept has one.

    Vectors add, subtract, and multiply with a number, site by site. A combination of two vectors
    names both in `method`, `concept` and `checkpoint`, where these differ.

    Attributes:
        values: The direction at each site, in the model's own units, in float32 on the CPU.
        sites: Site names, in the order of the `site` axis. A head is `blocks.3.attn.hook_z[7]`.
        method: How the vector was made.
        concept: Name of the concept; None for a direction of no concept.
        polarity: False if label 1 of the concept is not the trustworthy side.
        position: The token of a statement that was used; None if there was none.
        n: The number of statements it was estimated from; None where unknown.
        rows: The statements of the concept it was estimated from, counted from 0; None for all.
        fingerprint: Fingerprint of the whole concept that `rows` counts in; None without one.
        model: The run that the checkpoint belongs to; None where unknown.
        checkpoint: The checkpoint's short label; None where unknown.
        identity: The hash of the checkpoint's weights; None where unknown.
        n_layers: The number of blocks of the model; None where unknown.
        spread: Standard deviation of the statements' projections onto the direction, in the
            model's own units; NaN where unknown.
        rms: Root mean square length of the activations at each site, in the model's own units. It
            is the unit of `units="rms"`. NaN where unknown.
        notes: Other facts, in words.

    Raises:
        ValueError: `values` do not match `sites` or are not finite, a site is repeated or unknown,
            or `spread` or `rms` does not have one number per site.

    Examples:
        >>> v = SteeringVector.from_direction(torch.tensor([3.0, 4.0]), site=2, rms=10.0)
        >>> v
        SteeringVector(1 site × 2 wide, blocks.2.hook_resid_post, norm 5, method 'direction')
        >>> (2 * v - v).norms.tolist(), v.normalised().values.tolist()
        ([5.0], [[0.6000000238418579, 0.800000011920929]])
    """

    values: Float[Tensor, "site d_model"]
    sites: tuple[str, ...]
    method: str
    concept: str | None = None
    polarity: bool = True
    position: Position | None = None
    n: int | None = None
    rows: tuple[int, ...] | None = None
    fingerprint: str | None = None
    model: str | None = None
    checkpoint: str | None = None
    identity: str | None = None
    n_layers: int | None = None
    spread: Float[Tensor, " site"] | None = None
    rms: Float[Tensor, " site"] | None = None
    notes: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sites = tuple(self.sites)
        values = _own_copy(self.values)
        if values.ndim != 2 or len(values) != len(sites) or not sites:
            raise ValueError(
                f"`values` holds one direction per site, got shape {tuple(values.shape)} for "
                f"{len(sites)} sites. Allowed is (sites, width), with at least one site."
            )
        if not bool(torch.isfinite(values).all()):
            row = int((~torch.isfinite(values)).any(dim=1).nonzero()[0])
            raise ValueError(
                f"The direction at {sites[row]!r} is not finite. Check the activations that it was "
                "estimated from."
            )
        repeated_sites = [site for site in sites if sites.count(site) > 1]
        if repeated_sites:
            raise ValueError(f"`sites` names {repeated_sites[0]!r} twice. Name each site once.")
        # This raises an error for a name that is no site.
        for site in sites:
            site_layer(site)
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "values", values)
        for name in ("spread", "rms"):
            sizes = getattr(self, name)
            numbers = torch.full((len(sites),), nan) if sizes is None else _own_copy(sizes)
            if numbers.shape != (len(sites),) or bool((numbers < 0).any()):
                raise ValueError(
                    f"`{name}` holds one size per site, got {sizes!r} for {len(sites)} sites. "
                    "Allowed are numbers that are not negative; NaN where unknown."
                )
            object.__setattr__(self, name, numbers)
        rows = None if self.rows is None else tuple(int(row) for row in self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and vectors are sent to worker processes.
        fields = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _vector_of_fields, ({**fields, "notes": dict(self.notes)},)

    @classmethod
    def from_direction(
        cls,
        direction: Float[Tensor, "*site d_model"] | Float[np.ndarray, "*site d_model"],
        *,
        site: str | int | Sequence[str | int],
        method: str = "direction",
        concept: str | None = None,
        model: str | None = None,
        n_layers: int | None = None,
        rms: float | Sequence[float] | None = None,
        notes: Mapping[str, str] | None = None,
    ) -> "SteeringVector":
        """Make a vector of a direction, as a decoder row of an autoencoder.

        Args:
            direction: One direction, or one for each site.
            site: Where it acts: a site's name, a layer number for the residual stream after that
                block, or several. A negative number needs `n_layers`.
            method: How the direction was made.
            concept: The concept it stands for.
            model: Name of its model, so that steering another one warns.
            n_layers: The number of blocks of that model.
            rms: Root mean square of the residual stream's length, for `units="rms"`.
            notes: Other facts, in words.

        Raises:
            ValueError: The direction does not match the sites, or a site is unknown.
        """
        values = torch.as_tensor(direction)
        items = [site] if isinstance(site, str | int) else list(site)
        shape = ModelShape(
            name=model or "the model",
            n_layers=n_layers or 1 + max((_layer(item) for item in items), default=0),
            n_heads=1,
        )
        sites = [
            item
            if isinstance(item, str) and item.startswith("blocks.")
            else resolve_sites(shape, item)[0]
            for item in items
        ]
        sizes = None
        if rms is not None:
            by_site = [rms] * len(sites) if isinstance(rms, int | float) else list(rms)
            sizes = torch.tensor(by_site, dtype=torch.float32)
        return cls(
            values=values[None] if values.ndim == 1 else values,
            sites=tuple(sites),
            method=method,
            concept=concept,
            model=model,
            n_layers=n_layers,
            rms=sizes,
            notes={} if notes is None else notes,
        )

    @property
    def norms(self) -> Float[Tensor, " site"]:
        """The length of the direction at each site, in the model's own units."""
        norms: Tensor = self.values.norm(dim=1)
        return norms

    @property
    def width(self) -> int:
        """The width of a direction: `d_model`, or `d_head` at heads."""
        return self.values.shape[1]

    @property
    def layers(self) -> tuple[int, ...]:
        """The block of each site, from 0."""
        return tuple(site_layer(site) for site in self.sites)

    def at(self, site: str | int) -> Float[Tensor, " d_model"]:
        """The direction at one site: a name, or a layer number for the residual stream."""
        return self.select(site).values[0]

    def select(self, sites: str | int | Sequence[str | int]) -> "SteeringVector":
        """The same vector at fewer sites.

        Raises:
            ValueError: It has no direction at one of them.
        """
        heads = [int(site[:-1].rpartition("[")[2]) for site in self.sites if site.endswith("]")]
        shape = ModelShape(
            name="this vector",
            n_layers=self.n_layers or 1 + max(self.layers),
            n_heads=1 + max(heads, default=0),
        )
        names = resolve_sites(shape, sites)
        unknown_sites = [site for site in names if site not in self.sites]
        if unknown_sites:
            raise ValueError(
                f"This vector has no direction at {unknown_sites[0]!r}. Its sites are "
                f"{', '.join(self.sites)}."
            )
        rows = [self.sites.index(site) for site in names]
        return replace(
            self,
            values=self.values[rows],
            sites=names,
            spread=_sizes(self.spread)[rows],
            rms=_sizes(self.rms)[rows],
        )

    def normalised(self) -> "SteeringVector":
        """The same directions, each of length 1.

        Raises:
            ValueError: A direction has length 0.
        """
        norms = self.norms
        if not bool((norms > 0).all()):
            raise ValueError(
                f"The direction at {self.sites[int(norms.argmin())]!r} has length 0. Leave that "
                "site out."
            )
        return replace(self, values=self.values / norms[:, None])

    def scaled_to_spread(self) -> "SteeringVector":
        """The same directions, each as long as the spread of the statements' projections onto it.

        One unit of strength then moves an activation by one standard deviation of the projections.
        This is the paper's scale.

        Raises:
            ValueError: The spread is unknown.
        """
        spread = _sizes(self.spread)
        if not bool(torch.isfinite(spread).all()):
            raise ValueError(
                "The spread of projections onto this vector is unknown. Extract it with "
                "`extract_steering_vector`, or multiply it with a number."
            )
        return replace(self, values=self.normalised().values * spread[:, None])

    def without(self, other: "SteeringVector") -> "SteeringVector":
        """Project another vector out of this one, site by site.

        If both were estimated from statements of one concept, the result counts as estimated from
        the statements of both.

        Raises:
            ValueError: The vectors have different sites, or the other one has length 0.
        """
        self._check_partner(other, "project out")
        unit = other.normalised().values.double()
        # In float64, since the remainder of nearly parallel vectors is a small difference.
        values = self.values.double()
        remainder = values - (values * unit).sum(dim=1, keepdim=True) * unit
        method = f"{self.method} without {_label(other, self)}"
        rows, n = self.rows, self.n
        if self.fingerprint is not None and self.fingerprint == other.fingerprint:
            rows, n = _rows_of_both(self, other)
        return replace(self, values=remainder, method=method, spread=None, rows=rows, n=n)

    def cosine(self, other: "SteeringVector") -> Float[Tensor, " site"]:
        """Cosine of the angle to another vector at each site.

        Raises:
            ValueError: The vectors have different sites, or one has length 0.
        """
        self._check_partner(other, "compare with")
        one, two = (vector.normalised().values.double() for vector in (self, other))
        # Rounding may pass 1.
        return (one * two).sum(dim=1).clamp(-1, 1).float()

    def random_like(self, *, seed: int) -> "SteeringVector":
        """A direction drawn uniformly from the sphere, of the same length at every site.

        Args:
            seed: Draws it.
        """
        generator = torch.Generator().manual_seed(seed)
        # Normal numbers have no preferred direction, so they are uniform on the sphere once scaled.
        normal = torch.randn(self.values.shape, generator=generator, dtype=torch.float64)
        directions = normal / normal.norm(dim=1, keepdim=True)
        return replace(
            self,
            values=directions * self.norms.double()[:, None],
            method=f"random direction {seed} as long as {self.method}",
            spread=None,
        )

    def held_out(self, concept: Concept) -> Bool[np.ndarray, " example"]:
        """Which statements of a concept share no group with those that it was estimated from.

        Args:
            concept: The whole concept that it was estimated from.

        Raises:
            ValueError: It is not known to be estimated from this concept.
        """
        if self.fingerprint is None or self.fingerprint != concept.fingerprint:
            raise ValueError(
                f"This vector is not known to be estimated from the concept {concept.name!r} as it "
                "is here. Pass the whole concept that was passed to `extract_steering_vector`."
            )
        groups = np.asarray(concept.groups, dtype=str)
        training_groups = groups if self.rows is None else groups[list(self.rows)]
        is_held_out: np.ndarray = ~np.isin(groups, training_groups)
        return is_held_out

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the vector to a safetensors file, with its provenance.

        Args:
            path: The file. An existing file is replaced.

        Returns:
            The file.

        Raises:
            ValueError: The folder does not exist.
        """
        return write_vector_fields(vars(self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SteeringVector":
        """Read what `save` wrote, exactly. Nothing is unpickled.

        Raises:
            ValueError: The file does not exist, or `save` did not write it.
        """
        return cls(**read_vector_fields(path))

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __mul__(self, factor: float | int) -> "SteeringVector":
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        if not isfinite(factor):
            raise ValueError(f"A vector is multiplied by a finite number, got {factor!r}.")
        return replace(self, values=self.values.double() * factor)

    __rmul__ = __mul__

    def __truediv__(self, divisor: float | int) -> "SteeringVector":
        if isinstance(divisor, bool) or not isinstance(divisor, int | float):
            return NotImplemented
        return self * (1 / divisor)

    def __add__(self, other: "SteeringVector") -> "SteeringVector":
        return self._joined(other, 1)

    def __sub__(self, other: "SteeringVector") -> "SteeringVector":
        return self._joined(other, -1)

    def __repr__(self) -> str:
        sites = len(self.sites)
        low, high = float(self.norms.min()), float(self.norms.max())
        parts = [
            f"{sites} {'site' if sites == 1 else 'sites'} × {self.width} wide",
            self.sites[0] if sites == 1 else f"{self.sites[0]} … {self.sites[-1]}",
            f"norm {low:.3g}" if sites == 1 else f"norms {low:.3g} to {high:.3g}",
            f"method {self.method!r}",
        ]
        if self.concept is not None:
            parts.append(f"concept {self.concept!r}")
        if self.checkpoint is not None:
            parts.append(self.checkpoint)
        return f"SteeringVector({', '.join(parts)})"

    def _repr_html_(self) -> str:
        facts = {
            "sites": ", ".join(self.sites),
            "width": str(self.width),
            "norm": ", ".join(f"{norm:.3g}" for norm in self.norms.tolist()),
            "stream's RMS": ""
            if self.rms is None
            else ", ".join(f"{size:.3g}" for size in self.rms.tolist()),
            "method": self.method,
            "concept": self.concept or "",
            "statements": "" if self.n is None else str(self.n),
            "position": "" if self.position is None else str(self.position),
            "from": self.checkpoint or self.model or "",
            **self.notes,
        }
        facts = {name: text for name, text in facts.items() if text}
        return render("notebook/facts", {"title": "SteeringVector", "facts": facts})

    def _joined(self, other: "SteeringVector", sign: int) -> "SteeringVector":
        if not isinstance(other, SteeringVector):
            return NotImplemented
        self._check_partner(other, "add")
        separator = " + " if sign > 0 else " - "

        def join(name: str) -> Any:
            parts = getattr(self, name), getattr(other, name)
            if parts[0] == parts[1]:
                return parts[0]
            return separator.join("unknown" if part is None else str(part) for part in parts)

        def common(name: str) -> Any:
            value = getattr(self, name)
            return value if value == getattr(other, name) else None

        is_same_concept = self.fingerprint is not None and self.fingerprint == other.fingerprint
        rows, n = common("rows"), common("n")
        if is_same_concept:
            rows, n = _rows_of_both(self, other)
        else:
            n = None if self.n is None or other.n is None else self.n + other.n
        # Mean squares are averaged as lengths of one stream; an unknown one is left out.
        squares = torch.stack([_sizes(part.rms).double() ** 2 for part in (self, other)])
        return replace(
            self,
            values=self.values.double() + sign * other.values.double(),
            method=join("method"),
            concept=join("concept"),
            polarity=self.polarity and other.polarity,
            position=common("position"),
            n=n,
            rows=rows if is_same_concept else None,
            fingerprint=common("fingerprint"),
            model=join("model"),
            checkpoint=join("checkpoint"),
            identity=common("identity"),
            n_layers=self.n_layers if self.n_layers is not None else other.n_layers,
            spread=None,
            rms=squares.nanmean(dim=0).sqrt(),
            notes={**other.notes, **self.notes},
        )

    def _check_partner(self, other: "SteeringVector", what: str) -> None:
        if self.sites != other.sites or self.width != other.width:
            raise ValueError(
                f"To {what} a vector it must have the same sites and width, got "
                f"{other.width} wide at {', '.join(other.sites)} and {self.width} wide at "
                f"{', '.join(self.sites)}. Choose common ones with `select`."
            )


def _vector_of_fields(fields: dict[str, Any]) -> SteeringVector:
    return SteeringVector(**fields)


def _own_copy(values: Tensor) -> Tensor:
    # A vector does not change when the tensor it was made from does.
    return torch.as_tensor(values).detach().to("cpu", torch.float32, copy=True).contiguous()


def _sizes(numbers: Tensor | None) -> Tensor:
    assert numbers is not None  # set when the vector was made
    return numbers


def _layer(item: str | int) -> int:
    if isinstance(item, str):
        return site_layer(item) if item.startswith("blocks.") else 0
    return item


def _label(vector: SteeringVector, partner: SteeringVector) -> str:
    parts = [vector.method]
    for name in ("concept", "checkpoint"):
        text = getattr(vector, name)
        if text is not None and text != getattr(partner, name):
            parts.append(text)
    return " ".join(parts)


def _rows_of_both(one: SteeringVector, other: SteeringVector) -> tuple[tuple[int, ...] | None, Any]:
    """The statements that either of two vectors was estimated from, and their number.

    None stands for all statements.
    """
    if one.rows == other.rows:
        return one.rows, one.n if one.n == other.n else None
    if one.rows is None or other.rows is None:
        whole = one if one.rows is None else other
        return None, whole.n
    rows = tuple(sorted({*one.rows, *other.rows}))
    return rows, len(rows)
