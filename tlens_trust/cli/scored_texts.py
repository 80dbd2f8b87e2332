"""Texts of which every token is scored, for the report to show."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tlens_trust.checkpoints import Checkpoint
    from tlens_trust.concepts import Concept


def check_texts(texts: Sequence[str], concepts: Sequence[str]) -> None:
    """Refuse a text that names no concept of the sweep, before anything is read.

    Raises:
        ValueError: It is not CONCEPT=TEXT.
    """
    for entry in texts:
        name, equals, text = entry.partition("=")
        if not (equals and text.strip()) or name not in concepts:
            raise ValueError(
                f"--text got {entry!r}. Give CONCEPT=TEXT with a concept of this sweep: "
                f"{', '.join(concepts)}."
            )


def keep_tokens(
    series: "Iterable[Checkpoint]",
    concepts: "Mapping[str, Concept]",
    texts: Sequence[str],
    out: Path,
    **reading: Any,
) -> None:
    """Score every token of the texts at every checkpoint, and keep that with the run.

    Raises:
        ValueError: As `trace_tokens`.
    """
    from tlens_trust.analysis import trace_tokens
    from tlens_trust.tracing import save_result

    for entry in texts:
        name, _, text = entry.partition("=")
        save_result(out, "tokens", entry, trace_tokens(series, concepts[name], text, **reading))
