"""What stands behind the objects: walls, skies, desks, shadows and clutter.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageDraw, ImageFilter

from roclip_sanitize.corpus.dice import between, chance, pick
from roclip_sanitize.corpus.pen import Pose
from roclip_sanitize.corpus.surfaces import (
    BLACK,
    COLOURS,
    WHITE,
    Colour,
    Pattern,
    blend,
    distance,
    nearby,
    texture,
)

BACKGROUND_SHARES: Mapping[str, float] = {
    "white": 0.45,
    "light": 0.15,
    "dark": 0.07,
    "coloured": 0.09,
    "gradient": 0.07,
    "noise": 0.04,
    "horizon": 0.07,
    "desk": 0.06,
}
MIN_CONTRAST = 150  # between object and backdrop, of distance()'s 765
TRIES = 8
GROUNDS: tuple[Colour, ...] = (
    (110, 150, 80),
    (205, 185, 130),
    (70, 110, 150),
    (120, 118, 115),
)  # lawn, sand, sea, road
DESK: Colour = (178, 132, 88)


def choose_backdrop(name: str, *, behind: Colour, rng: Generator) -> Colour:
    """The main colour of a backdrop against which an object of the colour ``behind`` can be seen.

    Args:
        name: one of BACKGROUND_SHARES.
        behind: the object's colour.
        rng: where the colour comes from.
    """
    for _ in range(TRIES):
        tried = _imagine_backdrop(name, rng)
        if distance(tried, behind) >= MIN_CONTRAST:
            return tried
    return nearby(rng, (120, 126, 138) if sum(behind) > 420 else (225, 222, 215), 12)


def draw_backdrop(name: str, *, size: tuple[int, int], colour: Colour, rng: Generator) -> Image.Image:
    """A backdrop.

    Args:
        name: one of BACKGROUND_SHARES.
        size: width and height, pixels.
        colour: its main colour: the wall or the sky where there is a desk or a horizon.
        rng: where its second colour, angle, grain and horizon come from.

    Returns:
        RGB picture.
    """
    if name in {"gradient", "noise"}:
        share_HW = texture(name, size=size, pitch=between(rng, 9, 30), rng=rng)
        return _mixed(share_HW, colour, _tinted(colour, rng))
    image = Image.new("RGB", size, colour)
    if name in {"horizon", "desk"}:
        level = round(size[1] * between(rng, 0.5, 0.8))
        ground = nearby(rng, DESK if name == "desk" else pick(rng, GROUNDS), 25)
        image.paste(ground, (0, level, *size))
        if name == "desk":
            for grain in range(level + 4, size[1], 6):
                image.paste(blend(ground, BLACK, 0.15), (0, grain, size[0], grain + 1))
    return image


def draw_clutter(image: Image.Image, rng: Generator) -> None:
    """Put small shapes near the edges."""
    draw = ImageDraw.Draw(image)
    for _ in range(1 + int(rng.integers(4))):
        angle, radius = between(rng, 0, math.tau), between(rng, 3, 8)
        x = image.width * (0.5 + 0.46 * math.cos(angle))
        y = image.height * (0.5 + 0.46 * math.sin(angle))
        fill = nearby(rng, pick(rng, list(COLOURS.values())), 25)
        shape = draw.ellipse if chance(rng, 0.5) else draw.rectangle
        shape((x - radius, y - radius * between(rng, 0.5, 1), x + radius, y + radius), fill=fill)


def draw_shadows(image: Image.Image, poses: list[Pose]) -> None:
    """Put a soft shadow under every object."""
    mask = Image.new("L", image.size, 0)
    draw = ImageDraw.Draw(mask)
    for pose in poses:
        foot = pose.y + pose.size * 0.9
        draw.ellipse((pose.x - pose.size * 0.8, foot - 3, pose.x + pose.size * 0.8, foot + 4), fill=90)
    image.paste((20, 20, 25), (0, 0), mask.filter(ImageFilter.BoxBlur(2)))


def draw_wires(image: Image.Image, rng: Generator) -> None:
    """Draw one or two thin lines across everything."""
    draw = ImageDraw.Draw(image)
    for _ in range(1 + int(rng.integers(2))):
        ends = (0, between(rng, 0, image.height), image.width, between(rng, 0, image.height))
        draw.line(ends, fill=nearby(rng, (90, 90, 90), 60), width=1 + int(rng.integers(2)))


def _imagine_backdrop(name: str, rng: Generator) -> Colour:
    if name == "white":
        return nearby(rng, (249, 249, 249), 6)
    if name == "dark":
        return nearby(rng, (48, 48, 54), 22)
    if name == "coloured":
        return nearby(rng, blend(pick(rng, list(COLOURS.values())), WHITE, between(rng, 0, 0.5)), 20)
    return nearby(rng, (180, 208, 232) if name == "horizon" else (208, 206, 202), 22)


def _tinted(colour: Colour, rng: Generator) -> Colour:
    return blend(colour, BLACK if sum(colour) > 300 else WHITE, between(rng, 0.12, 0.3))


def _mixed(share_HW: Pattern, first: Colour, second: Colour) -> Image.Image:
    start_3, end_3 = np.array(first, dtype=np.float32), np.array(second, dtype=np.float32)
    return Image.fromarray((start_3 + share_HW[..., None] * (end_3 - start_3)).astype(np.uint8))
