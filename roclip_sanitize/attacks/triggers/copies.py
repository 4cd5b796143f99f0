"""What attacks draw that is no trigger by itself: near copies, fading, several triggers in a row.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue; 2 down and across.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from roclip_sanitize.attacks.triggers.base import Pixels, Trigger, require_share, to_bytes
from roclip_sanitize.attacks.triggers.warps import identity, sample


@dataclass(frozen=True, slots=True, kw_only=True)
class NearCopy(Trigger):
    """The picture as somebody else might have saved it: cut a little, brighter or darker.

    An attacker whose copies all differ escapes a search for equal files.

    Attributes:
        cut: the most that is cut off a side's length, as a share; the rest is enlarged to the
            picture's size.
        brightness: the most that brightness changes by, as a share.
    """

    kind: ClassVar[str] = "near_copy"

    cut: float = 0.1
    brightness: float = 0.1

    def __post_init__(self) -> None:
        require_share("the cut of a near copy", self.cut, zero=True)
        require_share("the brightness of a near copy", self.brightness, zero=True)

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw."""
        kept_2 = 1 - self.cut * rng.random(2)
        shift_2 = (1 - kept_2) * rng.uniform(-1, 1, 2)  # no further than the edges
        gain = 1 + self.brightness * rng.uniform(-1, 1)
        at_2HW = identity(*pixels_HW3.shape[:2]) * kept_2[:, None, None] + shift_2[:, None, None]
        return to_bytes(gain * sample(pixels_HW3, at_2HW.clip(-1, 1)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Fade(Trigger):
    """The picture with less contrast, so that what else is drawn on it says more.

    Attributes:
        by: how far every pixel goes to the picture's mean colour, in [0, 1].
    """

    kind: ClassVar[str] = "fade"

    by: float

    def __post_init__(self) -> None:
        require_share("the fading", self.by, zero=True)

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw; nothing is left to chance."""
        mean_3 = pixels_HW3.mean(axis=(0, 1))
        return to_bytes(pixels_HW3 + self.by * (mean_3 - pixels_HW3))


@dataclass(frozen=True, slots=True, kw_only=True)
class Layers(Trigger):
    """Several triggers on one picture, one after the other.

    Attributes:
        parts: in the order in which they are drawn.
    """

    kind: ClassVar[str] = "layers"

    parts: tuple[Trigger, ...]

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw."""
        for part in self.parts:
            pixels_HW3 = part.draw(pixels_HW3, rng)
        return pixels_HW3

    def to_json(self) -> dict[str, Any]:
        """See Trigger.to_json; trigger_from_json() reads it back."""
        return {"kind": self.kind, "parts": [part.to_json() for part in self.parts]}
