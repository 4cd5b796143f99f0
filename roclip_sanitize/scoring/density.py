"""Detectors: how alone is a picture among others?

After Huang et al., Detecting Backdoor Samples in Contrastive Language Image Pretraining, ICLR 2025: poisons
with one trigger lie close together, and far from all else. Held against so few others that hardly any of its
kind are among them, a poison is alone; held against all, it is in the densest place of the pool. So k, and
the number R of reference pictures, decide what is found:

    share of the poisons  <  k / R  <  share of the rarest kind of picture

Where poisons are commoner they count as a kind of their own, and are the last to be suspected.

With r_m(i) the distance of picture i to its m-th nearest reference picture, itself left out, and N(i) the k
nearest:

    kdistance   r_k(i)
    slof        mean over j in N(i) of r_k(i) / r_k(j)
    lid         -1 / (mean over m ≤ k of ln(r_m(i) / r_k(i)))            (Amsaleg et al. 2015)
    dao         mean over j in N(i) of lid(j) · ln(r_k(i) / r_k(j))      its authors' code has this logarithm

Distances are Euclidean ones of unit vectors. r_k(j) and lid(j) are those among the reference pictures.

Dimension key: M pairs, R reference pairs, K neighbours, D width.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scoring.contract import Pairs, Scores, Vectors

Measure = Literal["kdistance", "slof", "lid", "dao"]
LEAST = 1e-3  # a distance: float16 vectors tell no smaller ones


class Density:
    """Scores pictures by their distances to reference pictures."""

    def __init__(self, measure: Measure, reference: Pairs, *, neighbours: int) -> None:
        self._measure, self._k = measure, neighbours
        self._reference_RD = reference.image_MD
        distance_RK, _ = self._nearest(reference.image_MD, np.arange(len(reference)))
        self._radius_R, self._lid_R = distance_RK[:, -1], local_dimension(distance_RK)

    def __call__(self, pairs: Pairs) -> Scores:
        distance_MK, neighbour_MK = self._nearest(pairs.image_MD, pairs.own_M)
        radius_M = distance_MK[:, -1]
        if self._measure == "kdistance":
            score_M = radius_M
        elif self._measure == "lid":
            score_M = local_dimension(distance_MK)
        else:
            ratio_MK = radius_M[:, None] / self._radius_R[neighbour_MK]
            if self._measure == "dao":
                score_M = (self._lid_R[neighbour_MK] * np.log(ratio_MK)).mean(axis=1)
            else:
                score_M = ratio_MK.mean(axis=1)
        return score_M.astype(np.float32)

    def _nearest(
        self, image_MD: Vectors, own_M: NDArray[np.int64]
    ) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
        """Distances to the K nearest reference pictures, ascending, and which these are."""
        cosine_MR = (image_MD @ self._reference_RD.T).astype(np.float64)
        own = np.flatnonzero(own_M >= 0)
        cosine_MR[own, own_M[own]] = -np.inf
        neighbour_MK = np.argpartition(-cosine_MR, self._k - 1, axis=1)[:, : self._k]
        near_MK = np.take_along_axis(cosine_MR, neighbour_MK, axis=1)
        order_MK = np.argsort(-near_MK, axis=1, kind="stable")
        near_MK = np.take_along_axis(near_MK, order_MK, axis=1)
        distance_MK = np.sqrt(np.maximum(2 - 2 * near_MK, LEAST**2))
        return distance_MK, np.take_along_axis(neighbour_MK, order_MK, axis=1)


def local_dimension(distance_MK: NDArray[np.float64]) -> NDArray[np.float64]:
    """The dimension in which neighbours seem to lie, from their distances, ascending: (M,).

    Where all are equally far it is as many as can be told of: 1 / LEAST.
    """
    mean_M = np.log(distance_MK / distance_MK[:, -1:]).mean(axis=1)
    dimension_M: NDArray[np.float64] = 1 / np.maximum(-mean_M, LEAST)
    return dimension_M
