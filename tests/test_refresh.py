"""Pair tables made anew for each window: when they are asked for, and who makes them."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.encoder_facts import MODEL_FILE
from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.runfiles import StageFolder, write_bytes
from roclip_sanitize.training.refresh import FAILED, Tables, asked, clerk, is_made, window_folder
from roclip_sanitize.training.schedule import Ending, MatchingSchedule
from roclip_sanitize.training.settings import TrainSettings

# When


def test_a_table_is_asked_for_when_the_window_before_ends() -> None:
    schedule = MatchingSchedule(start=60, every=40, length=20, total=160, step=10)
    asks = {seen: schedule.asked(seen) for seen in range(0, 160, 10)}
    #       windows open at 60, 100 and 140; one that had opened at 20 would have ended at 40
    assert {seen: window for seen, window in asks.items() if window is not None} == {40: 0, 80: 1, 120: 2}
    assert [schedule.window(seen) for seen in (50, 60, 79, 99, 100, 140)] == [-1, 0, 0, 0, 1, 2]


@given(
    start=st.integers(1, 80),
    step=st.integers(1, 9),
    periods=st.integers(0, 40),
    length=st.integers(1, 49),
    ends=st.sampled_from(["", "matching", "ordinary"]),
    phases=st.integers(0, 39),
)
def test_every_window_is_asked_for_once_and_in_time(
    start: int, step: int, periods: int, length: int, ends: Ending, phases: int
) -> None:
    schedule = MatchingSchedule(
        start=start, every=length + step + periods, length=length, ends=ends, total=step * 40, step=step
    )
    asks, since = list[int](), phases * step
    for seen in range(since, schedule.total, step):
        if (window := schedule.asked(seen, since=since)) is not None:
            asks.append(window)
        if schedule.matches(seen):
            assert schedule.window(seen) in asks
    assert asks == list(range(asks[0], asks[0] + len(asks))) if asks else True


@pytest.mark.parametrize(
    ("told", "message"),
    [
        ({"match_from": 0.0}, "match-from is 0, but match-by 'index' needs a model"),
        ({"match_every": 60, "match_for": 10}, r"match-every is 60, wanted at least batch-size \(64\)"),
        ({"method": "clip"}, "match-by 'index' goes with method 'roclip'"),
        ({"pairing": "both"}, "match-by 'index' goes with method 'roclip', pairing 'first' or 'final'"),
        ({"match_by": "luck"}, "match-by is 'luck', wanted one of pool, index"),
    ],
)
def test_settings_that_cannot_be_matched_by_an_index(told: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        TrainSettings(**{"shards": (Path("a.tar"),), "match_by": "index", **told})


# Who


def make_table(out: Path, window: int) -> None:
    """A table of no pairs, made."""
    StageFolder.create(window_folder(out, window) / "pairs", stage="pair", settings={}).finish({})


def leave_weights(folder: Path) -> None:
    write_bytes(folder / MODEL_FILE, b"{}")


def test_a_rank_waits_for_what_the_clerk_makes(tmp_path: Path) -> None:
    made = list[int]()

    def make(window: int) -> None:
        made.append(window)
        make_table(tmp_path, window)

    tables = Tables(out=tmp_path, save=leave_weights)
    with clerk(make, tmp_path):
        tables.ask(0)
        assert tables.get(0) == window_folder(tmp_path, 0) / "pairs"
        tables.ask(0)  # after a resume
        tables.ask(1)
        tables.get(1)
    assert made == [0, 1]
    assert list(asked(tmp_path)) == []
    assert threading.active_count() == 1 or all(t.name != "pair tables" for t in threading.enumerate())


def test_what_could_not_be_made_ends_the_waiting_in_one_line(tmp_path: Path) -> None:
    def make(window: int) -> None:
        raise DataError("shard 7 is gone")

    tables = Tables(out=tmp_path, save=leave_weights)
    with clerk(make, tmp_path):
        tables.ask(3)
        with pytest.raises(DataError, match="no table for window 3: shard 7 is gone"):
            tables.get(3)


def test_what_nobody_foresaw_ends_the_waiting_and_is_raised_after_it(tmp_path: Path) -> None:
    def make(window: int) -> None:
        raise IndexError("7 is out of bounds")

    def wait(after: BaseException | None) -> None:
        tables = Tables(out=tmp_path, save=leave_weights)
        with clerk(make, tmp_path):
            tables.ask(3)
            with pytest.raises(DataError, match="no table for window 3: IndexError: 7 is out of bounds"):
                tables.get(3)
            if after:
                raise after

    for after in (None, DataError("a rank ended with it")):
        with pytest.raises(IndexError, match="7 is out of bounds"):
            wait(after)
    with pytest.raises(KeyboardInterrupt):
        wait(KeyboardInterrupt())  # what a person wants comes first


def test_a_new_run_tries_again(tmp_path: Path) -> None:
    leave_weights(window_folder(tmp_path, 3) / "weights")
    write_bytes(window_folder(tmp_path, 3) / FAILED, b"the disk was full")
    with clerk(lambda window: make_table(tmp_path, window), tmp_path):
        while not is_made(tmp_path, 3):
            pass
    assert not (window_folder(tmp_path, 3) / FAILED).exists()


def test_in_one_process_whoever_asks_makes_it(tmp_path: Path) -> None:
    tables = Tables(out=tmp_path, save=leave_weights, make=lambda window: make_table(tmp_path, window))
    tables.ask(0)
    assert not is_made(tmp_path, 0)
    assert tables.get(0) == window_folder(tmp_path, 0) / "pairs"
