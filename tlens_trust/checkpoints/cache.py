"""Where this package keeps what can be made again."""

import os
from pathlib import Path

import platformdirs

VARIABLE = "TLENS_TRUST_CACHE"


def cache_folder() -> Path:
    """The folder of everything that this package caches. It need not exist.

    Returns:
        What the environment variable `TLENS_TRUST_CACHE` names, else a folder in the user's cache.
    """
    named = os.environ.get(VARIABLE)
    return Path(named).expanduser() if named else platformdirs.user_cache_path("tlens_trust")
