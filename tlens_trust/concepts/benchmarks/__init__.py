"""Readers for the public benchmarks of trustworthiness."""

from tlens_trust.concepts.benchmarks.confaide import CONFAIDE
from tlens_trust.concepts.benchmarks.sst2 import SST2
from tlens_trust.concepts.benchmarks.stereoset import STEREOSET
from tlens_trust.concepts.benchmarks.toxigen import TOXIGEN
from tlens_trust.concepts.benchmarks.truthfulqa import TRUTHFULQA

BENCHMARKS = {
    benchmark.name: benchmark
    for benchmark in (
        TRUTHFULQA,
        CONFAIDE,
        TOXIGEN,
        STEREOSET,
        SST2,
    )
}
