"""How many pairs do not belong together: by hand, over parts, and on pairs of which that is known."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.scan.cross_files import strangers
from roclip_sanitize.scan.estimate import BELOW, FEWEST_BELOW, Strangers

WHOLE = Strangers(pairs=10_000, pairs_below=100, strangers=9_000, strangers_below=3_000)


def test_the_share_by_hand() -> None:
    assert WHOLE.share == pytest.approx(100 / 10_000 / (3_000 / 9_000))
    assert WHOLE.careful_share == pytest.approx(111 / 10_000 * 3)
    assert Strangers.from_json(WHOLE.to_json()) == WHOLE


def test_it_lowers_a_budget_and_never_raises_one() -> None:
    assert WHOLE.allowed(pairs=10_000, budget=0.06, times=3) == 600
    assert WHOLE.allowed(pairs=10_000, budget=0.06, times=1.5) == 499
    assert WHOLE.allowed(pairs=10_000, budget=0.01, times=3) == 100
    assert WHOLE.allowed(pairs=10_000, budget=0.06, times=0) == 600
    assert WHOLE.allowed(pairs=100, budget=0.29, times=0) == 29


def test_pairs_that_carry_a_trace_have_room_in_the_budget() -> None:
    """Poisons whose trigger was learnt have the ranks of honest pairs: the estimate says nothing of them."""
    none = Strangers(pairs=840, pairs_below=0, strangers=840, strangers_below=300)
    allowed = [none.allowed(pairs=840, budget=0.06, times=3, carriers=each) for each in (0, 28, 60)]
    assert allowed == [8, 28, 50], "the budget still holds"
    assert none.allowed(pairs=840, budget=0.06, times=0, carriers=28) == 50


def test_where_nothing_can_be_said_the_budget_stays() -> None:
    for few in (Strangers(), Strangers(pairs=50, strangers=50, strangers_below=FEWEST_BELOW - 1)):
        assert few.share is few.careful_share is None
        assert few.allowed(pairs=100, budget=0.06, times=3) == 6


def test_few_pairs_may_hide_some() -> None:
    """None of a hundred pairs is suspicious: a budget of nothing would follow from that, and does not."""
    none = Strangers(pairs=100, pairs_below=0, strangers=100, strangers_below=33)
    assert none.share == 0
    assert none.allowed(pairs=100, budget=0.06, times=3) == 6


def test_parts_add_up() -> None:
    rng = np.random.default_rng(0)
    rank_N2, stranger_N2 = rng.random((2, 50, 2))
    rank_N2[7] = stranger_N2[3, 0] = np.nan
    whole = Strangers.counted(rank_N2, stranger_N2)
    assert whole == Strangers.counted(rank_N2[:20], stranger_N2[:20]) + Strangers.counted(
        rank_N2[20:], stranger_N2[20:]
    )
    assert (whole.pairs, whole.strangers) == (49, 49)
    assert whole.pairs_below == sum(min(row) < BELOW for row in rank_N2.tolist() if row[0] == row[0])


@given(st.lists(st.integers(0, 2**64 - 1), max_size=40))
def test_strangers_lie_in_the_same_folds(codes: list[int]) -> None:
    picture_M = np.array(codes, np.uint64)
    other_M = strangers(picture_M)
    assert sorted(other_M) == list(range(len(codes)))
    for row, other in enumerate(other_M):
        assert codes[row] % 8 == codes[other] % 8
        assert other != row or sum(code % 8 == codes[row] % 8 for code in codes) == 1
