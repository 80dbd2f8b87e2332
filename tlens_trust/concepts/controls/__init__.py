"""Concepts that have nothing to do with trust, to hold beside those that have."""
