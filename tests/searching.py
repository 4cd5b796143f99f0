"""Rows compared by hand: what a search should answer, and the workers that it runs on."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.executors.local import LocalExecutor
from roclip_sanitize.index import open_index
from roclip_sanitize.neighbours import Neighbours, SearchTask
from roclip_sanitize.store import EmbeddingStore
from tests.stores import unit_rows


class Workers(LocalExecutor):
    """In this process, but says that it has several workers."""

    def __init__(self, size: int) -> None:
        self.size = size


class Idle(LocalExecutor):
    """Refuses any work."""

    def map(self, make_worker: Callable[[], Any], tasks: Iterable[Any]) -> Iterator[Any]:
        assert list(tasks) == []
        return iter(())


def few_directions(rows: int, *, width: int = 4, distinct: int = 5, seed: int = 0) -> NDArray[np.float32]:
    """Rows of which many are equal: ``distinct`` different ones, drawn with repetition."""
    random = np.random.default_rng(seed)
    return unit_rows(random.normal(size=(distinct, width)))[random.integers(0, distinct, rows)]


def by_hand(
    vectors_ND: NDArray[Any], query: int, task: SearchTask, *, hashes: Sequence[str]
) -> list[tuple[int, float]]:
    """The rows that one row should get: all compared, in exact arithmetic, then sorted."""
    answers = []
    for row, vector_D in enumerate(vectors_ND):
        products = vector_D.astype(np.float64) * vectors_ND[query].astype(np.float64)
        cosine = np.float32(math.fsum(products))
        barred = (
            (task.exclude_self and row == query)
            or (task.exclude_hash and hashes[row] == hashes[query])
            or (task.max_cosine is not None and cosine > np.float32(task.max_cosine))
        )
        if not barred:
            answers.append((row, float(cosine)))
    answers.sort(key=lambda answer: (-answer[1], answer[0]))
    return (answers + [(-1, -math.inf)] * task.k)[: task.k]


def pairs_of(found: Neighbours, query: int) -> list[tuple[int, float]]:
    return list(zip(found.rows_NK[query].tolist(), found.cosine_NK[query].tolist(), strict=True))


def whole(store: EmbeddingStore, **asked: Any) -> list[SearchTask]:
    """One question for every part of a store."""
    return [
        SearchTask(store=store.path, part=part.name, modality="image", start=0, stop=part.rows, **asked)
        for part in store.parts
    ]


def search_all(index: Path, store: EmbeddingStore, *, workers: int = 1, **asked: Any) -> Neighbours:
    """Neighbours of every row of the store."""
    with open_index(index, Workers(workers)) as opened:
        found = list(opened.search(whole(store, **asked)))
    return Neighbours(
        rows_NK=np.concatenate([each.rows_NK for each in found]),
        cosine_NK=np.concatenate([each.cosine_NK for each in found]),
    )


def files_of(folder: Path) -> dict[str, bytes]:
    names = ("*.faiss", "*.npy")
    return {path.name: path.read_bytes() for name in names for path in sorted(folder.glob(name))}
