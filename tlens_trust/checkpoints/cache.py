"""The folder of everything that this package caches and can compute or download again."""

import os
from pathlib import Path

import platformdirs

VARIABLE = "TLENS_TRUST_CACHE"


def cache_folder() -> Path:
    """Return the folder of everything that this package caches, which need not exist.

    Returns:
        The folder that the environment variable `TLENS_TRUST_CACHE` names, else one in the
        user's cache.
    """
    # Read at each call, so that a program may set the variable after the import.
    folder = os.environ.get(VARIABLE)
    return Path(folder).expanduser() if folder else platformdirs.user_cache_path("tlens_trust")
