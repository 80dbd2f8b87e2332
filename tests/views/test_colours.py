"""The colours of the five dimensions differ for every reader, and in grey."""

from itertools import combinations

import numpy as np
import pytest

from tlens_trust.views.axes import DIMENSION_COLOURS, OTHER_COLOUR
from tlens_trust.views.panels import QUIET, dimension_colour

# Machado, Oliveira and Fernandes (2009), severity 1, on linear RGB.
DEFICIENCIES = {
    "none": np.eye(3),
    "protanopia": [
        [0.152286, 1.052583, -0.204868],
        [0.114503, 0.786281, 0.099216],
        [-0.003882, -0.048116, 1.051998],
    ],
    "deuteranopia": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
    "tritanopia": [
        [1.255528, -0.076749, -0.178779],
        [-0.078411, 0.930809, 0.147602],
        [0.004733, 0.691367, 0.303900],
    ],
}
TO_XYZ = np.array(
    [
        [0.4124564, 0.3575761, 0.1804375],
        [0.2126729, 0.7151522, 0.0721750],
        [0.0193339, 0.1191920, 0.9503041],
    ]
)


def lab(colour, deficiency=None):
    """CIE L*a*b* of a hexadecimal sRGB colour, under D65."""
    encoded = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    linear = np.where(encoded <= 0.04045, encoded / 12.92, ((encoded + 0.055) / 1.055) ** 2.4)
    if deficiency is not None:
        linear = np.clip(deficiency @ linear, 0, 1)
    part = TO_XYZ @ linear / TO_XYZ.sum(axis=1)
    x, y, z = np.where(part > 216 / 24389, np.cbrt(part), (24389 / 27 * part + 16) / 116)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def test_lightness_is_that_of_known_colours():
    assert lab("#ffffff")[0] == pytest.approx(100, abs=0.01)
    assert lab("#777777")[0] == pytest.approx(50, abs=0.2)


def test_no_two_dimensions_are_alike_in_grey():
    lightness = np.sort([lab(colour)[0] for colour in DIMENSION_COLOURS.values()])
    assert np.diff(lightness).min() >= 8
    # Okabe and Ito's own three would be: the control.
    assert np.diff(np.sort([lab(c)[0] for c in ("#D55E00", "#009E73", "#CC79A7")])).min() < 5


@pytest.mark.parametrize("deficiency", DEFICIENCIES)
def test_no_two_dimensions_are_alike_to_a_colour_blind_reader(deficiency):
    seen = [lab(c, np.array(DEFICIENCIES[deficiency])) for c in DIMENSION_COLOURS.values()]
    assert min(np.linalg.norm(a - b) for a, b in combinations(seen, 2)) > 12


def test_no_other_colour_is_a_dimensions():
    assert len({*DIMENSION_COLOURS.values(), OTHER_COLOUR, QUIET}) == len(DIMENSION_COLOURS) + 2
    assert dimension_colour("toxicity") == DIMENSION_COLOURS["toxicity"]
    assert dimension_colour("kindness") == dimension_colour(None) == OTHER_COLOUR
