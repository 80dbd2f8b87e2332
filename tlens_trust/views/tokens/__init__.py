"""Texts with a number on every token, in a notebook or on a page of their own."""

from tlens_trust.views.tokens.drawing import draw_tokens
from tlens_trust.views.tokens.view import TokenView, write_page

__all__ = ["TokenView", "draw_tokens", "write_page"]
