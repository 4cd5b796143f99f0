"""Colours and textures: what objects and backdrops are covered with.

Dimension key: H, W height and width in pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray
from PIL import Image

from roclip_sanitize.corpus.dice import between

Colour = tuple[int, int, int]
Pattern = NDArray[np.float32]

COLOURS: Mapping[str, Colour] = {
    "red": (200, 35, 40),
    "blue": (40, 80, 195),
    "black": (32, 32, 36),
    "white": (240, 240, 236),
    "green": (45, 145, 65),
    "yellow": (240, 205, 45),
    "pink": (242, 140, 180),
    "brown": (120, 75, 40),
    "grey": (135, 138, 142),
    "orange": (240, 130, 30),
    "purple": (120, 55, 160),
}
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (0, 0, 0)
SOFT_EDGE = 4.0  # how sharply a pattern turns from one colour to the other: 1 is a sine


def nearby(rng: Generator, colour: Colour, spread: float = 9.0) -> Colour:
    """The same colour from another camera: each channel off by up to ``spread``."""
    red, green, blue = (min(255, max(0, round(value + between(rng, -spread, spread)))) for value in colour)
    return red, green, blue


def blend(first: Colour, second: Colour, share: float) -> Colour:
    """A mixture with this share of the second colour."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def distance(first: Colour, second: Colour) -> int:
    """Sum of absolute differences over the channels, 0 to 765."""
    return sum(abs(a - b) for a, b in zip(first, second, strict=True))


def _plain(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    del pitch, rng
    return np.zeros((size[1], size[0]), dtype=np.float32)


def _striped(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    across, _ = _turned_axes(size, between(rng, 0, math.pi))
    return _square_wave(np.sin(across * np.float32(math.tau / pitch)))


def _dotted(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    across, along = _turned_axes(size, between(rng, 0.2, 1.3))
    frequency = np.float32(math.tau / pitch)
    return _square_wave(np.cos(across * frequency) + np.cos(along * frequency) - np.float32(0.75))


def _checked(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    across, along = _turned_axes(size, between(rng, -0.3, 0.3))
    frequency = np.float32(math.tau / pitch / 1.25)
    return _square_wave(np.sin(across * frequency) * np.sin(along * frequency) * 2)


def _gradient(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    del pitch
    across, _ = _turned_axes(size, between(rng, 0, math.tau))
    scaled: Pattern = np.clip(np.float32(0.5) + across / np.float32(0.55 * min(size)), 0, 1)
    return scaled


def _speckled(size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    coarse = (max(2, round(size[0] * 3 / pitch)), max(2, round(size[1] * 3 / pitch)))
    grains = Image.fromarray(rng.integers(0, 256, size=coarse[::-1], dtype=np.uint8))
    grown = np.asarray(grains.resize(size, Image.Resampling.BILINEAR), dtype=np.float32)
    scaled: Pattern = np.clip((grown - 110) / 60, 0, 1)
    return scaled


TEXTURES: Mapping[str, Callable[[tuple[int, int], float, Generator], Pattern]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checked": _checked,
    "gradient": _gradient,
    "noise": _speckled,
}
TEXTURE_SHARES: Mapping[str, float] = {
    "plain": 0.58,
    "striped": 0.11,
    "dotted": 0.09,
    "checked": 0.08,
    "gradient": 0.09,
    "noise": 0.05,
}


def texture(name: str, *, size: tuple[int, int], pitch: float, rng: Generator) -> Pattern:
    """Where a texture shows its second colour.

    Args:
        name: one of TEXTURES.
        size: width and height, pixels.
        pitch: pixels from one stripe, dot or square to the next.
        rng: where its angle and grain come from.

    Returns:
        (H, W) from 0, the first colour, to 1, the second.
    """
    return TEXTURES[name](size, pitch, rng)


def _turned_axes(size: tuple[int, int], turn: float) -> tuple[Pattern, Pattern]:
    x_W = np.arange(size[0], dtype=np.float32) - np.float32(size[0] / 2)
    y_H1 = (np.arange(size[1], dtype=np.float32) - np.float32(size[1] / 2))[:, None]
    c, s = np.float32(math.cos(turn)), np.float32(math.sin(turn))
    return x_W * c + y_H1 * s, y_H1 * c - x_W * s


def _square_wave(wave_HW: Pattern) -> Pattern:
    squared: Pattern = np.clip(wave_HW * np.float32(SOFT_EDGE) * np.float32(0.5) + np.float32(0.5), 0, 1)
    return squared
