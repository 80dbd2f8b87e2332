"""The program: its commands, and a user's mistakes as one line of text.

Heavy libraries are imported inside the commands, so that `--help` and a mistyped argument answer
at once.
"""

import os
import sys
from typing import Annotated

import typer

from tlens_trust.cli.checkpoints_command import checkpoints
from tlens_trust.cli.concept_commands import concepts, lint
from tlens_trust.cli.demo_command import demo
from tlens_trust.cli.information_command import information
from tlens_trust.cli.probe_command import probe
from tlens_trust.cli.run_folder_commands import compare, onset, report
from tlens_trust.cli.steer_command import steer
from tlens_trust.cli.transfer_command import transfer

# What a shell reports of a program that Ctrl-C ended: 128, and 2 for the signal.
_INTERRUPTED = 130

app = typer.Typer(
    name="tlens-trust",
    help="When, during pre-training, does a language model come to know what is trustworthy?",
    add_completion=False,
    rich_markup_mode=None,
    # `main` prints a user's mistake itself. Any other error keeps Python's own traceback.
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _root(
    version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False,
    verbose: Annotated[
        bool,
        typer.Option(
            "--verbose",
            help="With --version: print the versions of libraries, the backend, GPU and cores too, "
            "for a bug report.",
        ),
    ] = False,
) -> None:
    if verbose and not version:
        raise typer.BadParameter("Use it with --version.", param_hint="--verbose")
    if version and verbose:
        from tlens_trust.cli.environment import describe_environment

        for name, value in describe_environment().items():
            typer.echo(f"{name:<18}{value}")
        raise typer.Exit
    if version:
        from tlens_trust import __version__

        typer.echo(__version__)
        raise typer.Exit


for _command in (
    demo,
    probe,
    information,
    transfer,
    steer,
    onset,
    compare,
    report,
    concepts,
    lint,
    checkpoints,
):
    app.command()(_command)


def main() -> None:
    """Run the command line. A user's mistake is one line on standard error, and exit status 2."""
    try:
        # In standalone mode, Typer would print errors and exit before they reach this function.
        status = app(sys.argv[1:] or ["--help"], prog_name="tlens-trust", standalone_mode=False)
    except typer.TyperException as error:
        _fail(error.format_message())
    except (KeyboardInterrupt, typer.Abort):
        status = _INTERRUPTED
    except (ValueError, OSError) as error:
        # A bug report needs the traceback, which one line leaves out.
        if os.environ.get("TLENS_TRUST_TRACEBACK"):
            raise
        _fail(" ".join([_message(error), *getattr(error, "__notes__", [])]))
    # Some versions of Typer return the status in place of raising an error.
    if status == _INTERRUPTED:
        # A progress bar does not end its line.
        sys.stderr.write(
            "\ntlens-trust: interrupted. What a sweep has finished is kept. The same command "
            "continues where it stopped.\n"
        )
    sys.exit(status or 0)


def _message(error: ValueError | OSError) -> str:
    if isinstance(error, OSError) and error.strerror and error.filename is not None:
        # Python's own text begins with the number of the error, such as '[Errno 2]'.
        return f"{error.strerror}: {os.fspath(error.filename)!r}."
    return str(error)


def _fail(message: str) -> None:
    # A message may have several lines, and a note from elsewhere may hold any.
    sys.stderr.write(f"tlens-trust: {' '.join(message.split())}\n")
    sys.exit(2)
