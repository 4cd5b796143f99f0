"""A pen that draws in an object's own coordinates.

An object fills the square from -1 to 1, x to the right and y down; the pen turns, scales and
shifts it to its place. What it puts on the canvas are inks, not colours: scenes.py decides
which colour an ink is, and the texture of the BODY.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum

from PIL import Image, ImageDraw

Point = tuple[float, float]

ARC_STEPS = 32  # corners of a full circle: smooth at 100 px
CIRCLE = tuple(
    (math.cos(i * math.tau / ARC_STEPS), math.sin(i * math.tau / ARC_STEPS)) for i in range(ARC_STEPS)
)


class Ink(IntEnum):
    """What a stroke is made of; the number is its pixel value on the canvas."""

    NOTHING = 0
    BODY = 1
    SHADE = 2
    DARK = 3
    PALE = 4
    WOOD = 5
    METAL = 6
    GLASS = 7


@dataclass(frozen=True, slots=True, kw_only=True)
class Pose:
    """Where an object stands on the canvas.

    Attributes:
        x: its centre, pixels from the left.
        y: its centre, pixels from the top.
        size: pixels per unit: half its width.
        turn: radians, clockwise.
        mirrored: whether left and right are swapped.
    """

    x: float
    y: float
    size: float
    turn: float = 0.0
    mirrored: bool = False


class Pen:
    """Draws on a canvas of inks."""

    def __init__(self, canvas: Image.Image, pose: Pose) -> None:
        self._draw = ImageDraw.Draw(canvas)
        self._pose = pose
        side = -pose.size if pose.mirrored else pose.size
        self._across = (side * math.cos(pose.turn), side * math.sin(pose.turn))
        self._down = (-pose.size * math.sin(pose.turn), pose.size * math.cos(pose.turn))

    def polygon(self, points: Sequence[Point], ink: Ink = Ink.BODY) -> None:
        """Fill the area that the points enclose."""
        self._draw.polygon(self._place(points), fill=int(ink))

    def box(self, left: float, top: float, right: float, bottom: float, ink: Ink = Ink.BODY) -> None:
        """Fill a rectangle."""
        self.polygon([(left, top), (right, top), (right, bottom), (left, bottom)], ink)

    def oval(self, x: float, y: float, rx: float, ry: float, ink: Ink = Ink.BODY) -> None:
        """Fill an ellipse around (x, y)."""
        self.polygon([(x + rx * c, y + ry * s) for c, s in CIRCLE], ink)

    def line(self, points: Sequence[Point], width: float, ink: Ink = Ink.BODY) -> None:
        """Draw a stroke through the points with round corners."""
        pixels = max(2, round(width * self._pose.size))
        self._draw.line(self._place(points), fill=int(ink), width=pixels, joint="curve")

    def arc(
        self,
        x: float,
        y: float,
        rx: float,
        ry: float,
        ends: tuple[float, float],
        width: float,
        ink: Ink = Ink.BODY,
    ) -> None:
        """Draw part of an ellipse's outline; ``ends`` in degrees, clockwise from the right."""
        self.line(curve(x, y, rx, ry, ends), width, ink)

    def _place(self, points: Sequence[Point]) -> list[Point]:
        (ax, ay), (dx, dy), pose = self._across, self._down, self._pose
        return [(pose.x + x * ax + y * dx, pose.y + x * ay + y * dy) for x, y in points]


def curve(x: float, y: float, rx: float, ry: float, ends: tuple[float, float]) -> list[Point]:
    """Points along part of an ellipse; ``ends`` in degrees, clockwise from the right."""
    start, stop = math.radians(ends[0]), math.radians(ends[1])
    steps = max(2, math.ceil(abs(stop - start) / math.tau * ARC_STEPS))
    angles = [start + (stop - start) * i / steps for i in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def mirror(points: Sequence[Point]) -> list[Point]:
    """Points of a left half, from top to bottom, closed by their mirror image."""
    return [*points, *((-x, y) for x, y in reversed(points))]
