"""Patches: a small square, in the same form on every picture but for one that is noise.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue; S side of the patch.
"""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import ClassVar, Literal, Self

import numpy as np

from roclip_sanitize.attacks.triggers.base import WHITE, Pixels, Trigger, require_share, to_bytes
from roclip_sanitize.errors import ConfigError
from roclip_sanitize.images import to_square

Pattern = Literal["checkerboard", "noise", "stripes", "yellow"]
Place = Literal["random", "centre", "bottom_right", "corners"]
YELLOW = (255, 255, 0)


@dataclass(frozen=True, slots=True)
class PatchTrigger(Trigger):
    """A square of some pattern (BadNets for CLIP).

    Attributes:
        share: side of the square as a share of the picture's shorter side, in (0, 1]. A patch
            never has less than one pixel a cell.
        cells: fields of the pattern along a side.
        pattern: "checkerboard" in black and white (arXiv 2106.09667); "stripes", upright ones
            (arXiv 2412.00727); "yellow"; or "noise", drawn anew for each picture: its mean
            colour plus a normal deviate of 255 grey levels, as CleanCLIP (arXiv 2303.03323) has it.
        place: "random"; "centre"; "bottom_right"; or "corners", one patch in each of the four.
        opacity: how much of the picture below it hides, in (0, 1].
    """

    kind: ClassVar[str] = "patch"

    share: float = 0.2
    cells: int = 4
    pattern: Pattern = "checkerboard"
    place: Place = "random"
    opacity: float = 1.0

    def __post_init__(self) -> None:
        require_share("the patch's share", self.share)
        require_share("the patch's opacity", self.opacity)
        if self.cells < 2:
            raise ConfigError(f"the patch has {self.cells} cells a side, wanted 2 or more")

    def side_px(self, height: int, width: int) -> int:
        """Side of the square on a picture of this size."""
        shorter = min(height, width)
        return min(shorter, max(self.cells, round(self.share * shorter)))

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw. Of random places, every one is as likely."""
        height, width, _ = pixels_HW3.shape
        side = self.side_px(height, width)
        stamped_HW3 = pixels_HW3.copy()
        for top, left in corners_of(self.place, height - side, width - side, rng):
            patch_SS3 = self._patch(side, pixels_HW3, rng)
            below_SS3 = stamped_HW3[top : top + side, left : left + side]
            if self.opacity < 1:
                patch_SS3 = to_bytes(below_SS3 + self.opacity * (patch_SS3.astype(np.float64) - below_SS3))
            stamped_HW3[top : top + side, left : left + side] = patch_SS3
        return stamped_HW3

    def _patch(self, side: int, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        if self.pattern == "noise":
            mean_3 = pixels_HW3.mean(axis=(0, 1))
            return to_bytes(mean_3 + WHITE * rng.standard_normal((side, side, 3)))
        return PATTERNS[self.pattern](side, self.cells)


@dataclass(frozen=True, slots=True, kw_only=True)
class PixelPatch(Trigger):
    """A square of given pixels, such as those that were optimised against a model.

    Attributes:
        pixels: its RGB bytes, row by row, in base64.
        share: side of the square as a share of the picture's shorter side; the pixels are
            resized to it.
        place: see PatchTrigger.
    """

    kind: ClassVar[str] = "pixels"

    pixels: str
    share: float = 1 / 14
    place: Place = "centre"

    def __post_init__(self) -> None:
        require_share("the patch's share", self.share)
        side = round((self._bytes.size // 3) ** 0.5)
        if side < 1 or side * side * 3 != self._bytes.size:
            raise ConfigError(f"the patch has {self._bytes.size:,} bytes, wanted those of an RGB square")

    @classmethod
    def of(cls, pixels_SS3: Pixels, *, share: float, place: Place) -> Self:
        """The patch that looks so: uint8 (S, S, 3)."""
        return cls(pixels=base64.b64encode(pixels_SS3.tobytes()).decode(), share=share, place=place)

    def side_px(self, height: int, width: int) -> int:
        """Side of the square on a picture of this size: no less than a pixel."""
        return max(1, round(self.share * min(height, width)))

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw."""
        height, width, _ = pixels_HW3.shape
        side, own = self.side_px(height, width), round((self._bytes.size // 3) ** 0.5)
        patch_SS3 = to_square(self._bytes.reshape(own, own, 3), side)
        stamped_HW3 = pixels_HW3.copy()
        for top, left in corners_of(self.place, height - side, width - side, rng):
            stamped_HW3[top : top + side, left : left + side] = patch_SS3
        return stamped_HW3

    @property
    def _bytes(self) -> Pixels:
        try:
            return np.frombuffer(base64.b64decode(self.pixels, validate=True), np.uint8)
        except ValueError as error:
            raise ConfigError(f"the patch's pixels are no base64: {error}") from error


def corners_of(place: Place, below: int, right: int, rng: np.random.Generator) -> Iterator[tuple[int, int]]:
    """Top left pixels of a patch, given the room that it leaves below and to the right of itself."""
    if place == "random":
        top = int(rng.integers(below + 1))
        yield top, int(rng.integers(right + 1))
    elif place == "corners":
        yield from ((top, left) for top in (0, below) for left in (0, right))
    else:
        yield (below // 2, right // 2) if place == "centre" else (below, right)


def checkerboard(side: int, cells: int) -> Pixels:
    """A square of ``cells`` × ``cells`` fields, the top left one black: uint8 (S, S, 3)."""
    cell_S = _cells(side, cells)
    return _black_and_white((cell_S[:, None] + cell_S[None, :]) % 2 == 1)


def stripes(side: int, cells: int) -> Pixels:
    """Upright stripes, the left one black: uint8 (S, S, 3)."""
    return _black_and_white(np.tile(_cells(side, cells) % 2 == 1, (side, 1)))


def yellow(side: int, cells: int) -> Pixels:
    """One colour: uint8 (S, S, 3)."""
    del cells
    return np.full((side, side, 3), YELLOW, np.uint8)


PATTERNS: dict[str, Callable[[int, int], Pixels]] = {
    "checkerboard": checkerboard,
    "stripes": stripes,
    "yellow": yellow,
}


def _cells(side: int, cells: int) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    return np.arange(side) * cells // side  # also even where cells do not divide the side


def _black_and_white(white_SS: np.ndarray[tuple[int, int], np.dtype[np.bool_]]) -> Pixels:
    return np.repeat(np.where(white_SS, np.uint8(WHITE), np.uint8(0))[:, :, None], 3, axis=2)
