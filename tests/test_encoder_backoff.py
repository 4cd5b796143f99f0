"""A batch that does not fit is encoded in halves, to the same rows; no GPU is needed to see it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from roclip_sanitize.backoff import MicroBatches, ran_out_of_memory

MESSAGES = (
    "CUDA out of memory. Tried to allocate 2.00 GiB",
    "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: not enough memory: you tried to allocate",
    "[enforce fail at alloc_cpu.cpp:114] data. DefaultCPUAllocator: can't allocate memory: you tried",
)


class SmallMachine:
    """Doubles rows, of which only some fit at once. Remembers what it was given."""

    def __init__(self, fits: int, *, message: str = MESSAGES[0]) -> None:
        self.given: list[int] = []
        self._fits, self._message = fits, message

    def __call__(self, rows_ND: NDArray[np.float32]) -> NDArray[np.float32]:
        self.given.append(len(rows_ND))
        if len(rows_ND) > self._fits:
            raise RuntimeError(self._message)
        return rows_ND * 2


def rows(count: int) -> NDArray[np.float32]:
    return np.arange(count * 3, dtype=np.float32).reshape(count, 3)


def test_a_batch_that_fits_goes_whole() -> None:
    machine = SmallMachine(8)
    assert np.array_equal(MicroBatches().encode(machine, rows(8)), rows(8) * 2)
    assert machine.given == [8]


@pytest.mark.parametrize("message", MESSAGES)
def test_one_that_does_not_goes_in_halves_and_so_do_those_after_it(message: str) -> None:
    machine, released = SmallMachine(3, message=message), list[int]()
    batches = MicroBatches(release=lambda: released.append(len(machine.given)))
    assert np.array_equal(batches.encode(machine, rows(8)), rows(8) * 2)
    assert machine.given == [8, 4, 2, 2, 2, 2]
    assert released == [1, 2]
    assert batches.at_once == 2
    batches.encode(machine, rows(5))
    assert machine.given[6:] == [2, 2, 1]


def test_captions_go_in_halves_too() -> None:
    def lengths(captions: list[str]) -> NDArray[np.float32]:
        if len(captions) > 1:
            raise MemoryError
        return np.array([[len(caption)] for caption in captions], np.float32)

    assert MicroBatches().encode(lengths, ["a", "bb", "ccc"]).tolist() == [[1], [2], [3]]


def test_a_row_that_does_not_fit_alone_is_an_error() -> None:
    machine = SmallMachine(0)
    with pytest.raises(RuntimeError, match="out of memory"):
        MicroBatches().encode(machine, rows(4))
    assert machine.given == [4, 2, 1]


def test_other_errors_are_not_tried_again() -> None:
    machine = SmallMachine(1, message="shapes do not match")
    with pytest.raises(RuntimeError, match="shapes"):
        MicroBatches().encode(machine, rows(4))
    assert machine.given == [4]
    assert not ran_out_of_memory(ValueError("no such file"))


@given(count=st.integers(1, 40), fits=st.integers(1, 40))
def test_the_rows_do_not_depend_on_what_fits(count: int, fits: int) -> None:
    machine = SmallMachine(fits)
    assert np.array_equal(MicroBatches().encode(machine, rows(count)), rows(count) * 2)
    assert min(machine.given) >= 1
