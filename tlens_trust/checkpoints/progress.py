"""Progress bars that say nothing but how far things are.

In a notebook tqdm draws a widget where ipywidgets is installed. Where it is not, it draws its bar
in text, which does as well, and warns about it when `tqdm.auto` is first imported: by whatever
library comes first, in the midst of the user's results. So it is imported here, before the others.
"""

import warnings

with warnings.catch_warnings():
    warnings.filterwarnings("ignore", message="IProgress not found")
    from tqdm.auto import tqdm

__all__ = ["tqdm"]
