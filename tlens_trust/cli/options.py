"""Options that several commands share, each declared once.

Options that always go together are fields of a dataclass, such as `SiteOptions`. A command takes
the dataclass as one parameter, and `expand_options` shows its fields to the shell.
"""

import inspect
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from enum import StrEnum
from functools import wraps
from pathlib import Path
from typing import Annotated, Any

import typer


class Untrained(StrEnum):
    """Which untrained weights the checkpoints are compared with."""

    auto = "auto"
    step0 = "step0"
    random = "random"
    none = "none"

    @property
    def argument(self) -> str | None:
        """The value as the library takes it: None for no untrained weights."""
        return None if self is Untrained.none else self.value


Out = Annotated[Path, typer.Option(help="Run folder. An existing one is continued.")]
Seed = Annotated[int, typer.Option(help="Seed of everything that is drawn at random.")]
UntrainedWeights = Annotated[
    Untrained,
    typer.Option(
        help="Untrained weights that checkpoints are compared with: 'step0' of the series, "
        "'random' weights of the same architecture (one more model to read), whichever is "
        "available ('auto'), or 'none'."
    ),
]
Jobs = Annotated[
    int | None,
    typer.Option(
        help="Number of processes that measure; 1 for this process alone. By default one for each "
        "core, if there is enough work."
    ),
]
EverySite = Annotated[
    bool, typer.Option("--every-site", help="Report every site, not one for each concept.")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Show no progress bars.")]


@dataclass(frozen=True)
class SiteOptions:
    """Where in the model, and at which token, activations are collected."""

    sites: Annotated[
        str, typer.Option(help="'resid_post', 'attn_out', 'mlp_out', 'z', or layers ('0,4,8').")
    ] = "resid_post"
    position: Annotated[str, typer.Option(help="'last', 'mean', or the number of a token.")] = (
        "last"
    )

    @property
    def parsed_sites(self) -> str | list[int] | list[str]:
        """`--sites` as the library takes it: a kind of site, layers, or hook names."""
        parts = [part.strip() for part in self.sites.split(",")]
        # A negative number counts layers from the end.
        if all(part.lstrip("-").isdigit() for part in parts):
            return [int(part) for part in parts]
        # A hook name holds a dot, and the name of a kind of site does not.
        return parts if len(parts) > 1 or "." in self.sites else self.sites

    @property
    def parsed_position(self) -> str | int:
        """`--position` as the library takes it: a word, or the number of a token."""
        return int(self.position) if self.position.lstrip("-").isdigit() else self.position


def expand_options(command: Callable[..., None]) -> Callable[..., None]:
    """Show the fields of a command's option dataclasses to the shell.

    Typer makes one option of each parameter and knows no groups of options. The returned function
    has one parameter for each field; it builds the dataclasses and calls the command with them.

    Args:
        command: A function whose parameters are options, arguments, or dataclasses of options.

    Examples:
        >>> @expand_options
        ... def show(layer: int, site_options: SiteOptions) -> None:
        ...     print(layer, site_options.parsed_sites, site_options.parsed_position)
        >>> list(inspect.signature(show).parameters)
        ['layer', 'sites', 'position']
        >>> show(layer=2, sites="0,4", position="last")
        2 [0, 4] last
    """
    groups: dict[str, Any] = {}
    parameters: list[inspect.Parameter] = []
    for parameter in inspect.signature(command).parameters.values():
        if is_dataclass(parameter.annotation):
            groups[parameter.name] = parameter.annotation
            parameters += [
                inspect.Parameter(
                    field.name,
                    # Only keyword parameters may lack a default after one that has a default.
                    inspect.Parameter.KEYWORD_ONLY,
                    default=field.default,
                    annotation=field.type,
                )
                for field in fields(parameter.annotation)
            ]
        else:
            parameters.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(command)
    def expanded(**values: Any) -> None:
        arguments = {
            name: group(**{field.name: values.pop(field.name) for field in fields(group)})
            for name, group in groups.items()
        }
        command(**values, **arguments)

    # Typer reads both: the signature for the order and the defaults, the annotations for the types.
    expanded.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    expanded.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return expanded


def split_entries(texts: list[str] | None, option: str) -> list[str]:
    """Split the values of an option that may be repeated and may hold commas.

    Returns:
        The entries in order; empty if the option was not given.

    Raises:
        ValueError: The option was given without an entry.
    """
    entries = [part.strip() for text in texts or [] for part in text.split(",")]
    entries = [entry for entry in entries if entry]
    if texts and not entries:
        raise ValueError(
            f"{option} got {','.join(texts)!r}, which names nothing. Leave it out, or name some."
        )
    return entries


def check_output_folder(out: Path) -> None:
    """Refuse a file as `--out`, before minutes go into results that could not be written.

    Raises:
        ValueError: `--out` is a file.
    """
    if out.is_file():
        raise ValueError(f"--out got {str(out)!r}, which is a file. Give a folder.")
