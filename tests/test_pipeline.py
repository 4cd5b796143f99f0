"""Streams by threads: the same items in the same order, errors as they were raised, no thread left."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Generator, Iterator
from contextlib import closing

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from roclip_sanitize.errors import DataError
from roclip_sanitize.pipeline import ITEMS_PER_THREAD, Seconds, ahead, chunked, in_order, timed


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


class Source:
    """Counts to ``length``; remembers how far it got, in which thread, and whether it was closed."""

    def __init__(self, length: int | None = None, *, error: BaseException | None = None) -> None:
        self.given = 0
        self.closed = False
        self.threads: set[str] = set()
        self._length, self._error = length, error

    def stream(self) -> Generator[int, None, None]:
        try:
            for number in itertools.count() if self._length is None else range(self._length):
                self.threads.add(threading.current_thread().name)
                self.given += 1
                yield number
            if self._error:
                raise self._error
        finally:
            self.closed = True
            self.threads.add(threading.current_thread().name)


def slow_if_even(number: int) -> int:
    time.sleep(0.002 if number % 2 == 0 else 0)
    return -number


# In order


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_results_keep_the_order_of_the_items(threads: int) -> None:
    assert list(in_order(slow_if_even, range(30), threads=threads)) == [-number for number in range(30)]
    assert list(in_order(slow_if_even, [], threads=threads)) == []


@pytest.mark.parametrize("threads", [1, 3])
def test_only_a_bounded_number_of_items_is_under_way(threads: int) -> None:
    source = Source()
    with closing(in_order(slow_if_even, source.stream(), threads=threads)) as results:
        assert list(itertools.islice(results, 4)) == [0, -1, -2, -3]
        assert source.given <= 4 + threads * ITEMS_PER_THREAD


@pytest.mark.parametrize("threads", [1, 4])
def test_an_error_comes_in_its_place_as_it_was_raised(threads: int) -> None:
    wanted = DataError("seven")

    def fails_at_seven(number: int) -> int:
        if number == 7:
            raise wanted
        return number

    got: list[int] = []
    results = in_order(fails_at_seven, itertools.count(), threads=threads)
    with pytest.raises(DataError) as caught:
        got.extend(results)
    assert caught.value is wanted
    assert got == list(range(7))
    assert list(results) == []  # once, then never again


# Ahead


@settings(max_examples=30)
@given(length=st.integers(0, 12), depth=st.integers(1, 5))
def test_a_stream_made_ahead_is_the_same_stream(length: int, depth: int) -> None:
    source = Source(length)
    assert list(ahead(source.stream(), depth=depth)) == list(range(length))
    assert source.closed


def test_a_stream_runs_and_closes_in_one_thread_of_its_own() -> None:
    source = Source(5)
    list(ahead(source.stream(), depth=2, name="reader"))
    (name,) = source.threads
    assert name.startswith("reader")


@pytest.mark.parametrize("depth", [1, 3])
def test_no_more_is_made_than_was_asked_for(depth: int) -> None:
    source = Source()
    with closing(ahead(source.stream(), depth=depth)) as stream:
        assert [next(stream) for _ in range(3)] == [0, 1, 2]
        time.sleep(0.05)  # time enough to run away
        assert source.given == 3 + depth
    assert source.closed


def test_what_came_before_an_error_arrives_first() -> None:
    wanted = DataError("no more")
    got: list[int] = []
    stream = ahead(Source(3, error=wanted).stream(), depth=2)
    with pytest.raises(DataError) as caught:
        got.extend(stream)
    assert caught.value is wanted
    assert got == [0, 1, 2]
    assert list(stream) == []


def test_a_chain_ends_from_either_end() -> None:
    """As in embed: a stream of a stream, left in the middle, then broken at its start."""

    def doubled(stream: Generator[int, None, None]) -> Generator[int, None, None]:
        with closing(stream):
            for number in stream:
                yield 2 * number

    source = Source()
    with closing(ahead(doubled(ahead(source.stream(), depth=2)), depth=1)) as left:
        assert next(left) == 0
    assert source.closed
    broken = ahead(doubled(ahead(Source(2, error=DataError("first")).stream(), depth=2)), depth=1)
    with pytest.raises(DataError, match="first"):
        list(broken)


def test_a_consumer_that_fails_ends_the_threads() -> None:
    def consume(stream: Generator[int, None, None]) -> None:
        with closing(stream):
            for number in stream:
                1 // (3 - number)

    source = Source()
    with pytest.raises(ZeroDivisionError) as caught:
        consume(ahead(source.stream(), depth=2))
    assert source.closed  # at once, though the traceback still holds the generator
    assert caught.tb


# The rest


def test_time_is_added_to_what_was_there() -> None:
    def slow() -> Iterator[str]:
        for letter in "ab":
            time.sleep(0.01)
            yield letter

    seconds = Seconds(float, read=1.0)
    assert list(timed(slow(), seconds, "read")) == ["a", "b"]
    assert 1.02 <= seconds["read"] < 2


def test_a_stream_is_cut_into_tuples() -> None:
    assert list(chunked("abcde", 2)) == [("a", "b"), ("c", "d"), ("e",)]
    assert list(chunked([], 2)) == []
