"""Figures as SVG: well formed, names escaped, everything inside."""

import xml.etree.ElementTree as ET

import pytest

from openclimb.validation.figures import WIDTH, curve_figure, difference_figure, ticks


def circles(text: str) -> list[tuple[float, float]]:
    root = ET.fromstring(text)
    found = [one for one in root.iter() if one.tag.endswith("circle")]
    return [(float(one.get("cx", "")), float(one.get("cy", ""))) for one in found]


def test_differences_stand_in_their_order_and_at_their_values() -> None:
    rows = [("a <b> & c", -0.2, -0.3, -0.1), ("d", 0.1, 0.0, 0.2), ("e", 0.1, 0.05, 0.15)]
    figure = difference_figure(rows, "score")
    assert "a &lt;b&gt; &amp; c" in figure
    (x1, y1), (x2, y2), (x3, y3) = circles(figure)
    assert y1 < y2 < y3
    assert x1 < x2 == x3 < WIDTH


def test_curves_rise_to_the_right_of_a_logarithmic_axis() -> None:
    points = {100: (0.1, 0.0, 0.2), 200: (0.2, 0.1, 0.3), 400: (0.3, 0.2, 0.4)}
    found = circles(curve_figure({"own": {"found": points, "natural": {100: (0.05, 0.0, 0.1)}}}, "scores"))
    x, y = zip(*found[:3], strict=True)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.2)
    assert y[0] > y[1] > y[2]
    assert circles(curve_figure({"own": {"found": {100: (0.1, 0.1, 0.1)}}}, "one"))  # a single budget, no width


@pytest.mark.parametrize(("low", "high"), [(-0.013, 0.041), (0.0, 1.0), (-3.0, 2.0), (0.5, 0.5), (1e-9, 3e-9)])
def test_ticks_are_round_and_within(low: float, high: float) -> None:
    found = ticks(low, high)
    assert all(low <= one <= high for one in found)
    assert len(found) <= 11
