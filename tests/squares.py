"""Shards of coloured squares whose captions name the colour: what a tiny CLIP can learn in seconds."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.images import encode_jpeg
from roclip_sanitize.shard_writer import ShardWriter

COLOURS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "yellow": (230, 220, 50)}
SIDE_PX = 32


def draw_square(number: int) -> NDArray[np.uint8]:
    """A square somewhere on grey noise; the colours take turns. No two numbers give the same picture."""
    rng = np.random.default_rng(number)
    pixels_HW3 = rng.integers(90, 140, (SIDE_PX, SIDE_PX, 3)).astype(np.uint8)
    top, left = rng.integers(0, SIDE_PX // 2, 2)
    pixels_HW3[top : top + SIDE_PX // 2, left : left + SIDE_PX // 2] = COLOURS[colour_of(number)]
    return pixels_HW3


def colour_of(number: int) -> str:
    """Name of a square's colour."""
    return list(COLOURS)[number % len(COLOURS)]


def uid_of(number: int) -> str:
    """A square's uid."""
    return hashlib.blake2b(f"square {number}".encode(), digest_size=16).hexdigest()


def write_squares(path: Path, *, first: int = 0, pairs: int = 48) -> Path:
    """One shard of squares numbered from ``first``, with their colour as the field "colour"."""
    with ShardWriter(path) as writer:
        for number in range(first, first + pairs):
            colour = colour_of(number)
            writer.add(
                f"{number:06d}",
                image=encode_jpeg(draw_square(number)),
                caption=f"a {colour} square, item {number}",
                fields={"uid": uid_of(number), "colour": colour, "width": SIDE_PX, "height": SIDE_PX},
            )
    return path


def write_square_shards(folder: Path, *, shards: int, pairs: int, first: int = 0) -> tuple[Path, ...]:
    """Several shards of ``pairs`` squares each, numbered on through all of them."""
    return tuple(
        write_squares(folder / f"{shard:05d}.tar", first=first + shard * pairs, pairs=pairs)
        for shard in range(shards)
    )
