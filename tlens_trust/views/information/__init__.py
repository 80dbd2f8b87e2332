"""The information plane and its curves, as figures."""
