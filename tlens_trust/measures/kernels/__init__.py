"""Dependence by kernels: how alike two readings of the same statements arrange them."""
