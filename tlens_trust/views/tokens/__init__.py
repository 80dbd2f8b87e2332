"""Texts with a number on every token, and texts side by side, in a notebook or on a page."""

from tlens_trust.views.tokens.generations_view import GenerationsView, draw_generations
from tlens_trust.views.tokens.page import PagePart, write_page
from tlens_trust.views.tokens.token_view import TokenView, draw_tokens

__all__ = [
    "GenerationsView",
    "PagePart",
    "TokenView",
    "draw_generations",
    "draw_tokens",
    "write_page",
]
