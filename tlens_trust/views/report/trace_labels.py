"""How a report names a trace: its title, and the line beneath it."""

from collections.abc import Sequence
from pathlib import Path

from tlens_trust.tracing import Trace
from tlens_trust.views.axes import format_count


def report_title(trace: Trace) -> str:
    """The title of a report that was given none."""
    models = trace.provenance.get("models") or [trace.data.attrs.get("model", "a series")]
    return f"What {', '.join(short_model_name(str(model)) for model in models)} learned, and when"


def report_lead(trace: Trace) -> str:
    """What a report is about, in one line: numbers of concepts, checkpoints, sites and runs."""
    steps = [step for step in trace.steps if step is not None]
    span = f" from step {format_count(min(steps))} to {format_count(max(steps))}" if steps else ""
    day = str(trace.data.attrs.get("created", ""))[:10]
    runs = trace.data.sizes.get("run", 1)
    run_note = f" in {runs} runs (figures show their mean and range)" if runs > 1 else ""
    return (
        f"{_counted(trace.concepts, 'concept')} at {_counted(trace.checkpoints, 'checkpoint')}"
        f"{span}, measured at {_counted(trace.sites, 'site')}{run_note}. "
        f"Made {f'on {day} ' if day else ''}by tlens_trust."
    )


def short_model_name(model: str) -> str:
    """A hub name as it is; of a folder, the last part of its path."""
    # A relative path of two parts looks like a hub name, and is shown whole as well.
    return model if model.count("/") == 1 and not model.startswith("/") else Path(model).name


def _counted(items: Sequence[str], noun: str) -> str:
    return f"{len(items)} {noun}{'' if len(items) == 1 else 's'}"
