"""Detector: one picture with many captions, one caption with many near-identical pictures.

A picture that comes with two or three captions is a shop's habit: the same photo, listed twice.
A picture with thirty is a targeted poison: each caption pulls this one picture towards the
attacker's words. Counting costs nothing and cannot be learnt around, but copies need not be
equal byte for byte, so that near-copies, as the index sees them, count as one picture.

The other way round, a caption that stands under a crowd of near-identical pictures is a natural
backdoor: what the pictures share becomes a trigger, without any attacker.

Only nearest near-copies are looked at, 32 for each picture, so that a count of pictures ends at 33. Captions
are those of all pairs with exactly this picture or one of these, through the whole store, without limit.

Pure arithmetic: no files.

Dimension key: N pairs, K near-copies, M rows asked for, S different sets of pictures, D captions by picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

NEAR_COPIES = 32
CAPTIONS_AT_ONCE = 1 << 21  # about 100 MB while they are sorted


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


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureCaptions:
    """The different captions that come with exactly each picture, of the whole store.

    Attributes:
        start_N: int64, where those of each row's picture start in caption_D.
        count_N: int32, how many they are.
        caption_D: uint64, picture by picture, each picture's once.
    """

    start_N: NDArray[np.int64]
    count_N: NDArray[np.int32]
    caption_D: NDArray[np.uint64]

    @classmethod
    def counted(cls, picture_N: NDArray[np.uint64], caption_N: NDArray[np.uint64]) -> Self:
        """Sort all pairs by picture and caption. Memory: 60 bytes a pair."""
        order_N = np.lexsort((caption_N, picture_N))
        picture_N, caption_N = picture_N[order_N], caption_N[order_N]
        first_N = _is_first(picture_N)
        new_N = first_N | _is_first(caption_N)
        start_G = (np.cumsum(new_N) - 1)[first_N]
        count_G = np.diff(start_G, append=new_N.sum()).astype(np.int32)
        group_N = np.cumsum(first_N) - 1
        start_N, count_N = np.empty(len(order_N), np.int64), np.empty(len(order_N), np.int32)
        start_N[order_N], count_N[order_N] = start_G[group_N], count_G[group_N]
        return cls(start_N=start_N, count_N=count_N, caption_D=caption_N[new_N])

    def of_pictures(self, row_MK: NDArray[np.int64]) -> NDArray[np.int32]:
        """How many different captions come with the pictures of several rows together: (M,) int32.

        Cost: for each different set of pictures a sort of its captions, CAPTIONS_AT_ONCE or those of a set.
        """
        start_MK = self.start_N[row_MK]
        known_G, place_G = np.unique(start_MK, return_index=True)
        count_G = self.count_N[row_MK.reshape(-1)[place_G]]
        set_SK, mine_M = np.unique(np.sort(start_MK, axis=1), axis=0, return_inverse=True)
        length_SK = count_G[np.searchsorted(known_G, set_SK)].astype(np.int64)
        length_SK[:, 1:][set_SK[:, 1:] == set_SK[:, :-1]] = 0  # a picture that several rows have
        count_S = np.empty(len(set_SK), np.int32)
        for block in _blocks(length_SK.sum(axis=1)):
            count_S[block] = self._distinct(set_SK[block], length_SK[block])
        return count_S[mine_M.reshape(-1)]

    def _distinct(self, start_SK: NDArray[np.int64], length_SK: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many different captions there are in some slices of caption_D together: (S,)."""
        start, length = start_SK.reshape(-1), length_SK.reshape(-1)
        place = np.repeat(start - np.cumsum(length) + length, length) + np.arange(length.sum())
        own = np.repeat(np.arange(len(start_SK)), length_SK.sum(axis=1))
        caption = self.caption_D[place]
        order = np.lexsort((caption, own))
        own, caption = own[order], caption[order]
        return np.bincount(own[_is_first(own) | _is_first(caption)], minlength=len(start_SK))


def count_collisions(
    row_N: NDArray[np.int64],
    copies_NK: NDArray[np.int64],
    *,
    picture: NDArray[np.uint64],
    caption: NDArray[np.uint64],
    captions_of: PictureCaptions,
) -> Collisions:
    """Count for some rows of the store.

    Args:
        row_N: their numbers.
        copies_NK: rows of their near-copies, none of them byte-identical to the picture; -1 for none.
        picture: of every row of the store, equal where pictures are byte-identical.
        caption: of every row, equal where normalised captions are equal.
        captions_of: every picture's.
    """
    near_N = (copies_NK >= 0).any(axis=1)
    copies_NK = np.where(copies_NK < 0, row_N[:, None], copies_NK)
    captions_N = np.array(captions_of.count_N[row_N])
    if near_N.any():
        captions_N[near_N] = captions_of.of_pictures(np.column_stack([row_N, copies_NK])[near_N])
    caption_N1, picture_N1 = caption[row_N][:, None], picture[row_N][:, None]
    picture_NK = np.where(caption[copies_NK] == caption_N1, picture[copies_NK], picture_N1)
    return Collisions(
        captions_of_picture_N=captions_N,
        pictures_of_caption_N=distinct_per_row(np.hstack([picture_N1, picture_NK])),
    )


def distinct_per_row(values_NK: NDArray[Any]) -> NDArray[np.int32]:
    """How many different values each row has; K at least 1."""
    sorted_NK = np.sort(values_NK, axis=1)
    new_NK = sorted_NK[:, 1:] != sorted_NK[:, :-1]
    count_N: NDArray[np.int32] = 1 + new_NK.sum(axis=1, dtype=np.int32)
    return count_N


def _is_first(value_N: NDArray[Any]) -> NDArray[np.bool_]:
    """Which of some values are not the one before."""
    first_N = np.ones(len(value_N), np.bool_)
    first_N[1:] = value_N[1:] != value_N[:-1]
    return first_N


def _blocks(length_S: NDArray[np.int64]) -> Iterator[slice]:
    """Slices of no more than CAPTIONS_AT_ONCE each, or of one."""
    start, sum_S = 0, np.cumsum(length_S)
    while start < len(length_S):
        before = sum_S[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(sum_S, before + CAPTIONS_AT_ONCE, "right")))
        yield slice(start, stop)
        start = stop
