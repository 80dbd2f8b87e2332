"""Dependence measured by kernels: whether two representations arrange the same statements alike."""
