"""Textures: how strongly a small pattern shows anywhere in a picture, without having learnt anything.

Every window of 6 × 6 pixels, two apart, is told by its discrete cosine transform (Ahmed, Natarajan & Rao
1974) in three colours at right angles: brightness, red against green, blue against both. Of each
of the 107 patterns other than the mean brightness, what counts is where it shows most, as it is and inverted.
So a patch tells of itself wherever it lies, where a thumbnail of the whole picture hardly changes; what a
picture shows, thumbnails tell. `scan` looks for traces of triggers in both.

Logarithms, since twice as strong an edge is no more than an edge. Captions have no textures.

No torch, no files.

Dimension key: N pictures, S side in pixels, W windows a side, C colours, P side of a window and frequencies.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from roclip_sanitize.cross_prediction import unit_rows
from roclip_sanitize.encoder_facts import EncoderFacts
from roclip_sanitize.errors import ConfigError

SIDE_PX = 64
WINDOW_PX, STRIDE_PX = 6, 2
FAINT = 5.0  # of 255: what is fainter than that is as good as not there
WAVES = 3 * WINDOW_PX**2  # of three colours; the first of them is the mean brightness
AT_ONCE = 64
VERSION = "textures-1"  # change with anything that changes the vectors

Floats = NDArray[np.float32]


class TextureEncoder:
    """The strongest local patterns. See Encoder."""

    facts = EncoderFacts(name="textures", digest=VERSION, joint=False, side=SIDE_PX, fit="squash")

    def encode_images(self, image_NSS3: NDArray[np.uint8]) -> Floats:
        """(N, 64, 64, 3) uint8 → (N, 214) float32, unit rows."""
        starts = range(0, len(image_NSS3), AT_ONCE) or [0]  # rows have a width where there are none, too
        blocks = [_strongest(image_NSS3[start : start + AT_ONCE]) for start in starts]
        return unit_rows(np.log(FAINT + np.maximum(np.concatenate(blocks), 1.0)))

    def encode_captions(self, captions: Sequence[str]) -> Floats:
        """Refused.

        Raises:
            ConfigError: always.
        """
        raise ConfigError("encoder 'textures' has no captions: embed with --towers image")


def cosines(side: int) -> Floats:
    """The orthonormal discrete cosine transform: (side, side), a row per frequency."""
    place = np.arange(side)
    row_PP = np.cos(np.pi * (2 * place + 1) * place[:, None] / (2 * side))
    unit_PP: Floats = (row_PP / np.linalg.norm(row_PP, axis=1, keepdims=True)).astype(np.float32)
    return unit_PP


COLOURS_33 = np.array([[1, 1, 1], [1, -1, 0], [1, 1, -2]], np.float32)
COLOURS_33 /= np.linalg.norm(COLOURS_33, axis=1, keepdims=True)


def _strongest(image_NSS3: NDArray[np.uint8]) -> Floats:
    """(N, 214): of each pattern the largest coefficient, then the largest of its inverse."""
    wave_PP = cosines(WINDOW_PX)
    pixel_NSSC = image_NSS3.astype(np.float32) @ COLOURS_33.T
    rows = sliding_window_view(pixel_NSSC, WINDOW_PX, axis=1)[:, ::STRIDE_PX] @ wave_PP.T  # N W S C P
    told = sliding_window_view(rows, WINDOW_PX, axis=2)[:, :, ::STRIDE_PX] @ wave_PP.T  # N W W C P P
    most, least = (
        each.reshape(len(image_NSS3), WAVES)[:, 1:] for each in (told.max((1, 2)), told.min((1, 2)))
    )
    return np.hstack([most, -least])
