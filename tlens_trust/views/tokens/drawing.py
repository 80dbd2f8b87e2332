"""From scores of tokens to a view of them."""

import numpy as np
import xarray as xr

from tlens_trust.views.axes import format_count
from tlens_trust.views.tokens.view import TokenView


def draw_tokens(scores: xr.Dataset) -> TokenView:
    """Colour every token of a text by its score, with a choice of checkpoint and site.

    One scale of colours serves all checkpoints, so that a concept is seen to appear.

    Args:
        scores: What `trace_tokens` gives, or `project_tokens`; of that, tokens that steering acts
            on are underlined.

    Returns:
        A view: in a notebook it shows itself, `.save("tokens.html")` writes a page.

    Raises:
        ValueError: They are no scores of tokens.

    Examples:
        >>> draw_tokens(trace_tokens(series, concept, "A text."))  # doctest: +SKIP
    """
    if not isinstance(scores, xr.Dataset) or "score" not in scores or "token" not in scores.dims:
        raise ValueError(
            "These are no scores of tokens. Pass what `trace_tokens` or `project_tokens` gives."
        )
    score = scores["score"]
    values = score.transpose("checkpoint", "site", "token").values
    steps = np.asarray(scores["step"].values, dtype=float)
    names = [str(name) for name in scores["checkpoint"].values]
    layers = scores["layer"].values.tolist()
    sites = [str(site) for site in scores["site"].values]
    return TokenView(
        title=f"{score.attrs['long_name']} ({score.attrs['units']})",
        tokens=tuple(str(token) for token in scores["text"].values),
        values=values,
        checkpoints=tuple(
            f"step {format_count(step)}" if np.isfinite(step) else name
            for step, name in zip(steps, names, strict=True)
        ),
        sites=tuple(
            f"layer {layer}" if len(set(layers)) == len(layers) else site
            for layer, site in zip(layers, sites, strict=True)
        ),
        note=str(scores.attrs.get("note", "")),
        marked=scores["acts"].transpose("checkpoint", "token").values if "acts" in scores else None,
    )
