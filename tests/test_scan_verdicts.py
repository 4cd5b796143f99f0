"""Verdicts: thresholds, the budget, and its ties."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.records import Reason
from roclip_sanitize.scan.collisions import Collisions
from roclip_sanitize.scan.traces import JOINS
from roclip_sanitize.scan.verdicts import (
    KIN_WEIGHT,
    LIFT_WEIGHT,
    TELLING_KIN,
    TELLING_LIFT,
    Company,
    Cut,
    Thresholds,
    candidates,
    collides,
    combined,
    find_cut,
    fused,
    judge,
)

THRESHOLDS = Thresholds(captions_per_picture=4, pictures_per_caption=8)
SCORES = st.one_of(st.sampled_from([0.2, 0.5, 0.6, 0.7, 0.9, float("nan")]))


def ordinary(
    *,
    lift: Sequence[float] = (1, 1, 1, 1),
    trace: Sequence[float] = (0, 0, 0, 0),
    kin: Sequence[float] = (0, 0, 0, 0),
) -> Company:
    """The company of four pairs, which says nothing but what is told."""
    lift_N, trace_N, kin_N = (np.array(values, np.float32) for values in (lift, trace, kin))
    return Company(lift_N=lift_N, trace_N=trace_N, kin_N=kin_N)


def flagged(
    scores: Sequence[float], *, allowed: int, captions: Sequence[int] = (), pictures: Sequence[int] = ()
) -> dict[str, tuple[Reason, ...]]:
    uids = [f"{place:032x}" for place in range(len(scores))]
    collisions = Collisions(
        captions_of_picture_N=np.array(captions or [1] * len(scores), np.int32),
        pictures_of_caption_N=np.array(pictures or [1] * len(scores), np.int32),
    )
    score_N = np.array(scores, np.float32)
    weighed = {Reason.NEIGHBOURS_DISAGREE: score_N}
    suspicion_N = combined(weighed, {Reason.NEIGHBOURS_DISAGREE: np.sort(score_N[~np.isnan(score_N)])})
    may_N = candidates(suspicion_N, collides(collisions, THRESHOLDS))
    cut = find_cut(suspicion_N, may_N, allowed=allowed, uids_of=lambda rows: [uids[row] for row in rows])
    flagged_N = cut.flagged(suspicion_N, uids)
    verdicts = judge(uids, flagged_N, weighed, collisions, thresholds=THRESHOLDS)
    return {verdict.uid[-1]: verdict.reasons for verdict in verdicts if not verdict.kept}


def test_the_worst_are_flagged() -> None:
    assert list(flagged([0.9, 0.6, 0.8, 0.1], allowed=2)) == ["0", "2"]


def test_ties_go_by_uid() -> None:
    assert list(flagged([0.6, 0.7, 0.7, 0.7], allowed=2)) == ["1", "2"]


@pytest.mark.parametrize(
    ("allowed", "taken"),
    [(1, [4]), (2, [0, 4]), (3, [0, 4]), (4, [0, 1, 2, 4]), (9, [0, 1, 2, 3, 4])],
)
def test_equal_pairs_of_one_name_are_taken_together_or_not_at_all(allowed: int, taken: list[int]) -> None:
    uids, suspicion_N = list("abbcd"), np.array([0.7, 0.7, 0.7, 0.7, 0.9])
    may_N = np.ones(5, np.bool_)
    cut = find_cut(suspicion_N, may_N, allowed=allowed, uids_of=lambda rows: [uids[row] for row in rows])
    assert np.flatnonzero(cut.flagged(suspicion_N, uids)).tolist() == taken


def test_no_equal_pair_is_taken_where_there_is_no_room_for_all() -> None:
    suspicion_N, may_N = np.full(3, 0.7), np.ones(3, np.bool_)
    cut = find_cut(suspicion_N, may_N, allowed=2, uids_of=lambda rows: ["a"] * len(rows))
    assert cut == Cut()


def test_neutral_pairs_are_kept_whatever_the_budget() -> None:
    assert list(flagged([0.5, 0.51, 0.2], allowed=3)) == ["1"]


def test_pairs_without_a_score_are_kept() -> None:
    assert list(flagged([float("nan"), 0.9], allowed=2)) == ["1"]


def test_no_budget_flags_nothing() -> None:
    assert flagged([0.9, 0.8], allowed=0) == {}


def test_collisions_flag_from_their_limit_on() -> None:
    found = flagged([0.1, 0.1, 0.1, 0.1], allowed=0, captions=[3, 4, 1, 1], pictures=[1, 1, 7, 8])
    assert found == {"1": (Reason.MANY_CAPTIONS_ONE_PICTURE,), "3": (Reason.MANY_PICTURES_ONE_CAPTION,)}


def test_collisions_use_up_no_budget_and_come_first() -> None:
    found = flagged([0.9, 0.8, 0.7], allowed=1, captions=[30, 1, 1])
    assert found == {
        "0": (Reason.MANY_CAPTIONS_ONE_PICTURE, Reason.NEIGHBOURS_DISAGREE),
        "1": (Reason.NEIGHBOURS_DISAGREE,),
    }


class TestTwoDetectors:
    """Four pairs: cross prediction suspects the first most and then the second, agreement the third."""

    cross_N = np.array([0.9, 0.8, 0.1, 0.2], np.float32)
    near_N = np.array([0.1, 0.7, 0.9, np.nan], np.float32)
    weighed: ClassVar = {Reason.PICTURE_AND_CAPTION_DISAGREE: cross_N, Reason.NEIGHBOURS_DISAGREE: near_N}
    rankings: ClassVar = {
        Reason.PICTURE_AND_CAPTION_DISAGREE: np.array([0.1, 0.2, 0.8, 0.9], np.float32),
        Reason.NEIGHBOURS_DISAGREE: np.array([0.1, 0.7, 0.9], np.float32),
    }

    def test_shares_are_multiplied(self) -> None:
        # Shares that are at least as suspicious: 1/4, 2/4, 4/4, 3/4 and 3/3, 2/3, 1/3, none said.
        wanted = [1 - 1 / 4, 1 - 1 / 2 * (2 / 3) ** (1 / 3), 1 - (1 / 3) ** (1 / 3), np.nan]
        np.testing.assert_allclose(combined(self.weighed, self.rankings), wanted)

    def test_two_looks_count_twice_as_much_as_one(self) -> None:
        twice_N = combined(self.weighed, self.rankings, looks=2)
        assert twice_N[1] == pytest.approx(1 - 1 / 2 * (2 / 3) ** (1 / 6))
        assert twice_N[0] == combined(self.weighed, self.rankings)[0]

    def test_a_lift_divides_by_its_root(self) -> None:
        company = ordinary(lift=(1, 4, 1 / 9, 1))
        plain_N, lifted_N = (fused(self.weighed, self.rankings, company=each) for each in (None, company))
        assert lifted_N[0] == plain_N[0]
        assert 1 - lifted_N[1] == pytest.approx((1 - plain_N[1]) / 2)
        assert lifted_N[2] == 0, "less than nothing is nothing"

    def test_a_word_may_be_a_reason(self) -> None:
        """The last pair is suspicious to no detector, but most pairs with one of its words do not match."""
        company = ordinary(lift=(1, 1, TELLING_LIFT, TELLING_LIFT))
        suspicion_N = combined(self.weighed, self.rankings, company=company)
        assert np.isnan(combined(self.weighed, self.rankings)).tolist() == [False, False, False, True]
        assert not np.isnan(suspicion_N).any()
        uids = [f"{place:032x}" for place in range(4)]
        verdicts = judge(
            uids,
            Cut(suspicion=0.0).flagged(suspicion_N, uids),
            self.weighed,
            Collisions.none(4),
            thresholds=THRESHOLDS,
            company=company,
        )
        assert verdicts[2].reasons == (Reason.NEIGHBOURS_DISAGREE, Reason.WORD_OF_MISMATCHED_PAIRS)
        assert verdicts[3].reasons == (Reason.WORD_OF_MISMATCHED_PAIRS,)
        assert np.isnan(combined(self.weighed, {}, company=company)).all(), "without detectors no word counts"

    def test_a_word_of_which_most_pairs_do_not_belong_together_counts_in_full(self) -> None:
        lift = (1, TELLING_LIFT, 4 * TELLING_LIFT, TELLING_LIFT)
        plain_N = combined(self.weighed, self.rankings, company=ordinary(lift=(1, 1, 1, TELLING_LIFT)))
        rare, common = 0.1 / TELLING_LIFT, 0.2 / TELLING_LIFT  # shares of .1 and .4, of .2 and .8
        for mismatched, power in ((rare, LIFT_WEIGHT), (common, 1)):
            company = replace(ordinary(lift=lift), mismatched=mismatched)
            lifted_N = combined(self.weighed, self.rankings, company=company)
            assert 1 - lifted_N[1] == pytest.approx((1 - plain_N[1]) * TELLING_LIFT**-LIFT_WEIGHT, rel=1e-6)
            assert 1 - lifted_N[2] == pytest.approx((1 - plain_N[2]) * lift[2] ** -power, rel=1e-6)

    def test_kin_divide_by_what_they_say_and_are_a_reason(self) -> None:
        company = ordinary(kin=(0, 0.5, 0, TELLING_KIN))
        plain_N = combined(self.weighed, self.rankings, company=ordinary(lift=(1, 1, 1, TELLING_LIFT)))
        kin_N = combined(self.weighed, self.rankings, company=company)
        assert kin_N[0] == plain_N[0]
        assert 1 - kin_N[1] == pytest.approx((1 - plain_N[1]) * math.exp(-KIN_WEIGHT / 2), rel=1e-6)
        assert company.tells()[Reason.KIN_OF_MISMATCHED_PAIRS].tolist() == [False, False, False, True]
        assert not np.isnan(kin_N[3])

    def test_a_trace_divides_by_its_likelihood_ratio_and_is_a_reason(self) -> None:
        company = ordinary(trace=(0, math.log(4), 0, JOINS))
        plain_N = fused(self.weighed, self.rankings)
        traced_N = combined(self.weighed, self.rankings, company=company)
        assert traced_N[0] == plain_N[0]
        assert 1 - traced_N[1] == pytest.approx((1 - plain_N[1]) / 4, rel=1e-6)
        assert 1 - traced_N[3] == pytest.approx((1 - plain_N[3]) * math.exp(-JOINS), rel=1e-6)
        uids = [f"{place:032x}" for place in range(4)]
        flagged_N = np.ones(4, np.bool_)
        verdicts = judge(
            uids, flagged_N, self.weighed, Collisions.none(4), thresholds=THRESHOLDS, company=company
        )
        assert verdicts[3].reasons == (Reason.TRACE_OF_MISMATCHED_PAIRS,)
        assert Reason.TRACE_OF_MISMATCHED_PAIRS not in verdicts[1].reasons, "it has too little of it"

    def test_reasons_are_those_of_suspicious_detectors(self) -> None:
        uids, suspicion_N = [f"{place:032x}" for place in range(4)], combined(self.weighed, self.rankings)
        flagged_N = Cut(suspicion=0.5).flagged(suspicion_N, uids)
        verdicts = judge(uids, flagged_N, self.weighed, Collisions.none(4), thresholds=THRESHOLDS)
        both = (Reason.PICTURE_AND_CAPTION_DISAGREE, Reason.NEIGHBOURS_DISAGREE)
        assert [verdict.reasons for verdict in verdicts] == [both[:1], both, (), ()]

    def test_a_detector_that_does_not_count_is_not_asked(self) -> None:
        rankings = {Reason.NEIGHBOURS_DISAGREE: self.rankings[Reason.NEIGHBOURS_DISAGREE]}
        assert np.isnan(combined(self.weighed, rankings)).tolist() == [True, False, False, True]


def test_without_detectors_that_share_a_budget_nobody_is_suspicious() -> None:
    score_N = np.array([0.9, np.nan], np.float32)
    assert np.isnan(combined({Reason.NEIGHBOURS_DISAGREE: score_N}, {})).tolist() == [True, True]


def test_the_empty_cut_flags_nothing() -> None:
    assert not Cut().flags(1.0, "f" * 32)


@given(st.lists(SCORES, max_size=12), st.integers(0, 14))
def test_exactly_as_many_as_allowed_and_available(scores: list[float], allowed: int) -> None:
    suspicious = sum(score > 0.5 for score in scores)
    found = flagged(scores, allowed=allowed)
    assert len(found) == min(allowed, suspicious)
    kept = [score for place, score in enumerate(scores) if f"{place:x}" not in found and score > 0.5]
    chosen = [score for place, score in enumerate(scores) if f"{place:x}" in found]
    assert not kept or not chosen or max(kept) <= min(chosen)
