"""The information plane and its curves, as figures."""

from tlens_trust.views.information.information_curves import draw_information
from tlens_trust.views.information.plane_figure import draw_plane

__all__ = ["draw_information", "draw_plane"]
