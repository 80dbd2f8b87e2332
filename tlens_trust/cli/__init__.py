"""The package's functions from a shell: `tlens-trust --help`."""

from tlens_trust.cli.application import main

__all__ = ["main"]
