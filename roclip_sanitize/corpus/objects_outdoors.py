"""Things met out of doors: how each is drawn.

Every function takes a pen and a random stream, and makes another specimen each time.
"""

from __future__ import annotations

import math

from numpy.random import Generator

from roclip_sanitize.corpus.dice import between, chance
from roclip_sanitize.corpus.pen import Ink, Pen, curve, mirror


def umbrella(pen: Pen, rng: Generator) -> None:
    """An open umbrella with a hooked handle."""
    height, panels = between(rng, 0.75, 0.95), 3 + int(rng.integers(3))
    grip = Ink.DARK if chance(rng, 0.5) else Ink.WOOD
    pen.line([(0, -0.95), (0, 0.75)], 0.08, grip)
    pen.arc(0.16, 0.75, 0.16, 0.2, (180, 0), 0.1, grip)
    pen.polygon(curve(0, 0.02, 1.0, height, (180, 360)))
    reach = 1.0 / panels
    for panel in range(panels):
        middle = -1 + reach * (2 * panel + 1)
        pen.oval(middle, 0.04, reach * 0.96, between(rng, 0.12, 0.18), Ink.NOTHING)
        rib = middle + reach
        pen.line([(0, 0.02 - height), (rib * 0.75, -height * 0.45), (rib * 0.99, 0.0)], 0.03, Ink.SHADE)
    pen.line([(0, -0.1), (0, 0.75)], 0.08, grip)


def tree(pen: Pen, rng: Generator) -> None:
    """A fir or a tree with a round crown."""
    trunk = between(rng, 0.09, 0.15)
    pen.polygon(mirror([(-trunk, 0.2), (-trunk * 1.3, 1.0)]), Ink.WOOD)
    if chance(rng, 0.5):
        for tier in range(3):
            reach, top = 0.38 + 0.17 * tier, -1.0 + 0.42 * tier
            pen.polygon([(-reach, top + 0.75), (reach, top + 0.75), (0, top)])
            pen.line([(-reach, top + 0.75), (reach, top + 0.75)], 0.05, Ink.SHADE)
        return
    for leaf in range(6):
        angle = leaf * math.tau / 6
        pen.oval(
            0.4 * math.cos(angle),
            -0.35 + 0.3 * math.sin(angle),
            between(rng, 0.32, 0.44),
            between(rng, 0.3, 0.36),
        )
    pen.oval(0, -0.35, 0.5, 0.4)
    for _ in range(3):
        pen.oval(between(rng, -0.5, 0.5), between(rng, -0.65, 0.0), 0.09, 0.07, Ink.SHADE)


def house(pen: Pen, rng: Generator) -> None:
    """A house with a pitched roof, a door and windows."""
    width, eaves, ridge = between(rng, 0.65, 0.85), between(rng, -0.3, -0.05), between(rng, -0.98, -0.75)
    if chance(rng, 0.6):
        pen.box(width * 0.4, ridge, width * 0.4 + 0.2, eaves, Ink.SHADE)
    pen.box(-width, eaves, width, 0.9)
    pen.polygon(
        [(-width - 0.14, eaves), (0, ridge), (width + 0.14, eaves)],
        Ink.SHADE if chance(rng, 0.6) else Ink.DARK,
    )
    door = width * (0.4 if chance(rng, 0.5) else -0.4)
    pen.box(door - 0.15, 0.35, door + 0.15, 0.9, Ink.WOOD)
    for x in (-door - 0.18, -door + 0.18) if chance(rng, 0.4) else (-door,):
        pen.box(x - 0.15, eaves + 0.25, x + 0.15, eaves + 0.6, Ink.GLASS)
        pen.line([(x, eaves + 0.25), (x, eaves + 0.6)], 0.04, Ink.PALE)


def car(pen: Pen, rng: Generator) -> None:
    """A car from the side: saloon, hatchback or van."""
    roof, front, rear = between(rng, -0.55, -0.4), between(rng, 0.3, 0.42), between(rng, -0.85, -0.45)
    bonnet = between(rng, -0.1, 0.0)
    pen.polygon([(rear - 0.12, 0.0), (rear, roof), (front - 0.15, roof), (front + 0.2, 0.0)])
    pen.polygon([(-0.98, bonnet), (0.5, bonnet), (0.95, bonnet + 0.12), (1.0, 0.35), (-1.0, 0.35)])
    top = roof + 0.1
    middle = (front + rear) / 2 - 0.05
    pen.polygon(
        [(rear - 0.02, bonnet), (rear + 0.07, top), (middle - 0.04, top), (middle - 0.04, bonnet)], Ink.GLASS
    )
    pen.polygon(
        [(middle + 0.04, bonnet), (middle + 0.04, top), (front - 0.19, top), (front + 0.07, bonnet)],
        Ink.GLASS,
    )
    pen.line([(-1.0, 0.33), (1.0, 0.33)], 0.07, Ink.SHADE)
    pen.oval(0.93, 0.12, 0.06, 0.06, Ink.PALE)
    wheel = between(rng, 0.2, 0.25)
    for x in (-0.55, 0.55):
        pen.oval(x, 0.37, wheel, wheel, Ink.DARK)
        pen.oval(x, 0.37, wheel * 0.5, wheel * 0.5, Ink.METAL)


def boat(pen: Pen, rng: Generator) -> None:
    """A sailing boat with one or two sails."""
    hull, mast = between(rng, 0.75, 0.95), between(rng, -0.1, 0.1)
    pen.line([(mast, -0.98), (mast, 0.5)], 0.07, Ink.WOOD)
    sail = Ink.PALE if chance(rng, 0.6) else Ink.BODY
    pen.polygon([(mast + 0.07, -0.92), (mast + 0.07, 0.32), (mast + between(rng, 0.55, 0.75), 0.32)], sail)
    if chance(rng, 0.6):
        pen.polygon(
            [(mast - 0.07, -0.75), (mast - 0.07, 0.32), (mast - between(rng, 0.4, 0.6), 0.32)], Ink.SHADE
        )
    pen.polygon([(-hull, 0.42), (hull, 0.42), (hull * 0.65, 0.88), (-hull * 0.7, 0.88)])
    pen.line([(-hull, 0.45), (hull, 0.45)], 0.09, Ink.SHADE)


def bicycle(pen: Pen, rng: Generator) -> None:
    """A bicycle from the side."""
    wheel, saddle = between(rng, 0.36, 0.42), between(rng, -0.42, -0.3)
    back, front, crank = (-0.56, 0.35), (0.56, 0.35), (-0.08, 0.35)
    for x, y in (back, front):
        pen.arc(x, y, wheel, wheel, (0, 365), 0.08, Ink.DARK)
        pen.oval(x, y, 0.06, 0.06, Ink.METAL)
    seat, head = (-0.26, saddle + 0.1), (0.4, saddle + between(rng, 0.0, 0.12))
    pen.line([back, seat, crank, back], 0.11)
    if chance(rng, 0.7):
        pen.line([seat, head], 0.11)
    pen.line([crank, head, front], 0.11)
    pen.line([seat, (-0.3, saddle - 0.02)], 0.08)
    pen.line([(-0.48, saddle - 0.05), (-0.14, saddle - 0.05)], 0.12, Ink.DARK)
    pen.line([head, (0.36, saddle - 0.15), (0.58, saddle - 0.2)], 0.09, Ink.DARK)
    pen.oval(*crank, 0.1, 0.1, Ink.METAL)


def fish(pen: Pen, rng: Generator) -> None:
    """A fish swimming to the left."""
    length, height = between(rng, 0.66, 0.74), between(rng, 0.32, 0.52)
    tail = between(rng, 0.3, 0.5)
    pen.polygon([(0.35, 0.0), (0.95, -tail), (0.82, 0.0), (0.95, tail)])
    pen.polygon(
        [(-0.35, -height * 0.75), (0.1, -height - between(rng, 0.12, 0.3)), (0.25, -height * 0.7)], Ink.SHADE
    )
    pen.oval(-0.25, 0.0, length, height)
    pen.polygon([(-0.2, 0.08), (0.14, between(rng, 0.2, 0.36)), (0.12, 0.05)], Ink.SHADE)
    pen.arc(-0.5, 0.0, 0.14, height * 0.75, (-75, 75), 0.05, Ink.SHADE)
    pen.oval(-0.68, -0.1, 0.1, 0.1, Ink.PALE)
    pen.oval(-0.69, -0.1, 0.055, 0.055, Ink.DARK)


def cat(pen: Pen, rng: Generator) -> None:
    """A cat's face."""
    width, height, ear = between(rng, 0.72, 0.85), between(rng, 0.6, 0.7), between(rng, 0.9, 1.0)
    for side in (-1, 1):
        pen.polygon([(side * width * 0.98, 0.1), (side * width * 0.88, -ear), (side * 0.12, -0.35)])
        pen.polygon(
            [(side * width * 0.85, -0.2), (side * width * 0.8, -ear + 0.22), (side * 0.4, -0.35)], Ink.SHADE
        )
    pen.oval(0, 0.15, width, height)
    gaze = between(rng, 0.04, 0.09)
    for side in (-1, 1):
        pen.oval(side * 0.32, 0.02, 0.17, 0.15, Ink.PALE)
        pen.oval(side * 0.32, 0.02, gaze, 0.14, Ink.DARK)
        for slope in (-0.08, 0.06):
            pen.line([(side * 0.3, 0.36), (side * 0.95, 0.34 + slope)], 0.03, Ink.DARK)
    pen.polygon([(-0.1, 0.25), (0.1, 0.25), (0, 0.37)], Ink.DARK)
    pen.line([(-0.16, 0.52), (0, 0.4), (0.16, 0.52)], 0.05, Ink.DARK)
