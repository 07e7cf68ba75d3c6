"""Drawings: well-formed, escaped, with round numbers on their axes."""

from __future__ import annotations

import xml.etree.ElementTree as ET

import pytest

from leyline_evals.replay.svg import Frame, Svg, ticks


@pytest.mark.parametrize(
    ("high", "at_most", "expected"),
    [
        (100, 4, [0, 50, 100]),
        (34_000, 4, [0, 10_000, 20_000, 30_000]),
        (7, 10, [0, 1, 2, 3, 4, 5, 6, 7]),
        (0.7, 4, [0, 0.2, 0.4, 0.6]),
        (0, 4, [0]),
    ],
)
def test_ticks(high: float, at_most: int, expected: list[float]) -> None:
    assert ticks(high, at_most) == pytest.approx(expected)


def test_a_drawing_is_well_formed_whatever_it_says() -> None:
    svg = Svg(100, 50, 'a "label" & <more>')
    svg.rect(0, 0, 10, 5, "exact", "<script>alert(1)</script>")
    svg.line(0, 0, 1, 1, 'x" onload="y')
    svg.path([(0, 0), (1, 2)], "p")
    svg.path([], "p")
    svg.area([(0, 0), (1, 2)], 5, "a")
    svg.area([], 5, "a")
    svg.dot(1, 1, 2, "d", "tip")
    svg.mark(1, 1, "m")
    svg.text(1, 1, "<b>&", "t", "end")
    root = ET.fromstring(str(svg))
    assert [child.tag for child in root] == [
        "rect", "line", "polyline", "polygon", "circle", "polygon", "text"
    ]  # fmt: skip
    assert root[0][0].text == "<script>alert(1)</script>"
    assert root[1].attrib == {"x1": "0.00", "y1": "0.00", "x2": "1.00", "y2": "1.00",
                              "class": 'x" onload="y'}  # fmt: skip
    assert "<script>" not in str(svg)


def test_a_frame_maps_values_to_places() -> None:
    frame = Frame(10, 20, 110, 70, x_max=50, y_max=5)
    assert (frame.x(0), frame.x(50)) == (10, 110)
    assert (frame.y(0), frame.y(5)) == (70, 20)
    empty = Frame(0, 0, 10, 10, 0, 0)
    assert (empty.x(0), empty.y(0)) == (0, 10)


def test_axes_stay_inside_the_drawing() -> None:
    svg = Svg(200, 100, "axes")
    frame = Frame(40, 10, 190, 80, x_max=29, y_max=7000)
    frame.y_axis(svg, " ms")
    frame.x_axis(svg, "turn")
    root = ET.fromstring(str(svg))
    texts = [child.text for child in root if child.tag == "text"]
    assert texts[:4] == ["0", "2,000 ms", "4,000 ms", "6,000 ms"]
    assert texts[4:] == ["5", "10", "15", "20", "25", "turn"]
    assert all(0 <= float(child.attrib["x"]) <= 200 for child in root if child.tag == "text")
