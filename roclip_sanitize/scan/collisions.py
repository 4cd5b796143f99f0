"""Detector: one picture with many captions, one caption with many near-identical pictures.

A picture that comes with two or three captions is a shop's habit: the same photo, listed twice.
A picture with thirty is a targeted poison: each caption pulls this one picture towards the
attacker's words. Counting costs nothing and cannot be learnt around, but copies need not be
equal byte for byte, so that near-copies, as the index sees them, count as one picture.

The other way round, a caption that stands under a crowd of near-identical pictures is a natural
backdoor: what the pictures share becomes a trigger, without any attacker.

Only nearest near-copies are looked at, 32 for each picture, so that a count from them ends at 33;
captions of byte-identical pictures are counted without limit, through the whole store.

Pure arithmetic: no files.

Dimension key: N pairs, K near-copies.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAR_COPIES = 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Collisions:
    """How often a pair's picture and caption occur with others.

    Attributes:
        captions_of_picture_N: int32, different captions that come with this picture or near-copies
            of it, its own included.
        pictures_of_caption_N: int32, different near-copies of this picture that come with its
            caption, itself included.
    """

    captions_of_picture_N: NDArray[np.int32]
    pictures_of_caption_N: NDArray[np.int32]

    @classmethod
    def none(cls, pairs: int) -> Collisions:
        """Where nobody looked: zeros, which no threshold can reach."""
        return cls(
            captions_of_picture_N=np.zeros(pairs, np.int32), pictures_of_caption_N=np.zeros(pairs, np.int32)
        )


def count_collisions(
    row_N: NDArray[np.int64],
    copies_NK: NDArray[np.int64],
    *,
    picture: NDArray[np.uint64],
    caption: NDArray[np.uint64],
    captions_of_picture: NDArray[np.int32],
) -> Collisions:
    """Count for some rows of the store.

    Args:
        row_N: their numbers.
        copies_NK: rows of their near-copies, none of them byte-identical to the picture; -1 for none.
        picture: of every row of the store, equal where pictures are byte-identical.
        caption: of every row, equal where normalised captions are equal.
        captions_of_picture: of every row, captions that come with exactly its picture.
    """
    absent_NK = copies_NK < 0
    copies_NK = np.where(absent_NK, row_N[:, None], copies_NK)
    caption_N1, picture_N1 = caption[row_N][:, None], picture[row_N][:, None]
    caption_NK = caption[copies_NK]
    picture_NK = np.where(caption_NK == caption_N1, picture[copies_NK], picture_N1)
    near_N = distinct_per_row(np.hstack([caption_N1, caption_NK]))
    return Collisions(
        captions_of_picture_N=np.maximum(near_N, captions_of_picture[row_N]),
        pictures_of_caption_N=distinct_per_row(np.hstack([picture_N1, picture_NK])),
    )


def distinct_per_row(values_NK: NDArray[Any]) -> NDArray[np.int32]:
    """How many different values each row has; K at least 1."""
    sorted_NK = np.sort(values_NK, axis=1)
    new_NK = sorted_NK[:, 1:] != sorted_NK[:, :-1]
    count_N: NDArray[np.int32] = 1 + new_NK.sum(axis=1, dtype=np.int32)
    return count_N


def distinct_per_group(group_N: NDArray[np.uint64], item_N: NDArray[np.uint64]) -> NDArray[np.int32]:
    """For every row, how many different items its group has. Cost: one sort of N rows."""
    if not len(group_N):
        return np.zeros(0, np.int32)
    order_N = np.lexsort((item_N, group_N))
    group_N, item_N = group_N[order_N], item_N[order_N]
    first_of_group_N = np.concatenate([[True], group_N[1:] != group_N[:-1]])
    first_of_item_N = first_of_group_N | np.concatenate([[True], item_N[1:] != item_N[:-1]])
    items_G = np.add.reduceat(first_of_item_N.astype(np.int32), np.flatnonzero(first_of_group_N))
    counts_N = np.empty(len(order_N), np.int32)
    counts_N[order_N] = items_G[np.cumsum(first_of_group_N) - 1]
    return counts_N
