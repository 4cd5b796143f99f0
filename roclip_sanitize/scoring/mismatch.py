"""Detectors: how little have a picture and its caption in common, to a CLIP?

    clip_score     1 - cosine of the two, as DataComp and others filter by
    rematch_rank   the share of reference captions that are nearer to the picture than its own is, or of
                   reference pictures nearer to the caption, whichever is larger: how readily RoCLIP
                   (Yang, Gao & Mirzasoleiman 2023), which matches with what is nearest, would part them
    risk           how likely the cosine is to come from the lower of two Gaussians fitted to those of all
                   reference pairs, 0 to 1: what SafeCLIP (Yang, Gao & Mirzasoleiman 2024) parts pairs by

A CLIP that has learnt the poisons finds that their halves go together well: these tell most while it is
young, or if it never saw them.

Dimension key: M pairs, R reference pairs, D width.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.scoring.contract import Pairs, Scores

LEAST_SPREAD = 1e-6  # of cosines that can be told apart


class ClipScore:
    """1 - cosine."""

    def __init__(self, reference: Pairs, *, neighbours: int) -> None:
        del reference, neighbours  # each pair is judged by itself

    def __call__(self, pairs: Pairs) -> Scores:
        score_M: Scores = (1 - _cosines(pairs)).astype(np.float32)
        return score_M


class Risk:
    """SafeCLIP's posterior, of the lower Gaussian.

    Not always the higher the lower the cosine is: far out, the wider of the two is the likelier. Where all
    reference pairs have one cosine nothing is told apart, and none is a risk.
    """

    def __init__(self, reference: Pairs, *, neighbours: int) -> None:
        from sklearn.mixture import GaussianMixture

        del neighbours
        cosine_R = _cosines(reference)
        self._mixture = None
        if np.ptp(cosine_R) >= LEAST_SPREAD:
            self._mixture = GaussianMixture(n_components=2, random_state=0).fit(cosine_R[:, None])
            self._lower = int(self._mixture.means_[:, 0].argmin())

    def __call__(self, pairs: Pairs) -> Scores:
        if self._mixture is None:
            return np.zeros(len(pairs), np.float32)
        score_M: Scores = self._mixture.predict_proba(_cosines(pairs)[:, None])[:, self._lower]
        return score_M.astype(np.float32)


class RematchRank:
    """The share of strangers that fit better."""

    def __init__(self, reference: Pairs, *, neighbours: int) -> None:
        del neighbours
        self._reference = reference

    def __call__(self, pairs: Pairs) -> Scores:
        own_M = _cosines(pairs).astype(np.float32)
        others = (
            (pairs.image_MD, self._reference.text_MD),
            (pairs.text_MD, self._reference.image_MD),
        )
        better_2M = []
        for mine_MD, theirs_RD in others:
            nearer_MR = mine_MD @ theirs_RD.T > own_M[:, None]
            is_own = np.flatnonzero(pairs.own_M >= 0)
            nearer_MR[is_own, pairs.own_M[is_own]] = False  # rounding may set it above itself
            better_2M.append(nearer_MR.mean(axis=1))
        score_M: Scores = np.max(better_2M, axis=0).astype(np.float32)
        return score_M


def _cosines(pairs: Pairs) -> NDArray[np.float64]:
    cosine_M: NDArray[np.float64] = np.einsum("md,md->m", pairs.image_MD, pairs.text_MD, dtype=np.float64)
    return cosine_M
