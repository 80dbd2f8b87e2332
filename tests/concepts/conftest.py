from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def paper_folder():
    folder = Path(__file__).resolve().parents[3] / "shared" / "data" / "tracingllm"
    if not folder.is_dir():
        pytest.skip("the paper's files are not beside this checkout")
    return folder
