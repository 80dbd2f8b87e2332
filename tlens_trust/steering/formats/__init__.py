"""Steering vectors in files: our own format, and those of other programs.

Each format has a module; `tlens_trust.steering` offers their functions. Our own is safetensors with
the whole provenance, exact in both directions. Others are control vectors of llama.cpp, the file of
lm-evaluation-harness's `steered` model, and a list of hooks for TransformerLens. Loading never
unpickles anything except tensors and plain containers.
"""
