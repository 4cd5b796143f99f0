"""The schedule, in pairs seen: each row can be checked by hand."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.training.schedule import Ending, MatchingSchedule, learning_rate


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


# How it ends


@pytest.mark.parametrize(
    ("start", "every", "length", "wanted"),
    [
        pytest.param(
            0,
            40,
            20,
            {"": "MMooMMooMMo", "matching": "oMMooMMooMM", "ordinary": "MooMMooMMoo"},
            id="in whole periods back from the end",
        ),
        pytest.param(
            60,
            40,
            20,
            {"": "ooooooMMooM", "matching": "ooooooMooMM", "ordinary": "oooooooMMoo"},
            id="the first is cut where matching may not have started",
        ),
        pytest.param(
            0,
            40,
            5,
            {"": "MoooMoooMoo", "matching": "ooMoooMoooM", "ordinary": "oooMoooMooo"},
            id="shorter than a step: a whole one all the same",
        ),
        pytest.param(
            100, 40, 20, {"matching": "ooooooooooM", "ordinary": "ooooooooooo"}, id="as much as is left"
        ),
        pytest.param(0, 30, 30, {"matching": "M" * 11}, id="as long as its period"),
        pytest.param(0, 30, 0, {"matching": "o" * 11, "ordinary": "o" * 11}, id="no windows"),
    ],
)
def test_windows_can_be_counted_back_from_the_end(
    start: int, every: int, length: int, wanted: dict[Ending, str]
) -> None:
    for ends, letters in wanted.items():
        schedule = MatchingSchedule(start=start, every=every, length=length, ends=ends, total=110, step=10)
        assert drawn(schedule, steps=11, batch=10) == letters, ends


schedules = st.builds(
    MatchingSchedule,
    start=st.integers(0, 100),
    every=st.integers(1, 50),
    length=st.integers(0, 50),
    ends=st.sampled_from(["", "matching", "ordinary"]),
    total=st.integers(1, 30),  # steps, until their size is known
    step=st.integers(1, 12),
).map(lambda drawn: replace(drawn, length=min(drawn.length, drawn.every), total=drawn.total * drawn.step))


def steps_of(schedule: MatchingSchedule) -> list[bool]:
    return [schedule.matches(pairs) for pairs in range(0, schedule.total, schedule.step)]


@given(schedule=schedules)
def test_a_training_ends_as_it_was_told_to(schedule: MatchingSchedule) -> None:
    allowed = [pairs >= schedule.start for pairs in range(0, schedule.total, schedule.step)]
    matching = math.ceil(schedule.length / schedule.step)
    ordinary = math.ceil(schedule.every / schedule.step) - matching
    if schedule.ends == "matching" and matching:
        assert steps_of(schedule)[-matching:] == allowed[-matching:]
    if schedule.ends == "ordinary" and ordinary:
        assert not any(steps_of(schedule)[-ordinary:])


@given(schedule=schedules)
def test_nothing_matches_before_the_start(schedule: MatchingSchedule) -> None:
    assert not any(schedule.matches(pairs) for pairs in range(min(schedule.start, schedule.total)))


@given(start=st.integers(0, 9), every=st.integers(1, 9), data=st.data())
def test_in_whole_steps_every_ending_matches_as_often(start: int, every: int, data: st.DataObject) -> None:
    length = data.draw(st.integers(0, every))
    endings: tuple[Ending, ...] = ("", "matching", "ordinary")
    for ends in endings:
        schedule = MatchingSchedule(
            start=start * 8, every=every * 8, length=length * 8, ends=ends, total=800, step=8
        )
        for first in range(start, 100 - every):
            assert sum(steps_of(schedule)[first : first + every]) == length, "in any period"


@given(schedule=schedules)
def test_the_last_window_is_where_the_last_steps_match(schedule: MatchingSchedule) -> None:
    letters = "".join("M" if matches else "o" for matches in steps_of(schedule))
    found = re.search("(M+)o*$", letters)
    wanted = tuple(place * schedule.step for place in found.span(1)) if found else None
    assert schedule.last_window() == wanted


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
