"""Just enough SVG for a report: shapes, axes with round numbers, everything escaped.

Plots are a few hundred shapes in a page that must work from a file, offline and unchanged for
years; a plotting library would put a megabyte of script, or a picture nobody can read from, there.
Colours are CSS classes, so a page decides them, for light and dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

__all__ = ["Frame", "Svg", "ticks"]


@dataclass
class Svg:
    """A drawing of `width` x `height` units; y grows downwards."""

    width: float
    height: float
    label: str
    parts: list[str] = field(default_factory=list)

    def rect(self, x: float, y: float, w: float, h: float, cls: str, title: str = "") -> None:
        """A rectangle; `title` is its tooltip."""
        self._add(f'rect x="{x:.2f}" y="{y:.2f}" width="{w:.2f}" height="{h:.2f}"', cls, title)

    def line(self, x1: float, y1: float, x2: float, y2: float, cls: str) -> None:
        """A straight line."""
        self._add(f'line x1="{x1:.2f}" y1="{y1:.2f}" x2="{x2:.2f}" y2="{y2:.2f}"', cls)

    def path(self, points: Sequence[tuple[float, float]], cls: str) -> None:
        """A line through points."""
        if points:
            through = " ".join(f"{x:.2f},{y:.2f}" for x, y in points)
            self._add(f'polyline points="{through}"', cls)

    def area(self, points: Sequence[tuple[float, float]], base: float, cls: str) -> None:
        """What lies between points and a base line."""
        if points:
            closed = [(points[0][0], base), *points, (points[-1][0], base)]
            through = " ".join(f"{x:.2f},{y:.2f}" for x, y in closed)
            self._add(f'polygon points="{through}"', cls)

    def dot(self, x: float, y: float, r: float, cls: str, title: str = "") -> None:
        """A circle."""
        self._add(f'circle cx="{x:.2f}" cy="{y:.2f}" r="{r:.2f}"', cls, title)

    def mark(self, x: float, y: float, cls: str, title: str = "") -> None:
        """A small triangle whose tip points down at (x, y)."""
        through = f"{x - 3:.2f},{y - 5:.2f} {x + 3:.2f},{y - 5:.2f} {x:.2f},{y:.2f}"
        self._add(f'polygon points="{through}"', cls, title)

    def text(self, x: float, y: float, text: str, cls: str = "", anchor: str = "start") -> None:
        """Text whose baseline starts (or ends, or is centred) at (x, y)."""
        shown = f' class="{escape(cls)}"' if cls else ""
        self.parts.append(
            f'<text x="{x:.2f}" y="{y:.2f}" text-anchor="{anchor}"{shown}>{escape(text)}</text>'
        )

    def _add(self, shape: str, cls: str, title: str = "") -> None:
        name = shape.partition(" ")[0]
        inside = f"<title>{escape(title)}</title>" if title else ""
        self.parts.append(f'<{shape} class="{escape(cls)}">{inside}</{name}>')

    def __str__(self) -> str:
        body = "".join(self.parts)
        return (
            f'<svg viewBox="0 0 {self.width:g} {self.height:g}" role="img" '
            f'aria-label="{escape(self.label)}">{body}</svg>'
        )


@dataclass(frozen=True)
class Frame:
    """A plot's rectangle and what its sides stand for: x in [0, x_max], y in [0, y_max].

    (left, top) and (right, bottom) are in the drawing's units; y_max is at the top.
    """

    left: float
    top: float
    right: float
    bottom: float
    x_max: float
    y_max: float

    def x(self, value: float) -> float:
        """Where an x value lies."""
        return self.left + (self.right - self.left) * value / (self.x_max or 1)

    def y(self, value: float) -> float:
        """Where a y value lies."""
        return self.bottom - (self.bottom - self.top) * value / (self.y_max or 1)

    def y_axis(self, svg: Svg, unit: str = "", at_most: int = 4) -> None:
        """Grid lines and labels at round numbers."""
        for value in ticks(self.y_max, at_most):
            y = self.y(value)
            svg.line(self.left, y, self.right, y, "grid")
            svg.text(self.left - 6, y + 3.5, f"{value:,g}{unit if value else ''}", "tick", "end")

    def x_axis(self, svg: Svg, name: str) -> None:
        """Labels at round numbers below, and what they count; value v stands at v - 0.5."""
        for value in ticks(self.x_max, 10):
            if value >= 1:
                svg.text(self.x(value - 0.5), self.bottom + 13, f"{value:g}", "tick", "middle")
        svg.text(self.right, self.bottom + 26, name, "tick", "end")


def ticks(high: float, at_most: int) -> list[float]:
    """Round numbers from 0 up to `high`: 1, 2 or 5 times a power of ten apart."""
    if high <= 0:
        return [0.0]
    rough = high / max(1, at_most)
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999999)
    return [step * i for i in range(int(high / step + 1e-9) + 1)]
