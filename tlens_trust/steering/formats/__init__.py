"""Steering vectors in files, ours and those of other programs.

safetensors with all that is known of a vector, exact in both directions; control vectors of
llama.cpp; the file of lm-evaluation-harness's `steered` model; a list of hooks for TransformerLens.
Loading never unpickles anything but tensors and plain containers.
"""

from tlens_trust.steering.formats.gguf import read_gguf, write_gguf
from tlens_trust.steering.formats.hook_list import make_hooks
from tlens_trust.steering.formats.lm_eval import read_lm_eval, write_lm_eval
from tlens_trust.steering.formats.tensors import load_vector, save_vector

__all__ = [
    "load_vector",
    "make_hooks",
    "read_gguf",
    "read_lm_eval",
    "save_vector",
    "write_gguf",
    "write_lm_eval",
]
