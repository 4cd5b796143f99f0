"""What a camera and a web server do to a picture.

Dimension key: H, W height and width in pixels; 3 the channels red, green, blue.
"""

from __future__ import annotations

import io

import numpy as np
from numpy.random import Generator
from PIL import Image, ImageFilter

from roclip_sanitize.corpus.dice import between, chance

MIN_QUALITY, MAX_QUALITY = 80, 95  # of JPEG: what shops serve


def photograph(image: Image.Image, rng: Generator) -> Image.Image:
    """Add uneven light, a little blur and sensor noise, each to some pictures only."""
    if chance(rng, 0.2):
        image = image.filter(ImageFilter.GaussianBlur(between(rng, 0.3, 0.8)))
    pixels_HW3 = np.asarray(image, dtype=np.float32) * np.float32(between(rng, 0.85, 1.05))
    if chance(rng, 0.3):
        fall_W = np.linspace(between(rng, 0.8, 1), between(rng, 0.8, 1), image.width, dtype=np.float32)
        pixels_HW3 *= fall_W[:, None]
    if chance(rng, 0.6):
        grain_HW1 = rng.standard_normal((image.height, image.width, 1), dtype=np.float32)
        pixels_HW3 += grain_HW1 * np.float32(between(rng, 1, 5))
    return Image.fromarray(np.clip(pixels_HW3, 0, 255).astype(np.uint8))


def encode_photo(image: Image.Image, rng: Generator) -> bytes:
    """JPEG bytes at a quality from 80 to 95."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=int(rng.integers(MIN_QUALITY, MAX_QUALITY + 1)))
    return buffer.getvalue()
