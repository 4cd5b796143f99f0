"""The pool: a ring that keeps the newest pairs, and a search that finds only what was put in."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch.multiprocessing.spawn import spawn

from roclip_sanitize.training.pool import PairPool, default_capacity
from roclip_sanitize.training.ranks import Ranks


def numbered(*numbers: int) -> torch.Tensor:
    """Vectors of width 2 that show their number."""
    return torch.tensor([[number, -number] for number in numbers], dtype=torch.float32)


def put(pool: PairPool, *numbers: int) -> None:
    """Images show the number, captions a hundred more."""
    pool.put(numbered(*numbers), numbered(*(number + 100 for number in numbers)), torch.tensor(numbers))


def images_of(pool: PairPool) -> list[int]:
    return [int(value) for value in pool.take(torch.arange(pool.filled), "image")[:, 0]]


def captions_of(pool: PairPool) -> list[int]:
    return [int(value) for value in pool.take(torch.arange(pool.filled), "caption")[:, 0]]


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
    assert pool.row_P.tolist() == [-1] * 5


def test_pairs_lie_in_the_order_in_which_they_came() -> None:
    pool = PairPool(5, 2)
    put(pool, 1, 2)
    put(pool, 3)
    assert (pool.filled, images_of(pool), captions_of(pool)) == (3, [1, 2, 3], [101, 102, 103])
    assert pool.row_P.tolist() == [1, 2, 3, -1, -1]


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
    assert pool.row_P[: pool.filled].tolist() == images_of(pool)


def test_what_is_put_in_is_copied_and_stays_a_constant() -> None:
    image, caption = numbered(1).requires_grad_(), numbered(2).requires_grad_()
    pool = PairPool(2, 2)
    pool.put(image, caption, torch.tensor([7]))
    assert not pool.take(torch.tensor([0]), "image").requires_grad
    assert not pool.take(torch.tensor([0]), "caption").requires_grad
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
    assert images_of(again) == images_of(pool)
    assert captions_of(again) == captions_of(pool)
    assert torch.equal(again.row_P, pool.row_P)


# The search


def filled(rows: Any, **options: Any) -> PairPool:
    """A pool whose captions are some rows, and its images their opposites."""
    caption_PD = torch.as_tensor(rows).float()
    pool = PairPool(len(caption_PD), caption_PD.shape[1], **options)
    pool.put(-caption_PD, caption_PD, torch.arange(len(caption_PD)))
    return pool


def unit_rows(rng: np.random.Generator, rows: int, width: int = 8) -> NDArray[np.float64]:
    vectors = rng.normal(size=(rows, width))
    unit: NDArray[np.float64] = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    return unit


@pytest.mark.parametrize("at_once", [1, 40 * 7, 2**26])  # cosines: blocks of one slot, of seven, one for all
def test_the_nearest_slot_is_that_of_brute_force_in_float64(
    at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("roclip_sanitize.training.pool.COMPARED_AT_ONCE", at_once)
    rng = np.random.default_rng(0)
    query_BD, caption_PD = unit_rows(rng, 40), unit_rows(rng, 50)
    pool = filled(caption_PD)
    for side, sign in (("caption", 1), ("image", -1)):
        found_B = pool.nearest(torch.from_numpy(query_BD), side)  # type: ignore[arg-type]
        assert found_B.dtype == torch.int64
        assert found_B.tolist() == (sign * query_BD @ caption_PD.T).argmax(axis=1).tolist()


@given(
    query=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=4),
    pool=st.lists(st.tuples(*[st.integers(-3, 3)] * 3), min_size=1, max_size=9),
)
def test_of_equally_near_slots_the_lowest_is_taken(
    query: list[tuple[int, ...]], pool: list[tuple[int, ...]]
) -> None:
    products = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in pool] for one in query]
    wanted = [row.index(max(row)) for row in products]
    assert filled(pool).nearest(torch.tensor(query), "caption").tolist() == wanted


def test_only_filled_slots_can_be_found() -> None:
    pool = PairPool(4, 2)
    put(pool, 1, 2)
    away = torch.tensor([[-1.0, 1.0]])  # product with both is negative, with an empty slot it would be 0
    assert pool.nearest(away, "image").tolist() == [0]


def test_a_query_finds_no_slot_of_its_own_group() -> None:
    pool = filled([[1.0, 0.0], [0.8, 0.6], [0.0, 1.0]])
    query = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0]])
    pictures = (torch.tensor([0, 5, 6]), torch.tensor([5, 6, 6]))
    assert pool.nearest(query, "caption", apart=[pictures]).tolist() == [0, 1, 0]
    texts = (torch.tensor([7, 8, 9]), torch.tensor([7, 8, 9]))
    assert pool.nearest(query, "caption", apart=[pictures, texts]).tolist() == [1, 2, 0]


def test_a_query_with_nothing_but_its_own_group_finds_a_filled_slot() -> None:
    pool = PairPool(9, 2)
    put(pool, 1, 2)
    alike = (torch.tensor([5]), torch.full((9,), 5))
    assert pool.nearest(torch.tensor([[2.0, -2.0]]), "image", apart=[alike]).tolist() == [0]


@given(seed=st.integers(0, 2**16), groupings=st.integers(0, 3), pairs=st.integers(1, 12))
def test_the_nearest_slot_of_other_groups_is_that_of_brute_force(
    seed: int, groupings: int, pairs: int
) -> None:
    rng = np.random.default_rng(seed)
    query_BD, caption_PD = unit_rows(rng, 5), unit_rows(rng, pairs)
    groups = [(rng.integers(0, 4, 5), rng.integers(0, 4, pairs)) for _ in range(groupings)]
    wanted = []
    for query in range(5):
        free = [slot for slot in range(pairs) if all(of_B[query] != of_P[slot] for of_B, of_P in groups)]
        wanted.append(max(free, key=lambda slot: query_BD[query] @ caption_PD[slot], default=0))
    apart = [(torch.from_numpy(of_B), torch.from_numpy(of_P)) for of_B, of_P in groups]
    assert filled(caption_PD).nearest(torch.from_numpy(query_BD), "caption", apart=apart).tolist() == wanted


def test_a_state_stays_as_it_was_when_the_pool_goes_on() -> None:
    pool = PairPool(3, 2)
    put(pool, 1, 2)
    state = pool.state_dict()
    put(pool, 3, 4)
    assert state["row_P"].tolist() == [1, 2, -1]
    assert state["image_PD"][:, 0].tolist() == [1, 2, 0]


# Shared by ranks


def shared_member(rank: int, size: int, folder: Path) -> None:
    """What each of the processes runs: the same puts and questions, and the state that they end in."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder / f'meeting_{size}'}", rank=rank, world_size=size
    )
    torch.save(put_and_ask(Ranks(rank=rank, size=size)), folder / f"{size}_{rank}.pt")
    torch.distributed.destroy_process_group()


def put_and_ask(ranks: Ranks, state: dict[str, Any] | None = None) -> dict[str, Any]:
    """Batches that wrap around an uneven pool; what is found and taken after each."""
    rng = np.random.default_rng(1)
    pool, found = PairPool(13, 8, ranks=ranks), []
    if state is not None:
        pool.load_state_dict(state)
    for batch in range(4):
        image_BD, caption_BD = (torch.from_numpy(unit_rows(rng, 6)).float() for _ in range(2))
        pool.put(image_BD, caption_BD, torch.arange(6) + 6 * batch)
        slot_B = pool.nearest(image_BD, "caption", apart=[(torch.arange(6), pool.row_P % 6)])
        found += [slot_B, pool.take(slot_B, "caption"), pool.nearest(image_BD[:1], "image")]
    return {"found": found, "state": pool.state_dict()}


@pytest.mark.slow
def test_ranks_that_share_a_pool_find_what_one_finds_alone(tmp_path: Path) -> None:
    alone = put_and_ask(Ranks())
    for size in (2, 3):
        spawn(shared_member, (size, tmp_path), nprocs=size)  # type: ignore[no-untyped-call]
        for rank in range(size):
            shared = torch.load(tmp_path / f"{size}_{rank}.pt")
            assert all(torch.equal(*both) for both in zip(shared["found"], alone["found"], strict=True))
            for name, value in alone["state"].items():
                same = torch.equal if isinstance(value, torch.Tensor) else int.__eq__
                assert same(shared["state"][name], value), name


@pytest.mark.slow
def test_a_pool_goes_on_with_another_number_of_ranks(tmp_path: Path) -> None:
    spawn(shared_member, (2, tmp_path), nprocs=2)  # type: ignore[no-untyped-call]
    saved = torch.load(tmp_path / "2_0.pt")["state"]
    alone = put_and_ask(Ranks())["state"]
    again, wanted = put_and_ask(Ranks(), saved), put_and_ask(Ranks(), alone)
    assert all(torch.equal(*both) for both in zip(again["found"], wanted["found"], strict=True))
