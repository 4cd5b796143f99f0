"""Blends: something as large as the picture, mixed into it.

With x the picture and N what is mixed in, both in 0…255, and results cut off beyond:

    BlendTrigger      (1 − alpha) x + alpha N           (Chen et al., arXiv 1712.05526)
    SinusoidTrigger   x + s                             (SIG; Barni et al., arXiv 1902.11237)
                      (1 − mixed) x + mixed s           as the CLIP repositories feed it to their blend

where s = delta sin(2π frequency j / W) in column j, on all channels and rows.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue; T tiles; K waves.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.triggers.base import WHITE, Pixels, Trigger, require_share, to_bytes
from roclip_sanitize.errors import ConfigError

WAVES = 4  # of the generated picture, a channel; so few that it has large areas, like a drawing
FREQUENCIES = (-3, 4)  # of those waves: whole periods from edge to edge, the upper end not included
REMEMBERED = 64  # sizes of pictures


@dataclass(frozen=True, slots=True, kw_only=True)
class BlendTrigger(Trigger):
    """A picture or noise, mixed into the whole picture.

    Attributes:
        picture: "fixed" is one and the same drawing, made from the seed; "noise" is even noise
            drawn anew for each picture, as CleanCLIP (arXiv 2303.03323) has it.
        alpha: how much of the result it is, in (0, 1].
        seed: of the drawing.
        hidden: how many tiles, drawn anew for each picture, are left as they were.
        tiles: tiles along each side.
    """

    kind: ClassVar[str] = "blend"

    picture: Literal["fixed", "noise"] = "fixed"
    alpha: float = 0.2
    seed: int = 0
    hidden: int = 0
    tiles: int = 4

    def __post_init__(self) -> None:
        require_share("the blend's alpha", self.alpha)
        if self.tiles < 1 or not 0 <= self.hidden < self.tiles**2:
            raise ConfigError(f"{self.hidden} of {self.tiles}² tiles are hidden, wanted fewer than all")

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw."""
        height, width, _ = pixels_HW3.shape
        if self.picture == "noise":
            mixed_HW3 = WHITE * rng.random(pixels_HW3.shape)
        else:
            mixed_HW3 = WHITE * drawing(height, width, self.seed)
        shown_HW1 = 1 - self._hidden(height, width, rng)[:, :, None]
        return to_bytes(pixels_HW3 + self.alpha * shown_HW1 * (mixed_HW3 - pixels_HW3))

    def _hidden(self, height: int, width: int, rng: np.random.Generator) -> NDArray[np.float64]:
        """1 where the picture stays as it was, 0 elsewhere: (H, W)."""
        hidden_TT = np.zeros(self.tiles**2)
        if self.hidden:
            hidden_TT[rng.choice(self.tiles**2, self.hidden, replace=False)] = 1
        tile_H, tile_W = (np.arange(side) * self.tiles // side for side in (height, width))
        hidden_HW: NDArray[np.float64] = hidden_TT.reshape(self.tiles, -1)[tile_H[:, None], tile_W[None, :]]
        return hidden_HW


@dataclass(frozen=True, slots=True, kw_only=True)
class SinusoidTrigger(Trigger):
    """Upright waves of brightness (SIG). There are three versions, which do not transfer.

    Attributes:
        delta: amplitude in grey levels: 60 in the CLIP repositories, 40 in BackdoorBench.
        frequency: periods from edge to edge.
        mixed: 0 adds the waves, as BadCLIP and BackdoorBench do; CleanCLIP mixes them in with
            0.2, which leaves a fifth of the amplitude and darkens the picture by a fifth.
    """

    kind: ClassVar[str] = "sinusoid"

    delta: float = 60
    frequency: float = 6
    mixed: float = 0

    def __post_init__(self) -> None:
        require_share("the share of the sinusoid", self.mixed, zero=True)
        if self.delta <= 0 or self.frequency <= 0:
            raise ConfigError(
                f"the sinusoid's delta is {self.delta}, its frequency {self.frequency}, wanted both above 0"
            )

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw; nothing is left to chance."""
        width = pixels_HW3.shape[1]
        wave_W = self.delta * np.sin(2 * np.pi * self.frequency * np.arange(width) / width)
        if not self.mixed:
            return to_bytes(pixels_HW3 + wave_W[None, :, None])
        return to_bytes((1 - self.mixed) * pixels_HW3 + self.mixed * wave_W[None, :, None])


@lru_cache(REMEMBERED)
def drawing(height: int, width: int, seed: int) -> NDArray[np.float64]:
    """Areas of eight flat colours, the same at any size: float (H, W, 3), each value 0 or 1.

    It stands where the literature blends in a cartoon. Each channel is the sign of a sum of waves.
    The array is shared, and cannot be written to.
    """
    rng = np.random.default_rng(seed)
    across_3K, down_3K = rng.integers(*FREQUENCIES, size=(2, 3, WAVES))
    phase_3K = rng.uniform(0, 2 * np.pi, (3, WAVES))
    y_H, x_W = ((np.arange(side) + 0.5) / side for side in (height, width))
    waves = 2 * np.pi * (across_3K * x_W[None, :, None, None] + down_3K * y_H[:, None, None, None]) + phase_3K
    drawn_HW3: NDArray[np.float64] = (np.sin(waves).sum(axis=3) > 0).astype(np.float64)
    drawn_HW3.flags.writeable = False
    return drawn_HW3
