"""Traces: by hand, a slow reference, and a trigger of which a few poisons tell."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from roclip_sanitize.scan.columns import WORD_NUMBERS
from roclip_sanitize.scan.suspects import Suspects
from roclip_sanitize.scan.traced import Compared, Evidence, Traced, grow, refine, single_out
from roclip_sanitize.scan.traces import (
    DEVIATIONS,
    JOINS,
    LEAST_CARRIERS,
    LEAST_OTHERS,
    LEAST_SUSPECTS,
    MOST_EVIDENCE,
    MOST_WORDS,
    NEAR,
    STANDS_OUT,
    Trace,
    choose_words,
    even,
    likeness,
    likeness_to_all,
    stand_out,
    sums_of,
    weight_of,
)
from roclip_sanitize.store import StorePart


def test_a_trigger_that_shows_unevenly_has_a_trace_at_the_same_length() -> None:
    """Where a picture is dark, or calm, the same stripes are ten times what they are in another."""
    rng = np.random.default_rng(0)
    row_MP = rng.standard_normal((400, 64))
    suspect_M = np.arange(400) < 30
    row_MP[suspect_M] += rng.choice([20.0, 200.0], size=(30, 1)) * np.eye(64)[:1]
    weight_M = suspect_M.astype(np.float64)
    uses_MT, weight_MT = csr_matrix(np.ones((400, 1))), csr_matrix(weight_M[:, None])
    found = []
    for each_MP in (row_MP, even(row_MP)):
        like_M = likeness(uses_MT, each_MP, weight_MT, sums_of(weight_MT, each_MP), np.array([30.0]))
        found.append(Trace.of(7, like_M, suspect_M))
    assert found[0] is None
    assert found[1] is not None
    assert (found[1].evidence(like_M)[suspect_M] >= JOINS).all()
    assert np.linalg.norm(even(row_MP), axis=1) == pytest.approx(8)
    assert not even(np.zeros((1, 4))).any(), "an even picture stays one"


class TestTrace:
    found_M = np.array([True] * 5 + [False] * 9)
    others = (0.0, 0.0, 1.0, 1.0, 2.0, 3.0, 3.0, 4.0, 4.0)  # median 2, median deviation 1

    def of(self, *found: float, others: Sequence[float] = others) -> Trace | None:
        found_M = np.arange(len(found) + len(others)) < len(found)
        return Trace.of(7, np.array([*found, *others]), found_M)

    def test_by_hand(self) -> None:
        trace = self.of(20, 20, 20.5, 20.5, 20.5)
        assert trace is not None
        assert (trace.word, trace.found, trace.others) == (7, 5, 9)
        assert (trace.origin, trace.spread) == (2, DEVIATIONS), "the others differ more"
        assert trace.gap == pytest.approx(18.5 / DEVIATIONS)

    def test_a_stamp_that_shows_unevenly_has_one_too(self) -> None:
        """Suspects differ by 4 at the median, others by 1: 26 apart, 4.4 large spreads, 7 mean ones."""
        like = np.array([20.0, 24, 28, 32, 36, *self.others])
        suspect_M = np.arange(len(like)) < 5
        assert Trace.of(7, like, suspect_M) is None
        trace = Trace.of(7, like, suspect_M, uneven=True)
        assert trace is not None
        assert trace.spread == pytest.approx(DEVIATIONS * (4 + 1) / 2)
        assert trace.gap == pytest.approx(26 / trace.spread)

    def test_evidence_is_a_likelihood_ratio(self) -> None:
        trace = Trace(word=7, found=5, others=9, origin=2.0, spread=0.5, gap=3.0)
        like_M = np.array([2.0, 2.75, 2.85, 3.5])  # the others' median, half way, a fifth more, all
        assert trace.evidence(like_M) == pytest.approx([0, 0, 3 * 0.2, 4.5]), "in the end gap squared, halved"
        assert replace(trace, gap=6.0).evidence(np.array([5.0])) == pytest.approx([MOST_EVIDENCE])

    def test_there_is_none_far_below_the_suspects(self) -> None:
        """Eight of ten spreads up are near enough, seven and a half are a tail of the others."""
        trace = Trace(word=7, found=5, others=9, origin=0.0, spread=1.0, gap=10.0)
        above_M = np.array([7.5, 10 - NEAR, 9.0])
        assert (trace.evidence(above_M) >= JOINS).tolist() == [False, True, True]
        assert trace.evidence(above_M)[0] == 0
        assert trace.evidence(above_M, uneven=True)[0] >= JOINS

    def test_there_is_none_without_a_gap(self) -> None:
        assert self.of(9, 9, 9, 9, 9) is None
        assert self.of(20, 20, 20, 20) is None, "four have something in common by chance"
        assert self.of(20, 20, 20, 20, 20, others=(0, 1, 2, 3, 4, 4, 4)) is None, "of too few others"
        assert self.of(0, 10, 20, 30, 40) is None, "they differ among themselves"
        assert self.of(5, 5, 5, 5, 5, others=[5] * 9) is None, "all alike: no spread"

    def test_others_that_were_not_found_do_not_hide_it(self) -> None:
        others = [*np.linspace(-1, 1, 10), *[20.0] * 4]
        trace = self.of(20, 20, 20.5, 20.5, 20.5, others=others)
        assert trace is not None
        assert (trace.evidence(np.array(others)) > JOINS).tolist() == [False] * 10 + [True] * 4


def test_weights_by_hand() -> None:
    rank_M = np.array([0.0, 0.25, 0.5, 0.9, np.nan], np.float32)
    assert weight_of(rank_M) == pytest.approx([1, 0.5, 0, 0, 0])


def test_who_stands_out_by_hand() -> None:
    bound, nobody = DEVIATIONS * STANDS_OUT, np.zeros(0)
    usual = [-1.0, 0, 0, 1, 1, -1] * 20  # median 0, deviations 1
    like_M = np.array([*[bound + 0.01] * 5, bound - 0.01, *usual])
    assert np.flatnonzero(stand_out(like_M, nobody)).tolist() == [*range(5)]
    assert np.flatnonzero(stand_out(like_M, like_M + 9)).tolist() == [*range(5)], (
        "enough: nobody else is asked"
    )
    assert not stand_out(np.array([1.0, 1, 1, 9]), nobody).any(), "there is no spread to measure by"


def test_half_of_a_word_stands_out_of_the_whole_store() -> None:
    like_M = np.array([*[0.0, 1, 2] * 4, *[20.0, 21, 22] * 4])
    assert not stand_out(like_M, np.zeros(0)).any()
    assert not stand_out(like_M, np.ones(5)).any(), "nor where these are all alike"
    assert np.flatnonzero(stand_out(like_M, np.arange(5.0))).tolist() == [*range(12, 24)]


class TestWords:
    def chosen(self, counts: int, *, weight: float = 1.0, pairs: int = 1_000, **used: int) -> list[int]:
        """Of twenty suspects the first so many use each word."""
        uses_FW = np.zeros((20, 10))
        for name, count in used.items():
            uses_FW[:count, int(name[1:])] = 1
        wide = csr_matrix(uses_FW)
        wide.resize((20, WORD_NUMBERS))
        count_W = np.full(WORD_NUMBERS, counts)
        return [*map(int, choose_words(wide, np.full(20, weight), count_W, pairs=pairs))]

    def test_by_hand(self) -> None:
        """One of fifty pairs is. Of those with word 3 one in ten is, with 4 as many as elsewhere."""
        used = {"w3": 10, "w4": 2, "w5": LEAST_SUSPECTS - 1, "w6": 6}
        assert self.chosen(100, **used) == [3, 6]
        assert self.chosen(10 + LEAST_OTHERS, **used) == [3, 6]
        assert self.chosen(10 + LEAST_OTHERS - 1, **used) == [6], "too few others"
        assert self.chosen(400, **used) == [], "it is used too often to tell"

    def test_only_how_weights_compare_counts(self) -> None:
        assert self.chosen(100, weight=0.01, w3=10) == [3]

    def test_the_most_telling_ones_where_there_are_many(self) -> None:
        uses_FW = csr_matrix(np.ones((30, MOST_WORDS + 9)))
        uses_FW.resize((30, WORD_NUMBERS))
        count_W = np.full(WORD_NUMBERS, 100)
        count_W[5] = 90
        chosen = choose_words(uses_FW, np.ones(30), count_W, pairs=1_000).tolist()
        assert len(chosen) == MOST_WORDS
        assert 5 in chosen

    def test_no_suspects(self) -> None:
        nobody = csr_matrix((0, WORD_NUMBERS))
        assert choose_words(nobody, np.zeros(0), np.full(WORD_NUMBERS, 9), pairs=0).tolist() == []


def compared(like: Sequence[float], suspects: Sequence[int], *, word: int = 7) -> Compared:
    """Pairs with these likenesses, in rows' order."""
    row_M = np.arange(len(like))
    return Compared(word, row_M, np.array(like, float), np.isin(row_M, suspects))


class TestRounds:
    """Eight with the trigger, of which five are suspected, and twelve without."""

    like = (*[20.0] * 4, *[21.0] * 4, *[0.0, 1, 2, 1] * 3)
    five, eight = range(5), range(8)

    def test_who_stands_out_is_suspected_next(self) -> None:
        like = (*[20.0] * 8, *[0.0, 1, 2, 1] * 6)
        members = single_out([compared(like, range(3)), compared([*range(30)], range(3), word=9)])
        assert {word: row_M.tolist() for word, row_M in members.items()} == {7: [*self.eight]}

    def test_seeds_are_carried_by_many_half_of_them_below_one_half(self) -> None:
        for suspected, many in ((range(4), True), (range(3), False)):
            traced, members = refine([compared(self.like, self.five)], np.array(suspected))
            assert members[7].tolist() == [*self.eight], "as suspects they are good enough"
            assert traced.found_F.tolist() == [*self.eight] * many

    def test_seven_are_too_few(self) -> None:
        less = self.like[1:]
        traced, members = refine([compared(less, self.five)], np.arange(9))
        assert len(members[7]) == LEAST_CARRIERS - 1
        assert not traced.traces
        nothing = grow([compared(less, self.five)], before=Traced.nothing())
        assert not nothing.traces

    def test_a_word_without_a_gap_is_asked_about_no_more(self) -> None:
        traced, members = refine([compared([*range(20)], self.five)], np.arange(9))
        assert (traced.traces, members) == ((), {})

    def test_growth_forgets_nothing(self) -> None:
        known = refine([compared(self.like, self.five, word=3)], np.arange(8))[0]
        grown = grow([compared([*range(20)], self.five, word=3)], before=known)
        assert (grown.found_F.tolist(), grown.traces) == ([*self.eight], known.traces)
        more = grow([compared(self.like[::-1], range(15, 20), word=9)], before=known)
        assert more.found_F.tolist() == [*self.eight, *range(12, 20)]
        assert [trace.word for trace in more.traces] == [3, 9]
        assert more.carriers() == {3: 8, 9: 8}

    def test_of_two_words_the_more_telling_is_told(self) -> None:
        row_M, evidence_M = np.array([4, 9]), np.array([MOST_EVIDENCE, 2.0])
        rare, common = (
            Trace(word=word, found=6, others=others, origin=0.0, spread=1.0, gap=6.0)
            for word, others in ((5, 20), (2, 90))
        )
        traced = Traced.of([Evidence(common, row_M, evidence_M), Evidence(rare, row_M, evidence_M / 2)])
        assert traced.word_R.tolist() == [2, 2], "whose evidence is larger"
        assert traced.carriers() == {2: 1}, "evidence of 2 carries nothing"
        traced = Traced.of([Evidence(common, row_M, evidence_M), Evidence(rare, row_M, evidence_M)])
        assert traced.word_R.tolist() == [5, 5]


def test_members_and_back(tmp_path: Path) -> None:
    members = Suspects.members({9: np.array([2, 5]), 4: np.array([5, 7, 8]), 6: np.array([], np.int64)})
    again = Suspects.load(members.write(tmp_path / "suspects.npz"))
    assert again.same(members)
    assert again.word_T.tolist() == [4, 6, 9]
    assert [again.of_word(place).tolist() for place in range(3)] == [[5, 7, 8], [], [2, 5]]
    assert again.weight_T.tolist() == [3, 0, 2]
    assert not again.same(Suspects.members({9: np.array([2, 5]), 4: np.array([5, 7, 9])}))
    part = StorePart(name="00000", start=4, rows=3)
    assert again.of_part(part).toarray().tolist() == [[0, 0, 0], [1, 0, 1], [0, 0, 0]]


PAIR = st.tuples(st.lists(st.integers(0, 2), max_size=3, unique=True), st.booleans())


@given(st.lists(PAIR, min_size=1, max_size=12), st.integers(0, 99))
def test_likeness_is_that_to_the_mean_of_the_others(pairs: list[tuple[list[int], bool]], seed: int) -> None:
    pairs = [([0, 1, 2], True), ([0, 1, 2], True), *pairs]  # so that each word has two
    rng = np.random.default_rng(seed)
    row_MP, weight_M = rng.normal(size=(len(pairs), 4)), rng.uniform(0.1, 1, len(pairs))
    weight_M[[not suspect for _, suspect in pairs]] = 0
    offsets = np.cumsum([0, *(len(words) for words, _ in pairs)])
    flat = [word for words, _ in pairs for word in sorted(words)]
    uses_MT = csr_matrix((np.ones(len(flat)), flat, offsets), shape=(len(pairs), 3))
    weight_MT = csr_matrix(uses_MT.multiply(weight_M[:, None]))
    weight_T = np.asarray(weight_MT.sum(axis=0))[0]
    wanted = []
    for row, (words, _) in enumerate(pairs):
        for word in sorted(words):
            others = [place for place, (its, _) in enumerate(pairs) if word in its and place != row]
            mean_P = np.average(row_MP[others], axis=0, weights=weight_M[others])
            wanted.append(row_MP[row] @ mean_P)
    sum_TP = sums_of(weight_MT, row_MP)
    found_U = likeness(uses_MT, row_MP, weight_MT, sum_TP, weight_T)
    assert found_U == pytest.approx(wanted)
    found_MT = likeness_to_all(row_MP, weight_MT, sum_TP, weight_T)
    assert found_MT[uses_MT.nonzero()] == pytest.approx(wanted), "as if all said all words"
