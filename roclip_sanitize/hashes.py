"""Perceptual hashes: pictures that look alike have hashes that differ in few bits. Door to imagehash.

The hash is pHash (Zauner 2010): the signs of the 64 lowest frequencies of a 32 × 32 grey thumbnail, beside
their median. A picture that was scaled or encoded again differs in a few of its bits, others in about half.
"""

from __future__ import annotations

from PIL import Image

from roclip_sanitize.images import decode_image

BITS = 64
MAX_BITS_APART = 10  # of pictures that count as the same; benchmarks/LOG.md says what it costs and catches
ENOUGH_PX = 64  # a side: a large JPEG need not be decoded whole
DIGITS_OF = {"sha256": 64, "md5": 32, "phash": BITS // 4}  # what lists of pictures tell them by, in hex


def perceptual_hash(image: Image.Image) -> str:
    """A picture's hash: 16 hex digits."""
    import imagehash

    return str(imagehash.phash(image))


def encoded_hash(data: bytes) -> str:
    """perceptual_hash() of an encoded picture.

    Raises:
        BadPair: it is none, or one that images.decode_image() refuses.
    """
    return perceptual_hash(decode_image(data, enough=ENOUGH_PX))


def bits_apart(first: str, second: str) -> int:
    """In how many of 64 bits two hashes differ.

    Raises:
        ValueError: one is not hex.
    """
    return (int(first, 16) ^ int(second, 16)).bit_count()
