"""The pool: a ring that keeps the newest pairs, and a search that finds only what was put in."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roclip_sanitize.training.pool import PairPool, default_capacity, nearest


def numbered(*numbers: int) -> torch.Tensor:
    """Vectors of width 2 that show their number."""
    return torch.tensor([[number, -number] for number in numbers], dtype=torch.float32)


def put(pool: PairPool, *numbers: int) -> None:
    """Images show the number, captions a hundred more."""
    pool.put(numbered(*numbers), numbered(*(number + 100 for number in numbers)))


def images_of(pool: PairPool) -> list[int]:
    return [int(value) for value in pool.image_PD[:, 0]]


def captions_of(pool: PairPool) -> list[int]:
    return [int(value) for value in pool.caption_PD[:, 0]]


@pytest.mark.parametrize(
    ("pairs", "batch_size", "capacity"),
    [
        (1_000_000, 512, 20_000),  # the paper's
        (12_480, 64, 2_048),  # 32 batches
        (4_000, 64, 1_000),  # a quarter
        (100, 64, 64),  # a batch
    ],
)
def test_a_pool_is_large_enough_to_choose_from_and_far_less_than_an_epoch(
    pairs: int, batch_size: int, capacity: int
) -> None:
    assert default_capacity(pairs, batch_size=batch_size) == capacity


def test_a_new_pool_is_empty() -> None:
    pool = PairPool(5, 2)
    assert (pool.capacity, pool.filled) == (5, 0)
    assert pool.image_PD.shape == pool.caption_PD.shape == (0, 2)


def test_pairs_lie_in_the_order_in_which_they_came() -> None:
    pool = PairPool(5, 2)
    put(pool, 1, 2)
    put(pool, 3)
    assert (pool.filled, images_of(pool), captions_of(pool)) == (3, [1, 2, 3], [101, 102, 103])


def test_a_batch_that_reaches_the_end_goes_on_at_the_start() -> None:
    pool = PairPool(5, 2)
    put(pool, 1, 2, 3)
    put(pool, 4, 5, 6)
    assert (pool.filled, images_of(pool)) == (5, [6, 2, 3, 4, 5])
    put(pool, 7, 8)
    assert (images_of(pool), captions_of(pool)) == ([6, 7, 8, 4, 5], [106, 107, 108, 104, 105])


def test_a_batch_larger_than_the_pool_leaves_its_end() -> None:
    pool = PairPool(3, 2)
    put(pool, 1)
    put(pool, *range(2, 9))
    assert pool.filled == 3
    assert sorted(images_of(pool)) == [6, 7, 8]


@given(capacity=st.integers(1, 7), sizes=st.lists(st.integers(1, 10), max_size=8))
def test_the_pool_holds_the_newest_pairs_and_drops_none_of_them(capacity: int, sizes: list[int]) -> None:
    pool, seen = PairPool(capacity, 2), list[int]()
    for size in sizes:
        batch = range(len(seen), len(seen) + size)
        put(pool, *batch)
        seen += batch
    assert pool.filled == min(capacity, len(seen))
    assert sorted(images_of(pool)) == seen[-capacity:]
    assert captions_of(pool) == [number + 100 for number in images_of(pool)]


def test_what_is_put_in_is_copied_and_stays_a_constant() -> None:
    image, caption = numbered(1).requires_grad_(), numbered(2).requires_grad_()
    pool = PairPool(2, 2)
    pool.put(image, caption)
    assert not pool.image_PD.requires_grad
    assert not pool.caption_PD.requires_grad
    with torch.no_grad():
        image.zero_()
    assert images_of(pool) == [1]


def test_a_pool_read_back_goes_on_as_if_nothing_had_happened() -> None:
    pool, again = PairPool(5, 2), PairPool(5, 2)
    put(pool, 1, 2, 3)
    put(pool, 4, 5, 6)
    file = io.BytesIO()
    torch.save(pool.state_dict(), file)
    file.seek(0)
    again.load_state_dict(torch.load(file, weights_only=True))
    for each in (pool, again):
        put(each, 7, 8)
    assert again.filled == pool.filled == 5
    assert torch.equal(again.image_PD, pool.image_PD)
    assert torch.equal(again.caption_PD, pool.caption_PD)


# The search


def test_the_nearest_row_is_that_of_brute_force_in_float64() -> None:
    rng = np.random.default_rng(0)
    query_BD, pool_PD = (
        rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in rng.normal(size=(2, 40, 8))
    )
    found_B = nearest(torch.from_numpy(query_BD).float(), torch.from_numpy(pool_PD).float())
    assert found_B.dtype == torch.int64
    assert found_B.tolist() == (query_BD @ pool_PD.T).argmax(axis=1).tolist()


@given(
    query=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=4),
    pool=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=9),
)
def test_of_equally_near_rows_the_lowest_is_taken(
    query: list[tuple[int, ...]], pool: list[tuple[int, ...]]
) -> None:
    products = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in pool] for one in query]
    wanted = [row.index(max(row)) for row in products]
    assert nearest(torch.tensor(query).float(), torch.tensor(pool).float()).tolist() == wanted


def test_only_filled_rows_can_be_found() -> None:
    pool = PairPool(4, 2)
    put(pool, 1, 2)
    away = torch.tensor([[-1.0, 1.0]])  # product with both is negative, with an empty row it would be 0
    assert nearest(away, pool.image_PD).tolist() == [0]
