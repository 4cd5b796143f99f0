"""Detectors: density as the code that came with its paper computes it, for whoever has numbers of that code.

Huang et al., ICLR 2025, describe what density.py computes. Their code differs from it (as first published):

- A shuffled batch is its own reference: its pictures, and its captions after them. The distance of a picture
  to itself is left out, and so is the one to its own caption.
- The radius of a pair that is judged is the distance to its (k+1)-th nearest; that of a reference row the one
  to its k-th.
- What is left out shifts places: radii of nearest neighbours are looked up one place too early from the
  pair's own on, those of captions one or two. So a good part of them are other rows'.
- The dimension about a reference row counts its distance to itself, 0, as the nearest one, so that it is at
  most k / 9.21.
- A ratio that is no number, or without end, makes SLOF and DAO 1000: so it is of pictures with k copies or
  more in a batch. With more than k, LID is no number, and stays so.

Three things are not the same here. That code takes vectors of any length, and a store holds unit ones. It
shuffles all pairs, where here each part is shuffled and cut by itself, so that poisons that are all in one
part meet each other. And captions are always in the reference, where its page shows pictures alone first.
Its k is 32 unless told, and 16 on that page.

Dimension key: B pairs of a batch, R = 2 B reference rows, M rows of a block, Q = R - 2 others of each,
K neighbours, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scan.uids import split_uids
from roclip_sanitize.scoring.contract import Pairs, Scores
from roclip_sanitize.scoring.reference import mixed

Measure = Literal["kdistance", "slof", "lid", "dao"]
RELEASED: dict[str, Measure] = {
    "kdistance_released": "kdistance",
    "slof_released": "slof",
    "lid_released": "lid",
    "dao_released": "dao",
}
OFFSET = 1e-4  # in the logarithm of a ratio of distances
NO_NUMBER = 1_000.0
BLOCK_ROWS = 512
Floats = NDArray[np.float64]


def batch_count(pairs: int, size: int) -> int:
    """How many batches of about ``size`` some pairs make; none is smaller than ``pairs`` // that."""
    return max(1, round(pairs / size))


def batches(uids: Sequence[str], *, size: int, seed: int) -> list[NDArray[np.int64]]:
    """Cut pairs into batches of about ``size``, shuffled by their names and the seed: their places."""
    order_N = np.argsort(mixed(split_uids(list(uids)), seed), kind="stable")
    return np.array_split(order_N, batch_count(len(order_N), size)) if len(order_N) else []


def score_batch(measures: Sequence[Measure], batch: Pairs, *, neighbours: int) -> dict[Measure, Scores]:
    """Score a batch by itself: (B,) float32 of each measure; of equally near ones the earlier come first.

    Args:
        measures: which.
        batch: more pairs than ``neighbours``.
        neighbours: k.

    Memory: the vectors in float64, and 48 KiB a pair.
    """
    rows_RD = np.concatenate([batch.image_MD, batch.text_MD]).astype(np.float64)
    # float16 values are multiples of 2⁻²⁴, and rows of unit length: float64 holds these sums exactly. So
    # copies are 0 apart, and any machine finds the same neighbours.
    square_R = (rows_RD**2).sum(axis=1)

    def squared(block: slice) -> Floats:
        square_MR: Floats = square_R[block, None] + square_R - 2 * rows_RD[block] @ rows_RD.T
        return square_MR

    distance_BK, place_BK = _nearest_others(squared, len(batch), neighbours)
    found: dict[Measure, Floats] = {"kdistance": distance_BK[:, -1], "lid": dimension(distance_BK)}
    if not found.keys() >= set(measures):
        around_RK = _nearest_of_all(squared, len(rows_RD), neighbours)
        found |= _against(around_RK, place_BK, distance_BK[:, -1:])
    return {measure: found[measure].astype(np.float32) for measure in measures}


def dimension(distance_MK: Floats) -> Floats:
    """Local dimension from K + 1 distances, ascending: (M,); NaN where the last is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_MK = distance_MK[:, :-1] / distance_MK[:, -1:]
        found_M: Floats = -ratio_MK.shape[1] / np.log(ratio_MK + OFFSET).sum(axis=1)
    return found_M


def _against(around_RK: Floats, place_BK: NDArray[np.int64], radius_B1: Floats) -> dict[Measure, Floats]:
    """Radii of pairs against those of their neighbours, as these are looked up."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_BK = radius_B1 / around_RK[place_BK, -1]
        found: dict[Measure, Floats] = {
            "slof": ratio_BK.mean(axis=1),
            "dao": (dimension(around_RK)[place_BK] * np.log(ratio_BK)).mean(axis=1),
        }
    return {
        measure: np.nan_to_num(score_B, nan=NO_NUMBER, posinf=NO_NUMBER, neginf=0.0)
        for measure, score_B in found.items()
    }


def _nearest_others(
    squared: Callable[[slice], Floats], pairs: int, k: int
) -> tuple[Floats, NDArray[np.int64]]:
    """Distances of pictures to all but themselves and their captions: the K + 1 least, ascending.

    And the places of the first K among those others, which the code takes for places among all.
    """
    distances, places = [], []
    for block in _blocks(pairs):
        square_MR = squared(block)
        row_M = np.arange(len(square_MR))
        other_MR = np.ones(square_MR.shape, np.bool_)
        other_MR[row_M, row_M + block.start] = other_MR[row_M, row_M + block.start + pairs] = False
        square_MQ = square_MR[other_MR].reshape(len(row_M), -1)
        place_MK = np.argsort(square_MQ, axis=1, kind="stable")[:, : k + 1]
        distances.append(_root(np.take_along_axis(square_MQ, place_MK, axis=1)))
        places.append(place_MK[:, :k].copy())  # a view would keep all places
    return np.concatenate(distances), np.concatenate(places)


def _nearest_of_all(squared: Callable[[slice], Floats], rows: int, k: int) -> Floats:
    """Distances of reference rows to all of them, to itself too: the K + 1 least, ascending."""
    least = [_root(np.partition(squared(block), k, axis=1)[:, : k + 1]) for block in _blocks(rows)]
    return np.sort(np.concatenate(least), axis=1)


def _blocks(rows: int) -> list[slice]:
    return [slice(start, min(start + BLOCK_ROWS, rows)) for start in range(0, rows, BLOCK_ROWS)]


def _root(square_MK: Floats) -> Floats:
    """Of vectors that are no float16, squares may be somewhat below 0."""
    distance_MK: Floats = np.sqrt(np.maximum(square_MK, 0))
    return distance_MK
