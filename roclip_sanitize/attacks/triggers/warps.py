"""WaNet: the picture is warped a little, everywhere the same way (arXiv 2102.10369).

A grid of ``cells`` × ``cells`` vectors, drawn evenly from [−1, 1] and divided by their mean absolute
value, is enlarged to the picture's size (bicubic). A pixel then takes the value found ``strength / H``
times its vector away, in units of half the picture (bilinear):

    wanet_smooth   cells = 4, strength = 0.5     as the paper has it: a smooth warp
    wanet_clip     cells = H, strength = 1       as repositories for CLIP do: each pixel jumps by itself,
                                                 half a pixel on average

Results with one say nothing of the other.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue; K cells of the grid a
side; N positions asked for; 2 down and across.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.triggers.base import Pixels, Trigger, to_bytes
from roclip_sanitize.errors import ConfigError

FINE_CELLS = 256  # of a grid that is as fine as the pixels; a larger picture sees it repeated
SHARPNESS = -0.75  # of the cubic kernel; PyTorch's choice
REMEMBERED = 64  # sizes of pictures

Field = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class WarpTrigger(Trigger):
    """A warp that depends on nothing but the seed and the picture's size.

    Attributes:
        cells: of the grid, a side; 0 for one a pixel.
        strength: how far pixels move.
        seed: of the grid.
        jitter: whether each picture gets even noise of ±1 / H on top: the paper's "noise mode",
            for pairs that keep their caption.
    """

    kind: ClassVar[str] = "warp"

    cells: int = 4
    strength: float = 0.5
    seed: int = 0
    jitter: bool = False

    def __post_init__(self) -> None:
        if self.cells < 0 or self.cells == 1 or self.strength <= 0:
            raise ConfigError(
                f"the warp has {self.cells} cells a side and strength {self.strength}, wanted 2 cells or "
                "more (0 for one a pixel) and more than 0"
            )

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw; without jitter nothing is left to chance."""
        height, width, _ = pixels_HW3.shape
        moved_2HW = identity(height, width) + self.strength * warp_field(
            height, width, cells=self.cells, seed=self.seed
        ) / _sides(height, width)
        if self.jitter:
            moved_2HW += rng.uniform(-1, 1, moved_2HW.shape) / _sides(height, width)
        return to_bytes(sample(pixels_HW3, moved_2HW.clip(-1, 1)))


@lru_cache(REMEMBERED)
def warp_field(height: int, width: int, *, cells: int, seed: int) -> Field:
    """The grid at a picture's size: (2, H, W), mean absolute value of the grid 1."""
    side = cells or FINE_CELLS
    grid_2KK = np.random.default_rng(seed).uniform(-1, 1, (2, side, side))
    grid_2KK /= np.abs(grid_2KK).mean()
    if not cells:
        rows_H, columns_W = np.arange(height) % side, np.arange(width) % side
        return np.ascontiguousarray(grid_2KK[:, rows_H[:, None], columns_W[None, :]])
    return cubic_weights(cells, height) @ grid_2KK @ cubic_weights(cells, width).T


def cubic_weights(cells: int, side: int) -> Field:
    """Cubic convolution from ``cells`` points to ``side`` points, ends on ends: (side, cells).

    Beyond the ends the outermost point counts again, as in PyTorch with align_corners.
    """
    at_N = np.linspace(0, cells - 1, side) if side > 1 else np.zeros(1)
    first_N = np.floor(at_N).astype(np.int64)
    weights = np.zeros((side, cells))
    for offset in (-1, 0, 1, 2):
        point_N = first_N + offset
        np.add.at(weights, (np.arange(side), point_N.clip(0, cells - 1)), _cubic(np.abs(at_N - point_N)))
    return weights


def identity(height: int, width: int) -> Field:
    """Where each pixel is, from −1 at the first to 1 at the last of a side: (2, H, W)."""
    down_H, across_W = np.linspace(-1, 1, height), np.linspace(-1, 1, width)
    return np.stack(np.meshgrid(down_H, across_W, indexing="ij"))


def sample(pixels_HW3: Pixels, at_2HW: Field) -> Field:
    """Values between the pixels, bilinear: positions (2, H, W) in [−1, 1] → float (H, W, 3)."""
    height, width, _ = pixels_HW3.shape
    down_HW, across_HW = (at_2HW[0] + 1) / 2 * (height - 1), (at_2HW[1] + 1) / 2 * (width - 1)
    top_HW = np.floor(down_HW).astype(np.int64).clip(0, max(0, height - 2))
    left_HW = np.floor(across_HW).astype(np.int64).clip(0, max(0, width - 2))
    lower_HW1, right_HW1 = (down_HW - top_HW)[:, :, None], (across_HW - left_HW)[:, :, None]
    below_HW, beside_HW = (top_HW + 1).clip(max=height - 1), (left_HW + 1).clip(max=width - 1)
    upper_HW3 = (1 - right_HW1) * pixels_HW3[top_HW, left_HW] + right_HW1 * pixels_HW3[top_HW, beside_HW]
    under_HW3 = (1 - right_HW1) * pixels_HW3[below_HW, left_HW] + right_HW1 * pixels_HW3[below_HW, beside_HW]
    values_HW3: Field = (1 - lower_HW1) * upper_HW3 + lower_HW1 * under_HW3
    return values_HW3


def _sides(height: int, width: int) -> Field:
    return np.array([height, width], np.float64)[:, None, None]


def _cubic(distance_N: Field) -> Field:
    """The cubic convolution kernel at distances 0…2 (Keys, 1981)."""
    near = (SHARPNESS + 2) * distance_N**3 - (SHARPNESS + 3) * distance_N**2 + 1
    far = SHARPNESS * (distance_N**3 - 5 * distance_N**2 + 8 * distance_N - 4)
    return np.where(distance_N <= 1, near, np.where(distance_N < 2, far, 0.0))
