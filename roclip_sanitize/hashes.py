"""Perceptual hashes: pictures that look alike have hashes that differ in few bits. Door to imagehash.

The hash is pHash (Zauner 2010): the signs of the 64 lowest frequencies of a 32 × 32 grey thumbnail, beside
their median. A picture that was scaled or encoded again differs in a few of its bits, others in about half.
"""

from __future__ import annotations

from PIL import Image

BITS = 64
DIGITS = BITS // 4


def perceptual_hash(image: Image.Image) -> str:
    """A picture's hash: 16 hex digits."""
    import imagehash

    return str(imagehash.phash(image))


def bits_apart(first: str, second: str) -> int:
    """In how many of 64 bits two hashes differ.

    Raises:
        ValueError: one is not hex.
    """
    return (int(first, 16) ^ int(second, 16)).bit_count()
