"""What bounds a stage, by numbers that a reader can check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.limits import Laps, Limits, Work

ORDER = ("read", "decode", "model", "write")
SHARD = Work.measured(  # 1,000 pairs in 10 s: two threads decoded for 8 s in sum, the model ran for 9
    pairs=1_000,
    wall=10.0,
    busy={"write": 0.5, "model": 9.0, "decode": 8.0, "read": 1.0},
    threads={"decode": 2},
)
works = st.builds(
    Work,
    pairs=st.integers(0, 10_000),
    wall=st.integers(0, 1_000).map(float),  # whole seconds: sums of them are exact in any order
    steps=st.dictionaries(st.sampled_from(ORDER), st.integers(0, 1_000).map(float)),
)


def test_threads_share_a_steps_seconds() -> None:
    assert SHARD.steps == {"write": 0.5, "model": 9.0, "decode": 4.0, "read": 1.0}


def test_the_slowest_step_bounds() -> None:
    limits = Limits.of(SHARD, order=ORDER)
    assert limits.rates == pytest.approx({"read": 1_000, "decode": 250, "model": 1_000 / 9, "write": 2_000})
    assert (limits.bound, limits.reached) == ("model", 100.0)
    assert limits.share == pytest.approx(0.9)


def test_the_table_is_aligned_and_in_the_order_of_the_work() -> None:
    assert Limits.of(SHARD, order=ORDER).lines() == [
        "pairs/s of a worker",
        "       1,000  read",
        "         250  decode",
        "         111  model, which bounds",
        "       2,000  write",
        "         100  reached: 90% of what model allows",
    ]


def test_the_limits_are_plain_values_for_scripts() -> None:
    told = json.loads(json.dumps(Limits.of(SHARD, order=ORDER).to_json()))
    assert told == {
        "pairs_per_second": {"read": 1000.0, "decode": 250.0, "model": 111.1, "write": 2000.0},
        "reached": 100.0,
        "bound": "model",
        "share": 0.9,
    }


def test_another_run_may_shift_what_bounds() -> None:
    """The second half had one decoding thread, and waited for it."""
    later = Work.measured(
        pairs=1_000, wall=20.0, busy={"decode": 20.0, "model": 9.0, "read": 1.0}, threads={"decode": 1}
    )
    limits = Limits.of(SHARD + later, order=ORDER)
    assert limits.rates["decode"] == pytest.approx(2_000 / 24)
    assert limits.bound == "decode"
    assert limits.reached == pytest.approx(2_000 / 30)
    assert limits.share == pytest.approx(0.8)


@pytest.mark.parametrize(
    "work",
    [
        pytest.param(Work(), id="nothing"),
        pytest.param(Work(pairs=0, wall=1.0, steps={"read": 1.0}), id="no pair"),
        pytest.param(Work(pairs=5, wall=1.0), id="no step"),
        pytest.param(Work(pairs=5, wall=1.0, steps={"read": 0.0}), id="no time"),
    ],
)
def test_where_nothing_was_measured_nothing_bounds(work: Work) -> None:
    limits = Limits.of(work, order=ORDER)
    assert (limits.bound, limits.share, limits.lines()) == ("", 0.0, [])


def test_clocks_that_disagree_do_not_reach_more_than_all() -> None:
    """Steps and the whole are timed by different clocks."""
    work = Work(pairs=10, wall=1.0, steps={"model": 1.01})
    assert Limits.of(work, order=ORDER).share == 1.0


@given(st.lists(works, max_size=5))
def test_works_add_up_in_any_order(parts: list[Work]) -> None:
    assert Work.total(parts) == Work.total(reversed(parts))


@given(works)
def test_work_survives_json(work: Work) -> None:
    assert Work.from_json(json.loads(json.dumps(work.to_json()))) == work


# Clocks


@pytest.fixture
def tick(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Lets time pass, which stands still otherwise."""
    now = [100.0]
    monkeypatch.setattr("roclip_sanitize.limits.time.perf_counter", lambda: now[0])

    def tick(seconds: float) -> None:
        now[0] += seconds

    return tick


def test_a_lap_is_the_time_since_the_one_before(tick: Callable[[float], None]) -> None:
    laps = Laps()
    for seconds, step in ((1.0, "read"), (2.0, "write"), (4.0, "read")):
        tick(seconds)
        assert laps.lap(step) == seconds
    assert laps.work(10) == Work(pairs=10, wall=7.0, steps={"read": 5.0, "write": 2.0})
    assert laps.work(10) == Work(pairs=10), "told once"


def test_waiting_for_a_task_is_nobodys(tick: Callable[[float], None]) -> None:
    laps = Laps()
    tick(5.0)
    laps.start()
    tick(1.0)
    laps.lap("read")
    assert laps.work(3).wall == 1.0


def test_what_comes_after_the_work_was_told_is_told_with_the_next(tick: Callable[[float], None]) -> None:
    laps, told = Laps(), []
    for _ in range(2):
        laps.start()
        tick(2.0)
        laps.lap("write")
        told.append(laps.work(1))
        tick(0.5)
        laps.lap("hash")
    assert [work.steps for work in told] == [{"write": 2.0}, {"write": 2.0, "hash": 0.5}]


def test_workers_that_are_all_taken_up_cost_their_time_each(tick: Callable[[float], None]) -> None:
    laps = Laps()
    tick(3.0)
    laps.lap("search")
    assert laps.work(6, workers=2) == Work(pairs=6, wall=6.0, steps={"search": 6.0})


def test_steps_that_come_one_after_the_other_reach_the_slowest_ones_share_of_the_time() -> None:
    one_by_one = Limits.of(Work(pairs=100, wall=10.0, steps={"read": 6.0, "write": 4.0}), order=ORDER)
    assert one_by_one.bound == "read"
    assert one_by_one.share == pytest.approx(0.6)


def test_markers_without_steps_are_left_out() -> None:
    """Such as those of a folder that an earlier version made."""
    facts: list[dict[str, Any]] = [{"seconds": SHARD.to_json()}, {"seconds": 3.25}, {"rows": 7}]
    assert Limits.noted(facts, order=ORDER) == Limits.of(SHARD, order=ORDER)
