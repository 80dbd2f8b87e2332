"""What it costs to import the package and to ask the command line for help.

Run with `python -m pytest tests/benchmarks/test_import.py -s`.
"""

import statistics
import subprocess
import sys
import time


def _median_seconds(command: list[str], rounds: int = 9) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def test_importing_the_package_costs_little_beside_starting_python(capsys):
    bare = _median_seconds([sys.executable, "-c", "pass"])
    package = _median_seconds([sys.executable, "-c", "import tlens_trust"])
    usage = _median_seconds([sys.executable, "-m", "tlens_trust.cli", "--help"])
    with capsys.disabled():
        print(
            f"\nimport tlens_trust: {package - bare:.3f} s over a bare interpreter's {bare:.3f} s "
            f"({package / bare:.2f} times)\ntlens-trust --help: {usage:.3f} s"
        )
    assert package - bare < 0.3
    assert usage < 0.5
