"""Embedding store → FAISS index in parts, and search over all of them: the ``index`` stage.

    trained.faiss        the transform and the centroids, learnt once; no rows
    part_00000.faiss     the vectors of some store parts, memory-mapped when searched
    rows_00000.npy       their row numbers in the whole store, ascending
    vectors_00000.npy    its vectors, where the FAISS file holds only codes (ivf_pq)
    done/                what each file holds: "trained", and one marker per part
    complete.json        settings, what the store held, rows, width, model, and the recall that was measured

The number of workers changes no answer, nor does the number of parts where the kind is "flat" or
"ivf_flat"; index_kinds.py says why. A FAISS file is index_files.py's business.

Dimension key: N rows, D width.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index_files import FlatFile
from roclip_sanitize.index_kinds import FILES
from roclip_sanitize.index_plan import (
    IndexSettings,
    PartTask,
    Sizes,
    checked_width,
    chosen,
    create_folder,
    drawn_rows,
    part_tasks,
    require_store_unchanged,
    training_sample,
)
from roclip_sanitize.index_tuning import least_effort
from roclip_sanitize.limits import WORK_KEY, Laps, Limits
from roclip_sanitize.runfiles import Marker, StageFolder
from roclip_sanitize.searcher import Searcher, ShardedIndex, measure, rows_file
from roclip_sanitize.storage import atomic_file, here
from roclip_sanitize.store import EmbeddingStore, StorePart

__all__ = [
    "FlatFile",
    "IndexSettings",
    "build_index",
    "index_limits",
    "indexed_rows",
    "inspect_index",
    "open_index",
    "require_store_unchanged",
]

STEPS = ("learn", "read", "add", "write", "hash", "measure")


def build_index(settings: IndexSettings, *, out: Path, executor: Executor) -> dict[str, Any]:
    """Build the index at ``out``, choose how far queries look if it is approximate, measure recall and speed.

    Returns:
        What inspect_index() tells.

    Raises:
        ConfigError: the transform wants more directions than there are, or the pool more rows.
        DataError: the store has no rows.
        MismatchError: ``out`` was made with other settings, or of what the store no longer holds.

    Memory of a worker: the float32 vectors of one part; the one that learns centroids, up to 262,144 rows.
    """
    store = EmbeddingStore.open(settings.store)
    settings = chosen(settings, store)
    width = checked_width(settings, store)
    folder = create_folder(settings, store, out=out, workers=executor.size)
    if folder.finished:
        return _told(folder)
    untrained = [None] if folder.marker("trained") is None else []
    for _ in executor.map(partial(Trainer, settings, out), untrained):
        pass
    tasks = [task for task in part_tasks(store, folder) if folder.marker(task.name) is None]
    for _ in executor.map(partial(PartBuilder, settings, out), tasks):
        pass
    rows = sum(marker.facts["rows"] for marker in _part_markers(folder))
    facts = {**folder.settings, "metric": "inner_product", "rows": rows, "width": width}
    laps = Laps()
    facts |= _look_facts(settings, folder, executor)
    with _open_folder(folder, executor, effort=facts.get("nprobe", 0)) as index:
        facts |= measure(index, store, modality=settings.asked_by, seed=settings.seed)
    laps.lap("measure")
    folder.finish({**facts, WORK_KEY: laps.work(0, workers=executor.size).to_json()})
    return _told(folder)


@contextmanager
def open_index(path: Path, executor: Executor) -> Iterator[ShardedIndex]:
    """Open a finished index for searching until the block ends.

    One searcher per part, or as many as the executor has workers, each with a run of parts. Where there are
    at least twice as many workers as parts, searchers of the same part take turns with the questions.

    Raises:
        DataError: there is none, or its store is gone.
        MismatchError: it is unfinished, or its store holds something else than when it was made.
    """
    folder = StageFolder.open(path, stage="index")
    require_store_unchanged(folder)
    with _open_folder(folder, executor, effort=folder.facts.get("nprobe", 0)) as index:
        yield index


def inspect_index(path: Path) -> dict[str, Any]:
    """Facts of a finished index: settings, rows, width, model, recall@1, recall@10, queries_per_second.

    What its store held is told as ``store_content``; older ones do not know. An approximate one also tells
    its sizes, and as ``nprobe`` how far a query looks.

    Raises:
        DataError: there is none.
        MismatchError: it is unfinished.
    """
    return _told(StageFolder.open(path, stage="index"))


def index_limits(path: Path) -> Limits:
    """What bounded the making of a finished index, over all runs that it took.

    Learning and measuring happen once: they bound small indexes only.
    """
    folder = StageFolder(path)
    return Limits.noted([*(marker.facts for marker in folder.markers()), folder.facts], order=STEPS)


def indexed_rows(path: Path) -> NDArray[np.int64]:
    """Row numbers in the whole store that a finished index holds, ascending."""
    folder = StageFolder.open(path, stage="index")
    return np.concatenate([np.load(here(rows_file(path, marker.name))) for marker in _part_markers(folder)])


class Trainer:
    """Learns the transform and the centroids from samples of the whole store."""

    def __init__(self, settings: IndexSettings, out: Path) -> None:
        self._settings = settings
        self._folder = StageFolder(out)

    def __call__(self, task: None) -> Marker:
        laps, store = Laps(), EmbeddingStore.open(self._settings.store)
        sizes = _sizes(self._settings, store)
        sample_ND = training_sample(store, self._settings)
        index = FILES[self._settings.kind].train(sample_ND, directions=self._settings.directions, sizes=sizes)
        if index.learns:
            sample_ND = training_sample(store, self._settings, rows=sizes.sample)
            index.learn(sample_ND)
        path = self._folder.path / "trained.faiss"
        index.write(path)
        laps.lap("learn")
        facts = {"sample": len(sample_ND), WORK_KEY: laps.work(0).to_json()}
        return self._folder.commit("trained", files=[path], facts=facts)


class PartBuilder:
    """Builds one index part after the other, each from its run of store parts."""

    def __init__(self, settings: IndexSettings, out: Path) -> None:
        self._file, self._modality = FILES[settings.kind], settings.modality
        self._folder = StageFolder(out)
        self._store = EmbeddingStore.open(settings.store)
        self._pool = settings.pool
        self._pool_N = drawn_rows(self._store, settings.pool, seeds=[settings.seed])
        self._laps = Laps()

    def __call__(self, task: PartTask) -> Marker:
        laps, out = self._laps, self._folder.path
        laps.start()
        index = self._file.read(out / "trained.faiss")
        filled = [part for part in task.store_parts if part.rows]
        rows = [np.empty(0, np.int64), *map(self._indexed_rows, filled)]
        index.reserve(sum(map(len, rows)))
        for part, row_N in zip(filled, rows[1:], strict=True):
            vectors_ND = self._store.vectors(part.name, self._modality)[row_N - part.start]
            laps.lap("read")
            index.add(vectors_ND)
            laps.lap("add")
        files = [*index.write_part(out, task.name), rows_file(out, task.name)]
        with atomic_file(files[-1]) as file:
            np.save(file, np.concatenate(rows))
        laps.lap("write")
        count = sum(map(len, rows))
        facts = {
            "rows": count,
            "store_parts": [part.name for part in task.store_parts],
            WORK_KEY: laps.work(count).to_json(),
        }
        marker = self._folder.commit(task.name, files=files, facts=facts)
        laps.lap("hash")
        return marker

    def _indexed_rows(self, part: StorePart) -> NDArray[np.int64]:
        if not self._pool:
            return np.arange(part.start, part.start + part.rows)
        first, last = np.searchsorted(self._pool_N, (part.start, part.start + part.rows))
        return self._pool_N[first:last]


@contextmanager
def _open_folder(folder: StageFolder, executor: Executor, *, effort: int) -> Iterator[ShardedIndex]:
    open_file = FILES[folder.settings["kind"]].open_part
    names = [marker.name for marker in _part_markers(folder)]
    shares = np.array_split(names, min(len(names), executor.size))
    makers = [
        partial(Searcher, folder.path, tuple(map(str, share)), open_file=open_file, effort=effort)
        for share in shares
    ]
    with ExitStack() as crews:
        copies = executor.size // len(makers)  # parts are mapped, so that copies on a node share its memory
        yield ShardedIndex([crews.enter_context(executor.crew(makers)) for _ in range(copies)])


def _look_facts(settings: IndexSettings, folder: StageFolder, executor: Executor) -> dict[str, int]:
    """Sizes of an approximate index, and how far a query looks in it; nothing for an exact one."""
    if settings.kind == "flat":
        return {}
    store = EmbeddingStore.open(settings.store)
    sizes = _sizes(settings, store)
    with _open_folder(folder, executor, effort=0) as index:
        effort = least_effort(index, store, settings, sizes)
    return {**sizes.facts(settings.kind), "nprobe": effort}


def _sizes(settings: IndexSettings, store: EmbeddingStore) -> Sizes:
    width = settings.directions or checked_width(settings, store)
    return Sizes.of(settings.kind, rows=settings.pool or store.rows, width=width)


def _told(folder: StageFolder) -> dict[str, Any]:
    """What the folder declared, less the clocks, which index_limits() judges."""
    return {name: value for name, value in folder.facts.items() if name != WORK_KEY}


def _part_markers(folder: StageFolder) -> list[Marker]:
    return [marker for marker in folder.markers() if marker.name != "trained"]
