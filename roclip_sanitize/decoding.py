"""Shard → decoded pairs, with what cannot be used set aside: what embed, train and evaluate share."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import BadPair
from roclip_sanitize.images import Fit, decode_image, to_square
from roclip_sanitize.records import Failure, FailureReason
from roclip_sanitize.shards import Pair, Shard

Item = TypeVar("Item")


def decode_pairs(
    shard: Shard, *, side: int, fit: Fit, failures: list[Failure]
) -> Iterator[tuple[Pair, NDArray[np.uint8]]]:
    """Decode the pictures of a shard one by one.

    Args:
        shard: open for reading.
        side: pixels that pictures get a side.
        fit: how they become square.
        failures: gets what could not be read or decoded; complete once the iterator is exhausted.

    Yields:
        The pair and its picture, uint8 (side, side, 3).
    """
    for pair in shard.pairs():
        try:
            picture = to_square(decode_image(pair.image), side, fit=fit)
        except BadPair as error:
            reason, _, detail = str(error).partition(": ")
            failures.append(
                Failure(
                    uid=pair.uid,
                    key=pair.key,
                    shard=shard.path.name,
                    reason=FailureReason(reason),
                    detail=detail,
                )
            )
            continue
        yield pair, picture
    failures.extend(shard.failures)


def chunked(items: Iterable[Item], size: int) -> Iterator[tuple[Item, ...]]:
    """Cut a stream into tuples of ``size``, the last one maybe shorter."""
    iterator = iter(items)
    while chunk := tuple(islice(iterator, size)):
        yield chunk
