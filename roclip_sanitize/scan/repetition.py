"""Detector: do the pictures most like a pair's own come with exactly its caption?

A crowd of pictures that look alike under one caption is a natural backdoor: what they share becomes a
trigger, without any attacker. Where they are near-copies, collisions count them. Where each was cropped or
lit anew, only their captions tell that they are one crowd: of a picture's nearest neighbours, those whose
captions say the same, word for word.

A shop's own series looks the same. So a crowd is suspected, and not set aside for being one: what it is worth
is the share of all pairs that stand in crowds as large, and it uses up the budget as any suspicion does.

Pure arithmetic: no files.

Dimension key: N pairs, K neighbours.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def crowd(
    row_N: NDArray[np.int64], neighbours_NK: NDArray[np.int64], caption: NDArray[np.uint64]
) -> NDArray[np.int32]:
    """How many pictures of one crowd each pair sees, its own included: (N,) int32, 1 to K + 1.

    Args:
        row_N: numbers of the pairs' rows.
        neighbours_NK: rows of the pictures most like theirs, each picture once; -1 for none.
        caption: of every row of the store, equal where normalised captions are equal.
    """
    same_NK = caption[np.maximum(neighbours_NK, 0)] == caption[row_N][:, None]
    count_N: NDArray[np.int32] = 1 + (same_NK & (neighbours_NK >= 0)).sum(axis=1, dtype=np.int32)
    return count_N


def suspicion(crowd_N: NDArray[np.int32], *, least: int) -> NDArray[np.float32]:
    """Score crowds: (N,) float32, 0 for fewer than ``least``, and above 1/2 from there on, more with each.

    Args:
        crowd_N: see crowd().
        least: pictures that make a crowd, 2 or more.
    """
    score_N: NDArray[np.float32] = (crowd_N / (crowd_N + least - 1)).astype(np.float32)
    return np.where(crowd_N >= least, score_N, np.float32(0))
