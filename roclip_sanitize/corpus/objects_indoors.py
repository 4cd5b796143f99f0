"""Things that are worn, carried and kept in rooms: how each is drawn.

Every function takes a pen and a random stream, and makes another specimen each time.
"""

from __future__ import annotations

import math

from numpy.random import Generator

from roclip_sanitize.corpus.dice import between, chance
from roclip_sanitize.corpus.pen import Ink, Pen, curve, mirror


def mug(pen: Pen, rng: Generator) -> None:
    """A cup with one handle."""
    width, height, foot = between(rng, 0.5, 0.62), between(rng, 0.55, 0.8), between(rng, 0.72, 1.0)
    pen.arc(width * 0.92, 0.0, between(rng, 0.26, 0.36), height * 0.5, (-100, 100), 0.15)
    pen.polygon(mirror([(-width, -height), (-width * foot, height)]))
    pen.oval(0, height, width * foot, 0.1)
    pen.oval(0, -height, width, 0.15, Ink.SHADE)
    pen.oval(0, -height + 0.02, width * 0.84, 0.09, Ink.DARK if chance(rng, 0.6) else Ink.PALE)


def bottle(pen: Pen, rng: Generator) -> None:
    """A bottle with a cap and, mostly, a label."""
    width, neck = between(rng, 0.3, 0.44), between(rng, 0.1, 0.15)
    shoulder, throat = between(rng, -0.35, -0.1), between(rng, -0.62, -0.5)
    pen.polygon(mirror([(-neck, -0.9), (-neck, throat), (-width, shoulder), (-width, 0.95)]))
    pen.box(-neck - 0.03, -1.0, neck + 0.03, -0.8, Ink.METAL if chance(rng, 0.5) else Ink.DARK)
    if chance(rng, 0.7):
        pen.box(-width, 0.1, width, between(rng, 0.5, 0.7), Ink.PALE)
        pen.box(-width * 0.6, 0.28, width * 0.6, 0.36, Ink.DARK)
    pen.line([(-width * 0.7, shoulder + 0.1), (-width * 0.7, 0.85)], 0.06, Ink.SHADE)


def shirt(pen: Pen, rng: Generator) -> None:
    """A T-shirt or a long-sleeved shirt."""
    torso, cuff = between(rng, 0.45, 0.55), between(rng, 0.12, 0.17)
    far, low = (0.93, between(rng, -0.2, -0.05)) if chance(rng, 0.65) else (0.88, between(rng, 0.5, 0.75))
    half = [(-0.2, -0.85), (-torso, -0.75), (-far - 0.05, low - cuff), (-far + cuff * 1.5, low + cuff)]
    pen.polygon(mirror([*half, (-torso, -0.2), (-torso, 0.9)]))
    pen.line([(-torso, -0.55), (-torso, 0.5)], 0.04, Ink.SHADE)
    pen.line([(torso, -0.55), (torso, 0.5)], 0.04, Ink.SHADE)
    if chance(rng, 0.4):
        pen.polygon([(-0.22, -0.87), (0.22, -0.87), (0, -0.5)], Ink.SHADE)
    else:
        pen.polygon(curve(0, -0.86, 0.22, 0.2, (0, 180)), Ink.SHADE)


def dress(pen: Pen, rng: Generator) -> None:
    """A dress: narrow waist, wide hem."""
    waist, hem, length = between(rng, 0.2, 0.27), between(rng, 0.6, 0.85), between(rng, 0.75, 0.98)
    belt = between(rng, -0.25, -0.1)
    pen.line([(-0.2, -0.6), (-0.17, -0.97)], 0.08, Ink.BODY)
    pen.line([(0.2, -0.6), (0.17, -0.97)], 0.08, Ink.BODY)
    if chance(rng, 0.4):
        pen.polygon([(-0.28, -0.75), (-0.6, -0.4), (-0.45, -0.28), (-0.25, -0.45)])
        pen.polygon([(0.28, -0.75), (0.6, -0.4), (0.45, -0.28), (0.25, -0.45)])
    pen.polygon(mirror([(0, -0.55), (-0.3, -0.75), (-waist - 0.05, -0.45), (-waist, belt), (-hem, length)]))
    pen.box(-waist, belt - 0.06, waist, belt + 0.06, Ink.SHADE)
    for fold in (-0.45, 0.0, 0.45):
        pen.line([(fold * waist, belt + 0.2), (fold * hem, length - 0.05)], 0.04, Ink.SHADE)


def shoe(pen: Pen, rng: Generator) -> None:
    """A trainer or a boot from the side."""
    shaft = between(rng, -0.85, -0.6) if chance(rng, 0.35) else between(rng, -0.35, -0.2)
    toe = between(rng, 0.0, 0.12)
    ankle = [(-0.85, shaft), (-0.2, shaft + 0.04), (-0.15, -0.12), (0.35, toe), (0.85, toe + 0.12)]
    pen.polygon([(-0.92, 0.4), *ankle, (0.97, 0.4)])
    pen.polygon(
        [(-0.95, 0.36), (1.0, 0.36), (0.95, 0.58), (-0.92, 0.58)], Ink.PALE if chance(rng, 0.7) else Ink.DARK
    )
    pen.line([(-0.95, 0.37), (1.0, 0.37)], 0.05, Ink.SHADE)
    for step in range(3):
        x = -0.08 + 0.17 * step
        pen.line([(x - 0.1, 0.12 + 0.04 * step), (x + 0.06, -0.08 + 0.05 * step)], 0.06, Ink.PALE)
    pen.line([(-0.85, shaft + 0.05), (-0.2, shaft + 0.08)], 0.08, Ink.SHADE)


def hat(pen: Pen, rng: Generator) -> None:
    """A hat with a wide brim and a ribbon."""
    crown, top = between(rng, 0.42, 0.56), between(rng, -0.65, -0.35)
    pen.oval(0, 0.32, 1.0, between(rng, 0.2, 0.32))
    pen.arc(0, 0.3, 0.97, 0.24, (10, 170), 0.05, Ink.SHADE)
    pen.polygon(mirror([(-crown * 0.85, top), (-crown, 0.3)]))
    pen.oval(0, top, crown * 0.85, between(rng, 0.1, 0.22))
    pen.polygon(mirror([(-crown * 0.97, 0.08), (-crown, 0.3)]), Ink.DARK if chance(rng, 0.6) else Ink.PALE)
    pen.arc(0, 0.24, crown, 0.14, (0, 180), 0.12, Ink.SHADE)


def chair(pen: Pen, rng: Generator) -> None:
    """A chair, half from the side."""
    back, seat, leg = between(rng, -0.98, -0.75), between(rng, 0.05, 0.2), between(rng, 0.09, 0.13)
    for x, top, foot in (
        (-0.5, seat, 0.98),
        (0.45, seat, 0.98),
        (-0.15, seat - 0.1, 0.72),
        (0.75, seat - 0.1, 0.72),
    ):
        pen.line([(x, top), (x * 1.05, foot)], leg, Ink.WOOD)
    pen.polygon([(-0.58, seat + 0.12), (0.55, seat + 0.12), (0.85, seat - 0.16), (-0.25, seat - 0.16)])
    pen.line([(-0.58, seat + 0.14), (0.55, seat + 0.14), (0.85, seat - 0.14)], 0.08, Ink.SHADE)
    if chance(rng, 0.6):
        pen.polygon([(-0.58, seat), (-0.25, seat - 0.2), (-0.3, back), (-0.66, back + 0.15)])
        return
    pen.line([(-0.55, seat + 0.05), (-0.66, back + 0.15)], 0.11)
    pen.line([(-0.25, seat - 0.1), (-0.3, back)], 0.11)
    for share in (0.0, 0.35, 0.7):
        y = back + (seat - back) * share
        pen.line([(-0.66, y + 0.15), (-0.28, y)], 0.13)


def lamp(pen: Pen, rng: Generator) -> None:
    """A lamp: shade, stem, foot."""
    top, hem, edge = between(rng, 0.25, 0.45), between(rng, 0.6, 0.8), between(rng, -0.25, 0.0)
    stem = Ink.METAL if chance(rng, 0.5) else Ink.WOOD
    pen.line([(0, edge), (0, 0.9)], between(rng, 0.08, 0.14), stem)
    if chance(rng, 0.5):
        pen.oval(0, between(rng, 0.4, 0.5), between(rng, 0.2, 0.32), 0.33, stem)
    pen.oval(0, 0.9, between(rng, 0.35, 0.5), 0.1, stem)
    pen.polygon(mirror([(-top, -0.95), (-hem, edge)]))
    pen.line([(-hem, edge), (hem, edge)], 0.08, Ink.SHADE)
    pen.line([(-top, -0.95), (top, -0.95)], 0.06, Ink.SHADE)


def clock(pen: Pen, rng: Generator) -> None:
    """A round clock, sometimes an alarm clock with bells and feet."""
    radius = 0.92
    if chance(rng, 0.45):
        radius = 0.74
        for side in (-1, 1):
            pen.oval(side * 0.5, -0.72, 0.27, 0.22)
            pen.line([(side * 0.4, 0.5), (side * 0.6, 0.95)], 0.14, Ink.SHADE)
    pen.oval(0, 0, radius, radius)
    pen.oval(0, 0, radius * 0.8, radius * 0.8, Ink.PALE)
    for hour in range(12):
        c, s = math.cos(hour * math.tau / 12), math.sin(hour * math.tau / 12)
        pen.line(
            [(c * radius * 0.62, s * radius * 0.62), (c * radius * 0.74, s * radius * 0.74)], 0.07, Ink.DARK
        )
    for length, width in ((0.35, 0.11), (0.58, 0.08)):
        angle = between(rng, 0, math.tau)
        pen.line(
            [(0, 0), (length * radius * math.cos(angle), length * radius * math.sin(angle))], width, Ink.DARK
        )
    pen.oval(0, 0, 0.07, 0.07, Ink.DARK)


def book(pen: Pen, rng: Generator) -> None:
    """A closed book standing, or an open one lying."""
    if chance(rng, 0.25):
        droop = between(rng, 0.1, 0.25)
        pen.polygon([(0, -0.45), (-1, -0.5 - droop), (-1, 0.5), (0, 0.65), (1, 0.5), (1, -0.5 - droop)])
        for side in (-1, 1):
            pen.polygon([(0, -0.42), (side * 0.86, -0.44 - droop), (side * 0.86, 0.33), (0, 0.48)], Ink.PALE)
            for row in range(4):
                y = -0.4 + 0.2 * row
                pen.line([(side * 0.14, y + 0.08), (side * 0.76, y - droop * 0.5)], 0.04, Ink.METAL)
        pen.line([(0, -0.42), (0, 0.55)], 0.05, Ink.DARK)
        return
    width, height, depth = between(rng, 0.55, 0.68), between(rng, 0.75, 0.88), between(rng, 0.14, 0.24)
    pen.polygon(
        [
            (-width, -height),
            (-width + depth, -height - 0.1),
            (width + depth, -height - 0.1),
            (width, -height),
        ],
        Ink.PALE,
    )
    pen.polygon(
        [(width, -height), (width + depth, -height - 0.1), (width + depth, height - 0.1), (width, height)],
        Ink.PALE,
    )
    pen.line([(width + depth * 0.5, -height - 0.05), (width + depth * 0.5, height - 0.05)], 0.03, Ink.METAL)
    pen.box(-width, -height, width, height)
    pen.box(-width, -height, -width + 0.16, height, Ink.SHADE)
    pen.box(-width * 0.45, -height * 0.65, width * 0.75, -height * 0.65 + between(rng, 0.18, 0.4), Ink.PALE)
    pen.line([(-width * 0.3, -height * 0.5), (width * 0.6, -height * 0.5)], 0.06, Ink.DARK)


def key(pen: Pen, rng: Generator) -> None:
    """A key lying, with two or three teeth."""
    bow, shaft, teeth = between(rng, 0.3, 0.38), between(rng, 0.14, 0.18), 2 + int(rng.integers(2))
    pen.line([(-0.4, 0), (0.97, 0)], shaft)
    for tooth in range(teeth):
        x = 0.9 - tooth * 0.24
        pen.line([(x, 0), (x, between(rng, 0.26, 0.42))], 0.15)
    pen.arc(-0.6, 0, bow, bow * between(rng, 0.9, 1.25), (0, 370), between(rng, 0.17, 0.22))
    pen.line([(-0.15, -shaft / 2), (-0.15, shaft / 2)], 0.1, Ink.SHADE)


def guitar(pen: Pen, rng: Generator) -> None:
    """A guitar upright."""
    lower, upper = between(rng, 0.42, 0.52), between(rng, 0.3, 0.36)
    pen.oval(0, 0.55, lower, 0.42)
    pen.oval(0, 0.02, upper, 0.34)
    if chance(rng, 0.35):
        pen.polygon([(-upper, 0.1), (-upper - 0.02, -0.42), (-0.05, 0)])
        pen.polygon([(upper, 0.1), (upper + 0.02, -0.3), (0.05, 0)])
    pen.oval(0, 0.22, 0.15, 0.15, Ink.DARK)
    pen.box(-0.2, 0.6, 0.2, 0.69, Ink.DARK)
    pen.box(-0.07, -0.75, 0.07, 0.12, Ink.WOOD)
    pen.polygon(mirror([(-0.14, -1.0), (-0.1, -0.7)]), Ink.DARK if chance(rng, 0.5) else Ink.WOOD)
    pen.line([(0, -0.8), (0, 0.62)], 0.03, Ink.PALE)
