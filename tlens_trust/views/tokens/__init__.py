"""Texts with a number on every token, and texts side by side, in a notebook or on a page."""

from tlens_trust.views.tokens.drawing import draw_tokens
from tlens_trust.views.tokens.generations import GenerationsView, draw_generations
from tlens_trust.views.tokens.view import PagePart, TokenView, write_page

__all__ = [
    "GenerationsView",
    "PagePart",
    "TokenView",
    "draw_generations",
    "draw_tokens",
    "write_page",
]
