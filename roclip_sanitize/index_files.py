"""One part of an index as a FAISS file: what all kinds share, and the exact kind.

    store vectors ─▶ transformed() ─▶ add() ─▶ part_00000.faiss ─▶ open_part() ─▶ find()

The only module that imports faiss, and only in workers: it and torch each bring an OpenMP runtime
and are better off in separate processes. index_kinds.py has the approximate kinds.

Dimension key: N rows, M rows of one part, D width after the transform.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.errors import ConfigError, DataError
from roclip_sanitize.index_plan import Sizes
from roclip_sanitize.searcher import TRANSFORM_ROWS
from roclip_sanitize.storage import atomic_file, here

# Power of the eigenvalues: whitening in full (-0.5) lifts noise to the level of content.
HALF_WHITENING = -0.25
NOISE_SHARE = 1e-6  # of the largest eigenvalue: below it, float32 sums are rounding
# Queries from which BLAS takes over. FAISS 1.15 waits for 1,334 of width 96, at a fifth of the speed.
BLAS_QUERIES = 20
# Queries and rows of one matrix product, and so of its scores: 16 MB. FAISS's own 4,096 × 1,024 is a
# tenth slower, since every query's heap is visited four times as often.
BLOCK_QUERIES, BLOCK_ROWS = 1_024, 4_096
GPU_NEIGHBOURS = 2048  # the most that FAISS finds on a GPU


class IndexFile:
    """Unit rows in a FAISS file, compared by inner product, behind a transform or none. See PartFile.

    A kind says how an empty one is made (``empty``), where the rows can be read again (``vectors``),
    and how the best are found (``find``).
    """

    bounded = True
    learns = False

    def __init__(self, index: Any) -> None:
        faiss = open_faiss()
        self._index = self._core = index
        self._chain = list[Any]()
        if isinstance(index, faiss.IndexPreTransform):
            self._core = faiss.downcast_index(index.index)
            self._chain = [index.chain.at(step) for step in range(index.chain.size())]

    @classmethod
    def empty(cls, width: int, sizes: Sizes) -> Any:
        """A FAISS index of this kind without rows."""
        raise NotImplementedError

    @classmethod
    def train(cls, sample_ND: NDArray[np.float32], *, directions: int, sizes: Sizes) -> Self:
        """An empty file for vectors like the sample; 0 directions leave them as they are."""
        faiss, width = open_faiss(), sample_ND.shape[1]
        if not directions:
            return cls(cls.empty(width, sizes))
        pca = faiss.PCAMatrix(width, directions, HALF_WHITENING)
        with one_thread():
            pca.train(sample_ND)
        _require_directions(
            faiss.vector_to_array(pca.eigenvalues), directions=directions, rows=len(sample_ND)
        )
        index = faiss.IndexPreTransform(cls.empty(directions, sizes))
        for transform in (faiss.NormalizationTransform(directions), pca):
            index.prepend_transform(transform)
        return cls(index)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Read a file to add to it."""
        return cls(_read(path))

    @classmethod
    def open_part(cls, folder: Path, name: str) -> Self:
        """Open one part of an index for searching, memory-mapped."""
        return cls(_read(part_file(folder, name), open_faiss().IO_FLAG_MMAP_IFC))

    def learn(self, sample_ND: NDArray[np.float32]) -> None:
        """Learn what the kind needs from store vectors; nothing here."""

    def write(self, path: Path) -> None:
        """Write the file atomically."""
        faiss = open_faiss()
        with atomic_file(path) as file:
            faiss.write_index(self._index, faiss.PyCallbackIOWriter(file.write))

    def write_part(self, folder: Path, name: str) -> Sequence[Path]:
        """Write all that one part needs, and name the files."""
        self.write(part_file(folder, name))
        return [part_file(folder, name)]

    def reserve(self, rows: int) -> None:
        """Make room for so many rows, where growing step by step would hold them twice; nothing here."""

    def add(self, vectors_ND: NDArray[Any]) -> None:
        """Append store vectors."""
        self._append(self.transformed(vectors_ND))

    def _append(self, rows_ND: NDArray[np.float32]) -> None:
        with one_thread():  # which list or neighbour is nearest is a matter of the last bits
            for start in range(0, len(rows_ND), TRANSFORM_ROWS):
                self._core.add(rows_ND[start : start + TRANSFORM_ROWS])
        self._index.ntotal = self._core.ntotal

    def transformed(self, vectors_ND: NDArray[Any]) -> NDArray[np.float32]:
        """See PartFile."""
        blocks = [np.empty((0, self._core.d), np.float32)]
        with one_thread():
            for start in range(0, len(vectors_ND), TRANSFORM_ROWS):
                block = vectors_ND[start : start + TRANSFORM_ROWS].astype(np.float32)
                for step in self._chain:
                    block = step.apply(block)
                blocks.append(block)
        return np.concatenate(blocks)

    def vectors(self) -> Any:
        """See PartFile."""
        raise NotImplementedError

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile."""
        raise NotImplementedError


class FlatFile(IndexFile):
    """Every row, compared with every query; on a GPU if there is one."""

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self._accelerated = self._core

    @classmethod
    def empty(cls, width: int, sizes: Sizes) -> Any:
        """See IndexFile."""
        return open_faiss().IndexFlatIP(width)

    def reserve(self, rows: int) -> None:
        """See IndexFile. A vector that was shortened keeps its room; it would double whenever it is full."""
        self._core.codes.resize(rows * self._core.code_size)
        self._core.codes.resize(0)

    @classmethod
    def open_part(cls, folder: Path, name: str) -> Self:
        """Open one part of an index for searching: memory-mapped, and copied to a GPU if there is one."""
        faiss, part = open_faiss(), super().open_part(folder, name)
        if faiss.get_num_gpus():
            part._accelerated = faiss.index_cpu_to_gpu(faiss.StandardGpuResources(), 0, part._core)
        return part

    def vectors(self) -> NDArray[np.float32]:
        """See PartFile."""
        return flat_rows(self._core, owner=self._index)

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile."""
        del effort  # every row is looked at
        searched = self._accelerated if fetch <= GPU_NEIGHBOURS else self._core
        score_NC, place_NC = searched.search(np.ascontiguousarray(query_ND), fetch)
        return score_NC, place_NC


class _View:
    """Memory of a FAISS index, which lives as long as an array made from this."""

    def __init__(self, view: NDArray[np.float32], *, owner: Any) -> None:
        self.__array_interface__ = view.__array_interface__
        self._owner = owner


def flat_rows(flat: Any, *, owner: Any) -> NDArray[np.float32]:
    """The rows of a flat FAISS index, (M, D), without a copy; ``owner`` stays alive as long as they do."""
    faiss, shape = open_faiss(), (flat.ntotal, flat.d)
    if not flat.ntotal:
        return np.empty(shape, np.float32)
    view = faiss.rev_swig_ptr(flat.get_xb(), shape[0] * shape[1]).reshape(shape)
    return np.asarray(_View(view, owner=owner))


def part_file(folder: Path, name: str) -> Path:
    """Where the FAISS file of one part lies."""
    return folder / f"part_{name}.faiss"


def _read(path: Path, flags: int = 0) -> Any:
    """Read a FAISS file.

    Args:
        path: where it lies.
        flags: how, as FAISS has it.

    Raises:
        DataError: it is not there, or FAISS cannot read it.
    """
    try:
        return open_faiss().read_index(str(here(path)), flags)
    except RuntimeError as error:
        cause = str(error).rpartition(".cpp:")[2].partition(": ")[2]  # behind the place in FAISS's own source
        raise DataError(f"{path} cannot be read as a FAISS file: {cause}") from error


@cache
def open_faiss() -> Any:
    """FAISS, set up for many queries at once and as many threads as this worker was given."""
    import faiss

    faiss.cvar.distance_compute_blas_threshold = BLAS_QUERIES
    faiss.cvar.distance_compute_blas_query_bs = BLOCK_QUERIES
    faiss.cvar.distance_compute_blas_database_bs = BLOCK_ROWS
    if threads := os.environ.get("OMP_NUM_THREADS"):
        faiss.omp_set_num_threads(int(threads))
    return faiss


@contextmanager
def one_thread() -> Iterator[None]:
    """Keep the order of summation, and so every bit, independent of the number of cores."""
    faiss = open_faiss()
    threads = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(1)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(threads)


def _require_directions(eigenvalues: NDArray[np.float32], *, directions: int, rows: int) -> None:
    varied = int((eigenvalues > NOISE_SHARE * eigenvalues[0]).sum())
    if directions > varied:
        raise ConfigError(
            f"pca{directions} wants {directions} directions; the {rows} sampled rows vary in {varied}"
        )
