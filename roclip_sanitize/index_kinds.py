"""Approximate index kinds: a query is compared with some of the rows, chosen by what was learnt.

    ivf_flat   rows in lists by their nearest centroid; a query looks into the nearest few lists
    ivf_pq     the same, the rows in a list as short codes; what they propose is compared in full
    hnsw       a graph of near rows, which a query walks

All three only propose: neighbours.py scores the candidates again from the full vectors, so the
cosines are exact and only rows may be missing. The centroids are learnt once for all parts, and the
lists nearest to a query are chosen in exact arithmetic. So the answer of ivf_flat depends neither
on workers nor on parts: it is the exact answer over the rows in those lists. ivf_pq and hnsw propose
candidates part by part, so the number of parts matters to them; the number of workers does not.

Dimension key: Q queries, M rows of one part, D width, L lists.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from roclip_sanitize.index_files import FlatFile, IndexFile, flat_rows, one_thread, open_faiss
from roclip_sanitize.index_plan import Sizes
from roclip_sanitize.neighbours import nearest
from roclip_sanitize.storage import atomic_file, here

RERANKED = 4  # codes mistake near rows for each other: so many times the rows wanted are compared in full
CODE_BITS = 8
LINKS = 32  # of a row in the graph
LINKING_EFFORT = 100  # nodes in view while a row finds its place in the graph


class IvfFlatFile(IndexFile):
    """Rows in inverted lists, uncompressed."""

    learns = True

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self._quantizer = open_faiss().downcast_index(self._core.quantizer)
        self._rows: _ListedRows | None = None

    @classmethod
    def empty(cls, width: int, sizes: Sizes) -> Any:
        """See IndexFile."""
        faiss = open_faiss()
        index = faiss.IndexIVFFlat(faiss.IndexFlatIP(width), width, sizes.lists, faiss.METRIC_INNER_PRODUCT)
        return _spherical(index)

    def learn(self, sample_ND: NDArray[np.float32]) -> None:
        """Learn the centroids, and codes if there are any, from store vectors."""
        rows_ND = self.transformed(sample_ND)
        with one_thread():
            self._core.train(rows_ND)
        self._index.is_trained = True

    def vectors(self) -> Any:
        """See PartFile."""
        self._rows = self._rows or _ListedRows(self._core)
        return self._rows

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile. ``effort`` is the number of lists to look into."""
        centroid_LD = flat_rows(self._quantizer, owner=self._index)
        self._core.nprobe = min(max(effort, 1), len(centroid_LD))
        lists = nearest(centroid_LD, query_ND, k=self._core.nprobe, find=self._quantizer.search)
        score_NC, place_NC = self._core.search_preassigned(
            np.ascontiguousarray(query_ND), fetch, lists.rows_NK, lists.cosine_NK
        )
        return score_NC, place_NC


class IvfPqFile(IvfFlatFile):
    """Rows in inverted lists as codes of a product quantiser, and in full beside the FAISS file.

    vectors_00000.npy    (M, D): float16 as in the store, or float32 if transformed
    """

    bounded = False

    def __init__(self, index: Any) -> None:
        super().__init__(index)
        self._added = [np.empty((0, self._core.d), self._dtype)]
        self._kept_MD = self._added[0]

    @classmethod
    def empty(cls, width: int, sizes: Sizes) -> Any:
        """See IndexFile."""
        faiss = open_faiss()
        index = faiss.IndexIVFPQ(
            faiss.IndexFlatIP(width), width, sizes.lists, sizes.codes, CODE_BITS, faiss.METRIC_INNER_PRODUCT
        )
        index.pq.cp.min_points_per_centroid = 1
        return _spherical(index)

    @classmethod
    def open_part(cls, folder: Path, name: str) -> Self:
        """See IndexFile."""
        part = super().open_part(folder, name)
        part._kept_MD = np.load(here(_vectors_file(folder, name)), mmap_mode="r")
        return part

    def write_part(self, folder: Path, name: str) -> Sequence[Path]:
        """See IndexFile."""
        path = _vectors_file(folder, name)
        with atomic_file(path) as file:
            np.save(file, np.concatenate(self._added))
        return [*super().write_part(folder, name), path]

    def _append(self, rows_ND: NDArray[np.float32]) -> None:
        super()._append(rows_ND)
        self._added.append(rows_ND.astype(self._dtype))

    @property
    def _dtype(self) -> type[np.floating[Any]]:
        return np.float32 if self._chain else np.float16  # the store's own: nothing is lost

    def vectors(self) -> Any:
        """See PartFile."""
        return self._kept_MD

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile: more than was asked for, since codes know rows only roughly."""
        return super().find(query_ND, min(fetch * RERANKED, self._core.ntotal), effort=effort)


class HnswFile(IndexFile):
    """Rows in a graph of near rows; built by one thread, so that it is always the same."""

    bounded = False

    @classmethod
    def empty(cls, width: int, sizes: Sizes) -> Any:
        """See IndexFile."""
        faiss = open_faiss()
        index = faiss.IndexHNSWFlat(width, LINKS, faiss.METRIC_INNER_PRODUCT)
        index.hnsw.efConstruction = LINKING_EFFORT
        return index

    def vectors(self) -> NDArray[np.float32]:
        """See PartFile."""
        return flat_rows(open_faiss().downcast_index(self._core.storage), owner=self._index)

    def find(
        self, query_ND: NDArray[np.float32], fetch: int, *, effort: int = 0
    ) -> tuple[NDArray[Any], NDArray[np.int64]]:
        """See PartFile. ``effort`` is the number of nodes kept in view, ``fetch`` at the least."""
        view = open_faiss().SearchParametersHNSW(efSearch=max(effort, fetch))
        score_NC, place_NC = self._core.search(np.ascontiguousarray(query_ND), fetch, params=view)
        return score_NC, place_NC


FILES: dict[str, type[IndexFile]] = {
    "flat": FlatFile,
    "ivf_flat": IvfFlatFile,
    "ivf_pq": IvfPqFile,
    "hnsw": HnswFile,
}


class _ListedRows:
    """Rows of inverted lists, read like an array by their place in the part."""

    def __init__(self, ivf: Any) -> None:
        ivf.make_direct_map()
        self._ivf = ivf
        self.shape = (ivf.ntotal, ivf.d)

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        rows_ND: NDArray[np.float32] = self._ivf.reconstruct_batch(places)
        return rows_ND


def _spherical(ivf: Any) -> Any:
    ivf.cp.spherical = True  # centroids of unit length, like the rows
    ivf.cp.min_points_per_centroid = 1  # the sample is as large as it should be: no warning
    return ivf


def _vectors_file(folder: Path, name: str) -> Path:
    return folder / f"vectors_{name}.npy"
