"""The toy series, trained once per test session."""

import os

import pytest


@pytest.fixture(scope="session")
def toy_series(tmp_path_factory):
    """The checkpoints of `pretrain_toy_series(seed=0)`; under a minute on one core.

    They are kept between sessions only where `TLENS_TRUST_CACHE` names a folder for them.
    """
    from tlens_trust.checkpoints import pretrain_toy_series

    kept = os.environ.get("TLENS_TRUST_CACHE")
    folder = None if kept else tmp_path_factory.mktemp("toy-series")
    return pretrain_toy_series(folder, seed=0, progress=False)
