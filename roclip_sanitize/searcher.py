"""Searching an index that lies in parts, and measuring how well that works.

    SearchTask ─▶ every Searcher, for its own parts ─▶ Neighbours ─▶ merge ─▶ ShardedIndex.search()

A searcher reads the queries from the store by itself; only questions and top-k rows travel.
This module knows stores and questions. What is inside a part's file is index.py's business,
and which rows are nearest is decided in neighbours.py.

Dimension key: N queries, M rows of one part, D width, K neighbours.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle, islice, tee
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.captions import normalise_caption
from roclip_sanitize.errors import ConfigError, MismatchError
from roclip_sanitize.executors.base import Crew
from roclip_sanitize.neighbours import (
    Neighbours,
    Rows,
    SearchTask,
    codes_of,
    merge,
    numpy_find,
    search_part,
)
from roclip_sanitize.runfiles import StageFolder
from roclip_sanitize.storage import here
from roclip_sanitize.store import EmbeddingStore, Modality
from roclip_sanitize.whereabouts import store_of

TRANSFORM_ROWS = 512  # BLAS rounds a row differently in another batch, so batches are fixed
RECALL_RUNS, RECALL_RUN_ROWS = 8, 32
RECALL_AT = (1, 10)
SAME_COSINE = 1e-6  # neighbours this close to each other are equally right


class PartFile(Protocol):
    """The vectors of one index part, open for searching."""

    @property
    def bounded(self) -> bool:
        """What find() promises of its scores, see search_part()."""
        ...

    def vectors(self) -> Any:
        """Its M rows as they are compared, (M, D): transformed, of unit length.

        An array, or what has a ``shape`` and gives rows when it is read by an array of places.
        """
        ...

    def transformed(self, vectors_ND: NDArray[Any]) -> NDArray[np.float32]:
        """Store vectors as they are compared."""
        ...

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """Scores and places of the ``fetch`` best of the M rows for each query, see Find."""
        ...


class ShardedIndex:
    """An open index, whose parts are searched side by side.

    Args:
        crews: each of them owns all parts, so that questions are dealt out to them in turn: where there are
            more workers than parts, all of them have work.
    """

    def __init__(self, crews: Sequence[Crew]) -> None:
        self._crews = crews

    def search(self, questions: Iterable[SearchTask]) -> Iterator[Neighbours]:
        """Answer each question, in order; ``questions`` is pulled lazily.

        Raises:
            MismatchError: queries and index come from two models, or have no common space.
            ConfigError: the rows do not exist, or an exclusion makes no sense for them.
        """
        crews = len(self._crews)
        shares = (islice(all_, turn, None, crews) for turn, all_ in enumerate(tee(questions, crews)))
        for stream in cycle([crew.ask(share) for crew, share in zip(self._crews, shares, strict=True)]):
            answers = next(stream, None)
            if answers is None:
                return
            yield merge(answers, k=answers[0].rows_NK.shape[1])


@dataclass(frozen=True, slots=True, kw_only=True)
class _OpenPart:
    """One part of the index, and the store rows that it holds."""

    file: PartFile
    row_M: NDArray[np.int64]
    store_parts: tuple[str, ...]
    codes: dict[str, NDArray[np.uint64]]  # by column, read when first asked for

    def search(self, queries: Rows, task: SearchTask, store: EmbeddingStore, *, effort: int) -> Neighbours:
        for column in task.excluded_columns:
            if column not in self.codes:
                self.codes[column] = self._read_codes(store, column)
        rows = Rows(vectors_ND=self.file.vectors(), row_N=self.row_M, codes=self.codes)
        if task.reference:
            return search_part(rows, queries, find=numpy_find(rows.vectors_ND), task=task)
        find = partial(self.file.find, effort=effort)
        return search_part(rows, queries, find=find, task=task, bounded=self.file.bounded)

    def _read_codes(self, store: EmbeddingStore, column: str) -> NDArray[np.uint64]:
        parts = [part for part in store.parts if part.name in self.store_parts]
        code_N = np.concatenate([_column_codes(store, part.name, column) for part in parts])
        return code_N[self.row_M - parts[0].start]


class Searcher:
    """Owns some parts of an index, and answers questions about them."""

    def __init__(
        self,
        path: Path,
        names: tuple[str, ...],
        *,
        open_file: Callable[[Path, str], PartFile],
        effort: int = 0,
    ) -> None:
        folder = StageFolder(path)
        self._path = path
        self._effort = effort
        self._settings, self._store = folder.settings, store_of(folder)
        self._stores: dict[Path, EmbeddingStore] = {}
        self._parts = [
            _OpenPart(
                file=open_file(path, marker.name),
                row_M=np.load(here(rows_file(path, marker.name))),
                store_parts=tuple(marker.facts["store_parts"]),
                codes={},
            )
            for marker in folder.markers()
            if marker.name in names
        ]

    def __call__(self, task: SearchTask) -> Neighbours:
        """The answer as far as the own parts go."""
        queries = self._queries(task)
        store = self._open_store(self._store)
        effort = task.effort or self._effort
        return merge([part.search(queries, task, store, effort=effort) for part in self._parts], k=task.k)

    def _queries(self, task: SearchTask) -> Rows:
        store = self._open_store(task.store)
        self._require_comparable(store, task)
        part = next((part for part in store.parts if part.name == task.part), None)
        if part is None or task.stop > part.rows:
            raise ConfigError(f"{store.path} has no rows {task.start} to {task.stop} in part {task.part}")
        stored_ND = store.vectors(part.name, task.modality)
        first = task.start - task.start % TRANSFORM_ROWS  # whole batches, see TRANSFORM_ROWS
        last = -(-task.stop // TRANSFORM_ROWS) * TRANSFORM_ROWS
        vectors_ND = self._parts[0].file.transformed(stored_ND[first:last])
        asked = slice(task.start, task.stop)
        return Rows(
            vectors_ND=vectors_ND[task.start - first : task.stop - first],
            row_N=np.arange(part.start, part.start + part.rows)[asked],
            codes={
                column: _column_codes(store, part.name, column)[asked] for column in task.excluded_columns
            },
        )

    def _open_store(self, path: Path) -> EmbeddingStore:
        if path not in self._stores:
            self._stores[path] = EmbeddingStore.open(path)
        return self._stores[path]

    def _require_comparable(self, store: EmbeddingStore, task: SearchTask) -> None:
        mine, path = self._settings, self._path
        if store.model != mine["model"]:
            raise MismatchError(
                f"{path} holds vectors of model {mine['model']}, {store.path} of {store.model}"
            )
        if task.modality != mine["modality"]:
            store.require_joint(f"asking {path} for {mine['modality']}s by {task.modality}")
            if mine["transform"]:
                raise ConfigError(
                    f"{path} is transformed for {mine['modality']}s alone: index without a transform"
                )
        if task.exclude_self and task.store.resolve() != self._store.resolve():
            raise ConfigError(
                f"exclude_self: rows of {task.store} are not those of the indexed {mine['store']}"
            )


def rows_file(path: Path, name: str) -> Path:
    """Where an index lists the store rows of one part."""
    return path / f"rows_{name}.npy"


def measure(index: ShardedIndex, store: EmbeddingStore, *, modality: Modality, seed: int) -> dict[str, Any]:
    """Compare the index with a plain numpy search of every row, on up to 256 rows of the store.

    The queries' own rows are left out, so that finding oneself counts for nothing.

    Returns:
        recall@1 and recall@10, shares from 0 to 1; recall_queries; queries_per_second.
    """
    tasks = held_out(store, modality=modality, seeds=[seed, 1])
    exact = list(index.search(replace(task, reference=True) for task in tasks))
    found = list(index.search(tasks))
    part = next(part for part in store.parts if part.name == tasks[0].part)
    batch = replace(tasks[0], start=0, stop=min(part.rows, TRANSFORM_ROWS))
    started = time.perf_counter()
    (answer,) = index.search([batch])
    seconds = max(time.perf_counter() - started, 1e-9)
    return {
        **{f"recall@{k}": recall_of(found, exact, k=k) for k in RECALL_AT},
        "recall_queries": sum(len(each.rows_NK) for each in found),
        "queries_per_second": round(len(answer.rows_NK) / seconds, 1),
    }


def held_out(store: EmbeddingStore, *, modality: Modality, seeds: list[int]) -> list[SearchTask]:
    """Questions about up to 256 rows of the store, in runs of 32."""
    drawn = np.random.default_rng(seeds).choice(store.rows, min(RECALL_RUNS, store.rows), replace=False)
    starts = np.array([part.start for part in store.parts])
    runs = set()
    for row in drawn:
        part = store.parts[int(np.searchsorted(starts, row, side="right")) - 1]
        runs.add((part.name, (int(row) - part.start) // RECALL_RUN_ROWS * RECALL_RUN_ROWS, part.rows))
    return [
        SearchTask(
            store=store.path,
            part=name,
            modality=modality,
            start=start,
            stop=min(start + RECALL_RUN_ROWS, rows),
            k=max(RECALL_AT),
            exclude_self=True,
        )
        for name, start, rows in sorted(runs)
    ]


def recall_of(found: list[Neighbours], exact: list[Neighbours], *, k: int) -> float:
    """Share of the k nearest that were found; what is as near as the k-th counts as one of them."""
    hits = [
        there.cosine_NK[:, :k] >= reference.cosine_NK[:, k - 1 : k] - np.float32(SAME_COSINE)
        for reference, there in zip(exact, found, strict=True)
    ]
    return float(np.concatenate(hits).mean())


def _column_codes(store: EmbeddingStore, name: str, column: str) -> NDArray[np.uint64]:
    values = store.metadata(name, [column])[column]
    return codes_of(map(normalise_caption, values) if column == "caption" else values)
