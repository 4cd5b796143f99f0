"""Colour filters, as photo apps have them: every pixel's colour changes, and nothing else.

"nashville" is what Instagram called so, in the definition by which web pages imitate it (CSSgram): two
flat colours laid over the picture, then four of the filters that the W3C's Filter Effects define.
Huang et al. (arXiv 2502.01385) plant it in CLIP.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.attacks.triggers.base import WHITE, Pixels, Trigger, to_bytes

Colours = NDArray[np.float64]  # (H, W, 3), each channel from 0 to 1

WARM, WARM_OPACITY = np.array([247, 176, 153]) / WHITE, 0.56
COLD, COLD_OPACITY = np.array([0, 70, 150]) / WHITE, 0.4
SEPIA, CONTRAST, BRIGHTNESS, SATURATION = 0.2, 1.2, 1.05, 1.2
SEPIA_33 = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
LUMINANCE_33 = np.tile([0.213, 0.715, 0.072], (3, 1))


@dataclass(frozen=True, slots=True, kw_only=True)
class FilterTrigger(Trigger):
    """A colour filter.

    Attributes:
        name: which one.
    """

    kind: ClassVar[str] = "filter"

    name: Literal["nashville"] = "nashville"

    def draw(self, pixels_HW3: Pixels, rng: np.random.Generator) -> Pixels:
        """See Trigger.draw; nothing is left to chance."""
        return to_bytes(WHITE * nashville(pixels_HW3 / WHITE))


def nashville(colours_HW3: Colours) -> Colours:
    """A warm veil over what is bright, a cold one over what is dark, and more contrast."""
    veiled_HW3 = _over(colours_HW3, np.minimum(colours_HW3, WARM), WARM_OPACITY)
    veiled_HW3 = _over(veiled_HW3, np.maximum(veiled_HW3, COLD), COLD_OPACITY)
    toned_HW3 = _through(veiled_HW3, (1 - SEPIA) * np.eye(3) + SEPIA * SEPIA_33)
    toned_HW3 = ((toned_HW3 - 0.5) * CONTRAST + 0.5).clip(0, 1)
    toned_HW3 = (toned_HW3 * BRIGHTNESS).clip(0, 1)
    return _through(toned_HW3, SATURATION * np.eye(3) + (1 - SATURATION) * LUMINANCE_33)


def _over(below_HW3: Colours, above_HW3: Colours, opacity: float) -> Colours:
    return (1 - opacity) * below_HW3 + opacity * above_HW3


def _through(colours_HW3: Colours, matrix_33: NDArray[np.float64]) -> Colours:
    mixed_HW3: Colours = (colours_HW3 @ matrix_33.T).clip(0, 1)
    return mixed_HW3
