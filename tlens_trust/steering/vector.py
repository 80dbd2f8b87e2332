"""Directions that act, and where they come from."""

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
from tlens_trust.steering.formats.tensors import read_vector_fields, write_vector_fields


@dataclass(frozen=True, eq=False, repr=False)
class SteeringVector:
    """One direction per site, its size, and where it comes from.

    By convention it points from label 0 to label 1, so that a positive strength steers to the
    trustworthy side of a concept that has one.

    Vectors add, subtract, and multiply with a number, site by site. What is made of two vectors
    says so in `method`, `concept` and `checkpoint`, where they differ.

    Attributes:
        values: The direction at each site, in the model's own units, in float32 on the CPU.
        sites: Site names, in the order of the `site` axis; a head is `blocks.3.attn.hook_z[7]`.
        method: What made it.
        concept: Name of the concept; None for a direction that stands for none.
        polarity: False where label 1 of the concept is not the trustworthy side.
        position: Which token of a statement was read; None where nothing was.
        n: How many statements it was made of; None where unknown.
        rows: Which statements of the concept, counted from 0; None for all of them.
        fingerprint: Of the whole concept that `rows` counts in; None where there is none.
        model: The run that the checkpoint belongs to; None where unknown.
        checkpoint: The checkpoint's short label; None where unknown.
        identity: The hash of the checkpoint's weights; None where unknown.
        n_layers: Blocks of the model; None where unknown.
        spread: Standard deviation of the statements' projections onto the direction, in the
            model's own units; NaN where unknown.
        rms: Root mean square of the length of what was read at each site, in the model's own
            units, which `units="rms"` counts in; NaN where unknown.
        notes: Whatever else there is to say of it, in words.

    Raises:
        ValueError: `values` do not go with `sites` or are not finite, a site is named twice or
            is none, or `spread` or `rms` is not one number a site.

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
            bad = int((~torch.isfinite(values)).any(dim=1).nonzero()[0])
            raise ValueError(
                f"The direction at {sites[bad]!r} is not finite. Look at the activations that it "
                "was made of."
            )
        twice = [site for site in sites if sites.count(site) > 1]
        if twice:
            raise ValueError(f"`sites` names {twice[0]!r} twice. Name each site once.")
        for site in sites:
            site_layer(site)
        object.__setattr__(self, "sites", sites)
        object.__setattr__(self, "values", values)
        for name in ("spread", "rms"):
            given = getattr(self, name)
            numbers = torch.full((len(sites),), nan) if given is None else _own_copy(given)
            if numbers.shape != (len(sites),) or bool((numbers < 0).any()):
                raise ValueError(
                    f"`{name}` holds one size per site, got {given!r} for {len(sites)} sites. "
                    "Allowed are numbers that are not negative; NaN where unknown."
                )
            object.__setattr__(self, name, numbers)
        rows = None if self.rows is None else tuple(int(row) for row in self.rows)
        object.__setattr__(self, "rows", rows)
        object.__setattr__(self, "notes", MappingProxyType(dict(self.notes)))

    def __reduce__(self) -> tuple[Any, ...]:
        # A mapping proxy cannot be pickled, and a vector travels to worker processes.
        held = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return _made_of, ({**held, "notes": dict(self.notes)},)

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
        """A direction of one's own: a decoder row of an autoencoder, a difference of embeddings.

        Args:
            direction: One direction, or one for each site.
            site: Where it acts: a site's name or a layer number for the residual stream after
                that block, which must not be negative unless `n_layers` is given; or several.
            method: What made it.
            concept: What it stands for.
            model: Name of the model it belongs to, so that another one is warned of.
            n_layers: Blocks of that model.
            rms: Root mean square of the residual stream's length, for `units="rms"`.
            notes: What else there is to say of it.

        Raises:
            ValueError: The direction does not go with the sites, or a site is none.
        """
        given = torch.as_tensor(direction)
        asked = [site] if isinstance(site, str | int) else list(site)
        shape = ModelShape(
            name=model or "the model",
            n_layers=n_layers or 1 + max((_layer(item) for item in asked), default=0),
            n_heads=1,
        )
        named = [
            item
            if isinstance(item, str) and item.startswith("blocks.")
            else resolve_sites(shape, item)[0]
            for item in asked
        ]
        sizes = None
        if rms is not None:
            listed = [rms] * len(named) if isinstance(rms, int | float) else list(rms)
            sizes = torch.tensor(listed, dtype=torch.float32)
        return cls(
            values=given[None] if given.ndim == 1 else given,
            sites=tuple(named),
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
        """How many numbers a direction has: `d_model`, or `d_head` at heads."""
        return self.values.shape[1]

    @property
    def layers(self) -> tuple[int, ...]:
        """The block of each site, from 0."""
        return tuple(site_layer(site) for site in self.sites)

    def at(self, site: str | int) -> Float[Tensor, " d_model"]:
        """The direction at one site, given by name or, for the residual stream, by layer."""
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
        wanted = resolve_sites(shape, sites)
        missing = [site for site in wanted if site not in self.sites]
        if missing:
            raise ValueError(
                f"This vector has no direction at {missing[0]!r}. It has some at "
                f"{', '.join(self.sites)}."
            )
        rows = [self.sites.index(site) for site in wanted]
        return replace(
            self,
            values=self.values[rows],
            sites=wanted,
            spread=_given(self.spread)[rows],
            rms=_given(self.rms)[rows],
        )

    def normalised(self) -> "SteeringVector":
        """The same directions, each of length 1.

        Raises:
            ValueError: A direction has no length.
        """
        norms = self.norms
        if not bool((norms > 0).all()):
            raise ValueError(
                f"The direction at {self.sites[int(norms.argmin())]!r} has no length, and so "
                "points nowhere. Leave that site out."
            )
        return replace(self, values=self.values / norms[:, None])

    def scaled_to_spread(self) -> "SteeringVector":
        """The same directions, each as long as the statements' projections onto it spread.

        One unit of strength then moves an activation by one standard deviation of what is read
        along the direction; the paper's scale.

        Raises:
            ValueError: The spread is not known.
        """
        spread = _given(self.spread)
        if not bool(torch.isfinite(spread).all()):
            raise ValueError(
                "The spread of projections onto this vector is not known. Extract it with "
                "`extract_steering_vector`, or multiply it yourself."
            )
        return replace(self, values=self.normalised().values * spread[:, None])

    def without(self, other: "SteeringVector") -> "SteeringVector":
        """What is left of this vector when another is projected out, site by site.

        Where both were made of statements of one concept, it is made of the statements of both.

        Raises:
            ValueError: The vectors are of other sites, or the other one has no length.
        """
        self._check_partner(other, "project out")
        unit = other.normalised().values.double()
        own = self.values.double()
        left = own - (own * unit).sum(dim=1, keepdim=True) * unit
        method = f"{self.method} without {_label(other, self)}"
        rows, n = self.rows, self.n
        if self.fingerprint is not None and self.fingerprint == other.fingerprint:
            rows, n = _rows_of_both(self, other)
        return replace(self, values=left, method=method, spread=None, rows=rows, n=n)

    def cosine(self, other: "SteeringVector") -> Float[Tensor, " site"]:
        """Cosine of the angle to another vector at each site.

        Raises:
            ValueError: The vectors are of other sites, or one has no length.
        """
        self._check_partner(other, "compare with")
        own, others = self.normalised().values.double(), other.normalised().values.double()
        return (own * others).sum(dim=1).clamp(-1, 1).float()

    def random_like(self, *, seed: int) -> "SteeringVector":
        """A direction drawn evenly from the sphere, of the same length at every site.

        Args:
            seed: Draws it.
        """
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.values.shape, generator=generator, dtype=torch.float64)
        drawn = drawn / drawn.norm(dim=1, keepdim=True)
        return replace(
            self,
            values=drawn * self.norms.double()[:, None],
            method=f"random direction {seed} as long as {self.method}",
            spread=None,
        )

    def held_out(self, concept: Concept) -> Bool[np.ndarray, " example"]:
        """Which statements of a concept share no group with one that the vector was made of.

        Args:
            concept: The concept it was made of, whole.

        Raises:
            ValueError: It was not made of this concept, as far as is known.
        """
        if self.fingerprint is None or self.fingerprint != concept.fingerprint:
            raise ValueError(
                f"This vector was not made of the concept {concept.name!r} as it is here, or does "
                "not say so. Pass the whole concept that was passed to `extract_steering_vector`."
            )
        groups = np.asarray(concept.groups, dtype=str)
        used = groups if self.rows is None else groups[list(self.rows)]
        held: np.ndarray = ~np.isin(groups, used)
        return held

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write it to a safetensors file, with all that is known of it.

        Args:
            path: Where to; an existing file is replaced.

        Returns:
            The file.
        """
        return write_vector_fields(vars(self), path)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "SteeringVector":
        """Read what `save` wrote, exactly. Nothing is unpickled.

        Raises:
            ValueError: The file is none of ours.
        """
        return cls(**read_vector_fields(path))

    def __neg__(self) -> "SteeringVector":
        return self * -1.0

    def __mul__(self, factor: float | int) -> "SteeringVector":
        if isinstance(factor, bool) or not isinstance(factor, int | float):
            return NotImplemented
        if not isfinite(factor):
            raise ValueError(f"A vector is multiplied with a finite number, got {factor!r}.")
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
            else ", ".join(f"{each:.3g}" for each in self.rms.tolist()),
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
        between = " + " if sign > 0 else " - "

        def said(name: str) -> Any:
            own, others = getattr(self, name), getattr(other, name)
            if own == others:
                return own
            return between.join("unknown" if part is None else str(part) for part in (own, others))

        def same(name: str) -> Any:
            own = getattr(self, name)
            return own if own == getattr(other, name) else None

        alike = self.fingerprint is not None and self.fingerprint == other.fingerprint
        rows, n = same("rows"), same("n")
        if alike:
            rows, n = _rows_of_both(self, other)
        else:
            n = None if self.n is None or other.n is None else self.n + other.n
        squares = torch.stack([_given(part.rms).double() ** 2 for part in (self, other)])
        return replace(
            self,
            values=self.values.double() + sign * other.values.double(),
            method=said("method"),
            concept=said("concept"),
            polarity=self.polarity and other.polarity,
            position=same("position"),
            n=n,
            rows=rows if alike else None,
            fingerprint=same("fingerprint"),
            model=said("model"),
            checkpoint=said("checkpoint"),
            identity=same("identity"),
            n_layers=self.n_layers if self.n_layers is not None else other.n_layers,
            spread=None,
            rms=squares.nanmean(dim=0).sqrt(),
            notes={**other.notes, **self.notes},
        )

    def _check_partner(self, other: "SteeringVector", what: str) -> None:
        if self.sites != other.sites or self.width != other.width:
            raise ValueError(
                f"To {what} a vector it must have the same sites and width, got "
                f"{other.width} wide at {', '.join(other.sites)} beside {self.width} wide at "
                f"{', '.join(self.sites)}. Choose common ones with `select`."
            )


def _made_of(held: dict[str, Any]) -> SteeringVector:
    return SteeringVector(**held)


def _own_copy(values: Tensor) -> Tensor:
    return torch.as_tensor(values).detach().to("cpu", torch.float32, copy=True).contiguous()


def _given(numbers: Tensor | None) -> Tensor:
    assert numbers is not None  # set when the vector was made
    return numbers


def _layer(item: str | int) -> int:
    if isinstance(item, str):
        return site_layer(item) if item.startswith("blocks.") else 0
    return item


def _label(vector: SteeringVector, beside: SteeringVector) -> str:
    parts = [vector.method]
    for name in ("concept", "checkpoint"):
        said = getattr(vector, name)
        if said is not None and said != getattr(beside, name):
            parts.append(said)
    return " ".join(parts)


def _rows_of_both(one: SteeringVector, other: SteeringVector) -> tuple[tuple[int, ...] | None, Any]:
    """Statements of a concept that either of two vectors was made of, and how many they are.

    None stands for all statements.
    """
    if one.rows == other.rows:
        return one.rows, one.n if one.n == other.n else None
    if one.rows is None or other.rows is None:
        whole = one if one.rows is None else other
        return None, whole.n
    rows = tuple(sorted({*one.rows, *other.rows}))
    return rows, len(rows)
