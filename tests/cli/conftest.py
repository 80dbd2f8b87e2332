import sys

import pytest

from tlens_trust import cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Run `tlens-trust` with arguments; its status, standard output and standard error."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["tlens-trust", *map(str, arguments)])
        with pytest.raises(SystemExit) as stopped:
            cli.main()
        out, err = capsys.readouterr()
        return stopped.value.code, out, err

    return run
