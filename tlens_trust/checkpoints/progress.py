"""Imports tqdm without its warning about a missing ipywidgets.

In a notebook without ipywidgets, tqdm draws its bar as text, which is good enough. But it warns
when `tqdm.auto` is first imported, whichever library does so. That warning would appear among the
user's results, so `tqdm.auto` is imported here, before the other libraries.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
