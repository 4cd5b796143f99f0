"""Scores → verdicts.

Collisions are judged by a threshold, the other detectors by a budget: the worst pairs of the whole store,
as many as the budget allows. Pairs that collisions flag anyway use none of it up, or an attacker
could spend it on decoys. The budget is a ceiling, not a quota: a pair that no detector gives more than
1/2 is never flagged, unless pairs with one of its words fail to match four times as often as others, its
picture carries their trace, or its kin fail to match. Nor is one without a score.

Where several detectors share the budget, pairs are ranked by the product of what each says: the share of
all pairs that it suspects at least as much, to the power of the detector's weight (after Fisher 1925, who
combines tests so). A pair that one suspects most of all needs no other, and one that two suspect a little
counts as well. Agreement weighs a third of a look of cross prediction, since it is blind to what covers whole
pictures: to weigh it as much costs more there than it gains with patches (benchmarks/LOG.md). Repetition
weighs as much as a look of cross prediction, since it says nothing of most pairs.

That product is divided by the root of the pair's lift, see word_lift.py, which is what its words say of it
beforehand, and by all of it where most other pairs with one of them are estimated not to belong together; by
the likelihood ratio of its trace, see traces.py: what it has in common with others; and by what its kin say,
see kin.py.

Pure: no files.

Dimension key: N pairs.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.records import Reason, Verdict
from roclip_sanitize.scan.agreement import NEUTRAL
from roclip_sanitize.scan.collisions import Collisions
from roclip_sanitize.scan.traces import JOINS

AGREEMENT_WEIGHT = 1 / 3  # of one look of cross prediction
LIFT_WEIGHT = 1 / 2  # 1 were Bayes' rule, were a word's share known, as where it is most (benchmarks/LOG.md)
TELLING_LIFT = 4.0  # from which on a word is a reason of its own
KIN_WEIGHT = 1.0  # of the excess (benchmarks/LOG.md)
TELLING_KIN = 1.0  # from which on kin are a reason of their own


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
    """The least suspicious pair that is still flagged; equal suspicions rank by uid.

    Attributes:
        suspicion: its score, see combined(); above 1 where none is flagged.
        uid: its name.
    """

    suspicion: float = 2.0
    uid: str = ""

    def flags(self, suspicion: float, uid: str) -> bool:
        """Whether a pair ranks at the cut or before it. NaN never does."""
        return suspicion > self.suspicion or (suspicion == self.suspicion and uid <= self.uid)

    def flagged(self, suspicion_N: NDArray[np.floating], uids: Sequence[str]) -> NDArray[np.bool_]:
        """flags() of many: (N,) bool."""
        return np.array(
            [self.flags(*each) for each in zip(suspicion_N.tolist(), uids, strict=True)], np.bool_
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Company:
    """What pairs are suspected of for what they share with others that do not match.

    Attributes:
        lift_N: float32, of each pair's words, more than 0, see word_lift.py; 1 is as everywhere.
        trace_N: float32, evidence of each picture's trace, see traces.py; 0 is none.
        kin_N: float32, how much oftener than chance its kin fail to match, see kin.py; 0 is none.
        mismatched: share of all pairs that do not belong together, see estimate.py: times its lift, that of
            the pairs with a word. 0 where nobody knows.
    """

    lift_N: NDArray[np.float32]
    trace_N: NDArray[np.float32]
    kin_N: NDArray[np.float32]
    mismatched: float = 0.0

    @property
    def odds_N(self) -> NDArray[np.float64]:
        """How much oftener than others such pairs are poisons, by all this: (N,) float64."""
        lift_N = self.lift_N.astype(np.float64)
        odds_N = lift_N ** np.where(lift_N * self.mismatched > 1 / 2, 1, LIFT_WEIGHT)
        return odds_N * np.exp(self.trace_N.astype(np.float64) + KIN_WEIGHT * self.kin_N.astype(np.float64))

    def tells(self) -> dict[Reason, NDArray[np.bool_]]:
        """Of which pairs it is reason enough to suspect them: (N,) bool."""
        return {
            Reason.TRACE_OF_MISMATCHED_PAIRS: self.trace_N >= JOINS,
            Reason.KIN_OF_MISMATCHED_PAIRS: self.kin_N >= TELLING_KIN,
            Reason.WORD_OF_MISMATCHED_PAIRS: self.lift_N >= TELLING_LIFT,
        }


def collided(collisions: Collisions, thresholds: Thresholds) -> dict[Reason, NDArray[np.bool_]]:
    """Which pairs each kind of collision flags: (N,) bool."""
    return {
        Reason.MANY_CAPTIONS_ONE_PICTURE: collisions.captions_of_picture_N >= thresholds.captions_per_picture,
        Reason.MANY_PICTURES_ONE_CAPTION: collisions.pictures_of_caption_N >= thresholds.pictures_per_caption,
    }


def collides(collisions: Collisions, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Which pairs any kind of collision flags: (N,) bool."""
    any_N: NDArray[np.bool_] = np.logical_or.reduce(list(collided(collisions, thresholds).values()))
    return any_N


def fused(
    weighed: Mapping[Reason, NDArray[np.float32]],
    rankings: Mapping[Reason, NDArray[np.float32]],
    *,
    looks: int = 1,
    company: Company | None = None,
) -> NDArray[np.float64]:
    """One score of each pair from those of all detectors that share the budget.

    Args:
        weighed: suspicions by reason, float32; NaN where there is none.
        rankings: all suspicions of the store, ascending, without NaN; of the reasons that count.
        looks: how often cross prediction looked.
        company: of each pair; that of an ordinary one if not told.

    Returns:
        (N,) float64 from 0 to 1: 1 less the product of shares, by the company's odds.
    """
    weights = {
        Reason.PICTURE_AND_CAPTION_DISAGREE: 1.0,
        Reason.NEIGHBOURS_DISAGREE: AGREEMENT_WEIGHT / looks,
        Reason.CAPTION_REPEATED: 1.0,
    }
    product_N = np.ones(max(map(len, weighed.values()), default=0))
    for reason, ranking in rankings.items():
        suspicion_N = weighed[reason]
        share_N = 1 - np.searchsorted(ranking, suspicion_N) / max(1, len(ranking))
        product_N = product_N * np.where(np.isnan(suspicion_N), 1.0, share_N) ** weights[reason]
    if company is not None:
        product_N = np.minimum(1.0, product_N / company.odds_N)
    score_N: NDArray[np.float64] = 1 - product_N
    return score_N


def combined(
    weighed: Mapping[Reason, NDArray[np.float32]],
    rankings: Mapping[Reason, NDArray[np.float32]],
    *,
    looks: int = 1,
    company: Company | None = None,
) -> NDArray[np.float64]:
    """fused(), of those pairs that a detector or their company suspects; NaN of the others."""
    score_N = fused(weighed, rankings, looks=looks, company=company)
    suspicious_N = np.zeros(len(score_N), np.bool_)
    for reason in rankings:
        suspicious_N |= weighed[reason] > NEUTRAL
    if company is not None and rankings:
        suspicious_N |= np.logical_or.reduce(list(company.tells().values()))
    return np.where(suspicious_N, score_N, np.nan)


def ordering(
    weighed: Mapping[Reason, NDArray[np.float32]],
    rankings: Mapping[Reason, NDArray[np.float32]],
    collided_N: NDArray[np.bool_],
    *,
    looks: int,
    company: Company,
) -> NDArray[np.float64]:
    """What orders all pairs: those that collide first, then by fused(), whose arguments are the others."""
    return np.where(collided_N, 1.0, fused(weighed, rankings, looks=looks, company=company))


def percentiles(suspicion_N: NDArray[np.float32], ranking: NDArray[np.float32]) -> NDArray[np.float32]:
    """Share of the store's suspicions that are lower, in per cent; NaN without one."""
    percentile_N = 100 * np.searchsorted(ranking, suspicion_N) / max(1, len(ranking))
    percentile_N[np.isnan(suspicion_N)] = np.nan
    return percentile_N.astype(np.float32)


def candidates(suspicion_N: NDArray[np.floating], collided_N: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which pairs may use up the budget: suspicious ones, see combined(), that no collision flags.

    Args:
        suspicion_N: of combined().
        collided_N: of collides().
    """
    may_N: NDArray[np.bool_] = ~np.isnan(suspicion_N) & ~collided_N
    return may_N


def count_carriers(trace_N: NDArray[np.float32], collided_N: NDArray[np.bool_]) -> int:
    """How many pairs carry a trace, and need the budget for it: no collision flags them anyway."""
    return int(((trace_N >= JOINS) & ~collided_N).sum())


def find_cut(
    suspicion_N: NDArray[np.floating],
    candidate_N: NDArray[np.bool_],
    *,
    allowed: int,
    uids_of: Callable[[NDArray[np.int64]], Sequence[str]],
) -> Cut:
    """The cut that flags the ``allowed`` worst candidates, or all if there are fewer.

    Equal pairs without a name of their own share one. Those that tie stand or fall together, so that the
    cut may flag fewer.

    Args:
        suspicion_N: scores of all pairs, see combined().
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
    above = int((score_C > value).sum())
    room = worst - above
    whole = bisect_left(tied, tied[room]) if room < len(tied) else room
    if not whole and not above:
        return Cut()
    return Cut(suspicion=float(value), uid=tied[whole - 1] if whole else "")


def judge(
    uids: Sequence[str],
    flagged_N: NDArray[np.bool_],
    weighed: Mapping[Reason, NDArray[np.float32]],
    collisions: Collisions,
    *,
    thresholds: Thresholds,
    company: Company | None = None,
) -> list[Verdict]:
    """Give every pair its verdict; counted reasons come before weighed ones, and these before its company's.

    Args:
        uids: the pairs' names.
        flagged_N: which of them the budget takes, see Cut.flagged().
        weighed: the suspicions behind that: those above 1/2 are reasons.
        collisions: counts.
        thresholds: of counts.
        company: of each pair; that of an ordinary one if not told.
    """
    flags = collided(collisions, thresholds)
    for reason, own_N in weighed.items():
        flags[reason] = flagged_N & (own_N > NEUTRAL)
    if company is not None:
        flags |= {reason: flagged_N & tells_N for reason, tells_N in company.tells().items()}
    return [
        Verdict(uid=uid, reasons=tuple(reason for reason, flag_N in flags.items() if flag_N[place]))
        for place, uid in enumerate(uids)
    ]
