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
- A score that is no number counts as 1000.

The code takes vectors of any length; a store holds unit ones. Its own k is 32 unless told.

Dimension key: B pairs of a batch, Q = 2 B - 2 distances of each, R = 2 B reference rows, K neighbours,
D width.
"""

from __future__ import annotations

from collections.abc import Sequence
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


def batches(uids: Sequence[str], *, size: int, seed: int) -> list[NDArray[np.int64]]:
    """Cut pairs into batches of about ``size``, shuffled by their names and the seed: their places."""
    order_N = np.argsort(mixed(split_uids(list(uids)), seed), kind="stable")
    return np.array_split(order_N, max(1, round(len(order_N) / size)))


def score_batch(measures: Sequence[Measure], batch: Pairs, *, neighbours: int) -> dict[Measure, Scores]:
    """Score a batch by itself: (B,) float32 of each measure; NaN where there are too few pairs for one.

    Memory: 16 B² bytes, and half of that again.
    """
    size = len(batch)
    if 2 * (size - 1) <= neighbours:
        return {measure: np.full(size, np.nan, np.float32) for measure in measures}
    reference_RD = np.concatenate([batch.image_MD, batch.text_MD])
    distance_BQ = _others(_distances(batch.image_MD, reference_RD))
    near_BK = np.argpartition(distance_BQ, neighbours, axis=1)[:, : neighbours + 1]
    ascending_BK = np.argsort(np.take_along_axis(distance_BQ, near_BK, axis=1), axis=1, kind="stable")
    near_BK = np.take_along_axis(near_BK, ascending_BK, axis=1)
    distance_BK = np.take_along_axis(distance_BQ, near_BK, axis=1)
    near_BK = near_BK[:, :neighbours]  # columns of what was left, taken for rows of all
    all_RR = _distances(reference_RD, reference_RD)
    np.fill_diagonal(all_RR, 0.0)
    all_RK = np.sort(np.partition(all_RR, neighbours, axis=1)[:, : neighbours + 1], axis=1)
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio_BK = distance_BK[:, -1:] / all_RK[near_BK, -1]
        found = {
            "kdistance": distance_BK[:, -1],
            "slof": ratio_BK.mean(axis=1),
            "lid": dimension(distance_BK),
            "dao": (dimension(all_RK)[near_BK] * np.log(ratio_BK)).mean(axis=1),
        }
    return {
        measure: np.nan_to_num(found[measure], nan=NO_NUMBER, posinf=NO_NUMBER, neginf=0.0).astype(np.float32)
        for measure in measures
    }


def dimension(distance_MK: NDArray[np.floating]) -> NDArray[np.floating]:
    """Local dimension from K + 1 distances, ascending: (M,)."""
    ratio_MK = distance_MK[:, :-1] / distance_MK[:, -1:]
    found_M: NDArray[np.floating] = -ratio_MK.shape[1] / np.log(ratio_MK + OFFSET).sum(axis=1)
    return found_M


def _distances(one_MD: NDArray[np.float32], other_RD: NDArray[np.float32]) -> NDArray[np.float32]:
    """Of unit rows."""
    cosine_MR = one_MD @ other_RD.T
    distance_MR: NDArray[np.float32] = np.sqrt(np.maximum(2 - 2 * cosine_MR, 0))
    return distance_MR


def _others(distance_BR: NDArray[np.float32]) -> NDArray[np.float32]:
    """Distances without those to the pair's own picture and caption: what follows moves up, (B, Q)."""
    size = len(distance_BR)
    own_BR = np.hstack([np.eye(size, dtype=bool)] * 2)
    others_BQ: NDArray[np.float32] = distance_BR[~own_BR].reshape(size, 2 * size - 2)
    return others_BQ
