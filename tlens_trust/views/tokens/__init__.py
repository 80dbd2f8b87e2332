"""Texts with a number on every token, and texts side by side, in a notebook or on a page."""
