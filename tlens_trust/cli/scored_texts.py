"""Texts whose every token is scored, for the report to show."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tlens_trust.cli.options import SiteOptions

if TYPE_CHECKING:
    from tlens_trust.checkpoints import Checkpoint
    from tlens_trust.concepts import Concept


def check_texts(texts: Sequence[str], concepts: Sequence[str]) -> None:
    """Refuse a text that names no concept of the sweep, before any model is loaded.

    Raises:
        ValueError: An entry is not CONCEPT=TEXT.
    """
    for entry in texts:
        # The first equals sign separates. The text may hold others.
        name, equals, text = entry.partition("=")
        if not (equals and text.strip()) or name not in concepts:
            raise ValueError(
                f"--text got {entry!r}. Give CONCEPT=TEXT with a concept of this sweep: "
                f"{', '.join(concepts)}."
            )


def save_token_scores(
    series: "Iterable[Checkpoint]",
    concepts: "Mapping[str, Concept]",
    texts: Sequence[str],
    out: Path,
    *,
    site_options: SiteOptions | None = None,
) -> None:
    """Score every token of the texts at every checkpoint, and save the scores with the run.

    Args:
        series: The checkpoints.
        concepts: The concepts of the sweep, by name.
        texts: Entries of the form CONCEPT=TEXT.
        out: The run folder.
        site_options: Sites and position; None for the defaults.

    Raises:
        ValueError: As `trace_tokens`.
    """
    from tlens_trust.analysis import trace_tokens
    from tlens_trust.tracing import save_result

    site_options = site_options or SiteOptions()
    for entry in texts:
        name, _, text = entry.partition("=")
        scores = trace_tokens(
            series,
            concepts[name],
            text,
            sites=site_options.parsed_sites,
            position=site_options.parsed_position,
        )
        save_result(out, "tokens", entry, scores)
