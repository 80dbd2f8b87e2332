"""Dependence by kernels: how alike two readings of the same statements arrange them."""

from tlens_trust.measures.kernels.dependence import KernelDependence, kernel_dependence
