"""Embedding store → FAISS index in parts, and exact search over all of them: the ``index`` stage.

    trained.faiss        the transform, trained once; no rows
    part_00000.faiss     the vectors of some store parts, memory-mapped when searched
    rows_00000.npy       their row numbers in the whole store, ascending
    done/                what each file holds: "trained", and one marker per part
    complete.json        settings, rows, width, model, and the recall that was measured

The only module that imports faiss, and only in workers: it and torch each bring an OpenMP runtime
and are better off in separate processes. The number of parts and of workers changes no answer.

Dimension key: N rows, M rows of one part, D width.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError
from roclip_sanitize.executors.base import Executor
from roclip_sanitize.index_plan import (
    IndexSettings,
    PartTask,
    checked_width,
    create_folder,
    drawn_rows,
    part_tasks,
    training_sample,
)
from roclip_sanitize.runfiles import Marker, StageFolder, atomic_file
from roclip_sanitize.searcher import TRANSFORM_ROWS, Searcher, ShardedIndex, measure, rows_file
from roclip_sanitize.store import EmbeddingStore, StorePart

__all__ = ["IndexSettings", "build_index", "indexed_rows", "inspect_index", "open_index"]

# Power of the eigenvalues: whitening in full (-0.5) lifts noise to the level of content.
HALF_WHITENING = -0.25
NOISE_SHARE = 1e-6  # of the largest eigenvalue: below it, float32 sums are rounding
# Queries from which BLAS takes over. FAISS 1.15 waits for 1,334 of width 96, at a fifth of the speed.
BLAS_QUERIES = 20
GPU_NEIGHBOURS = 2048  # the most that FAISS finds on a GPU


def build_index(settings: IndexSettings, *, out: Path, executor: Executor) -> dict[str, Any]:
    """Build the index at ``out``, and measure its recall and speed.

    Returns:
        What inspect_index() tells.

    Raises:
        ConfigError: the transform wants more directions than there are, or the pool more rows.
        DataError: the store has no rows.
        MismatchError: ``out`` was made with other settings.

    Memory of a worker: the float32 vectors of one part.
    """
    store = EmbeddingStore.open(settings.store)
    width = checked_width(settings, store)
    folder = create_folder(settings, store, out=out, workers=executor.size)
    if folder.finished:
        return folder.facts
    untrained = [None] if folder.marker("trained") is None else []
    for _ in executor.map(partial(Trainer, settings, out), untrained):
        pass
    tasks = [task for task in part_tasks(store, folder) if folder.marker(task.name) is None]
    for _ in executor.map(partial(PartBuilder, settings, out), tasks):
        pass
    rows = sum(marker.facts["rows"] for marker in _part_markers(folder))
    with _open_folder(folder, executor) as index:
        measured = measure(index, store, modality=settings.modality, seed=settings.seed)
    folder.finish({**folder.settings, "metric": "inner_product", "rows": rows, "width": width, **measured})
    return folder.facts


@contextmanager
def open_index(path: Path, executor: Executor) -> Iterator[ShardedIndex]:
    """Open a finished index for searching until the block ends.

    One searcher per part, or as many as the executor has workers, each with a run of parts.

    Raises:
        DataError: there is none.
        MismatchError: it is unfinished.
    """
    with _open_folder(StageFolder.open(path, stage="index"), executor) as index:
        yield index


def inspect_index(path: Path) -> dict[str, Any]:
    """Facts of a finished index: settings, rows, width, model, recall@1, recall@10, queries_per_second.

    Raises:
        DataError: there is none.
        MismatchError: it is unfinished.
    """
    return StageFolder.open(path, stage="index").facts


def indexed_rows(path: Path) -> NDArray[np.int64]:
    """Row numbers in the whole store that a finished index holds, ascending."""
    folder = StageFolder.open(path, stage="index")
    return np.concatenate([np.load(rows_file(path, marker.name)) for marker in _part_markers(folder)])


class Trainer:
    """Trains the transform on a sample of the whole store."""

    def __init__(self, settings: IndexSettings, out: Path) -> None:
        self._settings = settings
        self._folder = StageFolder(out)

    def __call__(self, task: None) -> Marker:
        store = EmbeddingStore.open(self._settings.store)
        sample_ND = training_sample(store, self._settings)
        index = FlatFile.train(sample_ND, directions=self._settings.directions)
        path = self._folder.path / "trained.faiss"
        index.write(path)
        return self._folder.commit("trained", files=[path], facts={"sample": len(sample_ND)})


class PartBuilder:
    """Builds one index part after the other, each from its run of store parts."""

    def __init__(self, settings: IndexSettings, out: Path) -> None:
        self._modality = settings.modality
        self._folder = StageFolder(out)
        self._store = EmbeddingStore.open(settings.store)
        self._pool = settings.pool
        self._pool_N = drawn_rows(self._store, settings.pool, seeds=[settings.seed])

    def __call__(self, task: PartTask) -> Marker:
        started, out = time.perf_counter(), self._folder.path
        index = FlatFile.read(out / "trained.faiss")
        rows = [np.empty(0, np.int64)]
        for part in (part for part in task.store_parts if part.rows):
            rows.append(self._indexed_rows(part))
            index.add(self._store.vectors(part.name, self._modality)[rows[-1] - part.start])
        files = [out / f"part_{task.name}.faiss", rows_file(out, task.name)]
        index.write(files[0])
        with atomic_file(files[1]) as file:
            np.save(file, np.concatenate(rows))
        count, seconds = sum(map(len, rows)), max(time.perf_counter() - started, 1e-9)
        facts = {
            "rows": count,
            "store_parts": [part.name for part in task.store_parts],
            "seconds": round(seconds, 3),
            "rows_per_second": round(count / seconds, 1),
        }
        return self._folder.commit(task.name, files=files, facts=facts)

    def _indexed_rows(self, part: StorePart) -> NDArray[np.int64]:
        if not self._pool:
            return np.arange(part.start, part.start + part.rows)
        first, last = np.searchsorted(self._pool_N, (part.start, part.start + part.rows))
        return self._pool_N[first:last]


class FlatFile:
    """Unit rows in a FAISS file, compared by inner product, behind a transform or none. See PartFile."""

    def __init__(self, index: Any) -> None:
        faiss = _faiss()
        self._index = self._flat = self._accelerated = index
        self._chain = list[Any]()
        if isinstance(index, faiss.IndexPreTransform):
            self._flat = self._accelerated = faiss.downcast_index(index.index)
            self._chain = [index.chain.at(step) for step in range(index.chain.size())]

    @classmethod
    def train(cls, sample_ND: NDArray[np.float32], *, directions: int) -> FlatFile:
        """An empty file for vectors like the sample; 0 directions leave them as they are."""
        faiss, width = _faiss(), sample_ND.shape[1]
        if not directions:
            return cls(faiss.IndexFlatIP(width))
        pca = faiss.PCAMatrix(width, directions, HALF_WHITENING)
        with _one_thread(faiss):
            pca.train(sample_ND)
        _require_directions(
            faiss.vector_to_array(pca.eigenvalues), directions=directions, rows=len(sample_ND)
        )
        index = faiss.IndexPreTransform(faiss.IndexFlatIP(directions))
        for transform in (faiss.NormalizationTransform(directions), pca):
            index.prepend_transform(transform)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> FlatFile:
        """Read a file to add to it."""
        return cls(_faiss().read_index(str(path)))

    @classmethod
    def open_part(cls, folder: Path, name: str) -> FlatFile:
        """Open one part of an index for searching: memory-mapped, and copied to a GPU if there is one."""
        faiss = _faiss()
        part = cls(faiss.read_index(str(folder / f"part_{name}.faiss"), faiss.IO_FLAG_MMAP_IFC))
        if faiss.get_num_gpus():
            part._accelerated = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, part._flat)
        return part

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        faiss = _faiss()
        with atomic_file(path) as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def add(self, vectors_ND: NDArray[Any]) -> None:
        """Append store vectors."""
        self._flat.add(self.transformed(vectors_ND))
        self._index.ntotal = self._flat.ntotal

    def vectors(self) -> NDArray[np.float32]:
        """See PartFile."""
        faiss, shape = _faiss(), (self._flat.ntotal, self._flat.d)
        if not self._flat.ntotal:
            return np.empty(shape, np.float32)
        view = faiss.rev_swig_ptr(self._flat.get_xb(), shape[0] * shape[1]).reshape(shape)
        return np.asarray(_View(view, owner=self._index))

    def transformed(self, vectors_ND: NDArray[Any]) -> NDArray[np.float32]:
        """See PartFile."""
        blocks = [np.empty((0, self._flat.d), np.float32)]
        with _one_thread(_faiss()):
            for start in range(0, len(vectors_ND), TRANSFORM_ROWS):
                block = vectors_ND[start : start + TRANSFORM_ROWS].astype(np.float32)
                for step in self._chain:
                    block = step.apply(block)
                blocks.append(block)
        return np.concatenate(blocks)

    def find(self, query_ND: NDArray[np.float32], fetch: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile."""
        searched = self._accelerated if fetch <= GPU_NEIGHBOURS else self._flat
        score_NC, place_NC = searched.search(np.ascontiguousarray(query_ND), fetch)
        return score_NC, place_NC


class _View:
    """Memory of a FAISS index, which lives as long as an array made from this."""

    def __init__(self, view: NDArray[np.float32], *, owner: Any) -> None:
        self.__array_interface__ = view.__array_interface__
        self._owner = owner


def _faiss() -> Any:
    """FAISS, set up for many queries at once and as many threads as this worker was given."""
    import faiss

    faiss.cvar.distance_compute_blas_threshold = BLAS_QUERIES
    if threads := os.environ.get("OMP_NUM_THREADS"):
        faiss.omp_set_num_threads(int(threads))
    return faiss


@contextmanager
def _one_thread(faiss: Any) -> Iterator[None]:
    """Keep the order of summation, and so every bit, independent of the number of cores."""
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


@contextmanager
def _open_folder(folder: StageFolder, executor: Executor) -> Iterator[ShardedIndex]:
    names = [marker.name for marker in _part_markers(folder)]
    shares = np.array_split(names, min(len(names), executor.size))
    makers = [
        partial(Searcher, folder.path, tuple(map(str, share)), open_file=FlatFile.open_part)
        for share in shares
    ]
    with executor.crew(makers) as crew:
        yield ShardedIndex(crew)


def _part_markers(folder: StageFolder) -> list[Marker]:
    return [marker for marker in folder.markers() if marker.name != "trained"]


def _require_directions(eigenvalues: NDArray[np.float32], *, directions: int, rows: int) -> None:
    varied = int((eigenvalues > NOISE_SHARE * eigenvalues[0]).sum())
    if directions > varied:
        raise ConfigError(
            f"pca{directions} wants {directions} directions; the {rows} sampled rows vary in {varied}"
        )
