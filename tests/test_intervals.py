"""Wilson's interval, against scipy's."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import binomtest

from roclip_sanitize.evaluation.intervals import wilson


@given(trials=st.integers(1, 3_000), data=st.data())
def test_the_interval_is_that_of_scipy(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    wanted = binomtest(hits, trials).proportion_ci(confidence_level=0.95, method="wilson")
    assert wilson(hits, trials) == pytest.approx((wanted.low, wanted.high), abs=1e-12)


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"),
    [
        pytest.param(0, 16, 0.0, 0.1936, id="none of 16 may still be a fifth"),
        pytest.param(16, 16, 0.8064, 1.0, id="all of 16 may still be four fifths"),
        pytest.param(8, 16, 0.28, 0.72, id="half of 16"),
    ],
)
def test_sixteen_targets(hits: int, trials: int, low: float, high: float) -> None:
    assert wilson(hits, trials) == pytest.approx((low, high), abs=5e-5)


def test_no_trial_says_nothing() -> None:
    assert wilson(0, 0) == (0.0, 1.0)


@given(trials=st.integers(1, 1_000), data=st.data())
def test_the_share_lies_within_its_interval(trials: int, data: st.DataObject) -> None:
    hits = data.draw(st.integers(0, trials))
    low, high = wilson(hits, trials)
    assert 0 <= low <= hits / trials <= high <= 1
