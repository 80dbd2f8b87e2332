"""Dependence by kernels: how alike two readings of the same statements arrange them."""

from tlens_trust.measures.kernels.components import PrincipalComponents, linear_normalised_hsic
from tlens_trust.measures.kernels.dependence import (
    KernelDependence,
    kernel_dependence,
    median_widths,
)
from tlens_trust.measures.kernels.exchange import Rotations, exchange_rows
from tlens_trust.measures.kernels.hsic import CKA, HSIC, hsic_biased, hsic_unbiased
from tlens_trust.measures.kernels.kernel import (
    DeltaKernel,
    GaussianKernel,
    Kernel,
    LinearKernel,
    label_column,
    median_distance,
)
from tlens_trust.measures.kernels.low_rank import LowRankKernel, pivoted_cholesky
from tlens_trust.measures.kernels.normalised import LowRankValue, NormalisedFactor, NormalisedHSIC
from tlens_trust.measures.kernels.permutation_test import (
    PermutationTest,
    permutation_test,
    permutation_test_labels,
)
from tlens_trust.measures.kernels.spectrum_matching import (
    default_components,
    flatten_spectrum,
    matching_components,
)
from tlens_trust.measures.kernels.tracingllm import (
    TracingLLMDependence,
    tracingllm_dependence,
    tracingllm_features,
    tracingllm_information,
    tracingllm_low_rank,
)
from tlens_trust.measures.text_features import represent_text

__all__ = [
    "CKA",
    "HSIC",
    "DeltaKernel",
    "GaussianKernel",
    "Kernel",
    "KernelDependence",
    "LinearKernel",
    "LowRankKernel",
    "LowRankValue",
    "NormalisedFactor",
    "NormalisedHSIC",
    "PermutationTest",
    "PrincipalComponents",
    "Rotations",
    "TracingLLMDependence",
    "default_components",
    "exchange_rows",
    "flatten_spectrum",
    "hsic_biased",
    "hsic_unbiased",
    "kernel_dependence",
    "label_column",
    "linear_normalised_hsic",
    "matching_components",
    "median_distance",
    "median_widths",
    "permutation_test",
    "permutation_test_labels",
    "pivoted_cholesky",
    "represent_text",
    "tracingllm_dependence",
    "tracingllm_features",
    "tracingllm_information",
    "tracingllm_low_rank",
]
