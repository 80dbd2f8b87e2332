"""Long names on narrow axes."""

import textwrap

import xarray as xr

from tlens_trust.views.axes import quantity_label


def wrapped_label(values: xr.DataArray, *, width: int = 44) -> str:
    """`quantity_label` in lines of at most so many characters; safe as HTML.

    Examples:
        >>> data = xr.DataArray(0.5, attrs={"long_name": "a very long name", "units": "nats"})
        >>> wrapped_label(data, width=12)
        'a very long<br>name (nats)'
    """
    # A character that was escaped is longer than it looks, and holds no space to break at.
    return "<br>".join(textwrap.wrap(quantity_label(values), width, break_long_words=False))
