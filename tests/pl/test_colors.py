"""Colours are told apart by people who see fewer of them."""

from itertools import combinations

import matplotlib as mpl
import numpy as np
import pytest

from scgpt.pl._colors import BLUE, MUTED, ORANGE, SAFE, VERMILLION

# What colours look like without one kind of cone, in linear RGB (Machado et al. 2009, doi:10.1109/TVCG.2009.113).
SEEN = {
    "all": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
TO_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def lab(colors, seen: str = "all") -> np.ndarray:
    """CIELAB of colours."""
    rgb = np.array([mpl.colors.to_rgb(color) for color in colors])
    linear = np.where(rgb > 0.04045, ((rgb + 0.055) / 1.055) ** 2.4, rgb / 12.92)
    xyz = (linear @ np.transpose(SEEN[seen])).clip(0, 1) @ TO_XYZ.T / TO_XYZ.sum(1)
    root = np.where(xyz > 0.008856, np.cbrt(xyz), 7.787 * xyz + 16 / 116)
    x, y, z = root.T
    return np.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def nearest(colors, seen: str) -> float:
    """Distance of the two colours that are most alike; from about 2 on people see one."""
    return min(np.linalg.norm(one - other) for one, other in combinations(lab(colors, seen), 2))


@pytest.mark.parametrize("seen", SEEN)
def test_categories_are_told_apart_by_all(seen):
    assert nearest(SAFE, seen) > 15
    assert nearest(MUTED, seen) > 15
    assert nearest((BLUE, ORANGE), seen) > 40
    assert nearest((BLUE, VERMILLION), seen) > 40


def test_it_would_be_seen_that_they_are_not():
    assert nearest(["red", "green"], "deuteranopia") < nearest(["red", "green"], "all") / 2
    assert min(nearest(mpl.color_sequences["tab10"], seen) for seen in SEEN) < 5


@pytest.mark.parametrize("name", ["viridis", "viridis_r", "Blues"])
def test_scales_go_one_way_from_light_to_dark(name):
    for seen in SEEN:
        steps = np.diff(lab(mpl.colormaps[name](np.linspace(0, 1, 20)), seen)[:, 0])
        assert (steps > 0).all() or (steps < 0).all()


def test_a_scale_about_zero_has_ends_that_differ_and_the_lightest_in_the_middle():
    for seen in SEEN:
        low, *_, high = colors = lab(mpl.colormaps["RdBu_r"](np.linspace(0.1, 0.9, 9)), seen)
        assert np.linalg.norm(low - high) > 40
        assert np.argmax(colors[:, 0]) == 4
