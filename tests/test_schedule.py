"""The schedule, in pairs seen: each row can be checked by hand."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.training.schedule import MatchingSchedule, learning_rate


def drawn(schedule: MatchingSchedule, *, steps: int, batch: int) -> str:
    """One letter per step: M for matching, o for ordinary."""
    return "".join("M" if schedule.matches(step * batch) else "o" for step in range(steps))


@pytest.mark.parametrize(
    ("start", "every", "length", "wanted"),
    [
        pytest.param(0, 40, 20, "MMooMMooMMoo", id="from the start, half of the time"),
        pytest.param(50, 40, 20, "oooooMMooMMo", id="later, where the first period begins"),
        pytest.param(20, 30, 10, "ooMooMooMooM", id="one step of three"),
        pytest.param(30, 20, 20, "oooMMMMMMMMM", id="as long as its period: always from then on"),
        pytest.param(0, 10, 0, "oooooooooooo", id="length 0 never matches"),
        pytest.param(120, 40, 20, "oooooooooooo", id="starts after the end"),
        pytest.param(0, 40, 5, "MoooMoooMooo", id="shorter than a step: the step that begins in it"),
    ],
)
def test_windows_open_at_the_declared_pairs(start: int, every: int, length: int, wanted: str) -> None:
    schedule = MatchingSchedule(start=start, every=every, length=length)
    assert drawn(schedule, steps=12, batch=10) == wanted


def test_every_second_epoch_as_published() -> None:
    pairs, batch = 60, 10
    schedule = MatchingSchedule(start=pairs, every=2 * pairs, length=pairs)
    ordinary, matching = "o" * 6, "M" * 6
    assert drawn(schedule, steps=24, batch=batch) == ordinary + matching + ordinary + matching


@given(start=st.integers(0, 50), every=st.integers(1, 50), data=st.data())
def test_every_period_matches_for_its_length(start: int, every: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, every))
    schedule = MatchingSchedule(start=start, every=every, length=length)
    assert not any(schedule.matches(pair) for pair in range(start))
    for period in range(3):
        first = start + period * every
        assert [schedule.matches(first + pair) for pair in range(every)] == [
            pair < length for pair in range(every)
        ]


# The learning rate


def test_the_rate_rises_to_the_peak_and_falls_to_nothing() -> None:
    rates = [learning_rate(step, peak=8.0, warmup=4, total=12) for step in range(13)]
    assert rates[:5] == [2.0, 4.0, 6.0, 8.0, 8.0]
    assert rates[8] == pytest.approx(4.0)  # half of the cosine
    assert rates[12] == pytest.approx(0.0)
    assert rates[4:] == sorted(rates[4:], reverse=True)


def test_without_warm_up_the_first_step_has_the_peak() -> None:
    assert learning_rate(0, peak=1.0, warmup=0, total=10) == 1.0


def test_the_rate_stays_at_nothing_after_the_end() -> None:
    assert learning_rate(25, peak=1.0, warmup=0, total=10) == pytest.approx(0.0)


@given(warmup=st.integers(0, 20), total=st.integers(1, 20), step=st.integers(0, 40))
def test_the_rate_never_leaves_its_range(warmup: int, total: int, step: int) -> None:
    rate = learning_rate(step, peak=0.5, warmup=warmup, total=total)
    assert math.isfinite(rate)
    assert 0 <= rate <= 0.5
