"""The information plane and its curves, as figures."""

from tlens_trust.views.information.curves import draw_information
from tlens_trust.views.information.plane import draw_plane

__all__ = ["draw_information", "draw_plane"]
