"""Shard → decoded pairs, with what cannot be used set aside: what embed, train and evaluate share.

Several threads may decode: Pillow leaves the interpreter to others while it decodes and resizes.
"""

from __future__ import annotations

import time
from collections.abc import Generator
from contextlib import closing

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import BadPair
from roclip_sanitize.images import Decode, Fit, square_pixels
from roclip_sanitize.pipeline import Seconds, chunked, in_order, timed
from roclip_sanitize.records import Failure
from roclip_sanitize.shards import Pair, Shard

__all__ = ["chunked", "decode_pairs"]

Decoded = list[NDArray[np.uint8] | BadPair]

DECODED_AT_ONCE = 8  # pairs that one thread takes: to hand over one alone costs as much as its thumbnail


def decode_pairs(
    shard: Shard,
    *,
    side: int,
    fit: Fit,
    failures: list[Failure],
    decode: Decode = "exact",
    threads: int = 1,
    seconds: Seconds | None = None,
) -> Generator[tuple[Pair, NDArray[np.uint8]], None, None]:
    """Decode the pictures of a shard; the same pairs in the same order with any number of threads.

    Args:
        shard: open for reading.
        side: pixels that pictures get a side.
        fit: how they become square.
        failures: gets what could not be read or decoded; complete once the iterator is exhausted.
        decode: "exact" for open_clip's own pixels, "fast" for nearly those.
        threads: how many decode; with 1, the caller's own does.
        seconds: gets the time spent on "read" and, summed over threads, on "decode".

    Yields:
        The pair and its picture, uint8 (side, side, 3).
    """
    seconds = Seconds(float) if seconds is None else seconds

    def decoded(pairs: tuple[Pair, ...]) -> tuple[tuple[Pair, ...], Decoded, float]:
        started = time.thread_time()  # of this thread alone: waiting for a core is no work
        pictures = [_decoded(pair, side=side, fit=fit, decode=decode) for pair in pairs]
        return pairs, pictures, time.thread_time() - started

    chunks = chunked(timed(shard.pairs(), seconds, "read"), DECODED_AT_ONCE if threads > 1 else 1)
    with closing(in_order(decoded, chunks, threads=threads)) as results:
        for pairs, pictures, spent in results:
            seconds["decode"] += spent
            for pair, picture in zip(pairs, pictures, strict=True):
                if isinstance(picture, BadPair):
                    failures.append(Failure.of(picture, uid=pair.uid, key=pair.key, shard=shard.name))
                else:
                    yield pair, picture
    failures.extend(shard.failures)


def _decoded(pair: Pair, *, side: int, fit: Fit, decode: Decode) -> NDArray[np.uint8] | BadPair:
    try:
        return square_pixels(pair.image, side, fit=fit, decode=decode)
    except BadPair as error:
        return error
