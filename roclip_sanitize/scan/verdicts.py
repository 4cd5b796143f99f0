"""Scores → verdicts.

Collisions are judged by a threshold, the other detectors by a budget: the worst pairs of the whole store,
as many as the budget allows. Pairs that collisions flag anyway use none of it up, or an attacker
could spend it on decoys. The budget is a ceiling, not a quota: a pair whose suspicion is 1/2 or less
is never flagged. Nor is one without a score. Detectors that share a budget have equal parts of it.

Pure: no files.

Dimension key: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.records import Reason, Verdict
from roclip_sanitize.scan.agreement import NEUTRAL
from roclip_sanitize.scan.collisions import Collisions


@dataclass(frozen=True, slots=True, kw_only=True)
class Thresholds:
    """From which count on a collision is one.

    Attributes:
        captions_per_picture: different captions of one picture.
        pictures_per_caption: near-identical pictures of one caption.
    """

    captions_per_picture: int
    pictures_per_caption: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Cut:
    """The least suspicious pair that a detector still flags; equal suspicions rank by uid.

    Attributes:
        suspicion: its score; above 1 where none is flagged.
        uid: its name.
    """

    suspicion: float = 2.0
    uid: str = ""

    def flags(self, suspicion: float, uid: str) -> bool:
        """Whether a pair ranks at the cut or before it. NaN never does."""
        return suspicion > self.suspicion or (suspicion == self.suspicion and uid <= self.uid)


def collided(collisions: Collisions, thresholds: Thresholds) -> dict[Reason, NDArray[np.bool_]]:
    """Which pairs each kind of collision flags: (N,) bool."""
    return {
        Reason.MANY_CAPTIONS_ONE_PICTURE: collisions.captions_of_picture_N >= thresholds.captions_per_picture,
        Reason.MANY_PICTURES_ONE_CAPTION: collisions.pictures_of_caption_N >= thresholds.pictures_per_caption,
    }


def candidates(
    suspicion_N: NDArray[np.float32], collisions: Collisions, thresholds: Thresholds
) -> NDArray[np.bool_]:
    """Which pairs may use up the budget: suspicious ones that no collision flags."""
    elsewhere_N = np.logical_or.reduce(list(collided(collisions, thresholds).values()))
    may_N: NDArray[np.bool_] = (suspicion_N > NEUTRAL) & ~elsewhere_N
    return may_N


def find_cut(
    suspicion_N: NDArray[np.float32],
    candidate_N: NDArray[np.bool_],
    *,
    allowed: int,
    uids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Cut:
    """The cut that flags the ``allowed`` worst candidates, or all if there are fewer.

    Args:
        suspicion_N: float32 scores of all pairs.
        candidate_N: bool, which of them compete; none with a NaN.
        allowed: how many may be flagged.
        uids_of: names of some rows; asked for those that tie at the cut only.
    """
    score_C = suspicion_N[candidate_N]
    worst = min(allowed, len(score_C))
    if not worst:
        return Cut()
    value = np.partition(score_C, len(score_C) - worst)[len(score_C) - worst]
    tied = sorted(uids_of(np.flatnonzero(candidate_N & (suspicion_N == value))))
    room = worst - int((score_C > value).sum())
    return Cut(suspicion=float(value), uid=tied[room - 1])


def judge(
    uids: Sequence[str],
    weighed: Mapping[Reason, NDArray[np.float32]],
    collisions: Collisions,
    *,
    cuts: Mapping[Reason, Cut],
    thresholds: Thresholds,
) -> list[Verdict]:
    """Give every pair its verdict; a counted reason comes before a weighed one.

    Args:
        uids: the pairs' names.
        weighed: the suspicions behind each reason that a budget limits, float32.
        collisions: counts.
        cuts: of the same reasons; where one has none, it flags nothing.
        thresholds: of counts.
    """
    flags = collided(collisions, thresholds)
    for reason, suspicion_N in weighed.items():
        cut = cuts.get(reason, Cut())
        flagged = [cut.flags(score, uid) for uid, score in zip(uids, suspicion_N.tolist(), strict=True)]
        flags[reason] = np.array(flagged, np.bool_)
    return [
        Verdict(uid=uid, reasons=tuple(reason for reason, flag_N in flags.items() if flag_N[place]))
        for place, uid in enumerate(uids)
    ]
